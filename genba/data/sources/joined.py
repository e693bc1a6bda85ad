"""A column of another file, added by time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from genba.core.line import Data
from genba.data.clock import Clock
from genba.data.sources.files import FileSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """A number for each moment."""

    times: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]

    @classmethod
    def read(cls, path: Path, time: str, sum_of: tuple[str, ...]) -> Self:
        """Read a file and add up some of its columns; the first row of a moment counts."""
        data = Data(source="", time=time, inputs=sum_of)
        batches = [batch for batch, _ in FileSource(str(path), data).batches()]
        frame = pl.DataFrame(pa.Table.from_batches(batches))
        moments = Clock(time).read(frame[time])
        found = frame.select(moments.alias("time"), pl.sum_horizontal(sum_of).alias("sum"))
        found = found.drop_nulls().unique("time", keep="first").sort("time")
        return cls(times=found["time"].to_numpy(), sums=found["sum"].to_numpy())

    def added(self, batch: pa.RecordBatch, time: str, column: str) -> pa.RecordBatch:
        """Return the batch with the number of each row's time, null where there is none."""
        frame = pl.DataFrame(batch)
        moments = Clock(time).read(frame[time]).fill_null(-1).to_numpy()
        at = np.minimum(np.searchsorted(self.times, moments), len(self.times) - 1)
        values = np.where(self.times[at] == moments, self.sums[at], np.nan)
        return batch.append_column(column, pa.array(values, from_pandas=True))
