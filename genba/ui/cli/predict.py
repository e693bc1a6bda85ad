"""`genba predict`: answers for the rows of a file, from the server or from the package itself."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from rich.console import RenderableType

from genba.core.codec import decode
from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.core.protocols import Array, Samples, Task, Tensors
from genba.core.resolve import resolve
from genba.core.values import Manifest
from genba.data.intake import Intake
from genba.data.sources.files import FileSource
from genba.edge.package import load
from genba.edge.predict import Predictor
from genba.serve.client import Client
from genba.store.home import Store
from genba.store.io import write_durable
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.figures import moment, number, short
from genba.ui.cli.lookup import find_record, known_line, open_home, stable_of
from genba.ui.cli.options import DEFAULT, Options

_BATCH: Final = 256  # rows of one request
_MOST_ROWS: Final = 1_000_000
_SHOWN: Final = 12
_URL: Final = "http://127.0.0.1:8080"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows of a file as samples of a package."""

    samples: Samples
    entities: tuple[str, ...]  # one per sample
    rejected: Mapping[str, int]


def predict(
    name: str,
    /,
    *,
    input_: Path,
    to: Path | None = None,
    local: str | None = None,
    url: str = "",
    options: Options = DEFAULT,
) -> Answer:
    """Ask a line for predictions.

    Args:
        name: The line.
        input_: Rows as CSV, Parquet or JSON Lines, with the line's columns.
        to: Write every prediction to this CSV file.
        local: Do not ask the server: run this package here, or "stable" for the one in production.
        url: The server (default: $GENBA_URL, else http://127.0.0.1:8080).
        options: Common options.
    """
    with open_home(options) as store:
        line = known_line(store, name)
        package = _package(store, line, local)
        manifest = decode(Manifest, store.ledger.get("package", package))
        rows = read_rows(line, manifest, input_)
        if local is None:
            made = _ask(url or os.environ.get("GENBA_URL") or _URL, line.name, rows)
        else:
            loaded = load(store.blobs.read(package), store.blobs.read, expect=package)
            made = _here(Predictor(loaded), package, rows)
    plain = _plain(line, rows, made)
    if to:
        write_durable(to.absolute(), _csv(plain).encode())
    return Answer(
        data={
            "line": name,
            "rows": len(plain),
            "rejected": dict(rows.rejected),
            "packages": dict(Counter(r["package"] for r in plain)),
            "predictions": plain,
        },
        blocks=_blocks(name, plain, rows, to),
        next=_next(name, _strongest(plain)[0]),
    )


def _package(store: Store, line: Line, local: str | None) -> str:
    if local and local != "stable":
        return find_record(store, ("package",), local, "package").id
    return stable_of(store, line.name)


def read_rows(line: Line, manifest: Manifest, path: Path) -> Rows:
    """Turn the rows of a file into samples.

    Checks are not applied: what a package makes of impossible values is its own business.

    Args:
        line: Says which columns mean what.
        manifest: Of the package that will be asked; says how rows become samples.
        path: CSV, Parquet or JSON Lines; or a pattern.

    Raises:
        Problem: What the reader says of a file it cannot read; G722 when it is too large.
    """
    sensors = tuple(str(s) for s in manifest.settings["sensors"])
    output = line.data.output
    data = Data(
        source=f"files:{path}",
        time=line.data.time,
        entity=line.data.entity,
        inputs=tuple(s for s in sensors if s != output),
        output=output,
    )
    intake = Intake(data)
    frames: list[pl.DataFrame] = []
    for batch, _ in FileSource(str(path), data).batches():
        frames.append(intake.take(batch)[0])
        if intake.read > _MOST_ROWS:
            raise Problem(
                "G722",
                f"{path} has more than {_MOST_ROWS:,} rows.",
                where=str(path),
                why="genba predict holds all rows of its input at once.",
                tries=[f"split -l {_MOST_ROWS // 2} {path}", "genba explain G722"],
            )
    if not frames or not sum(map(len, frames)):
        raise Problem(
            "G722",
            f"{path} has no row that can be used.",
            where=str(path),
            why="; ".join(f"{n} rows: {why}" for why, n in intake.rejected.items()),
            tries=[f"head -3 {path}", "genba explain G722"],
        )
    frame = pl.concat(frames).sort("code", "time", "row")
    return _samples(line, manifest, frame, intake)


def _samples(line: Line, manifest: Manifest, frame: pl.DataFrame, intake: Intake) -> Rows:
    task: Task = resolve("task", line.task)()
    parts: list[Samples] = []
    entities: list[str] = []
    for part in frame.partition_by("code", maintain_order=True):
        name = intake.entities[int(part["code"][0])]
        columns = {c: part[c].to_numpy() for c in part.columns if part.schema[c].is_numeric()}
        index = manifest.entities.index(name) if name in manifest.entities else -1
        columns["entity"] = np.full(len(part), index, dtype=np.int32)
        columns["label"] = np.full(len(part), np.nan)
        samples = task.samples(columns, manifest.settings)
        parts.append(samples)
        entities += [name] * len(samples.row)
    return Rows(samples=_joined(parts), entities=tuple(entities), rejected=dict(intake.rejected))


