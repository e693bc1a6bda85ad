"""The first pass over a source of texts: each one looked at, what is kept spilled to disk."""

from collections import Counter
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from genba.core.digest import canonical_json, digest_bytes
from genba.core.line import Line
from genba.core.problem import Problem
from genba.data.checks import NO_TIME
from genba.data.clock import Clock, moment
from genba.data.formats.batch import DETAIL, REASON
from genba.data.formats.texts import SCHEMA, conversation
from genba.data.intake import BEFORE_SINCE, FROM_UNTIL, OTHER_ENTITY
from genba.data.roles import ONLY_ENTITY
from genba.data.segments import REJECTS_SCHEMA, Rejects
from genba.data.texts.alike import Keys, Numbers
from genba.data.texts.curate import Curator
from genba.data.texts.pieces import TEXTS, TextSpill
from genba.data.texts.seen import Seen
from genba.data.texts.shingles import plain

DUPLICATE: Final = "duplicate"
NEAR: Final = "near-duplicate"
OTHER_CLASS: Final = "duplicate in another class"
_UNKNOWN: Final = -1
_SHOWN: Final = 300  # characters of a rejected text that are kept, so that people can judge
_TURNS: Final = 3  # messages by which conversations are compared
_CONTEXT: Final = 2_000  # characters of each
_STRONGER: Final = {"test": 3, "calibrate": 2, "train": 1, None: 0}


