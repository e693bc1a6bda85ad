"""`genba demo`: the closed loop on real data; `genba.ui.demo` has the story."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from genba.core.io import write_durable
from genba.core.linefile import load_line
from genba.core.problem import Problem
from genba.runs.progress import ConsoleProgress
from genba.store.home import Store, home_path
from genba.ui.cli.answer import Answer, facts, heading, make_console, table
from genba.ui.cli.figures import bill_facts, measure, number, seconds, short
from genba.ui.cli.lookup import example_line
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.demo.plan import wind_farm
from genba.ui.demo.play import Scene, play
from genba.ui.demo.report import not_shown, total_bill, write_report
from genba.ui.demo.story import Happening

_HOMES: Final = Path(".genba-demo")
_MARGIN: Final = 10  # columns for the seconds since the beginning


def demo(
    *,
    port: int = 0,
    keep_up: bool = False,
    report: Path = Path("report.json"),
    options: Options = DEFAULT,
) -> Answer:
    """Show the whole closed loop on real wind-turbine records.

    Downloads two years of records of four turbines, trains on three months of three of them,
    deploys the model to a real server on this machine, replays the following months as live
    traffic, and lets the factory watch, retrain, promote, refuse and roll back. Then it prints
    what happened, what it cost and where one prediction came from.

    Args:
        port: Where the server answers; 0 takes a free one.
        keep_up: Leave the server running at the end.
        report: Where to write everything as JSON.
        options: Common options.
    """
    home = options.home or _HOMES / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if home_path(home).exists() and any(home_path(home).iterdir()):
        raise Problem(
            "G111",
            f"The demonstration needs a home of its own, and {home} is not empty.",
            where=str(home),
            tries=["genba demo", "genba demo --home ANOTHER_FOLDER"],
        )
    console = make_console(stderr=True)
    progress = ConsoleProgress(console=console, indent=_MARGIN)
    teller = _Teller(console)
    with Store.open(home) as store:
        plan = wind_farm(load_line(example_line("wind-farm")))
        try:
            scene = play(
                plan,
                store,
                port=port,
                progress=progress,
                tell=teller,
                keep_up=keep_up,
            )
        finally:
            progress.close()
            console.print()
        data = write_report(scene)
        write_durable(report.absolute(), json.dumps(data, indent=2, default=str).encode() + b"\n")
        return _answer(scene, data, report=report, home=home, keep_up=keep_up)


class _Teller:
    """Prints each happening under the title of its act."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._act = ""

    def __call__(self, happening: Happening) -> None:
        if happening.act != self._act:
            self._act = happening.act
            self._console.print()
            self._console.print(heading(self._act))
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_column(width=_MARGIN - 2, justify="right", style="dim")
        if happening.date:
            line.add_column(style="cyan", no_wrap=True)
        line.add_column(overflow="fold")
        dated = [happening.date] if happening.date else []
        line.add_row(f"{happening.at_s:.1f} s", *dated, happening.what)
        self._console.print(line)


def _answer(
    scene: Scene, data: dict[str, Any], *, report: Path, home: Path, keep_up: bool
) -> Answer:
    missing = not_shown(scene)
    title = "The loop closed" if not missing else "Some of the loop was not shown"
    blocks: list[RenderableType] = [
        heading(f"{title} in {seconds(scene.story.seconds)}", mark="no" if missing else "yes"),
        *([facts(("not shown", Text(s, style="yellow")) for s in missing)] if missing else []),
        *_story(scene),
        facts(_findings(scene, data)),
        facts([("bill", "of all runs and predictions"), *bill_facts(total_bill(scene))]),
        facts(_ends(scene, report, keep_up=keep_up)),
    ]
    follow = [f"genba status --home {home}", f"genba data --home {home}"]
    if data.get("trace"):
        prediction = str(data["trace"].get("prediction", {}).get("id") or data["trace"].get("id"))
        follow.insert(0, f"genba trace {prediction} --home {home}")
    return Answer(
        data=data, blocks=blocks, next=tuple(follow), exit_code=0 if scene.first.deployed else 1
    )


def _story(scene: Scene) -> list[RenderableType]:
    """Return the story as a table, unless it was told on the same screen just now."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        return []
    rows = [(f"{h.at_s:.1f} s", h.date, h.what) for h in scene.story.happenings]
    return [table(["after", "recorded date", "what happened"], rows)]


def _findings(scene: Scene, data: dict[str, Any]) -> list[tuple[str, str]]:
    rows = data["data"]
    rejected = "; ".join(f"{number(n)} ({why})" for why, n in rows["rejected"].items()) or "none"
    pairs = [("rows", f"{number(rows['rows_in'])} in; rejected: {rejected}")]
    for gate in data["gates"] or []:
        pairs.append((f"gate {gate['name']}", f"{measure(gate['measure'])}, {gate['limit']}"))
    pairs += [("engine", text) for text in _engines(data["engine"])]
    pairs.append(("first model", short(str(scene.first.model))))
    if data["promoted"]:
        pairs.append(("promoted", short(str(data["promoted"]["model"]))))
    if data["in_production"]:
        pairs.append(("in production", short(str(data["in_production"]["model"]))))
    if data["drift"]:
        pairs.append(("drift found in", ", ".join(str(f["name"]) for f in data["drift"])))
    for shift in data["feedback"]:
        wrong = f"{number(shift['wrong_on_purpose'])} of them wrong on purpose"
        pairs.append((f"labels of {shift['author']}", f"{number(shift['labels'])}, {wrong}"))
    if data["poisoned"]:
        why = " ".join(data["poisoned"]["reasons"]) or "no reason"
        pairs.append(("poisoned labels", f"{data['poisoned']['outcome']}: {why}"))
    for drill in scene.drills:
        took = "no bad answer" if drill.seconds is None else seconds(drill.seconds)
        bad = f"{number(drill.bad_answers)} bad answers in {took}"
        pairs.append((f"drill {drill.name}", f"{bad}; {drill.reason}"))
    replay = data["replay"]
    told = f"{number(replay['predictions'])}, {number(replay['failed_requests'])} requests failed"
    return [*pairs, ("predictions", told)]


def _engines(engine: dict[str, Any]) -> list[str]:
    """Return the chosen candidate, and the quickest of every other engine."""
    chosen = engine["chosen"] or {}
    best: dict[str, tuple[float, str]] = {}
    for candidate in engine["measured"] or []:
        name, latency = candidate["engine"], candidate["measures"].get("latency_ms_p50")
        if (name, candidate["settings"]) == (chosen.get("name"), chosen.get("settings")):
            best[name] = (-1.0, f"{measure(latency)} at the median; chosen for its CPU time")
        elif latency:
            told = (float(latency["value"]), f"{measure(latency)} at the median")
            best[name] = min(told, best.get(name, told))
    return [f"{name}: {told}" for name, (_, told) in sorted(best.items(), key=lambda e: e[1])]


def _ends(scene: Scene, report: Path, *, keep_up: bool) -> list[tuple[str, str]]:
    if not scene.url:
        return [("report", str(report))]
    server = (
        f"{scene.url} (still up; stop it with: kill -INT {scene.pid})" if keep_up else scene.url
    )
    return [("server", server if keep_up else f"{server} (stopped)"), ("report", str(report))]
