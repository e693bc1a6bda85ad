"""`genba new`: a line that ships with Genba, one guessed from data, or a kind of one's own."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.text import Text

from genba.catalog import GUESSED_TASKS
from genba.core.codec import encode, nearest
from genba.core.ids import check_name
from genba.core.io import write_durable
from genba.core.line import Data, Line, Retrain
from genba.core.lineschema import line_text
from genba.core.problem import Problem
from genba.core.resolve import names, resolve
from genba.ui.cli.answer import Answer, facts, heading
from genba.ui.cli.figures import number
from genba.ui.cli.guess import Guess, guess
from genba.ui.cli.images import is_images, propose_images, propose_manifest
from genba.ui.cli.line_report import summary
from genba.ui.cli.listed import listed
from genba.ui.cli.look import look
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.scaffold import SCAFFOLDS, scaffold
from genba.ui.cli.shipped import renamed, shipped
from genba.ui.cli.texts import in_columns, is_texts, propose_texts

Sources = Annotated[tuple[str, ...], Parameter(name="--from", consume_multiple=True)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a person says about data of their own.

    Attributes:
        task: What the line is to do with the data (default: guessed; genba doctor lists them).
        output: The sensor to be predicted (default: none).
    """

    task: str | None = None
    output: str | None = None


_NOTHING: Final = Asked()
_CALLED: Final = {
    "image": "images",
    "table": "tables",
    "text": "texts",
}  # what a task reads, by its modality


def new(
    name: str,
    entry: str | None = None,
    /,
    *,
    from_: Sources = (),
    asked: Asked = _NOTHING,
    force: bool = False,
    options: Options = DEFAULT,
) -> Answer:
    """Write a line, shipped or guessed from data, or a kind of your own.

    With one name it is a line. Those that ship with Genba run at once on real data: wind-farm,
    shuttle, inspection, products, load, bearings, helpdesk, intents. From data of your own nothing
    is decided that you cannot read: every guess stands in the file with its reason. With two names
    it is a package that adds to the catalog: genba new engine NAME writes one that works, to start
    from; likewise task, source and target.

    Args:
        name: Name of the line; the file is NAME.toml. Or a kind: task, engine, source, target.
        entry: After a kind: the name in the catalog; the package goes into a folder of that name.
        from_: A line that ships with Genba; files (CSV, text, Parquet, JSON Lines; a pattern is
            fine); a folder of images; conversations (JSON Lines); or a source, package:shuttle.
        asked: What is not to be guessed.
        force: Overwrite what is there.
        options: Common options.
    """
    del options
    if entry is not None:
        said = {"--task": asked.task or "", "--output": asked.output or ""}
        given = {"--from": " ".join(from_), **said}
        _refuse_options(name, entry, given)
        return _package(name, entry, force=force)
    check_name(name, "line")
    path = Path(f"{name}.toml")
    if path.exists() and not force:
        raise Problem(
            "G111",
            f"{path} is already there.",
            where=str(path),
            tries=[
                f"genba run {path}",
                f"genba new {name}-2 --from …",
                f"genba new {name} --force",
            ],
        )
    template = _template(name, from_)
    if template:
        return _copy(path, name, template)
    return _guessed(path, name, _source(from_, name), asked)


def _template(name: str, given: Sequence[str]) -> str | None:
    """Return the shipped line that is meant: the one named, or the one of that very name."""
    known = shipped()
    if not given:
        return name if name in known else None
    return given[0] if len(given) == 1 and given[0] in known else None


def _copy(path: Path, name: str, template: str) -> Answer:
    text, line = renamed(name, template)
    write_durable(path.absolute(), text.encode())
    return Answer(
        data={"file": str(path), "line": encode(line), "template": template},
        blocks=[
            heading(f"{path} is written: the line {template}, ready to run", mark="yes"),
            facts(summary(line)),
        ],
        next=(f"genba run {path}",),
    )


