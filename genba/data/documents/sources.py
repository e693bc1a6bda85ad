"""Where documents come from: files and folders on this machine, and packages of Debian."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from genba.core.codec import decode, nearest
from genba.core.digest import digest_file, digest_json
from genba.core.problem import Problem
from genba.data.sources import deb
from genba.data.sources.cache import PackageFile
from genba.runs.progress import Progress, SilentProgress

#: How a file is read, by the end of its name: an entry of the catalog, kind "document".
FORMATS: Final = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".pdf": "pdf",
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
}
_TABLE: Final = Path(__file__).with_name("packaged.toml")
_MOST_BYTES: Final = 64 << 20  # of a document
_WILD: Final = re.compile(r"[*?[]")
_MS: Final = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A document as a file."""

    name: str  # within its source
    data: bytes
    changed_ms: int | None  # when, ms since 1970 UTC

    @property
    def format(self) -> str:
        """How it is read."""
        return FORMATS[Path(self.name).suffix.lower()]


class DocumentSource(Protocol):
    """A place documents come from."""

    address: str  # as it was written
    licence: str
    attribution: str

    def documents(self) -> Iterator[Found]:
        """Yield the documents in the order of their names.

        Raises:
            Problem: G652 when there is none, G902 or G222 for a package that cannot be had.
        """
        ...

    def fingerprint(self) -> str:
        """Return a digest that changes when a document does; raises as `documents`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PackagedDocuments:
    """One entry of `packaged.toml`."""

    requirement: str
    file: str
    sha256: str
    bytes: int
    pool: str  # path on a mirror of Debian
    folder: str  # in the package; documents are what lies below it
    about: str
    licence: str
    attribution: str


@cache
def packaged_documents() -> dict[str, PackagedDocuments]:
    """Return every package with documents by name.

    Example:
        >>> sorted(packaged_documents())
        ['debian-faq', 'nut-doc']
    """
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: decode(PackagedDocuments, entry, where=name) for name, entry in table.items()}


class FolderOfDocuments:
    """The documents of `files:PATH`: a file, a folder with those below it, or a pattern.

    Hidden files, links and files of other kinds are left aside.
    """

    licence = "not stated"
    attribution = ""

    def __init__(self, path: str) -> None:
        self.address = f"files:{path}"
        self._path = path

    def documents(self) -> Iterator[Found]:
        """Yield the documents in the order of their names; too large ones are refused by name."""
        root, paths = self._paths()
        for path in paths:
            status = path.stat()
            if status.st_size > _MOST_BYTES:
                raise Problem(
                    "G652",
                    f"{path.name} has {status.st_size >> 20} MiB; a document has up to "
                    f"{_MOST_BYTES >> 20}.",
                    where=str(path),
                    tries=["split the file", "genba explain G652"],
                )
            yield Found(
                name=path.relative_to(root).as_posix(),
                data=path.read_bytes(),
                changed_ms=status.st_mtime_ns // 1_000_000,
            )

    def fingerprint(self) -> str:
        """Return the digest of names and contents."""
        root, paths = self._paths()
        return digest_json([[p.relative_to(root).as_posix(), digest_file(p)] for p in paths])

    def _paths(self) -> tuple[Path, list[Path]]:
        """Return the folder that names are relative to, and the documents."""
        given = Path(self._path).expanduser()
        plain = Path(*itertools.takewhile(lambda part: not _WILD.search(part), given.parts))
        pattern = given.parts[len(plain.parts) :]
        root = plain if plain.is_dir() else plain.parent
        every = plain.glob("/".join(pattern)) if pattern else _below(plain)
        found = sorted(p for p in every if _is_document(p, root))
        if not found:
            raise Problem(
                "G652",
                f"There is no document in {self._path}.",
                where=self.address,
                why=f"Documents end with {', '.join(FORMATS)}; it is looked for from {Path.cwd()}.",
                tries=[f"ls {self._path}", "genba explain G652"],
            )
        return root, found


class PackageOfDocuments:
    """The documents of `package:NAME`, downloaded once and checked; see `packaged.toml`."""

    def __init__(self, name: str, progress: Progress | None = None) -> None:
        known = packaged_documents()
        if name not in known:
            near = nearest(name, list(known)) or next(iter(known))
            raise Problem(
                "G652",
                f"There is no packaged documentation {name!r}; did you mean {near!r}?",
                where=f"package:{name}",
                why=f"Known: {', '.join(f'{n} ({p.about})' for n, p in known.items())}.",
                tries=[f"genba documents add LINE package:{near}", "genba explain G652"],
            )
        self.address = f"package:{name}"
        self._entry = known[name]
        self.licence = self._entry.licence
        self.attribution = self._entry.attribution
        self._progress = progress or SilentProgress()

    def documents(self) -> Iterator[Found]:
        """Yield the documents in the order of their names."""
        entry = self._entry
        pinned = PackageFile(
            requirement=entry.requirement, file=entry.file, sha256=entry.sha256, bytes=entry.bytes
        )
        path = deb.fetch(pinned, entry.pool, self._progress)
        for name, data, changed_s in deb.below(path, entry.folder):
            if Path(name).suffix.lower() in FORMATS and len(data) <= _MOST_BYTES:
                yield Found(name=name, data=data, changed_ms=changed_s * _MS)

    def fingerprint(self) -> str:
        """Return the digest that the package is pinned by; nothing is downloaded for it."""
        return digest_json([self._entry.sha256, self._entry.folder])


def open_source(address: str, progress: Progress | None = None) -> DocumentSource:
    """Return the source of an address such as `files:manuals` or `package:nut-doc`.

    Raises:
        Problem: G652 when it is no address of documents.

    Example:
        >>> open_source("package:nut-doc").licence
        'GPL-2.0-or-later'
    """
    kind, _, rest = address.partition(":")
    if kind == "package" and rest:
        return PackageOfDocuments(rest, progress)
    if kind == "files" and rest:
        return FolderOfDocuments(rest)
    raise Problem(
        "G652",
        f"{address!r} is no place of documents.",
        where="documents",
        why="It is files:PATH (a file, a folder or a pattern) or package:NAME.",
        tries=[f"genba documents add LINE files:{address}", "genba explain G652"],
    )


def _below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from path.rglob("*")


def _is_document(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return (
        path.suffix.lower() in FORMATS and path.is_file() and not path.is_symlink() and not hidden
    )
