"""Files on this machine: CSV, JSON Lines and Parquet, one or many; images in folders."""

import gzip
import importlib
import itertools
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast

from genba.core.digest import digest_file, digest_json
from genba.core.line import Data
from genba.core.problem import Problem
from genba.core.protocols import JsonObject, SourceFacts
from genba.data.formats.blocks import HEAD_BYTES
from genba.data.formats.layout import Layout, Position, Wanted, wanted
from genba.data.sources.imagenames import are_images, fingerprint, image_names, is_image

Format = Literal["delimited", "json", "parquet"]
#: Imported when rows are read; a fingerprint needs none of them.
_READERS: Final[dict[Format, str]] = {
    "delimited": "genba.data.formats.delimited",
    "json": "genba.data.formats.json_lines",
    "parquet": "genba.data.formats.parquet",
}
_JSON: Final = (".jsonl", ".ndjson", ".json")
_PARQUET: Final = (".parquet", ".pq")
_WILD: Final = re.compile(r"[*?[]")
_GZIP: Final = b"\x1f\x8b"


class FileSource:
    r"""The rows of `files:PATH`, where PATH is a file, a directory or a pattern such as `*.csv`.

    Files are read in the order of their names. Their columns are those the line names; without
    `data.inputs`, every column of the first file.

    A folder or pattern of images yields images instead, whose classes, masks and splits follow
    from folders and names (`imagelayout`); where the line says `data.image`, the files are tables
    that name images (`manifest`). Where `modality` is "text", the files hold texts instead, in any
    of the shapes that `textfiles` knows.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "pump.csv"
        >>> _ = path.write_text("t,flow\n2026-01-01,1.5\n")
        >>> source = FileSource(str(path), Data(source="files:pump.csv", time="t"))
        >>> [batch.num_rows for batch, _ in source.batches()]
        [1]
    """

    def __init__(self, address: str, data: Data) -> None:
        self.address = address
        self.data = data
        self.wanted = wanted(data)
        self.modality = ""  # what the task of the line reads, where that is known
        self._images: ImageFolder | None | bool = False  # not looked for yet
        self._manifest: Any = None
        self._texts: Any = None

    def paths(self) -> tuple[Path, ...]:
        """Return the tables, sorted by name; images beside them are left aside.

        Raises:
            Problem: G201 when there is none.
        """
        root = Path(self.address).expanduser()
        found = tuple(path for path in _matches(root) if path.is_file() and not is_image(path))
        if not found:
            raise Problem(
                "G201",
                f"No file matches {self.address}.",
                where="data.source",
                why=f"The path is looked for from {Path.cwd()}.",
                tries=[f"ls {self.address}", 'source = "files:/the/whole/path/*.csv"'],
            )
        return found

    def facts(self) -> SourceFacts:
        """Read every file once to fingerprint it.

        Names of tables do not matter, contents and order do; of images, what the folder calls
        them matters as well. Where the folder lies never does.
        """
        images = self._of_images()
        if images is not None:
            found: SourceFacts = images.facts(self.address)
            return found
        paths = self.paths()
        return SourceFacts(
            fingerprint=digest_json([digest_file(path) for path in paths]),
            location=str(paths[0] if len(paths) == 1 else self.address),
            bytes=sum(path.stat().st_size for path in paths),
        )

    def batches(self, cursor: JsonObject | None = None) -> Iterator[tuple[Any, JsonObject]]:
        """Yield (Arrow record batch, cursor behind it).

        The schema's metadata name the `file`. Every file's columns are checked before the first
        row of any is read.

        Raises:
            Problem: G202 to G206 naming the file, the line or column, and what to do; G213 when a
                file changes while it is read.
        """
        images = self._of_images()
        if images is not None:
            yield from images.batches(cursor)
            return
        yield from self._rows(cursor)

    def _of_images(self) -> Any:
        """Return the images, or texts, that are meant; None where tables are."""
        if self.modality == "text":
            if self._texts is None:
                # Imported when texts are read.
                readers: Any = importlib.import_module("genba.data.sources.textfiles")
                root = Path(self.address).expanduser()
                found = [root] if root.is_dir() else _matches(root)
                self._texts = readers.TextFiles(self.address, found, self.data)
            return self._texts
        if self.data.image:
            if self._manifest is None:
                # Imported when it is there: it reads tables with the functions of this module.
                manifests: Any = importlib.import_module("genba.data.sources.manifest")
                self._manifest = manifests.Manifest(self.paths(), self.data)
            return self._manifest
        if self._images is False:
            self._images = images_of(Path(self.address).expanduser(), self.data)
        return self._images

    def _rows(self, cursor: JsonObject | None) -> Iterator[tuple[Any, JsonObject]]:
        paths = self.paths()
        layout = layout_of(paths[0], self.wanted)
        for path in paths[1:]:
            layout_of(path, Wanted(texts=layout.texts, numbers=layout.numbers))
        names = [str(path) for path in paths]
        first = names.index(str(cursor["file"])) if cursor else 0
        for path in paths[first:]:
            position = None
            if cursor and str(path) == cursor["file"]:
                position = Position(offset=int(cursor["offset"]), line=int(cursor["line"]))
            before = path.stat()
            for batch, behind in rows_of(path, layout, position):
                named = batch.replace_schema_metadata({"file": str(path)})
                yield named, {"file": str(path), "offset": behind.offset, "line": behind.line}
            after = path.stat()
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise _changed(path)


