"""What the leaderboard says about labels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_SHOWN: Final = 6  # points of a curve


def page(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield how many labels a model needs, in the order of the queue and at random."""
    yield "## Labels to a stated quality"
    yield ""
    machine = report["machine"]
    yield f"Measured {report['measured']} on {machine['processor']}. How good a model is after so"
    yield "many labels, asked for in the order of `genba label` and at random: means over seeds,"
    yield "with 95 % intervals."
    for name, found in report["subjects"].items():
        yield ""
        yield from _subject(name, found)


def _subject(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    labels, ways = found["labels"], found["ways"]
    queue, random = ways["queue"], ways["random"]
    yield (
        f"**{name}** (`{found['task']}`, `{found['source']}`): {found['measure']} on "
        f"{found['test']:,} rows, {found['pool']:,} that may be labelled, "
        f"{len(found['seeds'])} seeds."
    )
    yield ""
    yield "| labels | queue | random | queue less random |"
    yield "|---:|---|---|---|"
    for at in _shown(labels):
        gain = found["gain"]
        yield (
            f"| {labels[at]} | {_with_band(queue, at)} | {_with_band(random, at)} "
            f"| {gain['mean'][at]:+.3f} [{gain['low'][at]:+.3f} to {gain['high'][at]:+.3f}] |"
        )
    yield ""
    most = labels[-1]
    yield f"With every one of them labelled: {found['all_labelled']:.3f}."
    yield (
        f"Labels to {found['measure']} {found['goal']:g}, seed by seed: "
        f"queue {_each(queue['labels_to_goal'], most)}; "
        f"random {_each(random['labels_to_goal'], most)}."
    )


def _shown(labels: Sequence[int]) -> list[int]:
    last = len(labels) - 1
    return sorted({round(last * part / (_SHOWN - 1)) for part in range(_SHOWN)})


def _with_band(way: Mapping[str, Any], at: int) -> str:
    return f"{way['mean'][at]:.3f} [{way['low'][at]:.3f} to {way['high'][at]:.3f}]"


def _each(counts: Sequence[int | None], most: int) -> str:
    return ", ".join(f"over {most}" if count is None else str(count) for count in counts)
