"""`genba codesign`: everything a line could run on and how, what it costs, and one choice."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from genba.core import io
from genba.core.codec import encode
from genba.core.line import Line
from genba.core.linefile import load_line, parse_line
from genba.core.lineschema import line_text
from genba.runs.lines import newest_line
from genba.runs.progress import ConsoleProgress, Progress, SilentProgress
from genba.stages.codesign import Asked, Searched, search_line
from genba.store.home import Store
from genba.ui.cli.answer import Answer
from genba.ui.cli.codesign_report import blocks, picture
from genba.ui.cli.lookup import example_line, file_or_name, known_line, line_path, open_home
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.run import Watch

EXIT_CODES: Final = {"done": 0, "refused": 1, "cancelled": 130}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """How to search."""

    variant: tuple[str, ...] | None = None
    """Other sizes of the model to train and try: a name, or "none" (default: all it has)."""

    batch: tuple[int, ...] = ()
    """Rows of one call to try (default: 1, and 8 images or 64 rows of a table)."""

    patience: float = 20.0
    """Longest wait for a quiet machine before each verification, in seconds."""

    watch: Watch = "auto"
    """Progress on stderr: "auto" or "no"."""


_USUAL: Final = Search()


def codesign(
    line: str,
    /,
    *,
    target: str = "",
    set_: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    to: Path | None = None,
    search: Search = _USUAL,
    options: Options = DEFAULT,
) -> Answer:
    """Find the best runtime, precision, threads and model size on a target.

    What is known to lose is left out by rules, a model of the target says what to expect of the
    rest, and what looks best is measured, in processes that may crash. The next run of the line
    for that target tries what was found first. Exit code 1 where nothing fits the limits: then
    the nearest point is shown, and what to relax.

    Args:
        line: The line file, or the name of a line.
        target: The device (default: as the line says); see genba targets.
        set_: A setting to change for this search, path=value; may be repeated.
        to: Write the picture of the front to this SVG file.
        search: How to search.
        options: Common options.
    """
    progress: Progress = SilentProgress() if search.watch == "no" else ConsoleProgress()
    with open_home(options, create=True) as store:
        recorded, wanted = _lines(store, line, set_)
        if target:
            wanted = replace(wanted, target=replace(wanted.target, device=target))
        asked = Asked(
            line=wanted,
            recorded=recorded,
            variants=_variants(search.variant),
            batches=search.batch,
            patience_s=search.patience,
        )
        try:
            found = search_line(asked, store, progress)
        finally:
            progress.close()
    if to is not None and found.result:
        io.write_durable(to, picture(found.result, wanted.name).encode())
    return _answer(wanted, line, found, to)


def _lines(store: Store, text: str, overrides: tuple[str, ...]) -> tuple[Line, Line]:
    """Return the line as the factory knows it, and as it is asked for this time.

    What is set for a search alone must not become what the line is trained with from now on.
    """
    path = line_path(text)
    if path.suffix or path.is_file():
        wanted = load_line(path, overrides)
        plain = load_line(path)
    elif newest_line(store, text) is not None:
        plain = known_line(store, text)
        wanted = parse_line(line_text(plain), overrides, file=text) if overrides else plain
    elif path.with_suffix(".toml").is_file():
        plain = file_or_name(store, text)
        wanted = load_line(path.with_suffix(".toml"), overrides)
    else:
        shipped = example_line(text)
        plain, wanted = load_line(shipped), load_line(shipped, overrides)
    known = newest_line(store, plain.name)
    return (known_line(store, plain.name) if known is not None else plain), wanted


def _variants(asked: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return () if asked == ("none",) else asked


def _answer(line: Line, text: str, found: Searched, to: Path | None) -> Answer:
    result = found.result
    return Answer(
        data={
            "line": line.name,
            "run": found.run,
            "outcome": found.outcome,
            **_renamed(result),
            "bill": encode(found.bill),
            "picture": None if to is None else str(to),
        },
        blocks=blocks(line, result, found.bill) if result else [],
        next=_next(line, text, found),
        exit_code=EXIT_CODES.get(found.outcome, 1),
    )


def _renamed(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result with the points under their own name, and the front by their ids."""
    points = list(result.get("candidates", ()))
    kept = {name: value for name, value in result.items() if name != "candidates"}
    return {**kept, "points": points, "front": [p["id"] for p in points if p["front"]]}


def _next(line: Line, text: str, found: Searched) -> tuple[str, ...]:
    result = found.result
    if found.outcome == "cancelled":
        return (f"genba codesign {text}",)
    near = result.get("nearest")
    if near:
        relax = " ".join(near["relax"])
        return (f"genba codesign {text} {relax}".rstrip(),)
    chosen = result.get("choice") or {}
    words = [f"options.{name}={value}" for name, value in chosen.get("options", {}).items()]
    if chosen and line.target.device != "this-machine":
        words.append(f"target.device={line.target.device}")
    sets = [word for setting in words for word in ("--set", setting)]
    return (shlex.join(["genba", "run", text, *sets]),)
