"""Taking feedback in: understand, join, judge against what others said, store; nothing is lost."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from time import time_ns
from typing import Any, Final, Literal

from genba.core.digest import digest_bytes
from genba.core.ids import new_id
from genba.core.problem import Problem
from genba.data.feedback import regions
from genba.data.feedback.join import Found, Seen, find_seen
from genba.data.feedback.labels import (
    Meaning,
    Opinion,
    Target,
    heard,
    meaning_of,
    opinions,
    target_of,
    within,
)
from genba.data.feedback.rows import Said, parse
from genba.store.chain import Draft
from genba.store.feedback import FeedbackRow, Status
from genba.store.home import Store

Source = Literal["api", "cli", "csv"]

#: Feedback on a prediction older than this is late: it teaches, but it triggers nothing.
LATE_AFTER_MS: Final = 90 * 86_400_000
#: How an answer fared, as `Task.outcome` says it; what the quality trigger goes by.
OUTCOMES: Final = ("confirmed", "false_alarms", "missed", "wrong")
#: Rows joined and stored at a time, which bounds the memory of any intake.
_BATCH: Final = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Sender:
    """How feedback came, and whose key was shown."""

    source: Source
    caller: str = ""  # id of the key


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
    source: Source | Sender,
    meaning: Meaning | None = None,
    now_ms: int | None = None,
) -> FeedbackReport:
    """Take feedback in. Rows that cannot be understood are reported; the others are stored.

    Args:
        store: Where to.
        line: Name of the line.
        rows: Fields `prediction`, or `entity` and `time` (ISO 8601 or ms); `kind` (label,
            correction, comment), `value`, `author`, `comment`; for images `mask` (an image as
            bytes or base64) or `region` (boxes and polygons as text).
        source: How they came, and by whose key where one was shown.
        meaning: What values mean; what the task of the line says by default.
        now_ms: Time in ms since 1970 UTC; the machine's clock if not given.

    Returns:
        How many rows had each outcome, and the rejected ones with their reasons.

    Raises:
        Problem: G810 when the store knows no such line, and what `rows` itself raises.
    """
    means = meaning or meaning_of(store, line)
    sender = source if isinstance(source, Sender) else Sender(source=source)
    now = time_ns() // 1_000_000 if now_ms is None else now_ms
    counts: Counter[str] = Counter()
    rejected: list[Rejected] = []
    batches: list[str] = []
    for chunk in _chunks(rows):
        understood, bad = _understood(chunk, means)
        pairs, unmarked = _marked(understood, _join(store, line, understood))
        bad.extend(unmarked)
        rejected.extend(bad)
        for said, _ in pairs:
            if said.mask is not None:
                store.blobs.put(said.mask)  # durable before the row that names it
        batch = _Batch(id=new_id("batch"), line=line, now_ms=now)
        batches.append(batch.id)
        with store.transaction() as connection:
            store.database.lock(connection)  # nobody says the same between check and change
            _judge(store, batch, pairs, means)
            _store(store, batch, sender, len(bad))
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
    chunk: Sequence[tuple[str, Mapping[str, Any]]], meaning: Meaning
) -> tuple[list[Said], list[Rejected]]:
    said, rejected = [], []
    for where, raw in chunk:
        try:
            said.append(_parsed(raw, where, meaning))
        except Problem as problem:
            rejected.append(_rejected(where, problem))
    return said, rejected


def _parsed(raw: Mapping[str, Any], where: str, meaning: Meaning) -> Said:
    said = parse(raw, where, meaning.label)
    if (said.mask or said.region) and not meaning.marks:
        raise Problem(
            "G833",
            "This line has no images in which something could be marked.",
            where=where,
            tries=["leave mask and region out"],
        )
    return said


def _rejected(where: str, problem: Problem) -> Rejected:
    return Rejected(where=where, code=problem.code, reason=problem.what, tries=problem.tries)


def _marked(
    understood: Sequence[Said], found: Found
) -> tuple[list[tuple[Said, Seen | None]], list[Rejected]]:
    """Draw the regions that are in pixels, now that their images are known."""
    pairs, rejected = [], []
    for said in understood:
        seen, drawn = _seen(found, said), said
        if said.region is not None:
            try:
                mask = regions.draw(said.region, seen.size if seen else None, said.where)
            except Problem as problem:
                rejected.append(_rejected(said.where, problem))
                continue
            drawn = replace(said, mask=mask, region=None)
        pairs.append((drawn, seen))
    return pairs, rejected


def _join(store: Store, line: str, said: Sequence[Said]) -> Found:
    ids = [s.prediction for s in said if s.prediction]
    moments = [(s.entity, s.time_ms) for s in said if not s.prediction and s.time_ms is not None]
    return find_seen(store, line, ids, moments, images=any(s.region for s in said))


def _seen(found: Found, said: Said) -> Seen | None:
    if said.prediction:
        return found.by_id.get(said.prediction)
    return found.by_moment.get((said.entity, said.time_ms or 0))


def _judge(
    store: Store, batch: _Batch, pairs: Sequence[tuple[Said, Seen | None]], meaning: Meaning
) -> None:
    """Give every row its status, against the table and the rows before it in the batch."""
    here: dict[Target, dict[str, Opinion]] = {}
    comments: set[tuple[Any, ...]] = set()
    for said, seen in pairs:
        target = within(_target(said, seen), said.value, numbers=meaning.numbers)
        if target not in here:
            before = _before(store, batch.line, target)
            spoken = opinions(before, meaning.label, numbers=meaning.numbers)
            here[target] = spoken.get(target, {})
            comments |= {(target, r.author, r.comment) for r in before if r.kind == "comment"}
        told = (target, said.author, said.comment) in comments
        status = _status((said, seen), here[target], meaning, heard=told)
        if seen and batch.now_ms - seen.received_ms > LATE_AFTER_MS and status == "accepted":
            status = "late"
        row = _row(batch, said, seen, status)
        batch.rows.append(row)
        _count(batch.counts, row, (said, seen), meaning)
        if said.kind == "comment":
            comments.add((target, said.author, said.comment))
        elif said.label is not None:
            now = Opinion(author=said.author, label=said.label, row=row, mask=row.mask)
            here[target][said.author] = heard(here[target].get(said.author), now)


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


def _status(
    pair: tuple[Said, Seen | None], others: Mapping[str, Opinion], meaning: Meaning, *, heard: bool
) -> Status:
    said, seen = pair
    own = others.get(said.author)
    agrees = own is not None and own.label == said.label and _mask(said) in (None, own.mask)
    if heard if said.kind == "comment" else agrees:
        return "duplicate"
    if seen is None:
        return "unknown"
    if said.label is not None and any(
        meaning.against(o.label, said.label) for a, o in others.items() if a != said.author
    ):
        return "contradictory"
    return "accepted"


def _mask(said: Said) -> str | None:
    return digest_bytes(said.mask) if said.mask is not None else None


def _count(
    counts: Counter[str], row: FeedbackRow, pair: tuple[Said, Seen | None], meaning: Meaning
) -> None:
    """Count what the triggers go by: fresh, undisputed labels, and how the answers fared."""
    said, seen = pair
    if row.status != "accepted" or said.label is None or seen is None:
        return
    counts["labels"] += 1
    if seen.outputs and seen.role != "shadow":
        counts[meaning.judge(seen.outputs, said.label, seen.settings)] += 1


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
        mask=_mask(said),
    )


def _store(store: Store, batch: _Batch, sender: Sender, rejected: int) -> None:
    statuses = Counter(row.status for row in batch.rows)
    body = {
        "batch": batch.id,
        "source": sender.source,
        **({"caller": sender.caller} if sender.caller else {}),
        "rows": len(batch.rows) + rejected,
        "rejected": rejected,
        **{s: statuses[s] for s in ("accepted", "duplicate", "contradictory", "unknown", "late")},
        **{n: batch.counts[n] for n in ("labels", *OUTCOMES)},
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
