"""Sort by time more rows than fit in memory: sorted runs on disk, merged piece by piece.

Rows that fit in one run never touch the disk. Otherwise each run is written in the order of time
as small Arrow batches, and merging reads only the batches that the next piece needs. A source
that is nearly in order needs little more than one piece in memory; one that is fully shuffled
needs `_BATCH_ROWS` rows more per run of `RUN_ROWS` rows, 1/128 of it.
"""

import heapq
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

RUN_ROWS: Final = 524_288
PIECE_ROWS: Final = 262_144
_BATCH_ROWS: Final = 4_096
_RUN_SAMPLE: Final = 4_096  # times of each run on disk that are kept in memory
_PREFIX: Final = "spill-"
_STALE_S: Final = 86_400.0
_END: Final = np.iinfo(np.int64).max

Times = npt.NDArray[np.int64]


class Spill:
    """Takes frames with a `time` column in any order, gives them back in the order of time.

    Use it as a context manager; what it wrote below `directory` is removed at the end.

    Args:
        directory: Where runs are written when one is not enough.
        run_rows: How many rows are held in memory before a run is written.

    Example:
        >>> with Spill(Path("/tmp")) as spill:
        ...     spill.add(pl.DataFrame({"time": [3, 1]}))
        ...     spill.add(pl.DataFrame({"time": [2]}))
        ...     [sorted(piece["time"]) for piece in spill.pieces(rows=2)]
        [[1, 2], [3]]
    """

    def __init__(self, directory: Path, *, run_rows: int = RUN_ROWS) -> None:
        self.rows = 0
        self.last = -_END  # newest time so far
        self.spilled_bytes = 0
        self._directory = directory
        self._scratch: Path | None = None
        self._run_rows = run_rows
        self._held: list[pl.DataFrame] = []
        self._held_rows = 0
        self._runs: list[tuple[Path, Times]] = []  # file, first time of each of its batches
        self._samples: list[tuple[Times, Times]] = []  # times, and how many rows each stands for

    def __enter__(self) -> Self:
        """Remove what processes that died left in the directory a day ago or longer."""
        before = time.time() - _STALE_S
        for left in self._directory.glob(f"{_PREFIX}*"):
            if left.stat().st_mtime < before:
                shutil.rmtree(left, ignore_errors=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def add(self, frame: pl.DataFrame) -> None:
        """Take the rows of a frame; every frame has the same columns."""
        if not frame.height:
            return
        self._held.append(frame)
        self._held_rows += frame.height
        self.rows += frame.height
        self.last = max(self.last, int(frame["time"].to_numpy().max()))
        if self._held_rows >= self._run_rows:
            self._write_run()

    def quantile(self, fraction: float, *, since: int | None = None) -> int:
        """Return the time below which about that share of the rows (from `since` on) lies.

        Exact while one run is enough; else within 1/4096 of each run.
        """
        times, rows = self._sampled(since)
        order = np.argsort(times, kind="stable")
        below = np.cumsum(rows[order])
        at = int(np.searchsorted(below, round(fraction * below[-1], 6), side="right"))
        return int(times[order][min(at, len(times) - 1)])

    def count(self, *, since: int) -> int:
        """Return about how many rows there are from a time on, as exact as `quantile`."""
        return int(self._sampled(since)[1].sum())

    def _sampled(self, since: int | None) -> tuple[Times, Times]:
        """Return times and how many rows each stands for."""
        held = [frame["time"].to_numpy() for frame in self._held]
        parts = [(times, np.ones(len(times), dtype=np.int64)) for times in held] + self._samples
        times, rows = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        chosen = times >= since if since is not None else slice(None)
        return times[chosen], rows[chosen]

    def pieces(
        self, *, rows: int = PIECE_ROWS, stops: Sequence[int] = ()
    ) -> Iterator[pl.DataFrame]:
        """Yield all rows in pieces that follow each other in time; a piece itself is not sorted.

        A piece ends when it has `rows` rows and never inside one moment, so that rows added later
        at the end do not change the pieces before. It also ends before each of `stops`.
        """
        pool = _Pool(rows, sorted(stops))
        for frame, frontier in self._ordered():
            yield from pool.add(frame, frontier)
        yield from pool.add(None, _END)

    def _write_run(self) -> None:
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._directory))
        frame = pl.concat(self._held).sort("time", maintain_order=True)
        self._held, self._held_rows = [], 0
        path = self._scratch / f"{len(self._runs)}.arrow"
        table = frame.to_arrow()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table.combine_chunks(), max_chunksize=_BATCH_ROWS)
        self.spilled_bytes += path.stat().st_size
        times = frame["time"].to_numpy()
        self._runs.append((path, times[::_BATCH_ROWS].copy()))
        every = -(-len(times) // _RUN_SAMPLE)
        starts = np.arange(0, len(times), every)
        self._samples.append((times[starts].copy(), np.diff(np.r_[starts, len(times)])))

    def _ordered(self) -> Iterator[tuple[pl.DataFrame, int]]:
        """Yield frames, each with a time that no later row lies before."""
        if not self._runs:
            for frame in self._held:
                yield frame, -_END
            return
        if self._held:
            self._write_run()
        heads = [(int(firsts[0]), number, 0) for number, (_, firsts) in enumerate(self._runs)]
        heapq.heapify(heads)
        opened: dict[int, Any] = {}
        while heads:
            _, number, batch = heapq.heappop(heads)
            path, firsts = self._runs[number]
            if number not in opened:
                opened[number] = pa.ipc.open_file(pa.OSFile(str(path), "rb"))
            frame = pl.DataFrame(opened[number].get_batch(batch))
            if batch + 1 < len(firsts):
                heapq.heappush(heads, (int(firsts[batch + 1]), number, batch + 1))
            else:
                del opened[number]
                path.unlink()
            yield frame, heads[0][0] if heads else _END


class _Pool:
    """Rows waiting to be cut into a piece."""

    def __init__(self, rows: int, stops: Sequence[int]) -> None:
        self._rows = rows
        self._stops = list(stops)
        self._frames: list[pl.DataFrame] = []
        self._height = 0
        self._look_at = rows  # rows in the pool at which cutting is tried again

    def add(self, frame: pl.DataFrame | None, frontier: int) -> Iterator[pl.DataFrame]:
        """Take a frame and yield the pieces all of whose rows lie below the frontier."""
        if frame is not None:
            self._frames.append(frame)
            self._height += frame.height
        if frontier == _END or (self._height >= self._look_at and frontier > -_END):
            yield from self._cut(frontier)
            self._look_at = max(self._rows, self._height + self._rows // 4)

    def _cut(self, frontier: int) -> Iterator[pl.DataFrame]:
        while self._height:
            whole = pl.concat(self._frames, rechunk=True)
            times = whole["time"].to_numpy()
            until = self._until(times, frontier)
            if until is None:
                self._frames = [whole]
                return
            piece = times < until
            kept = whole if piece.all() else whole.filter(pl.Series(piece))
            rest = whole.filter(pl.Series(~piece))
            self._frames, self._height = ([rest] if rest.height else []), rest.height
            yield kept

    def _until(self, times: Times, frontier: int) -> int | None:
        """Return where the next piece ends, None if that is not known yet."""
        first = int(times.min())
        while self._stops and self._stops[0] <= first:
            self._stops.pop(0)
        stop = self._stops[0] if self._stops else _END
        limit = min(stop, frontier)
        complete = times[times < limit]
        if len(complete) >= self._rows:
            return int(np.partition(complete, self._rows - 1)[self._rows - 1]) + 1
        return limit if limit in (stop, _END) else None
