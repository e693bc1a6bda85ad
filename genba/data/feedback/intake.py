"""Taking feedback in: understand, join, judge against what others said, store; nothing is lost."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import time_ns
from typing import Any, Final, Literal

from genba.core.ids import new_id
from genba.core.problem import Problem
from genba.data.feedback.join import Found, Seen, find_seen
from genba.data.feedback.labels import Opinion, Target, labeller, opinions, target_of
from genba.data.feedback.rows import Label, Said, parse
from genba.store.chain import Draft
from genba.store.feedback import FeedbackRow, Status
from genba.store.home import Store

Source = Literal["api", "cli", "csv"]

#: Feedback on a prediction older than this is late: it teaches, but it triggers nothing.
LATE_AFTER_MS: Final = 90 * 86_400_000
#: Rows joined and stored at a time, which bounds the memory of any intake.
_BATCH: Final = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A row that could not be understood, and what to do about it."""

    where: str
    code: str
    reason: str
    tries: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedbackReport:
    """What became of every row."""

    accepted: int = 0
    duplicate: int = 0
    contradictory: int = 0
    unknown: int = 0
    late: int = 0
    rejected: tuple[Rejected, ...] = ()
    batches: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows there were."""
        kept = self.accepted + self.duplicate + self.contradictory + self.unknown + self.late
        return kept + len(self.rejected)


@dataclass(slots=True)
class _Batch:
    """A batch on its way into the table."""

    id: str
    line: str
    now_ms: int
    rows: list[FeedbackRow] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def receive(
    store: Store,
    line: str,
    rows: Iterable[Mapping[str, Any]],
    *,
    source: Source,
    label: Label | None = None,
    now_ms: int | None = None,
) -> FeedbackReport:
    """Take feedback in. Rows that cannot be understood are reported; the others are stored.

    Args:
        store: Where to.
        line: Name of the line.
        rows: Fields `prediction`, or `entity` and `time` (ISO 8601 or ms); `kind` (label,
            correction, comment), `value`, `author`, `comment`.
        source: How they came.
        label: Turns a value into a label; the task's own by default.
        now_ms: Time in ms since 1970 UTC; the machine's clock if not given.

    Returns:
        How many rows had each outcome, and the rejected ones with their reasons.

    Raises:
        Problem: G810 when the store knows no such line, and what `rows` itself raises.
    """
    known = label or labeller(store, line)
    now = time_ns() // 1_000_000 if now_ms is None else now_ms
    counts: Counter[str] = Counter()
    rejected: list[Rejected] = []
    batches: list[str] = []
    for chunk in _chunks(rows):
        said, bad = _understood(chunk, known)
        rejected.extend(bad)
        batch = _Batch(id=new_id("batch"), line=line, now_ms=now)
        batches.append(batch.id)
        found = _join(store, line, said)
        with store.transaction() as connection:
            store.database.lock(connection)  # nobody says the same between check and change
            _judge(store, batch, [(s, _seen(found, s)) for s in said], known)
            _store(store, batch, source, len(bad))
        counts.update(row.status for row in batch.rows)
    return FeedbackReport(
        accepted=counts["accepted"],
        duplicate=counts["duplicate"],
        contradictory=counts["contradictory"],
        unknown=counts["unknown"],
        late=counts["late"],
        rejected=tuple(rejected),
        batches=tuple(batches),
    )


def _chunks(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[tuple[str, Mapping[str, Any]]]]:
    numbered = ((getattr(row, "where", f"row {i}"), row) for i, row in enumerate(rows, start=1))
    while chunk := list(islice(numbered, _BATCH)):
        yield chunk


def _understood(
    chunk: Sequence[tuple[str, Mapping[str, Any]]], label: Label
) -> tuple[list[Said], list[Rejected]]:
    said, rejected = [], []
    for where, raw in chunk:
        try:
            said.append(parse(raw, where, label))
        except Problem as problem:
            rejected.append(
                Rejected(where=where, code=problem.code, reason=problem.what, tries=problem.tries)
            )
    return said, rejected


def _join(store: Store, line: str, said: Sequence[Said]) -> Found:
    ids = [s.prediction for s in said if s.prediction]
    moments = [(s.entity, s.time_ms) for s in said if not s.prediction and s.time_ms is not None]
    return find_seen(store, line, ids, moments)


def _seen(found: Found, said: Said) -> Seen | None:
    if said.prediction:
        return found.by_id.get(said.prediction)
    return found.by_moment.get((said.entity, said.time_ms or 0))


def _judge(
    store: Store, batch: _Batch, pairs: Sequence[tuple[Said, Seen | None]], label: Label
) -> None:
    """Give every row its status, against the table and the rows before it in the batch."""
    here: dict[Target, dict[str, Opinion]] = {}
    comments: set[tuple[Any, ...]] = set()
    for said, seen in pairs:
        target = _target(said, seen)
        if target not in here:
            before = _before(store, batch.line, target)
            here[target] = opinions(before, label).get(target, {})
            comments |= {(target, r.author, r.comment) for r in before if r.kind == "comment"}
        status = _status(said, seen, here[target], (target, said.author, said.comment) in comments)
        if seen and batch.now_ms - seen.received_ms > LATE_AFTER_MS and status == "accepted":
            status = "late"
        row = _row(batch, said, seen, status)
        batch.rows.append(row)
        _count(batch.counts, said, seen, status)
        if said.kind == "comment":
            comments.add((target, said.author, said.comment))
        elif said.label is not None:
            here[target][said.author] = Opinion(author=said.author, label=said.label, row=row)


def _target(said: Said, seen: Seen | None) -> Target:
    if seen:
        return target_of(seen.prediction, seen.entity, seen.time_ms)
    if said.prediction:
        return ("prediction", said.prediction)
    return ("moment", said.entity, said.time_ms)


def _before(store: Store, line: str, target: Target) -> list[FeedbackRow]:
    if target[0] == "moment":
        return store.feedback.by_entity_time(line, target[1], target[2])
    rows = store.feedback.by_prediction(target[1])
    return [row for row in rows if row.line == line and row.time_ms is None]


def _status(said: Said, seen: Seen | None, others: Mapping[str, Opinion], heard: bool) -> Status:
    own = others.get(said.author)
    agrees = own is not None and own.label == said.label
    if heard if said.kind == "comment" else agrees:
        return "duplicate"
    if seen is None:
        return "unknown"
    if said.kind != "comment" and any(
        o.label != said.label for author, o in others.items() if author != said.author
    ):
        return "contradictory"
    return "accepted"


def _count(counts: Counter[str], said: Said, seen: Seen | None, status: Status) -> None:
    """Count what the triggers go by: fresh, undisputed labels, and whether they agree."""
    if status != "accepted" or said.kind == "comment" or seen is None:
        return
    counts["labels"] += 1
    if seen.alarm is None or seen.role == "shadow":
        return
    if seen.alarm:
        counts["confirmed" if said.label else "false_alarms"] += 1
    elif said.label:
        counts["missed"] += 1


def _row(batch: _Batch, said: Said, seen: Seen | None, status: Status) -> FeedbackRow:
    return FeedbackRow(
        id=f"{batch.id}-{len(batch.rows)}",
        line=batch.line,
        prediction=seen.prediction if seen else said.prediction,
        entity=seen.entity if seen else said.entity,
        time_ms=seen.time_ms if seen else said.time_ms,
        kind=said.kind,
        value=said.value,
        author=said.author,
        comment=said.comment,
        received_ms=batch.now_ms,
        status=status,
        batch=batch.id,
    )


def _store(store: Store, batch: _Batch, source: Source, rejected: int) -> None:
    statuses = Counter(row.status for row in batch.rows)
    body = {
        "batch": batch.id,
        "source": source,
        "rows": len(batch.rows) + rejected,
        "rejected": rejected,
        **{s: statuses[s] for s in ("accepted", "duplicate", "contradictory", "unknown", "late")},
        **{n: batch.counts[n] for n in ("labels", "confirmed", "false_alarms", "missed")},
    }
    draft = Draft(
        kind="feedback.received",
        body=body,
        line=batch.line,
        subject=batch.id,
        key=f"feedback/{batch.id}",
        now_ms=batch.now_ms,
    )
    store.feedback.add(batch.rows, draft)
