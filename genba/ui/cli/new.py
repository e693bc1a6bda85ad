"""`genba new`: a line file from a look at the data, or a package for a kind of one's own."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from genba.core.codec import encode, nearest
from genba.core.ids import check_name
from genba.core.line import Data, Limit, Line, Retrain
from genba.core.lineschema import line_text
from genba.core.problem import Problem
from genba.core.resolve import names
from genba.store.io import write_durable
from genba.ui.cli.answer import Answer, facts, heading
from genba.ui.cli.figures import number
from genba.ui.cli.guess import Guess, guess
from genba.ui.cli.line_report import summary
from genba.ui.cli.look import look
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.scaffold import SCAFFOLDS, scaffold

Sources = Annotated[tuple[str, ...], Parameter(name="--from", consume_multiple=True)]


def new(
    name: str,
    entry: str | None = None,
    /,
    *,
    from_: Sources = (),
    output: str | None = None,
    force: bool = False,
    options: Options = DEFAULT,
) -> Answer:
    """Write a line by looking at the data, or start a kind of your own.

    With one name it is a line: nothing is decided that you cannot read, every guess stands in the
    file with its reason. With two it is a package that adds to the catalog: genba new engine NAME
    writes one that works, to start from; likewise task, source and target.

    Args:
        name: Name of the line; the file is NAME.toml. Or a kind: task, engine, source, target.
        entry: After a kind: the name in the catalog; the package goes into a folder of that name.
        from_: Files (CSV, Parquet, JSON Lines; a pattern is fine) or a source, package:shuttle.
        output: The sensor to be predicted from the others (default: none, each judges the others).
        force: Overwrite what is there.
        options: Common options.
    """
    del options
    if entry is not None:
        _refuse_options(name, entry, {"--from": " ".join(from_), "--output": output or ""})
        return _package(name, entry, force=force)
    check_name(name, "line")
    path = Path(f"{name}.toml")
    if path.exists() and not force:
        raise Problem(
            "G111",
            f"{path} is already there.",
            where=str(path),
            tries=[f"genba new {name}-2 --from …", f"genba new {name} --from … --force"],
        )
    source = _source(from_, name)
    frame = look(source)
    found = guess(frame)
    line = _line(name, source, found, output)
    write_durable(path.absolute(), line_text(line, _comments(found, line)).encode())
    return Answer(
        data={"file": str(path), "line": encode(line), "guess": asdict(found), "rows": len(frame)},
        blocks=[
            heading(f"{path} is written; {number(len(frame))} rows were looked at", mark="yes"),
            facts([*summary(line), *_doubts(found)]),
            Text(f"  Read {path} before you run it: what is guessed says so.", style="dim"),
        ],
        next=(f"genba run {path}",),
    )


def _package(kind: str, name: str, *, force: bool) -> Answer:
    if kind not in SCAFFOLDS:
        near = nearest(kind, list(SCAFFOLDS))
        raise Problem(
            "G110",
            f"There is no template for {kind!r}" + (f"; did you mean {near}?" if near else "."),
            where=f"genba new {kind} {name}",
            why=f"With two names the first is one of: {', '.join(SCAFFOLDS)}.",
            tries=[f"genba new {near or SCAFFOLDS[0]} {name}", f'genba new {kind} --from "*.csv"'],
        )
    folder = Path(name)
    written = scaffold(kind, name, folder, force=force)
    module = next(path for path in written if path.name == f"{kind}.py")
    return Answer(
        data={"kind": kind, "name": name, "files": [str(path) for path in written]},
        blocks=[
            heading(f"{folder} is a package with the {kind} {name}; it works as it is", mark="yes"),
            facts([("to change", str(module)), ("entry point", str(folder / "pyproject.toml"))]),
        ],
        next=(f"pip install -e ./{folder}", f"genba check {name}"),
    )


def _refuse_options(kind: str, name: str, options: Mapping[str, str]) -> None:
    for option, given in options.items():
        if given:
            raise Problem(
                "G110",
                f"{option} belongs to a line, and a line has one name.",
                where=f"genba new {kind} {name} {option} {given}",
                tries=[f"genba new {kind} {name}", f"genba new {name} {option} {given}"],
            )


def _source(given: Sequence[str], name: str) -> str:
    if not given:
        raise Problem(
            "G110",
            "genba new needs data to look at.",
            tries=[
                *([f"genba new {name} NAME"] if name in SCAFFOLDS else []),
                f'genba new {name} --from "data/*.csv"',
                f"genba new {name} --from package:shuttle",
            ],
        )
    if len(given) == 1:
        scheme, colon, _ = given[0].partition(":")
        is_source = colon and (scheme in names("source") or scheme.isalpha() and len(scheme) > 1)
        return given[0] if is_source else f"files:{given[0]}"
    paths = [Path(p) for p in given]  # the shell has expanded a pattern: find it again
    pattern = paths[0].parent / f"*{paths[0].suffix}"
    if sorted(paths) != sorted(paths[0].parent.glob(pattern.name)):
        raise Problem(
            "G112",
            f"These {len(paths)} files are not all of one pattern.",
            where=f"{paths[0]} … {paths[-1]}",
            why="A line file names its files by one path or pattern.",
            tries=[f'genba new {name} --from "{pattern}"'],
        )
    return f"files:{pattern}"


def _line(name: str, source: str, found: Guess, output: str | None) -> Line:
    if output is not None and output not in found.inputs:
        raise Problem(
            "G110",
            f"There is no sensor {output!r}.",
            where=f"--output {output}",
            why=f"Sensors: {', '.join(found.inputs)}.",
            tries=[f"genba new {name} --from … --output {found.inputs[0]}"],
        )
    return Line(
        name=name,
        task="sensor.anomaly",
        data=Data(
            source=source,
            time=found.time,
            entity=found.entity,
            inputs=tuple(i for i in found.inputs if i != output),
            output=output,
            label=found.label,
            checks=found.checks,
        ),
        gates=_gates(found, output),
        retrain=Retrain(when={"drift": 0.2, "labels": 200}),
    )


def _gates(found: Guess, output: str | None) -> dict[str, Limit]:
    """Gates that a useful model passes; the person who knows the machine sets the real ones."""
    gates = {}
    if output:
        gates["r2"] = Limit(min=0.8)
    if found.label:
        gates["f1"] = Limit(min=0.5)
    if found.time:
        gates["false_alarms_per_day"] = Limit(max=2)
    else:
        gates["false_alarm_rate"] = Limit(max=0.01)
    return gates


def _comments(found: Guess, line: Line) -> dict[str, str]:
    reasons: dict[str, Any] = {
        "gates": "the line stops here, not in production; set what you need",
        "retrain": "when to train a challenger: drift (PSI), new labels",
        **found.reasons,
    }
    if not line.data.output:
        reasons.setdefault("data.inputs", 'add output = "…" to predict one sensor from the others')
    return reasons


def _doubts(found: Guess) -> list[tuple[str, str]]:
    return [
        ("" if n else "guessed", f"{path}: {why.removeprefix('guessed: ')}")
        for n, (path, why) in enumerate(found.reasons.items())
    ]
