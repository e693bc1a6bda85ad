"""docs/LEADERBOARD.md, written from the newest report of each benchmark."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import quality
from benchmarks.codesign import page as codesign
from benchmarks.labels import page as labels
from benchmarks.retrieval import page as retrieval
from benchmarks.serve import page as serving
from genba.core.values import Measure

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "LEADERBOARD.md"
HEAD = """\
# Leaderboard

What Genba costs, measured on one machine; written by `make bench`. The README of each folder of
`benchmarks/` says what is counted. Energy, money and carbon are modelled, with their ranges.
"""


def write() -> None:
    """Write the page; a benchmark without a report has no section."""
    sections = {
        "line/report.json": lines,
        "vision/quality.json": quality.inspection,
        "forecast/report.json": quality.forecast,
        "remaining_life/report.json": quality.remaining_life,
        "labels/report.json": labels.page,
        "retrieval/report.json": retrieval.page,
        "vision/speed.json": quality.speed,
        "serve/report.json": serving.leaderboard,
        "codesign/report.json": codesign.page,
        "overhead/report.json": overhead,
        "ingest/report.json": ingest,
    }
    text = [HEAD]
    for name, section in sections.items():
        path = HERE / name
        if path.is_file():
            text.append("\n".join(section(json.loads(path.read_text()))) + "\n")
    PAGE.write_text("\n".join(text), encoding="utf-8")


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield what each line that ships with Genba costs, and what comes of it."""
    yield "## From raw data to a deployed model"
    yield ""
    yield from measured(report)
    yield ""
    yield "| line | rows | outcome | seconds | CPU s | energy | money | carbon | again, s |"
    yield "|---|---:|---|---:|---:|---|---|---|---:|"
    for name, found in report["lines"].items():
        cost = found["bill"]
        joules, money, carbon = (Measure(**cost[k]) for k in ("joules", "cost_usd", "carbon_g"))
        yield (
            f"| {name} | {found['rows']:,} | {found['outcome']} | {cost['seconds']:.1f} "
            f"| {cost['cpu_seconds']:.1f} | {between(joules)} | {between(money)} "
            f"| {between(carbon)} | {found['again_seconds']:.2f} |"
        )
    yield ""
    yield "`again` is the same command when nothing has changed, the whole process. On each line's"
    yield "frozen test set, with 95 % intervals:"
    yield ""
    yield "| line | engine | measures |"
    yield "|---|---|---|"
    for name, found in report["lines"].items():
        words = (f"{key} {Measure(**value)}" for key, value in found["measures"].items())
        yield f"| {name} | {found['engine']} | {'; '.join(words)} |"


def overhead(report: dict[str, Any]) -> Iterator[str]:
    """Yield what a stage that does nothing costs here and elsewhere."""
    medians = report["median_seconds"]
    ours = medians["genba"]
    yield "## Ten stages that do nothing"
    yield ""
    yield from measured(report)
    yield ""
    yield "| | ms per stage | times Genba | again, ms per stage | times Genba |"
    yield "|---|---:|---:|---:|---:|"
    for name, found in medians.items():
        cold, again = found["cold_s"], found["again_s"]
        yield (
            f"| {pinned(report, name)} | {cold * 100:.2f} | {cold / ours['cold_s']:.0f} "
            f"| {again * 100:.2f} | {again / ours['again_s']:.0f} |"
        )


def pinned(report: dict[str, Any], name: str) -> str:
    """Return a peer with its version."""
    versions = report["versions"].get(name)
    return versions[0].replace("==", " ") if versions else name


def ingest(report: dict[str, Any]) -> Iterator[str]:
    """Yield what it costs to read, check and split the wind farm's rows."""
    results = report["results"]
    ours = results["genba"]["seconds"]
    yield "## Read, check, split and store 420,480 rows"
    yield ""
    yield f"Measured {report['when']} on {report['machine']}; load {report['load']:.1f}."
    yield ""
    yield "| | seconds | Genba takes | peak MiB |"
    yield "|---|---:|---:|---:|"
    for name, found in results.items():
        times = f"{ours / found['seconds']:.2f} times" if "by hand" in name else ""
        yield f"| {name} | {found['seconds']:.2f} | {times} | {found['peak_mib']:.0f} |"


def measured(report: dict[str, Any]) -> Iterator[str]:
    """Yield when and where."""
    machine = report["machine"]
    yield f"Measured {report['measured']} on {machine['processor']}, {machine['cores']:g} cores,"
    yield f"{machine['memory_mib'] / 1024:.1f} GiB, {machine['system']}, Python"
    yield f"{machine['python']}; load {report['load_1m']:.1f} when it ended."


def between(measure: Measure) -> str:
    """Return a modelled number without saying so; the page says it once."""
    return f"{measure.value:.3g} {measure.unit} [{measure.low:.3g} to {measure.high:.3g}]"
