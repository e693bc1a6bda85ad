"""`genba predict`: answers for rows or images, from the server or from the package itself."""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from cyclopts import Parameter

from genba.core.codec import decode
from genba.core.io import write_durable
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.core.task import Task
from genba.core.values import Manifest
from genba.stages.explain import Explained, explain
from genba.stages.tune import values
from genba.store.home import Store
from genba.ui.cli import heatmap, predict_ask, predict_report
from genba.ui.cli.answer import Answer, heading
from genba.ui.cli.figures import number
from genba.ui.cli.lookup import find_record, known_line, open_home, stable_of
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.predict_ask import Ask, Made, answers, complete
from genba.ui.cli.predict_batch import Batch, run_batch
from genba.ui.cli.predict_input import Part, as_json, parts
from genba.ui.cli.predict_report import Reading
from genba.ui.cli.predict_texts import questions
from genba.ui.cli.trace_why import explained

_URL: Final = "http://127.0.0.1:8080"
_NOT_PRINTED: Final = ("map", "mask", "embedding", "look")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class More:
    """What may be asked for besides the answers."""

    to: Path | None = None
    """Write every prediction to this CSV file; with --batch Parquet or JSON Lines."""

    save_map: Path | None = None
    """Write images with what is unusual in red: a PNG file, for several images a folder."""

    explain: bool = False
    """Say why: what drove the strongest answer, and the known cases that are most alike."""

    every: bool = False
    """Forecast from every row, not only from the newest."""

    batch: bool = False
    """Answer whole files of any size: --to OUT.parquet or OUT.jsonl, resumable at any point."""

    rejected: Path | None = None
    """With --batch: write the rows that cannot be used, with reasons, to this JSON Lines file."""


NOTHING_MORE: Final = More()


def predict(
    name: str,
    /,
    *,
    input_: Path,
    local: str | None = None,
    url: str = "",
    more: More = NOTHING_MORE,
    options: Options = DEFAULT,
) -> Answer:
    """Ask a line for predictions.

    Args:
        name: The line.
        input_: Rows as CSV, Parquet or JSON Lines with the line's columns (for a forecast the
            history, and behind it what is known of the future); or an image, a folder, a pattern;
            or questions, a text file with one on each line, or JSON Lines.
        local: Do not ask the server: run this package here, or "stable" for the one in production.
        url: The server (default: $GENBA_URL, else http://127.0.0.1:8080).
        more: What else to write or say.
        options: Common options.
    """
    with open_home(options) as store:
        line = known_line(store, name)
        package = _package(store, line, local)
        manifest = decode(Manifest, store.ledger.get("package", package))
        where = url or os.environ.get("GENBA_URL") or _URL
        if more.batch:
            _refuse_with_batch(name, input_, more)
            return run_batch(
                Batch(
                    store=store,
                    line=line,
                    package=package,
                    manifest=manifest,
                    outputs=_wanted(manifest, more),
                    input=input_,
                    to=more.to or Path(),
                    rejected=more.rejected,
                    url="" if local else where,
                    quiet=options.json,
                )
            )
        reading = Reading(manifest, manifest.classes)
        taken = _Taken(line, manifest, reading, more, not input_.is_file())
        wanted = _wanted(manifest, more)
        asks: AbstractContextManager[Ask] = (
            predict_ask.server(where, name, manifest, wanted)
            if local is None
            else predict_ask.here(store, package, manifest, wanted)
        )
        with asks as ask:
            asked = _asked(line, manifest, input_, taken.rejected, every=more.every)
            taken.take_all(answers(asked, ask, taken.rejected))
        if not taken.plain:
            raise _nothing(input_)
        why = taken.explained(store) if more.explain else None
    return _answer(taken, why)


def _asked(
    line: Line, manifest: Manifest, path: Path, rejected: Counter[str], *, every: bool
) -> Iterator[Part]:
    """Return what a file holds as samples: texts as texts, all else as rows or images."""
    text = next((t.name for t in manifest.signature.inputs if t.role == "text"), None)
    if text is not None:
        return questions(path, text, rejected)
    return parts(line, manifest, path, rejected, every=every)


def _refuse_with_batch(name: str, path: Path, more: More) -> None:
    """Refuse what a batch cannot do."""
    if more.to and not (more.save_map or more.explain):
        return
    what = "--save-map" if more.save_map else "--explain"
    raise Problem(
        "G110",
        f"{what} is for some predictions, not for a batch." if more.to else "--batch needs --to.",
        where="genba predict --batch",
        tries=[f"genba predict {name} --input {path} --batch --to OUT.parquet"],
    )


def _nothing(path: Path) -> Problem:
    return Problem(
        "G722",
        f"{path} has no row that can be used.",
        where=str(path),
        tries=[f"head -3 {path}", "genba explain G722"],
    )


def _package(store: Store, line: Line, local: str | None) -> str:
    if local and local != "stable":
        return find_record(store, ("package",), local, "package").id
    return stable_of(store, line.name)


