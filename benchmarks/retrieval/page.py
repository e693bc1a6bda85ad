"""What the leaderboard says about search in documents."""

from collections.abc import Iterator, Mapping
from typing import Any


def page(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield how often the passage that answers is found, by each way of searching."""
    machine = report["machine"]
    yield "## Search in documents"
    yield ""
    yield (
        f"Measured {report['measured']} on {machine['processor']}: {report['passages']:,} passages "
        "in one library, headings taken away. Hit rates and mean reciprocal rank with 95 % "
        "intervals; `debian-faq` was not looked at when the search was made."
    )
    yield ""
    yield "| questions | way | first | among 3 | among 10 | mean reciprocal rank |"
    yield "|---|---|---|---|---|---|"
    for name, found in report["subjects"].items():
        for way, measures in found["ways"].items():
            told = [_told(measures[f"hit_rate_at_{depth}"]) for depth in (1, 3, 10)]
            asked = f"{name} ({found['questions']})"
            yield f"| {asked} | {way} | {' | '.join(told)} | {_told(measures['mrr'])} |"
    yield ""
    for name, found in report["subjects"].items():
        yield (
            f"- {name}: hybrid less meaning alone {_told(found['gain_over_meaning'], sign='+')}, "
            f"less words alone {_told(found['gain_over_words'], sign='+')}; "
            f"{_told(found['given'])} of its questions get a passage; a search takes "
            f"{found['search_ms']['p50']:.1f} ms, its question embedded."
        )
    yield (
        "- Of the helpdesk's questions, asked of the manuals alone, which answer none of them, "
        f"{_told(report['off_topic_given'])} get a passage."
    )


def _told(found: Mapping[str, Any], sign: str = "") -> str:
    return f"{found['value']:{sign}.3f} [{found['low']:{sign}.3f} to {found['high']:{sign}.3f}]"
