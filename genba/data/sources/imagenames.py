"""Which image files a line means; nothing heavy is imported to find that out."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from genba.core.digest import digest_file, digest_json
from genba.core.line import Data
from genba.data.sources.imagelayout import SUFFIXES

_SKIPPED: Final = frozenset(("__macosx", "thumbs.db"))
_TABLES: Final = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".pq", ".gz")


def is_image(path: Path) -> bool:
    """Say whether a file is called like an image.

    Example:
        >>> is_image(Path("a/0001.PNG")), is_image(Path("a/._0001.png")), is_image(Path("b.csv"))
        (True, False, False)
    """
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def are_images(paths: Iterable[Path], data: Data) -> bool:
    """Say whether what a line names is images in folders, rather than tables.

    Args:
        paths: The files of a folder or a pattern, or the one file; folders are looked into.
        data: Of the line; tables in the folder come first where it names their columns.
    """
    found = list(paths)
    if any(path.is_file() and is_image(path) for path in found):
        return not _names_columns(data) or not any(_is_table(path) for path in found)
    if _names_columns(data) and any(_is_table(path) for path in found):
        return False
    return any(True for path in found if path.is_dir() for _ in image_names(path))


def image_names(root: Path) -> Iterable[str]:
    """Yield the image files below a folder, relative to it, with forward slashes."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not _skipped(f))
        for name in sorted(files):
            path = Path(folder, name)
            if is_image(path) and not _skipped(name):
                yield path.relative_to(root).as_posix()


def fingerprint(root: Path, names: Iterable[str]) -> str:
    """Return a digest of names and contents that does not depend on where the folder lies."""
    return digest_json([[name, digest_file(root / name)] for name in sorted(names)])


def _skipped(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SKIPPED


def _is_table(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(_TABLES)


def _names_columns(data: Data) -> bool:
    return bool(data.time or data.inputs or data.output or data.label)
