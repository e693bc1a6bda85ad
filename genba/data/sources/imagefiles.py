"""Images in a folder on this machine, or named by a manifest (CSV, JSON Lines or Parquet)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from genba.core.problem import Problem
from genba.core.protocols import JsonObject
from genba.data.formats.batch import DETAIL, REASON
from genba.data.sources.imagelayout import Entry, arrange
from genba.edge.imagefile import MAX_BYTES
from genba.edge.images import is_mask

_BATCH_BYTES: Final = 8 << 20
_BATCH_ROWS: Final = 256
_SCHEMA: Final = pa.schema(
    [
        ("image", pa.binary()),
        ("name", pa.string()),
        ("mask", pa.binary()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("entity", pa.string()),
        ("group", pa.string()),
        ("time", pa.string()),
        (REASON, pa.string()),
        (DETAIL, pa.string()),
    ]
)
_MISSING: Final = "the file is missing"
_UNREADABLE: Final = "the file may not be read"
_TOO_LARGE: Final = "too large"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """An image to be read; paths are absolute or relative to the folder."""

    entry: Entry
    time: str | None = None


def from_folder(root: Path, names: Sequence[str]) -> tuple[list[Wanted], str]:
    """Return the images of a folder as their places say, and how they are laid out.

    Args:
        root: The folder.
        names: Image files and masks, relative to it.
    """

    def looked(name: str) -> bool | None:
        try:
            return is_mask((root / name).read_bytes())
        except (OSError, Problem):
            return None

    found = arrange(names, looked)
    return [Wanted(entry=entry) for entry in found.entries], found.layout


def batches(
    root: Path, wanted: Sequence[Wanted], layout: str, cursor: JsonObject | None
) -> Iterator[tuple[pa.RecordBatch, JsonObject]]:
    """Yield images in batches of bounded size, each with the cursor behind it."""
    schema = _SCHEMA.with_metadata({"file": str(root), "layout": layout})
    start = int(cursor["image"]) if cursor else 0
    rows: list[dict[str, Any]] = []
    held = 0
    for at in range(start, len(wanted)):
        row = _row(root, wanted[at])
        rows.append(row)
        held += len(row["image"] or b"") + len(row["mask"] or b"")
        if held >= _BATCH_BYTES or len(rows) >= _BATCH_ROWS or at + 1 == len(wanted):
            yield pa.RecordBatch.from_pylist(rows, schema=schema), {"image": at + 1}
            rows, held = [], 0


def _row(root: Path, wanted: Wanted) -> dict[str, Any]:
    entry = wanted.entry
    image, reason, detail = _read(root / entry.name)
    mask = _read(root / entry.mask)[0] if entry.mask else None
    return {
        "image": image,
        "name": entry.name,
        "mask": mask,
        "label": entry.label,
        "split": entry.split,
        "entity": entry.entity,
        "group": entry.group,
        "time": wanted.time,
        REASON: reason,
        DETAIL: detail,
    }


def _read(path: Path) -> tuple[bytes | None, str | None, str | None]:
    """Return a file, or why it cannot be read."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            return None, _TOO_LARGE, f"{size / 1e6:,.0f} MB"
        return path.read_bytes(), None, None
    except PermissionError as error:
        return None, _UNREADABLE, error.strerror
    except OSError as error:
        return None, _MISSING, error.strerror
