"""The rows of a line's source with the columns of the joined sources put in, batch by batch."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from genba.core.joins import Joined, joined_of
from genba.core.line import Data
from genba.core.problem import Problem
from genba.core.protocols import JsonObject, Source
from genba.data.clock import Clock, moment
from genba.data.fusion.pieces import NEVER, Floats, Ints, Pieces
from genba.data.fusion.side import Open, Side, code_of
from genba.data.fusion.tally import TELL, Tally
from genba.runs.progress import Progress

_SCRATCH: Final = "join-"


class Reading:
    """One pass over a line's source and those joined to it.

    Args:
        base: The line's source.
        data: The `[data]` table of the line.
        open_source: Opens a joined source by its address.
        scratch: Folder for what is sorted; removed at the end. None: where the system wants it.
        progress: Who is told.
    """

    def __init__(
        self,
        base: Source,
        data: Data,
        open_source: Open,
        scratch: Path | None,
        progress: Progress,
    ) -> None:
        self._base, self._data, self._open = base, data, open_source
        self._scratch, self._progress = scratch, progress
        self._clock = Clock(str(data.time))
        self._since = moment(data.since, "data.since") if data.since else None
        self._until = moment(data.until, "data.until") if data.until else None
        self._tallies = [Tally(side) for side in sides(data)]

    def batches(self, cursor: JsonObject | None) -> Iterator[tuple[pa.RecordBatch, JsonObject]]:
        """Yield the batches of the line's source, joined; the cursor is that of the source.

        Raises:
            Problem: As the sources; G223 at the end where a source hardly aligned at all.
        """
        with ExitStack() as stack:
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self._scratch))
            )
            for tally in self._tallies:
                side = tally.side
                side.build(self._open, folder / side.name, self._progress)
            for batch, behind in self._base.batches(cursor):
                yield self._joined(batch), behind
        for tally in self._tallies:
            tally.check()
            if tally.found < TELL * tally.rows:
                self._progress.note(tally.sentence())

    def summary(self) -> dict[str, Any]:
        """Return how well each source aligned, for the dataset sheet."""
        return {t.side.name: t.summary() for t in self._tallies if t.side.pieces is not None}

    def sentences(self) -> list[str]:
        """Say the same in a line per source."""
        return [t.sentence() for t in self._tallies if t.side.pieces is not None]

    def _joined(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        frame = pl.DataFrame(batch)
        moments = self._clock.read(frame[self._clock.column])
        if self._clock.counts:
            raise _counts(self._clock.column)
        time = moments.fill_null(NEVER).to_numpy()
        entity = frame[self._data.entity].cast(pl.String) if self._data.entity else None
        asked = self._asked(moments, time, entity)
        for tally in self._tallies:
            side, pieces = tally.side, tally.side.pieces
            assert pieces is not None
            code = _codes(side, entity, len(time))
            found = pieces.find(code, time)
            values = _values(side, pieces, code, time, found)
            tally.add(time, code, asked, found, values)
            for joined, column in zip(side.asked, values.T, strict=True):
                if joined.name in batch.schema.names:
                    raise _taken(joined.name, side)
                batch = batch.append_column(joined.name, pa.array(column, from_pandas=True))
        return batch

    def _asked(
        self, moments: pl.Series, time: Ints, entity: pl.Series | None
    ) -> npt.NDArray[np.bool_]:
        """Say which rows the line asks for: only those are counted."""
        asked = moments.is_not_null().to_numpy()
        if self._since is not None:
            asked = asked & (time >= self._since)
        if self._until is not None:
            asked = asked & (time < self._until)
        if entity is not None and self._data.entities:
            asked = asked & entity.is_in(list(self._data.entities)).fill_null(False).to_numpy()
        return asked


def sides(data: Data) -> list[Side]:
    """Return the joined sources with the columns that the line asks of each."""
    wanted: dict[str, list[Joined]] = {name: [] for name in data.join}
    for name in dict.fromkeys((*data.inputs, *data.known, *data.checks)):
        if found := joined_of(name, data.join):
            wanted[found[0]].append(found[1])
    for name, columns in wanted.items():
        if data.inputs and not columns:
            raise _unused(name)
    return [
        Side(name=name, join=join, data=data, asked=tuple(wanted[name]) if data.inputs else ())
        for name, join in data.join.items()
    ]


def _codes(side: Side, entity: pl.Series | None, rows: int) -> Ints:
    if not side.by_machine or entity is None:
        return np.zeros(rows, dtype=np.int64)
    return code_of(entity, side.machines).fill_null(-1).to_numpy()


def _values(side: Side, pieces: Pieces, code: Ints, time: Ints, found: Any) -> Floats:
    """Return each asked column of each row: the last value, or the mean, within the tolerance."""
    place = {name: i for i, name in enumerate(pieces.columns)}
    means: Sequence[int] = [place[j.column] for j in side.asked if j.method == "mean"]
    mean = np.full(found.value.shape, np.nan)
    if means:
        before = pieces.find(code, time - side.within_ms)
        count = found.count - before.count
        total = found.sum - before.sum
        np.divide(total, count, out=mean, where=count > 0)
        mean += pieces.middle
    fresh = time[:, None] - found.seen <= side.within_ms
    last = np.where(fresh, found.value, np.nan)
    columns = [(mean if j.method == "mean" else last)[:, place[j.column]] for j in side.asked]
    return np.stack(columns, axis=1)


def _counts(column: str) -> Problem:
    return Problem(
        "G218",
        f"The column {column!r} counts; it holds no times, so no source can be joined by it.",
        where="data.time",
        tries=['time = "the column with the times"', "remove [data.join]"],
    )


def _taken(name: str, side: Side) -> Problem:
    return Problem(
        "G218",
        f"data.source has a column {name!r} of its own.",
        where=side.place,
        why="A joined column is named after its source, and both would have one name.",
        tries=["give the joined source another name", "genba explain G218"],
    )


def _unused(name: str) -> Problem:
    return Problem(
        "G218",
        f"No input comes from the joined source {name!r}.",
        where=f"data.join.{name}",
        why="The inputs that the line names are all it reads.",
        tries=[f'inputs = [..., "{name}.COLUMN"]', f"remove {name} from [data.join]"],
    )
