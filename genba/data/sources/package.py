"""Data sets that come in packages of the Python registry; `packaged.toml` lists them."""

import importlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from genba.core.codec import decode, nearest
from genba.core.line import Data
from genba.core.problem import Problem
from genba.core.protocols import JsonObject, SourceFacts
from genba.data.sources import cache as downloads
from genba.data.sources.cache import PackageFile
from genba.data.sources.files import FileSource
from genba.runs.progress import Progress, SilentProgress

_TABLE: Final = Path(__file__).with_name("packaged.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """A column that another member of the package has, by time."""

    column: str
    member: str
    member_sha256: str
    time: str
    sum_of: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Packaged:
    """One data set of the table."""

    requirement: str
    file: str
    sha256: str
    bytes: int
    member: str
    member_sha256: str
    about: str
    licence: str
    attribution: str
    joined: Joined | None = None

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
        ['la-haute-borne', 'shuttle']
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
        entry, path = self.entry, self._member()
        return SourceFacts(
            fingerprint=entry.member_sha256,
            location=f"{entry.requirement} {entry.member}",
            bytes=path.stat().st_size,
            licence=entry.licence,
            attribution=entry.attribution,
        )

    def batches(self, cursor: JsonObject | None = None) -> Iterator[tuple[Any, JsonObject]]:
        """Yield (Arrow record batch, cursor behind it).

        A joined column is always there, and is no input unless the line says so.
        """
        path, joined = self._member(), self.entry.joined
        inner = None if cursor is None else {**cursor, "file": str(path)}
        name = f"{self.entry.requirement}!{self.entry.member}"
        lookup = self._lookup(joined) if joined else None
        for batch, behind in FileSource(str(path), self._own(joined)).batches(inner):
            metadata = {"file": name, "extras": joined.column if joined else ""}
            if joined and lookup and self.data.time:
                batch = lookup.added(batch, self.data.time, joined.column)
            yield batch.replace_schema_metadata(metadata), {**behind, "file": name}

    def _member(self) -> Path:
        entry = self.entry
        return downloads.member(entry.package, entry.member, entry.member_sha256, self.progress)

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
