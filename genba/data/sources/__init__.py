"""Places rows come from, one file each; `genba.catalog.SOURCES` names them."""

from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

from genba.catalog import READS
from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.core.protocols import Source
from genba.core.resolve import address, resolve
from genba.data.sources.aligned import Aligned, without_joined
from genba.runs.progress import Progress


@runtime_checkable
class ReportsProgress(Protocol):
    """A source that takes a while before the first row, and says how far it is."""

    progress: Progress


@runtime_checkable
class ReadsModality(Protocol):
    """A source that reads the same files in another way for another kind of data."""

    modality: str


class StoppableProgress:
    """Passes everything on, and asks at every step whether the work may go on.

    Args:
        progress: Who is told.
        check: Raises when the work is to stop, as `Effort.check` does.
    """

    def __init__(self, progress: Progress, check: Callable[[], None]) -> None:
        self._progress = progress
        self._check = check

    def stage(self, name: str) -> None:
        """Pass it on."""
        self._progress.stage(name)

    def step(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Pass it on, if the work may go on."""
        self._check()
        self._progress.step(text, done, total)

    def note(self, text: str) -> None:
        """Pass it on."""
        self._progress.note(text)

    def close(self) -> None:
        """Leave it open; it belongs to the run."""


def source_of(
    line: Line, progress: Progress | None = None, check: Callable[[], None] | None = None
) -> Source:
    """Return the source a line names.

    Args:
        line: The line.
        progress: Who is told how far a download is.
        check: Raises when the work is to stop; asked while a download is going on.

    Raises:
        Problem: G105 when there is no such kind of source, G103 when it names none.
    """
    kind, colon, place = line.data.source.partition(":")
    if not colon or not place:
        raise Problem(
            "G103",
            f"data.source must be a kind and an address, not {line.data.source!r}.",
            where="data.source",
            tries=['source = "files:data/*.csv"', 'source = "package:la-haute-borne"'],
        )
    data = without_joined(line.data) if line.data.join else line.data
    source = cast(Source, resolve("source", kind)(place, data))
    if isinstance(source, ReadsModality):
        source.modality = _modality(line.task)
    if progress is not None and isinstance(source, ReportsProgress):
        source.progress = StoppableProgress(progress, check) if check else progress
    return _aligned(source, line, progress, check) if line.data.join else source


def _aligned(
    source: Source,
    line: Line,
    progress: Progress | None,
    check: Callable[[], None] | None,
) -> Aligned:
    """Return a source with those of `[data.join]` joined to it."""
    if _modality(line.task):
        raise Problem(
            "G218",
            f"Only tables are joined by time; {line.task} reads something else.",
            where="data.join",
            tries=["remove [data.join]", "genba explain G218"],
        )
    told = StoppableProgress(progress, check) if progress and check else progress

    def opened(address: str, data: Data) -> Source:
        kind, _, place = address.partition(":")
        found = cast(Source, resolve("source", kind)(place, data))
        if told is not None and isinstance(found, ReportsProgress):
            found.progress = told
        return found

    return Aligned(source, line.data, opened, told)


def _modality(task: str) -> str:
    """Return what a task reads; Genba's own tasks are not imported for a fingerprint."""
    if task in READS or address("task", task).startswith("genba."):
        return READS.get(task, "")
    return str(resolve("task", task).modality)
