"""`genba port`: a line on another target, and what that changes."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import RenderableType

from genba.core.codec import encode
from genba.core.line import Line
from genba.runs.progress import ConsoleProgress, Progress, SilentProgress
from genba.stages.codesign import Asked, Searched, search_line
from genba.stages.port import Change, before, changes
from genba.targets.registry import open_target
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.codesign import EXIT_CODES
from genba.ui.cli.figures import bill_facts, measure
from genba.ui.cli.lookup import known_line, line_path, open_home
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.run import Watch

_LITTLE: Final = 0.05  # less is noise where no interval says otherwise


def port(
    line: str,
    /,
    *,
    to: str,
    patience: float = 20.0,
    watch: Annotated[Watch, Parameter(help='Progress on stderr: "auto" or "no".')] = "auto",
    options: Options = DEFAULT,
) -> Answer:
    """Take a line to another target, and show what that changes.

    Accuracy, latency, energy and cost there are set beside those here. The model stays; runtime,
    precision, threads and the rest are searched for anew, by measuring
    on the target where it can be reached and by modelling it where not; each number says which.
    Exit code 1 where nothing fits the limits of the line there.

    Args:
        line: The name of a line that was run, or its file.
        to: The new target; see genba targets.
        patience: Longest wait for a quiet machine before each verification, in seconds.
        watch: Progress on stderr: "auto" or "no".
        options: Common options.
    """
    progress: Progress = SilentProgress() if watch == "no" else ConsoleProgress()
    with open_home(options) as store:
        path = line_path(line)
        known = known_line(store, path.stem if path.suffix else line)
        open_target(to, store.path)  # a name that means nothing is refused before any work
        old = before(store, known)
        there = replace(known, target=replace(known.target, device=to))
        asked = Asked(line=there, recorded=known, variants=(), batches=(1,), patience_s=patience)
        try:
            found = search_line(asked, store, progress)
        finally:
            progress.close()
    told = changes(old, found.result, list(known.gates))
    return Answer(
        data={
            "line": known.name,
            "from": known.target.device,
            "to": to,
            "outcome": found.outcome,
            "measured_there": bool(found.result.get("search", {}).get("measured_there", False)),
            "changes": [asdict(change) for change in told],
            "choice": found.result.get("choice"),
            "nearest": found.result.get("nearest"),
            "bill": encode(found.bill),
        },
        blocks=_blocks(known, to, found, told),
        next=_next(known, to, found),
        exit_code=EXIT_CODES.get(found.outcome, 1),
    )


def _blocks(line: Line, to: str, found: Searched, told: list[Change]) -> list[RenderableType]:
    result = found.result
    chosen, near = result.get("choice"), result.get("nearest")
    label = near["label"] if near else (chosen or {}).get("label", "nothing can be chosen")
    words = f"{line.name} from {line.target.device} to {to}: {label}"
    if near:
        words += "; it does not fit"
    there = bool(result.get("search", {}).get("measured_there"))
    rows: list[list[RenderableType]] = [
        [c.name, _written(c.before), _written(c.after), _ratio(c)] for c in told
    ]
    pairs: list[tuple[str, RenderableType]] = [
        ("known", f"measured on {to}" if there else f"modelled: nothing can be measured on {to}")
    ]
    if near:
        pairs += [("misses", reason) for reason in near["misses"]]
    return [
        heading(words, mark="no" if near or not chosen else "yes"),
        table(["", f"on {line.target.device}", f"on {to}", "change"], rows, right=["change"]),
        facts([*pairs, *bill_facts(found.bill)]),
    ]


def _written(found: Mapping[str, Any] | None) -> str:
    return "-" if found is None else measure(found)


def _ratio(change: Change) -> str:
    if change.times is None:
        return "-"
    if abs(change.times - 1.0) <= _LITTLE and not change.sure:
        return "as before"
    sure = "" if change.sure else ", may be noise"
    return f"{change.times:.3g} times{sure}"


def _next(line: Line, to: str, found: Searched) -> tuple[str, ...]:
    near = found.result.get("nearest")
    if near:
        relax = " ".join(near["relax"])
        return (f"genba codesign {line.name} --target {to} {relax}".rstrip(),)
    folder = Path("release") / line.name
    return (f"genba export edge {line.name} --target {to} --to {folder}",)
