"""The contract of a source: resumable, the same twice, and never the whole set in memory."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pyarrow as pa

from genba.core import io
from genba.core.line import Data
from genba.core.problem import Problem
from genba.core.protocols import Source
from genba.core.resolve import resolve
from genba.testing.checks import CheckResult, Checks, require, require_problem, run_checks
from genba.testing.generated import pump_line, pump_rows

_ROWS: Final = 2_000  # per entity and file
_FILES: Final = 3  # so that there are several batches
_LONG_ROWS: Final = 20_000
_TIMES: Final = 10
_ROOM_BYTES: Final = 8 << 20
_ADDRESSES: Final = {"files": "", "package": "shuttle"}

Opener = Callable[[str], Source]


def check_source(name: str, address: str = "", data: Data | None = None) -> tuple[CheckResult, ...]:
    """Run a source of the catalog through the contract.

    Args:
        name: Name in the catalog.
        address: What to read, the part of `data.source` after the colon. Without one, generated
            files are read where the source can, else a small dataset that is known, else the
            source's own example.
        data: What the columns mean; nothing in particular when None.

    Raises:
        Problem: G610 when there is nothing known that this source could read.
    """
    with TemporaryDirectory(prefix="genba-check-") as folder:
        return run_checks(source_checks(name, Path(folder), address, data))


def source_checks(name: str, folder: Path, address: str = "", data: Data | None = None) -> Checks:
    """Return the checks of a source by name; generated files are written to `folder`."""
    kind = resolve("source", name)
    address = address or _address(name, folder)
    meaning = data or (
        Data(source=f"{name}:{address}") if address else pump_line(folder / "several").data
    )

    def opened(at: str) -> Source:
        source: Source = kind(at, meaning)
        return source

    where = address or str(_several(folder / "several"))
    checks: dict[str, Callable[[], None]] = {
        "facts are stable": partial(_facts, opened, where),
        "batches have one schema": partial(_schema, opened, where),
        "the same rows twice": partial(_twice, opened, where),
        "a cursor resumes behind its batch": partial(_resumes, opened, where),
        "nothing there is a Problem": partial(_nothing, opened),
    }
    if address:
        return checks
    return checks | {
        "other content has another fingerprint": partial(_fingerprint, opened, folder),
        "memory is bounded on ten times the rows": partial(_bounded, opened, folder),
    }


def _address(name: str, folder: Path) -> str:
    """Return the address of something small to read; "" for a source that reads files."""
    example = getattr(resolve("source", name), "example", None)
    if example is not None:
        return str(example(folder))
    if name not in _ADDRESSES:
        raise Problem(
            "G610",
            f"Nothing is known that the source {name} could read for a check.",
            why="It has no method `example`.",
            tries=[f"genba check {name} --address ADDRESS", "genba explain G610"],
        )
    return _ADDRESSES[name]


def _facts(opened: Opener, where: str) -> None:
    first, again = opened(where).facts(), opened(where).facts()
    require(first == again, "facts() differ for the same content")
    require(bool(first.fingerprint and first.location), "facts() have no fingerprint or location")
    require(first.bytes > 0, "facts() say there are no bytes")


def _schema(opened: Opener, where: str) -> None:
    schemas = []
    for batch, _ in opened(where).batches():
        require(isinstance(batch, pa.RecordBatch), f"a batch is a {type(batch).__name__}")
        schemas.append(batch.schema)
    require(bool(schemas), "there are no batches")
    require(all(s == schemas[0] for s in schemas), "batches differ in their columns or types")


def _twice(opened: Opener, where: str) -> None:
    require(_rows(opened(where)) == _rows(opened(where)), "reading twice gives different rows")


def _resumes(opened: Opener, where: str) -> None:
    batches = list(opened(where).batches())
    for at in sorted({0, len(batches) // 2, len(batches) - 1}):
        cursor = json.loads(json.dumps(batches[at][1]))
        rest = [batch for batch, _ in opened(where).batches(cursor)]
        same = _text(rest) == _text([batch for batch, _ in batches[at + 1 :]])
        require(same, f"resumed behind batch {at + 1} of {len(batches)}, the rows are others")


def _nothing(opened: Opener) -> None:
    def read() -> None:
        source = opened("no-such-thing-anywhere")
        source.facts()
        next(iter(source.batches()))

    require_problem(read, _family("G2", "G9", "G1"), "for an address where there is nothing")


def _fingerprint(opened: Opener, folder: Path) -> None:
    path = folder / "one.csv"
    io.write_durable(path, pump_rows(50))
    before = opened(str(path)).facts().fingerprint
    io.write_durable(path, pump_rows(50, seed=1))
    require(opened(str(path)).facts().fingerprint != before, "the fingerprint did not change")


def _bounded(opened: Opener, folder: Path) -> None:
    head, _, body = pump_rows(_LONG_ROWS).partition(b"\n")
    peaks = []
    for times in (1, _TIMES):
        path = folder / f"times-{times}.csv"
        io.write_durable(path, head + b"\n" + body * times)
        peaks.append(_peak_bytes(opened(str(path))))
    small, large = peaks
    require(
        large <= 2 * small + _ROOM_BYTES,
        f"ten times the rows take {large >> 20} MiB of Arrow memory instead of {small >> 20} MiB",
    )


def _peak_bytes(source: Source) -> int:
    before, peak = pa.total_allocated_bytes(), 0
    for _batch, _ in source.batches():
        peak = max(peak, pa.total_allocated_bytes() - before)
    return peak


def _several(folder: Path) -> Path:
    io.make_dirs_durable(folder)
    for number in range(_FILES):
        io.write_durable(folder / f"{number}.csv", pump_rows(_ROWS, seed=number))
    return folder


def _rows(source: Source) -> str:
    return _text([batch for batch, _ in source.batches()])


def _text(batches: list[Any]) -> str:
    """Return the rows as text, in which NaN equals NaN."""
    return str([row for batch in batches for row in batch.to_pylist()])


def _family(*prefixes: str) -> list[str]:
    return [f"{prefix}{number:02d}" for prefix in prefixes for number in range(100)]
