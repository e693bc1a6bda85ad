"""Rows of a CSV file as samples: for a first look on a device, before links are set up."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from genba.core.codec import nearest
from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.assembly import Assembly
from genba.edge.interface import Interface
from genba.edge.links import Reading
from genba.edge.links.settings import Links
from genba.edge.package import LoadedPackage

_MOST_BYTES: Final = 256 << 20
_SOURCE: Final = "rows"


def read_rows(
    path: Path, package: LoadedPackage, interface: Interface
) -> tuple[dict[str, Array], list[str]]:
    """Return the samples that the rows of a file end, and the time and entity of each.

    Windows are put together as `genba-edge serve` does it; what is not there is missing.

    Args:
        path: CSV with a header, with the names of the line's data.
        package: Says what the samples are.
        interface: Says what a row has.

    Raises:
        Problem: G602 when the file cannot be read, a column is missing, or a time is none.
    """
    table = csv.DictReader(io.StringIO(_text(path), newline=""))
    _check_header(path, list(table.fieldnames or ()), interface)
    assembly = Assembly(package.manifest, interface, Links(links={}, kinds={}, leader=_SOURCE))
    samples, names = [], []
    for number, row in enumerate(table):
        reading = _reading(path, number, row, interface)
        sample = assembly.add(reading).sample
        if sample is None or sample.tensors is None:
            raise unreadable(path, f"Row {number + 1} makes no sample.")
        samples.append(sample.tensors)
        names.append(f"{row.get(interface.time or '') or number + 1} {reading.entity}".rstrip())
    if not samples:
        raise unreadable(path, "It has no rows.")
    tensors = {n: np.concatenate([np.asarray(s[n]) for s in samples]) for n in samples[0]}
    return tensors, names


def unreadable(path: Path, why: str) -> Problem:
    """Return the Problem of a file that makes no samples."""
    return Problem(
        "G602",
        f"{path} makes no samples for this release.",
        where=str(path),
        why=why,
        tries=["genba-edge predict DIR --sample", "genba explain G602"],
    )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise unreadable(path, f"It has more than {_MOST_BYTES >> 20} MiB.")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise unreadable(path, f"It cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise unreadable(path, "It is no text in UTF-8.") from error


def _check_header(path: Path, header: list[str], interface: Interface) -> None:
    wanted = [field.name for field in interface.fields]
    if interface.step_ms is not None and interface.time:
        wanted.append(interface.time)
    if not wanted:
        raise unreadable(path, "This release takes no rows.")
    for name in wanted:
        if name not in header:
            near = nearest(name, header)
            raise unreadable(path, f"It has no column {name}" + (f"; {near}?" if near else "."))


def _reading(path: Path, number: int, row: dict[str, str | None], interface: Interface) -> Reading:
    time_ms = _time_ms(path, number, row.get(interface.time or ""), interface)
    return Reading(
        id=str(number),
        source=_SOURCE,
        entity=row.get(interface.entity or "") or "",
        time_ms=time_ms,
        received_ms=time_ms,
        values=dict(_values(row, interface)),
    )


def _values(row: dict[str, str | None], interface: Interface) -> Iterator[tuple[str, float | None]]:
    """Return the numbers of a row; what is none, or outside the line's checks, is missing."""
    for field in interface.fields:
        try:
            value = float(row.get(field.name) or "nan")
        except ValueError:
            value = float("nan")
        low, high = field.limit.min, field.limit.max
        outside = (low is not None and value < low) or (high is not None and value > high)
        yield field.name, None if outside or not np.isfinite(value) else value


def _time_ms(path: Path, number: int, text: str | None, interface: Interface) -> int:
    """Return ms since 1970 UTC; without an offset it is UTC. Without a clock, rows are counted."""
    if interface.step_ms is None:
        return number
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError as error:
        raise unreadable(path, f"Row {number + 1}: {text!r} is no time (ISO 8601).") from error
    known = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(known.timestamp() * 1e3)