def _guessed(path: Path, name: str, source: str, asked: Asked) -> Answer:
    """Look at the data and write down what it seems to be."""
    modality = resolve("task", asked.task).modality if asked.task else None
    if is_images(source):
        _refuse_modality(name, source, asked.task, modality, "image")
        line, reasons, count = propose_images(name, source, asked.task)
        seen, found = f"{number(count)} images were found", {"reasons": reasons}
    elif modality == "text" or (modality is None and is_texts(source)):
        line, reasons, count = propose_texts(name, source, asked.task)
        seen, found = f"{number(count)} texts were read", {"reasons": reasons}
    else:
        frame = look(source)
        count, seen = len(frame), f"{number(len(frame))} rows were looked at"
        of_images = listed(frame) if modality in (None, "image") else None
        of_texts = in_columns(frame, source) if modality is None else None
        if of_texts:
            line, reasons, count = propose_texts(name, source, asked.task, of_texts)
            seen, found = f"{number(count)} texts were read", {"reasons": reasons}
        elif of_images:
            line, reasons = propose_manifest(name, source, of_images, asked.task)
            found = {"reasons": reasons}
        else:
            _refuse_modality(name, source, asked.task, modality, "table")
            columns = guess(frame)
            line = _line(name, source, columns, asked)
            reasons = _comments(columns, line, asked)
            found = asdict(columns)
    write_durable(path.absolute(), line_text(line, reasons).encode())
    return Answer(
        data={"file": str(path), "line": encode(line), "guess": found, "rows": count},
        blocks=[
            heading(f"{path} is written; {seen}", mark="yes"),
            facts([*summary(line), *_doubts(reasons)]),
            Text(f"  Read {path} before you run it: what is guessed says so.", style="dim"),
        ],
        next=(f"genba run {path}",),
    )


def _refuse_modality(
    name: str, source: str, task: str | None, reads: str | None, found: str
) -> None:
    """Refuse a task that does not read what was found."""
    if reads not in (None, found):
        given = source.removeprefix("files:")
        raise Problem(
            "G110",
            f"{task} reads {_CALLED.get(str(reads), reads)}; {given} holds {_CALLED[found]}.",
            where=f"--task {task}",
            tries=[f"genba new {name} --from {shlex.quote(given)}", "genba doctor"],
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
                f"genba new {nearest(name, list(shipped())) or 'inspection'}",
            ],
            why=f"These ship with Genba and need none: {', '.join(shipped())}.",
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


def _line(name: str, source: str, found: Guess, asked: Asked) -> Line:
    output = asked.output
    if output is not None and output not in found.inputs:
        raise Problem(
            "G110",
            f"There is no sensor {output!r}.",
            where=f"--output {output}",
            why=f"Sensors: {', '.join(found.inputs)}.",
            tries=[f"genba new {name} --from … --output {found.inputs[0]}"],
        )
    chosen = asked.task or GUESSED_TASKS[found.kind]
    line = Line(
        name=name,
        task=chosen,
        data=Data(
            source=source,
            time=found.time,
            entity=found.entity,
            inputs=tuple(i for i in found.inputs if i != output),
            output=output,
            label=found.label,
            checks=found.checks,
        ),
        retrain=Retrain(when={"drift": 0.2, "labels": 200}),
    )
    suggested: Line = resolve("task", chosen).suggest(line)
    return suggested


def _comments(found: Guess, line: Line, asked: Asked) -> dict[str, str]:
    reasons: dict[str, Any] = {
        "gates": "the line stops here, not in production; set what you need",
        "retrain": "when to train a challenger: drift (PSI), new labels",
        **found.reasons,
    }
    if found.kind == "table" and not asked.task:
        if line.data.time and not line.data.label:
            reasons["task"] = "guessed: sensors; to forecast them: --task sensor.forecast"
        if not line.data.output:
            reasons.setdefault(
                "data.inputs", 'add output = "…" to predict one sensor from the others'
            )
    return reasons


def _doubts(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        ("" if n else "guessed", f"{path}: {why.removeprefix('guessed: ')}")
        for n, (path, why) in enumerate(
            (path, why) for path, why in reasons.items() if why.startswith("guessed: ")
        )
    ]