def _joined(parts: Sequence[Samples]) -> Samples:
    tensors = {n: np.concatenate([p.tensors[n] for p in parts]) for n in parts[0].tensors}
    names = ("entity", "time", "row", "label", "truth")
    arrays = {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
    return replace(parts[0], tensors=tensors, **arrays)


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """Predictions of some consecutive rows."""

    outputs: Tensors
    ids: tuple[str, ...]  # empty for a package that was run here
    package: str
    role: str


def _slices(rows: Rows) -> Iterator[slice]:
    for start in range(0, len(rows.entities), _BATCH):
        yield slice(start, start + _BATCH)


def _ask(url: str, line: str, rows: Rows) -> list[Made]:
    made = []
    tensors = {n: t for n, t in rows.samples.tensors.items() if n != "entity"}
    with Client(url, key=os.environ.get("GENBA_SERVE_KEY")) as client:
        for part in _slices(rows):
            answer = client.infer(
                line,
                {n: t[part] for n, t in tensors.items()},
                entities=rows.entities[part],
                times=rows.samples.time[part],
            )
            made.append(
                Made(
                    outputs=answer.outputs,
                    ids=answer.predictions,
                    package=answer.package,
                    role=answer.role,
                )
            )
    return made


def _here(predictor: Predictor, package: str, rows: Rows) -> list[Made]:
    try:
        return [
            Made(
                outputs=predictor.predict({n: t[p] for n, t in rows.samples.tensors.items()}),
                ids=(),
                package=package,
                role="local",
            )
            for p in _slices(rows)
        ]
    finally:
        predictor.engine.close()


def _plain(line: Line, rows: Rows, made: Sequence[Made]) -> list[dict[str, Any]]:
    """Return one JSON object per row, with what was asked and what was answered."""
    plain = []
    at = 0
    for part in made:
        outputs = {n: np.asarray(t) for n, t in part.outputs.items()}
        for i in range(len(next(iter(outputs.values())))):
            time_ms = int(rows.samples.time[at]) if line.data.time else None
            plain.append(
                {
                    "row": int(rows.samples.row[at]),
                    "entity": rows.entities[at] if line.data.entity else None,
                    "time_ms": time_ms,
                    **{n: _value(t[i]) for n, t in outputs.items()},
                    "prediction": part.ids[i] if part.ids else None,
                    "package": part.package,
                    "role": part.role,
                }
            )
            at += 1
    return plain


def _value(value: Array) -> Any:
    """Return a number, or a list of them; what is not a number is None, as JSON has no NaN."""
    plain = value.tolist()
    if isinstance(plain, list):
        plain = [None if isinstance(v, float) and not np.isfinite(v) else v for v in plain]
        return plain[0] if len(plain) == 1 else plain
    return None if isinstance(plain, float) and not np.isfinite(plain) else plain


def _csv(plain: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(plain[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return text.getvalue()


def _blocks(
    name: str, plain: Sequence[Mapping[str, Any]], rows: Rows, to: Path | None
) -> list[RenderableType]:
    alarms = [r for r in plain if r.get("alarm") is True]
    title = f"{name}: {number(len(plain))} predictions, {number(len(alarms))} alarms"
    grid = table(
        ["prediction", "entity", "time", "score", "alarm", "expected"],
        [_row(r) for r in _strongest(plain)[:_SHOWN]],
        right=("score", "expected"),
        whole=("prediction",),
    )
    pairs = [
        ("package", ", ".join(short(p) for p in dict.fromkeys(r["package"] for r in plain))),
        *(("rejected", f"{number(n)} rows: {why}") for why, n in rows.rejected.items()),
    ]
    if to:
        pairs.append(("written", f"{to}, every prediction"))
    what = "the strongest alarms" if alarms else "the first rows; no alarm"
    return [
        heading(title, mark="wait" if alarms else "yes"),
        facts([("shown", what)]),
        grid,
        facts(pairs),
    ]


def _strongest(plain: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the alarms, the highest score first; everything in its order when there is none."""
    alarms = [r for r in plain if r.get("alarm") is True]
    return sorted(alarms, key=lambda r: -float(r.get("score") or 0.0)) or plain


def _row(one: Mapping[str, Any]) -> list[RenderableType]:
    expected = one.get("expected")
    score = one.get("score")
    return [
        str(one["prediction"] or f"row {one['row']}"),
        str(one["entity"] or "-"),
        "-" if one["time_ms"] is None else moment(int(one["time_ms"])),
        "-" if score is None else number(float(score)),
        "ALARM" if one.get("alarm") else "",
        number(expected) if isinstance(expected, float) else "-",
    ]


def _next(name: str, first: Mapping[str, Any]) -> tuple[str, ...]:
    if not first["prediction"]:
        return ("genba up",)
    return (
        f"genba trace {first['prediction']}",
        f"genba feedback {name} --prediction {first['prediction']} --value anomaly",
    )