class ImageFolder:
    """Images below a folder.

    Args:
        root: The folder.
        names: Image files and masks, relative to it.
    """

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root = root
        self.names = names

    def facts(self, location: str) -> SourceFacts:
        """Read every file once to fingerprint names and contents."""
        return SourceFacts(
            fingerprint=fingerprint(self.root, self.names),
            location=location,
            bytes=sum((self.root / name).stat().st_size for name in self.names),
            licence=_licence(self.root),
        )

    def batches(self, cursor: JsonObject | None) -> Iterator[tuple[Any, JsonObject]]:
        """Yield the images in the order of their names."""
        # Imported when images are read; a fingerprint does not need it.
        reader: Any = importlib.import_module("genba.data.sources.imagefiles")
        wanted, layout = reader.from_folder(self.root, self.names)
        yield from reader.batches(self.root, wanted, layout, cursor)


def images_of(root: Path, data: Data) -> ImageFolder | None:
    """Return the images of a folder, of a pattern or the one file; None where there are tables."""
    found = _matches(root)
    if not are_images(found, data):
        return None
    if root.is_dir():
        return ImageFolder(root, list(image_names(root)))
    plain = Path(*itertools.takewhile(lambda part: not _WILD.search(part), root.parts))
    base = plain if plain.is_dir() else plain.parent
    names = [path.relative_to(base).as_posix() for path in found if is_image(path)]
    for path in found:
        if path.is_dir():
            prefix = path.relative_to(base)
            names += [(prefix / name).as_posix() for name in image_names(path)]
    return ImageFolder(base, sorted(names))


def _licence(root: Path) -> str:
    """Say where a folder states its licence."""
    named = sorted(path.name for path in root.glob("[Ll][Ii][Cc][Ee][Nn][CScs][Ee]*"))
    return f"see {named[0]}" if named else "not stated"


def _matches(root: Path) -> list[Path]:
    """Return the file itself, the files of a directory or those that match, sorted by name."""
    if root.is_file():
        return [root]
    if root.is_dir():
        return sorted(root.iterdir())
    plain = list(itertools.takewhile(lambda part: not _WILD.search(part), root.parts))
    pattern = root.parts[len(plain) :]
    return sorted(Path(*plain).glob("/".join(pattern))) if pattern else []


def _format(path: Path) -> Format:
    with _open(path) as file:
        head = file.read(4096)
    names = path.name.lower().removesuffix(".gz")
    if head.startswith(b"PAR1") or names.endswith(_PARQUET):
        return "parquet"
    return "json" if names.endswith(_JSON) or head.lstrip().startswith(b"{") else "delimited"


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == _GZIP
            plain.seek(0)
            yield cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if packed else plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Problem(
            "G203",
            f"{path.name} is damaged and cannot be unpacked.",
            where=str(path),
            why=str(error),
            tries=[f"gzip -t {path}", "copy or export the file again"],
        ) from error
    except PermissionError as error:
        raise Problem(
            "G201",
            f"{path.name} may not be read.",
            where=str(path),
            why=f"{error.strerror}.",
            tries=[f"ls -l {path}", f"chmod u+r {path}"],
        ) from error


@contextmanager
def _located(path: Path) -> Iterator[None]:
    """Name the file in errors with its folder, so that what is suggested can be typed.

    Rows and sheets keep the bare name: a dataset does not depend on where its files lie.
    """

    def full(text: str) -> str:
        return text if str(path) in text else text.replace(path.name, str(path))

    try:
        yield
    except Problem as problem:
        tries = [full(text) for text in problem.tries]
        where = full(problem.where)
        raise Problem(
            problem.code, problem.what, where=where, why=problem.why, tries=tries
        ) from problem


def layout_of(path: Path, wanted: Wanted) -> Layout:
    """Return the columns to read from a table.

    Raises:
        Problem: G202 to G206.
    """
    kind = _format(path)
    reader: Any = importlib.import_module(_READERS[kind])
    if kind == "parquet":
        return cast(Layout, reader.layout(path, wanted))
    with _open(path) as file, _located(path):
        return cast(Layout, reader.layout(file.read(HEAD_BYTES), path.name, wanted))


def rows_of(
    path: Path, layout: Layout, position: Position | None
) -> Iterator[tuple[Any, Position]]:
    """Yield the rows of a table as batches, each with the position behind it.

    Raises:
        Problem: G202 to G206.
    """
    kind = _format(path)
    reader: Any = importlib.import_module(_READERS[kind])
    if kind == "parquet":
        yield from reader.read(path, layout, position)
        return
    with _open(path) as file, _located(path):
        yield from reader.read(file, path.name, layout, position)


def _changed(path: Path) -> Problem:
    return Problem(
        "G213",
        f"{path.name} changed while it was read.",
        where=str(path),
        why="Something is still writing to it, so what was read may be half of it.",
        tries=[f"cp {path} snapshot{path.suffix}", "run again when the file is complete"],
    )