class Reading:
    """What is known of every text that was kept, in the order it was read.

    Args:
        line: What is wanted.
        spill: Where the texts go.
        rejects: Where the rejected ones go.
        first: Number of the first row.
    """

    things: Final = "texts"

    def __init__(self, line: Line, spill: TextSpill, rejects: Rejects, *, first: int) -> None:
        self.line = line
        self.first = first
        self.read = 0
        self.rejected: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.seen = Seen()
        self.classes: list[str] = []
        self.entities: list[str] = []
        self._classes, self._entities = _Names(self.classes), _Names(self.entities)
        self.digest: list[str] = []
        self.name: list[str] = []
        self.label: list[int] = []
        self.entity: list[int] = []
        self.time: list[int] = []
        self.row: list[int] = []
        self.weight: list[float] = []
        self.split: list[str | None] = []
        self.together: list[tuple[int, int]] = []
        self.curator = Curator(line)
        self._spill = spill
        self._rejects = rejects
        self._at: dict[str, int] = {}  # digest -> place
        self._groups: dict[str, int] = {}  # name of a group -> place of its first text
        self._clock = Clock(line.data.time) if line.data.time else None
        self._since = moment(line.data.since, "data.since") if line.data.since else None
        self._until = moment(line.data.until, "data.until") if line.data.until else None

    @property
    def kept(self) -> int:
        """How many texts were kept."""
        return len(self.digest)

    def take(self, batch: pa.RecordBatch) -> None:
        """Look at the texts of a batch.

        Raises:
            Problem: G250 when the source does not yield texts.
        """
        frame = self._wanted(self._numbered(batch))
        frame = self.curator.curate(frame)
        frame = frame.with_columns(digests(frame))
        frame = self._timed(frame)
        again = self._duplicates(frame)
        frame = frame.with_columns(
            pl.coalesce(REASON, pl.Series(again, dtype=pl.String)).alias(REASON)
        )
        self._reject(frame.filter(pl.col(REASON).is_not_null()))
        self._keep(frame.filter(pl.col(REASON).is_null()))

    def keys(self, spill: TextSpill) -> Keys:
        """Return what the texts that were kept are compared by."""
        tables = spill.read(np.arange(spill.rows, dtype=np.int64))
        return keys_of(pl.concat([pl.DataFrame(table) for table in tables]))

    def leave_out(self, spill: TextSpill, repeats: Numbers) -> None:
        """Reject what says nothing new; what it repeats is named.

        Args:
            spill: Where the texts are.
            repeats: Places of texts and of later ones that repeat them, [M, 2].
        """
        of = dict(zip(repeats[:, 1].tolist(), repeats[:, 0].tolist(), strict=True))
        at = 0
        places = np.array(sorted(of), dtype=np.int64)
        for table in spill.read(places):
            some = places[at : at + len(table)].tolist()
            at += len(table)
            frame = pl.DataFrame(table).with_columns(
                pl.Series("row", [self.row[place] for place in some], dtype=pl.Int64),
                pl.lit(NEAR).alias(REASON),
                pl.Series(DETAIL, [f"like {self.name[of[place]]}" for place in some]),
            )
            self._reject(frame)
            self.seen.add(frame.with_columns(pl.lit(None, dtype=pl.String).alias("note")), times=-1)

    def _numbered(self, batch: pa.RecordBatch) -> pl.DataFrame:
        """Return a batch with every column that may be there and the numbers of its rows."""
        check_columns(batch.schema)
        frame = pl.DataFrame(batch)
        absent = [n for n in SCHEMA.names if n not in frame.columns]
        start = self.first + self.read
        self.read += frame.height
        frame = frame.with_columns(
            pl.lit(None, dtype=pl.Float64 if n == "weight" else pl.String).alias(n) for n in absent
        )
        texts = [_last(messages) for messages in frame["messages"].to_list()]
        return frame.with_columns(
            *(pl.col(n).fill_null("") for n in ("answer", "rejected", "name")),
            pl.col("messages").fill_null("[]"),
            pl.col("weight").fill_null(1.0),
            pl.Series("text", texts, dtype=pl.String),
            pl.int_range(start, start + pl.len(), dtype=pl.Int64).alias("row"),
        )

    def _wanted(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Leave out what the line does not ask for."""
        entities = self.line.data.entities
        if entities:
            frame = self._skip(frame, ~pl.col("entity").is_in(entities), OTHER_ENTITY)
        if self._clock is None:
            return frame.with_columns(pl.col("row").alias("moment"))
        frame = frame.with_columns(self._clock.read(frame["time"]).alias("moment"))
        if self._since is not None:
            frame = self._skip(frame, pl.col("moment") < self._since, BEFORE_SINCE)
        if self._until is not None:
            frame = self._skip(frame, pl.col("moment") >= self._until, FROM_UNTIL)
        return frame

    def _skip(self, frame: pl.DataFrame, out: pl.Expr, why: str) -> pl.DataFrame:
        kept = frame.filter(~out.fill_null(value=False))
        self.skipped[why] += frame.height - kept.height
        return kept

    def _timed(self, frame: pl.DataFrame) -> pl.DataFrame:
        late = pl.when(pl.col("moment").is_null()).then(pl.lit(NO_TIME))
        return frame.with_columns(pl.coalesce(REASON, late).alias(REASON))

    def _duplicates(self, frame: pl.DataFrame) -> list[str | None]:
        """Say which rows were there before; what they are to be used for still counts."""
        found: list[str | None] = []
        columns = frame.select(REASON, "digest", "label", "split")
        for reason, digest, label, split in columns.iter_rows():
            known = self._at.get(digest)
            if reason is not None:
                found.append(None)
            elif known is None:
                self._at[digest] = len(self.split)
                self.split.append(split)
                self.label.append(_UNKNOWN if label is None else self._classes.code(label))
                found.append(None)
            else:
                if _STRONGER.get(split, 0) > _STRONGER.get(self.split[known], 0):
                    self.split[known] = split
                before = self.label[known]
                same = label is None or (before >= 0 and self.classes[before] == label)
                found.append(DUPLICATE if same else OTHER_CLASS)
        return found

    def _keep(self, frame: pl.DataFrame) -> None:
        for place, group in enumerate(frame["group"].to_list(), self.kept):
            first = self._groups.setdefault(group, place) if group is not None else place
            if first != place:
                self.together.append((first, place))
        self.digest += frame["digest"].to_list()
        self.name += frame["name"].to_list()
        self.entity += [self._entities.code(n or ONLY_ENTITY) for n in frame["entity"].to_list()]
        self.time += frame["moment"].to_list()
        self.row += frame["row"].to_list()
        self.weight += frame["weight"].to_list()
        self.seen.add(frame)
        self._spill.add(frame.select(TEXTS).to_arrow())

    def _reject(self, frame: pl.DataFrame) -> None:
        if not frame.height:
            return
        self.rejected.update(frame[REASON].to_list())
        rows = [
            {
                "row": row["row"],
                "file": row["name"],
                "line": None,
                "reason": row[REASON],
                "detail": row[DETAIL],
                "values": canonical_json(_shown(row)).decode(),
            }
            for row in frame.iter_rows(named=True)
        ]
        self._rejects.add(pl.DataFrame(rows, schema=REJECTS_SCHEMA))


def check_columns(schema: pa.Schema) -> None:
    """Refuse a source that does not yield texts.

    Raises:
        Problem: G250.
    """
    if {"messages", "answer", "name"} <= set(schema.names):
        return
    raise Problem(
        "G250",
        "The source has no texts.",
        where="data.source",
        why=f"Its columns are {', '.join(schema.names[:10])}; the task of the line needs questions "
        "and answers, or plain text.",
        tries=[
            'source = "files:faq.jsonl"',
            'source = "package:helpdesk-faq"',
            "genba explain G250",
        ],
    )


def digests(frame: pl.DataFrame) -> pl.Series:
    """Return what each row is known by: the digest of everything that is learnt from it."""
    columns = [frame[name].to_list() for name in ("messages", "answer", "rejected")]
    found = [digest_bytes("\0".join(row).encode()) for row in zip(*columns, strict=True)]
    return pl.Series("digest", found, dtype=pl.String)


def keys_of(frame: pl.DataFrame) -> Keys:
    """Return what texts are compared by.

    Args:
        frame: `messages`, `answer` and `rejected`.
    """
    asked = [_asked(conversation(messages)) for messages in frame["messages"].to_list()]
    return Keys(
        asked=plain(pl.Series(asked, dtype=pl.String)),
        said=plain(frame["answer"].cast(pl.String)),
        rejected=plain(frame["rejected"].cast(pl.String)),
        conversation=(frame["messages"] != "[]").to_numpy(),
    )


def _asked(messages: list[dict[str, str]]) -> str:
    """Return the question and the little before it that says what it is about."""
    said = [m["content"][-_CONTEXT:] for m in messages[-_TURNS:] if m["role"] != "system"]
    return "\n".join(said)


def _last(messages: str | None) -> str:
    return conversation(messages)[-1]["content"] if messages and messages != "[]" else ""


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {n: row[n][:_SHOWN] for n in ("text", "answer") if row[n]}


class _Names:
    """Numbers of names, in the order in which they came.

    Args:
        names: Where they are listed.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._codes: dict[str, int] = {}

    def code(self, name: str) -> int:
        """Return the number of a name."""
        if name not in self._codes:
            self._codes[name] = len(self._names)
            self._names.append(name)
        return self._codes[name]
