"""From the batches of a source to checked rows, one batch at a time."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from genba.core.line import Data
from genba.core.problem import Problem
from genba.data import checks
from genba.data.clock import Clock, moment
from genba.data.formats.batch import DETAIL, LINE, REASON, to_numbers
from genba.data.roles import ONLY_ENTITY, Roles, settle

#: More entities than this are taken for a mistake: a column of row ids, say.
MOST_ENTITIES: Final = 100_000
BEFORE_SINCE: Final = "before since"
FROM_UNTIL: Final = "from until on"
OTHER_ENTITY: Final = "other entity"


class Intake:
    """Gives every row its meaning, its number and, if it fails, its reason.

    `take` returns good rows as `code` (int32, index into `entities`), `time` (ms, count or row),
    `row`, the numbers, `label` and the words; bad ones as `row`, `file`, `line`, `reason`,
    `detail` and `values`.

    Args:
        data: The `[data]` table of the line.
    """

    def __init__(self, data: Data) -> None:
        self.data = data
        self.entities: list[str] = []
        self.read = 0
        self.out_of_order = 0
        self.skipped: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.clock = Clock(data.time) if data.time else None
        self.files: list[dict[str, Any]] = []
        self._roles: Roles | None = None
        self._rules: tuple[checks.Rule, ...] = ()
        self._since = moment(data.since, "data.since") if data.since else None
        self._until = moment(data.until, "data.until") if data.until else None
        self._codes: dict[str, int] = {}
        if not data.time and (data.since or data.until):
            raise _no_moments("Without one it is not known which rows are before or after.")
        self._latest = np.empty(0, dtype=np.int64)  # newest time of each entity so far

    @property
    def roles(self) -> Roles:
        """The roles of the columns, known after the first batch."""
        assert self._roles is not None
        return self._roles

    @property
    def started(self) -> bool:
        """Whether there was a batch."""
        return self._roles is not None

    def take(self, batch: pa.RecordBatch) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the good and the bad rows of a batch.

        Raises:
            Problem: G204, G205, G207, G212 or G215 when the columns cannot be what the line says.
        """
        if self._roles is None:
            self._roles = settle(self.data, batch.schema)
            self._rules = checks.rules(self._roles, self.data.checks)
        file = (batch.schema.metadata or {}).get(b"file", b"").decode()
        frame = self._meaning(_with_own(pl.DataFrame(batch)), file)
        frame = self._without_skipped(frame)
        frame = checks.apply(frame, self._rules)
        good = frame.filter(pl.col(REASON).is_null())
        bad = (
            frame.filter(pl.col(REASON).is_not_null()) if len(good) < len(frame) else frame.clear()
        )
        self._count_rejected(bad)
        return self._coded(good), _rejects(bad, file)

    def _meaning(self, frame: pl.DataFrame, file: str) -> pl.DataFrame:
        """Add `row`, `time`, `entity` and `label`, and turn sensors into numbers."""
        roles, count = self.roles, frame.height
        if not self.files or self.files[-1]["file"] != file:
            self.files.append({"file": file, "first_row": self.read, "rows": 0})
        self.files[-1]["rows"] += count
        frame = _numeric(frame, roles.numbers)
        if roles.label:
            frame = checks.labels(frame, roles.label)
        else:
            frame = frame.with_columns(pl.lit(None, dtype=pl.Float64).alias("label"))
        row = pl.int_range(self.read, self.read + count, dtype=pl.Int64).alias("row")
        self.read += count
        entity = pl.col(roles.entity).cast(pl.String) if roles.entity else pl.lit(ONLY_ENTITY)
        frame = frame.with_columns(row, entity.alias("entity"))
        time = self._time(frame)
        frame = frame.with_columns(time.alias("time"))
        structural = (
            pl.when(pl.col(REASON).is_not_null())
            .then(pl.col(REASON))
            .when(pl.col("time").is_null())
            .then(pl.lit(checks.NO_TIME))
            .when(pl.col("entity").is_null())
            .then(pl.lit(checks.NO_ENTITY))
        )
        return frame.with_columns(structural.alias(REASON))

    def _time(self, frame: pl.DataFrame) -> pl.Series:
        """Return the time of each row: ms since 1970, a count, or the row's number."""
        if self.clock is None:
            return frame["row"]
        time = self.clock.read(frame[self.clock.column])
        if self.clock.counts and (self.data.since or self.data.until):
            raise _no_moments(f"The column {self.clock.column!r} counts; it holds no times.")
        return time

    def _without_skipped(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Leave out the rows that the line does not ask for; they are counted, not rejected."""
        wanted = self.data.entities
        tests = [
            (BEFORE_SINCE, pl.col("time") < self._since if self._since is not None else None),
            (FROM_UNTIL, pl.col("time") >= self._until if self._until is not None else None),
            (OTHER_ENTITY, ~pl.col("entity").is_in(list(wanted)) if wanted else None),
        ]
        for reason, test in tests:
            if test is None:
                continue
            before = frame.height
            frame = frame.filter(~test.fill_null(False))
            self.skipped[reason] += before - frame.height
        return frame

    def _count_rejected(self, bad: pl.DataFrame) -> None:
        if bad.height:
            for reason, count in bad[REASON].value_counts().iter_rows():
                self.rejected[reason] += count

    def _coded(self, good: pl.DataFrame) -> pl.DataFrame:
        """Replace the entity by its code and count the times that go backwards."""
        names = good["entity"].unique(maintain_order=True)
        for name in names:
            self._codes.setdefault(name, len(self._codes))
        self.entities = list(self._codes)
        if len(self.entities) > MOST_ENTITIES:
            raise _too_many(self.roles.entity or "", len(self.entities))
        table = np.array([self._codes[name] for name in names], dtype=np.int32)
        physical = good["entity"].cast(pl.Enum(names)).to_physical().to_numpy()
        code = table[physical] if len(table) else np.empty(0, dtype=np.int32)
        if self.clock:
            self._count_backwards(code, good["time"].to_numpy())
        roles = self.roles
        columns = ("time", "row", *roles.numbers, "label", *roles.words)
        return good.select(pl.Series("code", code, dtype=pl.Int32), *columns)

    def _count_backwards(self, code: npt.NDArray[np.int32], time: npt.NDArray[np.int64]) -> None:
        """Count rows that are older than a row of the same entity before them in the source."""
        fresh = len(self.entities) - len(self._latest)
        never = np.full(fresh, np.iinfo(np.int64).min, dtype=np.int64)
        self._latest = np.concatenate([self._latest, never])
        order = np.argsort(code, kind="stable")
        ordered, owner = time[order], code[order]
        if not len(owner):
            return
        begins = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]]).tolist()
        for begin, end in zip(begins, [*begins[1:], len(owner)], strict=True):
            mine = ordered[begin:end]
            newest = np.maximum.accumulate(np.r_[self._latest[owner[begin]], mine])
            self.out_of_order += int(np.count_nonzero(mine < newest[:-1]))
            self._latest[owner[begin]] = newest[-1]


def _no_moments(why: str) -> Problem:
    return Problem(
        "G217",
        "data.since and data.until need a time column.",
        where="data.time",
        why=why,
        tries=['time = "the column with the times"', "remove since and until from [data]"],
    )


def _with_own(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the readers' own columns where a source does not have them."""
    kinds: Mapping[str, Any] = {LINE: pl.Int64, REASON: pl.String, DETAIL: pl.String}
    missing = [
        pl.lit(None, dtype=kind).alias(n) for n, kind in kinds.items() if n not in frame.columns
    ]
    return frame.with_columns(missing) if missing else frame


def _numeric(frame: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """Turn columns into float64 with null for missing."""
    frame = to_numbers(frame, names)
    wrong = [name for name in names if not _is_number(frame.schema[name])]
    if wrong:
        raise Problem(
            "G205",
            f"The column {wrong[0]!r} holds {frame.schema[wrong[0]]}, not numbers.",
            where=wrong[0],
            why="A sensor is a number, true or false.",
            tries=[f"remove {wrong[0]} from data.inputs", "convert the column to numbers"],
        )
    return frame.with_columns(pl.col(n).cast(pl.Float64).fill_nan(None) for n in names)


def _is_number(kind: pl.DataType) -> bool:
    return kind.is_numeric() or kind in (pl.Boolean, pl.Null)


def _rejects(bad: pl.DataFrame, file: str) -> pl.DataFrame:
    """Return rejected rows as they are kept: where they were, why, and what they held."""
    hidden = (LINE, REASON, DETAIL, "row", "entity", "time", "label")
    held = [name for name in bad.columns if name not in hidden]
    return bad.select(
        "row",
        pl.lit(file).alias("file"),
        pl.col(LINE).alias("line"),
        pl.col(REASON).alias("reason"),
        pl.col(DETAIL).alias("detail"),
        pl.struct(held).struct.json_encode().alias("values"),
    )


def _too_many(column: str, count: int) -> Problem:
    return Problem(
        "G212",
        f"The entity column {column!r} has more than {MOST_ENTITIES:,} values.",
        where="data.entity",
        why=f"{count:,} so far: it looks like a number of the row, not the name of a machine.",
        tries=['entity = "the column that names the machine"', "remove entity from [data]"],
    )
