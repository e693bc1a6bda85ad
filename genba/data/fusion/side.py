"""A joined source: opened, read, cleaned, sorted onto disk."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from genba.core.joins import Joined, clock_of
from genba.core.line import Data, Join
from genba.core.problem import Problem
from genba.core.protocols import Source
from genba.data.clock import Clock
from genba.data.formats.batch import OWN, REASON, to_numbers
from genba.data.fusion.pieces import Pieces
from genba.data.roles import is_answer
from genba.data.spill import Spill
from genba.runs.progress import Progress

PIECE_ROWS: Final = 65_536
_NO_COLUMN: Final = "G204"
_SEVERAL: Final = 0.1  # of rows that repeat a moment with other values: it has several machines

Open = Callable[[str, Data], Source]


@dataclass(kw_only=True, slots=True)
class Side:
    """One source of `[data.join]` and what became of reading it."""

    name: str
    join: Join
    asked: tuple[Joined, ...]  # () = every numeric column
    data: Data  # of the line
    offset_ms: int = 0
    by_machine: bool = False
    read: int = 0
    unreadable: int = 0  # rows without a time, a machine or a number
    machines: dict[str, int] = field(default_factory=dict)
    clock: Clock | None = None
    pieces: Pieces | None = None

    @property
    def within_ms(self) -> int:
        """The tolerance."""
        return round(self.join.within_s * 1000)

    @property
    def place(self) -> str:
        """Where it stands in the line file."""
        return f"data.join.{self.name}"

    def build(self, open_source: Open, folder: Path, progress: Progress) -> Pieces:
        """Read the source and sort it; what was found out about it is kept here.

        Raises:
            Problem: G2xx as the source raises them, G221 where its clock cannot be read, G224
                where it seems to hold several machines and does not say which row is whose.
        """
        batches, time = self._batches(open_source)
        self.clock = Clock(time)
        folder.mkdir(parents=True, exist_ok=True)
        with Spill(folder) as spill:
            for batch in batches:
                spill.add(self._cleaned(pl.DataFrame(batch)))
                progress.step(f"rows of {self.name} read", self.read)
            pieces = Pieces(folder, tuple(dict.fromkeys(j.column for j in self.asked)))
            pieces.build(spill, max(1, len(self.machines)), PIECE_ROWS)
        if not pieces.rows:
            raise self._empty()
        if not self.by_machine and self.data.entity and pieces.different > _SEVERAL * pieces.rows:
            raise self._several(pieces)
        self.pieces = pieces
        return pieces

    def _batches(self, open_source: Open) -> tuple[Iterator[pa.RecordBatch], str]:
        """Open it with the line's machine column where it has one, else for every machine."""
        time, self.offset_ms = clock_of(self.join.time or self.data.time or "")
        columns = tuple(dict.fromkeys(joined.column for joined in self.asked))
        problem: Problem | None = None
        for entity in dict.fromkeys((self.data.entity, None)):
            data = Data(source=self.join.source, time=time, entity=entity, inputs=columns)
            try:
                batches = (b for b, _ in open_source(self.join.source, data).batches())
                first = next(batches, None)
            except Problem as found:
                if found.code != _NO_COLUMN:
                    raise
                problem = problem or found
                continue
            if first is None:
                raise self._empty()
            missing = [n for n in (time, entity, *columns) if n and n not in first.schema.names]
            if entity in missing:
                continue
            if missing:
                raise self._no_column(missing[0], first.schema.names)
            self.by_machine = entity is not None
            self._settle(first, time)
            return itertools.chain([first], batches), time
        assert problem is not None
        raise self._located(problem, time)

    def _settle(self, first: pa.RecordBatch, time: str) -> None:
        """Take every numeric column where the line names none."""
        if self.asked:
            return
        aside = {time, self.data.entity, *OWN}
        self.asked = tuple(
            Joined(name=f"{self.name}.{field.name}", column=field.name, method="last")
            for field in first.schema
            if field.name not in aside and _is_number(field.type) and not is_answer(field.name)
        )
        if not self.asked:
            raise self._no_column("", first.schema.names)

    def _cleaned(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return time, code, row and the columns; rows without a time or machine are counted."""
        assert self.clock is not None
        columns = list(dict.fromkeys(joined.column for joined in self.asked))
        if REASON not in frame.columns:
            frame = frame.with_columns(
                pl.lit(None, dtype=pl.String).alias(n) for n in ("_reason", "_detail")
            )
        try:
            time = self.clock.read(frame[self.clock.column]) - self.offset_ms
        except Problem as problem:
            raise self._located(problem, self.clock.column) from problem
        if self.clock.counts:
            raise self._counts()
        frame = to_numbers(frame, columns)
        row = pl.int_range(self.read, self.read + frame.height, dtype=pl.Int64).alias("_row")
        self.read += frame.height
        frame = frame.with_columns(time.alias("_time"), row, self._codes(frame))
        kept = frame.filter(
            pl.col("_time").is_not_null() & pl.col("_code").is_not_null() & pl.col(REASON).is_null()
        )
        self.unreadable += frame.height - kept.height
        return kept.select(
            pl.col("_time").alias("time"),
            pl.col("_code").alias("code"),
            pl.col("_row").alias("row"),
            *(pl.col(name).cast(pl.Float64).fill_nan(None) for name in columns),
        )

    def _codes(self, frame: pl.DataFrame) -> pl.Series:
        if not self.by_machine:
            return pl.Series("_code", np.zeros(frame.height, dtype=np.int64))
        names = frame[str(self.data.entity)].cast(pl.String)
        for name in names.unique(maintain_order=True).drop_nulls():
            self.machines.setdefault(name, len(self.machines))
        return code_of(names, self.machines).alias("_code")

    def _located(self, problem: Problem, time: str) -> Problem:
        """The same problem, in the terms of the line file."""
        tries = [
            f'{self.name} = {{ source = "{self.join.source}", time = "COLUMN", '
            f"within_s = {self.join.within_s:g} }}",
            "genba explain G221",
        ]
        what = f"The joined source {self.name!r} cannot be read by time. {problem.what}"
        why = f"{problem.why} Its time column is taken to be {time!r}.".strip()
        return Problem("G221", what, where=self.place, why=why, tries=tries)

    def _counts(self) -> Problem:
        assert self.clock is not None
        return Problem(
            "G221",
            f"The column {self.clock.column!r} of the joined source {self.name!r} counts; it holds "
            "no times.",
            where=self.place,
            why="Rows are joined by time; counts of two sources do not mean the same moment.",
            tries=['time = "the column with the times"', "genba explain G221"],
        )

    def _no_column(self, name: str, present: Sequence[str]) -> Problem:
        shown = ", ".join(n for n in present if n not in OWN)
        what = f"has no column {name!r}" if name else "has no numeric column"
        return Problem(
            "G221",
            f"The joined source {self.name!r} {what}.",
            where=self.place,
            why=f"Its columns are: {shown}.",
            tries=['time = "COLUMN"', f'inputs = ["{self.name}.COLUMN"]', "genba explain G221"],
        )

    def _empty(self) -> Problem:
        return Problem(
            "G202",
            f"The joined source {self.name!r} ({self.join.source}) has no rows that can be read.",
            where=self.place,
            why=f"{self.read:,} rows were there; {self.unreadable:,} have no time, no machine or "
            "no number.",
            tries=[f"remove {self.name} from [data.join]", "export it again"],
        )

    def _several(self, pieces: Pieces) -> Problem:
        share = pieces.different / (pieces.rows + pieces.duplicates)
        return Problem(
            "G224",
            f"The joined source {self.name!r} seems to hold several machines, and has no column "
            f"{self.data.entity!r} to tell them apart.",
            where=self.place,
            why=f"{pieces.different:,} of its rows ({share:.0%}) are of a moment that an earlier "
            "row has, with other values.",
            tries=[
                f"rename the column that names the machine to {self.data.entity}",
                "export one file per machine",
                "genba explain G224",
            ],
        )


def code_of(names: pl.Series, machines: dict[str, int]) -> pl.Series:
    """Return the number of each machine, null for one that is not known."""
    return names.replace_strict(machines, default=None, return_dtype=pl.Int64)


def _is_number(kind: Any) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(test(kind) for test in tests)
