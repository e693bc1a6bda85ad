"""The tables, in words that SQLite and PostgreSQL both understand."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

#: Raised when an older Genba could not go on with the tables. A column that may be null and that
#: nobody has to know is added at the next opening instead; see `migrate.py`.
FORMAT: Final = 1
GENESIS: Final = "0" * 64  # what the first event of the chain follows

metadata: Final = MetaData()

#: One row: the end of the chain. Every writer locks it first, so writers queue up here.
head: Final = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("format", Integer, nullable=False),
)

#: The chain. Rows are only ever added; see `chain.py` for what `digest` covers.
event: Final = Table(
    "event",
    metadata,
    Column(
        "seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    ),
    Column("time_ms", BigInteger, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("line", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("key", Text, nullable=True, unique=True),
    Column("body", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Index("event_by_line", "line", "seq"),
    Index("event_by_kind", "kind", "seq"),
)

#: What was made: lines, datasets, runs, models, packages, captures. `seq` is its event.
record: Final = Table(
    "record",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("line", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Index("record_by_kind", "kind", "line", "seq"),
)

#: What was made from what: `dst` was made from `src`.
edge: Final = Table(
    "edge",
    metadata,
    Column("dst", String(128), primary_key=True),
    Column("src", String(128), primary_key=True),
    Column("role", String(64), primary_key=True),
    Index("edge_by_src", "src"),
)

#: Who did, or is doing, which stage. (key, attempt) is the fence.
attempt: Final = Table(
    "attempt",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("name", String(64), nullable=False),
    Column("run", String(64), nullable=False),
    Column("owner", String(128), nullable=False),
    Column("state", String(16), nullable=False),  # running, done, failed, cancelled, lost
    Column("lease_until_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("finished_ms", BigInteger, nullable=True),
    Column("result", Text, nullable=True),  # of a done one; the reason of a failed one
    Index("attempt_by_run", "run"),
)

#: What people said about predictions.
feedback: Final = Table(
    "feedback",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("line", String(64), nullable=False),
    Column("prediction", String(128), nullable=True),
    Column("entity", Text, nullable=True),
    Column("time_ms", BigInteger, nullable=True),
    Column("kind", String(16), nullable=False),
    Column("value", Text, nullable=True),
    Column("author", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("batch", String(128), nullable=False),
    Column("mask", String(64), nullable=True),  # blob: grey PNG of what was marked in an image
    Index("feedback_by_prediction", "prediction"),
    Index("feedback_by_entity", "line", "entity", "time_ms"),
    Index("feedback_by_status", "line", "status", "received_ms"),
)
