"""What the leaderboard and the README say about co-design."""

from collections.abc import Iterator, Mapping
from typing import Any

_GOAL = 0.05


def page(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tables of every part that was measured."""
    machine = report["machine"]
    yield "## Hardware and software designed together"
    yield ""
    yield f"Measured {report['measured']} on {machine['processor']}, {machine['cores']:g} cores,"
    yield f"{machine['system']}, Python {machine['python']};"
    yield f"load {report['load_1m']:.1f} when it ended."
    for name, part in (
        ("searches", _searches),
        ("result", _result),
        ("backtest", _backtest),
        ("edge", _edge),
    ):
        if report.get(name):
            yield ""
            yield from part(report[name])


def _searches(found: Mapping[str, Any]) -> Iterator[str]:
    yield "### Regret of a search with 15 measurements"
    yield ""
    yield "How much more CPU time the choice takes than the best feasible point of the whole grid:"
    yield "median over the searches, the tenth-worst, the share within 5 %. `none` is a choice that"
    yield "does not keep the limit."
    for name, one in found.items():
        low, high = one["load"]
        best = one["best"]
        yield ""
        yield (
            f"**{name}**: {one['points']} points, {one['feasible']} feasible (p99 at most "
            f"{one['latency_ms_p99_limit']:g} ms), best {best['label']} with {best['cpu_ms']:.4g} "
            f"CPU ms; load {low:.1f} to {high:.1f} while measured; ours made at most "
            f"{one['most_measurements']} measurements."
        )
        yield ""
        yield "| search | median | p90 | within 5 % |"
        yield "|---|---:|---:|---:|"
        for label, regret in one["regret"].items():
            yield (
                f"| {label} | {_percent(regret['median'])} | {_percent(regret['p90'])} "
                f"| {regret['within_5_percent']:.0%} of {regret['searches']} |"
            )


def _result(found: Mapping[str, Any]) -> Iterator[str]:
    yield "### The choice beside eager torch and ONNX Runtime as it comes"
    yield ""
    yield "CPU milliseconds per row, medians of alternating rounds; in brackets times ours."
    yield ""
    yield "| model | batch | ours | torch, 1 thread | torch as it comes | onnxruntime as it comes |"
    yield "|---|---:|---|---:|---:|---:|"
    for name, races in found.items():
        for race in races:
            spent, times = race["cpu_ms_median"], race["times_less"]
            others = " | ".join(
                f"{spent[who]:.4g} ({times[who]:.1f}x)" for who in spent if who != "ours"
            )
            yield (
                f"| {name} | {race['batch']} | {race['choice']}: {spent['ours']:.4g} | {others} |"
            )
    yield ""
    yield "Decision agreement with the reference: " + "; ".join(
        f"{name} {min(race['agreement'].values()):.1%} or more"
        for name, (race, *_) in found.items()
    )


def _backtest(found: Mapping[str, Any]) -> Iterator[str]:
    yield "### Modelled latency, back-tested"
    yield ""
    yield f"Target: {found['target']}, probed {found['probed']}; load {found['load'][0]:.1f} to"
    yield f"{found['load'][1]:.1f} while the points were measured. Every model is predicted from"
    yield "the measurements of all others."
    yield ""
    yield "`no trees`: of graphs that the roofline alone says something about, ours and its own."
    yield ""
    yield "| number | points | models | median error | no trees | roofline | inside | interval |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|"
    for metric in ("latency_ms_p50", "cpu_ms"):
        one, bare = found[metric], found[metric]["without_trees"]
        yield (
            f"| {metric} | {one['points']} | {one['models']} | {one['median_error']:.0%} "
            f"| {bare['corrected']:.0%} | {bare['roofline_alone']:.0%} "
            f"| {one['coverage']:.0%} "
            f"| divided and multiplied by {one['interval_times']:.1f} |"
        )


def _edge(found: Mapping[str, Any]) -> Iterator[str]:
    yield "### The edge runtime"
    yield ""
    yield "| release | engine | import to first answer | most | peak MiB | numpy alone | envelope |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for one in found.values():
        start, envelope = one["start"], one["envelope"]
        added = f"{envelope['envelope_us_median']:.0f} µs" if envelope else "none"
        yield (
            f"| {one['release']} | {start['engine']} | {start['median']['whole_s']:.2f} s "
            f"| {start['most']['whole_s']:.2f} s | {start['median']['peak_mib']:.0f} "
            f"| {one['numpy_alone_mib']:.0f} | {added} |"
        )


def _percent(regret: float) -> str:
    return "none" if regret == float("inf") else f"{regret:.1%}"
