"""A line's source with others joined to it by time. Nothing heavy is imported for a fingerprint."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from genba.core.digest import digest_json
from genba.core.joins import joined_of
from genba.core.line import Data
from genba.core.protocols import JsonObject, Source, SourceFacts
from genba.runs.progress import Progress, SilentProgress


@runtime_checkable
class Aligns(Protocol):
    """A source that joins others, and says how well they aligned once it is read."""

    scratch: Path | None  # folder for what must be sorted

    def alignment(self) -> dict[str, Any]:
        """Return the counts by joined source."""
        ...


class Aligned:
    """A source whose rows carry the columns of others; see `genba.data.fusion`.

    Args:
        base: The source of the rows.
        data: The `[data]` table of the line.
        open_source: Opens a joined source by its address.
        progress: Who is told.
    """

    def __init__(
        self,
        base: Source,
        data: Data,
        open_source: Callable[[str, Data], Source],
        progress: Progress | None = None,
    ) -> None:
        self.scratch: Path | None = None
        self._base, self._data, self._open = base, data, open_source
        self._progress = progress or SilentProgress()
        self._reading: Any = None

    def facts(self) -> SourceFacts:
        """Describe the rows' source; the fingerprint is of all sources."""
        facts = self._base.facts()
        joined = {
            name: self._open(join.source, Data(source=join.source)).facts()
            for name, join in self._data.join.items()
        }
        told = [facts, *joined.values()]
        return replace(
            facts,
            fingerprint=digest_json(
                [facts.fingerprint, {name: f.fingerprint for name, f in joined.items()}]
            ),
            bytes=sum(f.bytes for f in told),
            licence="; ".join(dict.fromkeys(f.licence for f in told)),
            attribution="; ".join(dict.fromkeys(f.attribution for f in told if f.attribution)),
            generated=any(f.generated for f in told),
        )

    def batches(self, cursor: JsonObject | None = None) -> Iterator[tuple[Any, JsonObject]]:
        """Yield (Arrow record batch, cursor behind it); the cursor is that of the rows' source."""
        # Imported when rows are read.
        reader: Any = importlib.import_module("genba.data.fusion.reading")
        self._reading = reader.Reading(
            self._base, self._data, self._open, self.scratch, self._progress
        )
        yield from self._reading.batches(cursor)

    def alignment(self) -> dict[str, Any]:
        """Return how well each joined source aligned in the last reading; {} before one."""
        return dict(self._reading.summary()) if self._reading else {}

    def sentences(self) -> list[str]:
        """Say the same in a line per joined source."""
        return list(self._reading.sentences()) if self._reading else []


def without_joined(data: Data) -> Data:
    """Return the `[data]` table as the rows' own source must see it."""
    return replace(
        data,
        join={},
        inputs=tuple(n for n in data.inputs if not joined_of(n, data.join)),
        known=tuple(n for n in data.known if not joined_of(n, data.join)),
        checks={n: check for n, check in data.checks.items() if not joined_of(n, data.join)},
    )