def _wanted(manifest: Manifest, more: More) -> tuple[str, ...]:
    maps = [t.name for t in manifest.signature.outputs if t.role == "map"]
    if more.save_map and not maps:
        raise Problem(
            "G110",
            f"The line {manifest.line} answers no heat map.",
            tries=[f"genba predict {manifest.line} --input FILE"],
        )
    plain = [t.name for t in manifest.signature.outputs if t.role not in _NOT_PRINTED]
    return (*plain, *(maps if more.save_map else ()))


@dataclass(kw_only=False, slots=True)
class _Taken:
    """What was answered so far."""

    line: Line
    manifest: Manifest
    reading: Reading
    more: More
    several: bool  # more than one file may be asked about
    plain: list[dict[str, Any]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    maps: set[Path] = field(default_factory=set)
    strongest: tuple[tuple[bool, float], Part, str] | None = None  # rank, sample, package

    def take_all(self, made: Iterable[Made]) -> None:
        """Take answers as they come."""
        for one in made:
            outputs = {n: np.asarray(t) for n, t in one.outputs.items()}
            for index in range(len(one.part)):
                row = self._row(one, index)
                row |= {
                    n: as_json(np.asarray(t[index]).tolist())
                    for n, t in outputs.items()
                    if self.manifest_role(n) not in _NOT_PRINTED
                }
                row |= {
                    "prediction": one.ids[index] if one.ids else None,
                    "package": one.package,
                    "role": one.role,
                }
                if (called := self.reading.class_of(row)) is not None:
                    row["class_name"] = called
                self.plain.append(row)
                self._rank(row, one, index)
            if self.more.save_map:
                self._save_maps(one, self.more.save_map)

    def manifest_role(self, output: str) -> str:
        """Return what an output is for."""
        return next(t.role for t in self.manifest.signature.outputs if t.name == output)

    def explained(self, store: Store) -> Explained | None:
        """Explain the strongest answer, with the package that gave it."""
        if self.strongest is None:
            return None
        _, part, package = self.strongest
        manifest = decode(Manifest, store.ledger.get("package", package))
        return explain(store, package, complete(part, manifest, values(store, package, manifest)))

    def _row(self, made: Made, index: int) -> dict[str, Any]:
        part = made.part
        row: dict[str, Any] = {"row": int(part.rows[index])}
        if part.names[index]:
            row["file"] = part.names[index]
        if (text := self.reading.asked(part.tensors, index)) is not None:
            row["question"] = text
        clock = self.line.data.time is not None and part.times is not None
        row["entity"] = part.entities[index] if self.line.data.entity else None
        row["time_ms"] = int(part.times[index]) if clock and part.times is not None else None
        return row

    def _rank(self, row: dict[str, Any], made: Made, index: int) -> None:
        alarm = self.reading.value(row, "alarm") is True
        doubt = -float(self.reading.value(row, "confidence") or 0.0)
        rank = (alarm, float(self.reading.value(row, "score") or doubt))
        if self.more.explain and (self.strongest is None or rank > self.strongest[0]):
            self.strongest = (rank, made.part.some(slice(index, index + 1)), made.package)

    def _save_maps(self, made: Made, target: Path) -> None:
        heat = next(n for n in made.outputs if self.manifest_role(n) == "map")
        image = next(t.name for t in self.manifest.signature.inputs if t.role == "image")
        for index, name in enumerate(made.part.names):
            place = heatmap.place_of(target, name, self.maps, several=self.several)
            data = made.part.tensors[image][index]
            heatmap.write(place, heatmap.overlay(data, np.asarray(made.outputs[heat])[index]))


def _answer(taken: _Taken, why: Explained | None) -> Answer:
    name, plain, more = taken.line.name, taken.plain, taken.more
    told = [("rejected", f"{number(n)}: {reason}") for reason, n in taken.rejected.items()]
    if more.to:
        write_durable(more.to.absolute(), predict_report.as_csv(plain).encode())
        told.append(("written", f"{more.to}, every prediction"))
    if taken.maps:
        told.append(("maps", ", ".join(sorted(map(str, taken.maps))[:3])))
    blocks = predict_report.blocks(name, plain, taken.reading, told)
    data = {
        "line": name,
        "rows": len(plain),
        "rejected": dict(taken.rejected),
        "packages": dict(Counter(row["package"] for row in plain)),
        "predictions": plain,
        "maps": sorted(map(str, taken.maps)),
    }
    if why is not None:
        data["explanation"] = why.to_json()
        blocks += [heading("Why"), *explained(why.to_json())]
    return Answer(data=data, blocks=blocks, next=_next(taken))


def _next(taken: _Taken) -> tuple[str, ...]:
    first = predict_report.strongest(taken.plain, taken.reading)[0]
    name, prediction = taken.line.name, first["prediction"]
    if not prediction:
        return ("genba up",)
    task: Task = resolve("task", taken.line.task)()
    words = task.corrections(taken.manifest.classes)
    said = taken.reading.class_of(first)
    value = said if said in words else words[0] if words else "VALUE"
    return (
        f"genba trace {prediction}",
        f"genba feedback {name} --prediction {prediction} --value {shlex.quote(value)}",
    )
