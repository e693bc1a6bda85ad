"""`genba check`: is this line file right? Does this entry of the catalog keep its contract?"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from genba.core.codec import encode, nearest
from genba.core.line import Line
from genba.core.linefile import load_line
from genba.core.lineschema import json_schema
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.data.fusion.said import sentence
from genba.data.sources import source_of
from genba.data.sources.aligned import Aligns
from genba.targets.registry import open_target
from genba.testing.checks import CheckResult
from genba.testing.kit import CHECKED, entries, kind_of
from genba.testing.kit import check as check_contract
from genba.ui.cli.answer import Answer, facts, heading, passed, table
from genba.ui.cli.line_report import summary
from genba.ui.cli.lookup import line_path
from genba.ui.cli.options import DEFAULT, Options


def check(
    name: str | None = None,
    /,
    *,
    address: str = "",
    set_: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    schema: bool = False,
    options: Options = DEFAULT,
) -> Answer:
    """Check a line without running it, or a kind by its contract.

    Args:
        name: A line file, or the name of a task, an engine, a source or a target.
        address: What a source is to read, the part of data.source after the colon.
        set_: A setting of the line to change for this command, path=value; may be repeated.
        schema: Print the JSON schema of line files for your editor, and nothing else.
        options: Common options.
    """
    if schema:
        return Answer(data={"schema": json_schema()}, raw=True)
    if name is None:
        raise Problem(
            "G110",
            "genba check needs a line file, or a name of the catalog.",
            tries=["genba check pump.toml", "genba check onnxruntime", "genba check --schema"],
        )
    if not _means_an_entry(name):
        _refuse("--address", address, "is for a source; this is a line file", name)
        return _check_line(line_path(name), set_, options.home)
    _refuse("--set", " ".join(set_), "is for a line file; this is an entry of the catalog", name)
    kind = _kind_of(name)
    if kind != "source":
        _refuse("--address", address, f"is for a source, and {name} is none", name)
    return _check_entry(kind, name, address)


def _means_an_entry(given: str) -> bool:
    """Tell a name of the catalog from a path; a file that is there is always a line file."""
    path = Path(given)
    if line_path(given).is_file() or path.suffix == ".toml" or len(path.parts) != 1:
        return False
    known = [name for kind in CHECKED for name in entries(kind)]
    return given in known or nearest(given, known) is not None or _is_unbuilt(path)


def _is_unbuilt(folder: Path) -> bool:
    """Say whether this is a package that `genba new` has started and nobody has installed."""
    return (folder / "pyproject.toml").is_file()


def _kind_of(name: str) -> str:
    try:
        return kind_of(name)
    except Problem as unknown:
        if not _is_unbuilt(Path(name)):
            raise
        raise Problem(
            unknown.code,
            f"Nothing of the name {name} is installed.",
            where=str(Path(name).absolute()),
            why="The folder is there, but what it registers is known only when it is installed.",
            tries=[f"pip install -e ./{name}", f"genba check {name}"],
        ) from unknown


def _refuse(option: str, given: str, why: str, name: str) -> None:
    if given:
        raise Problem(
            "G110",
            f"{option} {why}.",
            where=f"genba check {name} {option} {given}",
            tries=[f"genba check {name}", "genba check --help"],
        )


def _check_line(line: Path, set_: tuple[str, ...], home: Path | None) -> Answer:
    read = load_line(line, set_)
    for kind, name in _used(read):
        resolve(kind, name)
    open_target(read.target.device, home)
    aligned = _aligned(read)
    joined = {"aligned": aligned} if aligned else {}
    return Answer(
        data={"ok": True, "file": str(line), "line": encode(read), **joined},
        blocks=[
            heading(f"{line} is a line that can run", mark="yes"),
            facts([*summary(read), *(("aligned", told) for told in aligned)]),
        ],
        next=(f"genba run {line}",),
    )


def _aligned(line: Line) -> list[str]:
    """Read the sources of a line that joins some, and say how well they align."""
    if not line.data.join:
        return []
    source = source_of(line)
    for _ in source.batches():
        pass
    found = source.alignment() if isinstance(source, Aligns) else {}
    return [sentence(name, summary) for name, summary in found.items()]


def _used(line: Line) -> list[tuple[str, str]]:
    return [
        ("task", line.task),
        ("source", line.data.source.partition(":")[0]),
        *(("source", join.source.partition(":")[0]) for join in line.data.join.values()),
        *(("engine", name) for name in line.target.engines),
        *(("trigger", name) for name in line.retrain.when),
    ]


def _check_entry(kind: str, name: str, address: str) -> Answer:
    results = check_contract(kind, name, address)
    failed = [result for result in results if not result.passed]
    title = (
        f"The {kind} {name} fails {len(failed)} of {len(results)} checks"
        if failed
        else f"The {kind} {name} keeps its contract: {len(results)} checks"
    )
    return Answer(
        data={
            "ok": not failed,
            "kind": kind,
            "name": name,
            "checks": [encode(result) for result in results],
        },
        blocks=[
            heading(title, mark="no" if failed else "yes"),
            table(["", "", ""], ([passed(r.passed), r.name, _remark(r)] for r in results)),
        ],
        exit_code=1 if failed else 0,
    )


def _remark(result: CheckResult) -> str:
    return "" if result.passed else result.reason
