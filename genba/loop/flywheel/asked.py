"""What is asked: the traffic that was captured, or a replay of the line's own questions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from genba.edge.student import normalised
from genba.edge.texts import as_text, messages_of, question_of, written
from genba.loop.flywheel.reword import reworded
from genba.stages.students import USER, Pair
from genba.store.captures import OK, read_capture
from genba.store.home import Store
from genba.store.ledger import Record

CAPTURED: Final = "captured"
REPLAYED: Final = "replayed"
_FEWEST: Final = 60  # captured questions with a known answer, below which traffic is replayed


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A question as somebody asks it."""

    messages: bytes
    text: str
    right: str  # the approved answer
    group: str  # questions of one group are never on both sides of the proof
    count: int = 1  # how often it was asked


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Questions to learn from and to prove with."""

    kind: str  # CAPTURED or REPLAYED
    asked: tuple[Asked, ...]
    seen: int  # questions that were looked through
    without: int  # of them without a known answer


def traffic(
    store: Store, line: str, pairs: Sequence[Pair], *, most: int, replay: bool, seed: int = 0
) -> Traffic:
    """Return what is asked of a line.

    Args:
        store: Where captures are.
        line: Its name.
        pairs: Its questions with approved answers.
        most: Most different questions.
        replay: Replay the line's own questions even where enough were captured.
        seed: Decides which are taken.
    """
    chance = np.random.default_rng(seed)
    found = None if replay else _captured(store, line, pairs)
    if found is None or len(found.asked) < _FEWEST:
        found = _replayed(pairs, chance)
    order = chance.permutation(len(found.asked))[:most]
    return Traffic(
        kind=found.kind,
        asked=tuple(found.asked[int(at)] for at in order),
        seen=found.seen,
        without=found.without,
    )


def halves(asked: Sequence[Asked]) -> tuple[list[Asked], list[Asked]]:
    """Divide questions into those that are learned from and those that prove, by groups.

    Example:
        >>> one = Asked(messages=b"", text="a", right="b", group="g")
        >>> [len(half) for half in halves([one, one])]
        [2, 0]
    """
    groups = list(dict.fromkeys(one.group for one in asked))
    first = set(groups[::2])
    learn = [one for one in asked if one.group in first]
    return learn, [one for one in asked if one.group not in first]


def _captured(store: Store, line: str, pairs: Sequence[Pair]) -> Traffic:
    """Return captured first questions whose approved answer is known."""
    right = {normalised(pair.text): pair for pair in pairs}
    counts: dict[str, int] = {}
    for question in _questions(store, line):
        counts[question] = counts.get(question, 0) + 1
    asked = []
    for text, count in counts.items():
        pair = right.get(normalised(text))
        if pair is not None:
            asked.append(_asked(text, pair, count))
    return Traffic(
        kind=CAPTURED, asked=tuple(asked), seen=len(counts), without=len(counts) - len(asked)
    )


def _questions(store: Store, line: str) -> Iterator[str]:
    """Yield the first questions of conversations that were captured, oldest first."""
    for row in captured_rows(store, line, ("messages",)):
        said = messages_of(as_text(row["messages"]))
        if sum(m.get("role") == USER for m in said) == 1:
            yield question_of(said)


def captured_rows(store: Store, line: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield what a line was asked and has answered, oldest first; shadows and errors not."""
    records: list[Record] = store.ledger.find("capture", line=line)[::-1]
    for record in records:
        if not record.body.get("rows"):
            continue
        table = read_capture(store, record, columns=(*columns, "role", "status", "package"))
        if not set(columns) <= set(table.column_names):
            continue
        for row in table.to_pylist():
            if row["role"] != "shadow" and row["status"] == OK and row[columns[0]] is not None:
                yield row


def _replayed(pairs: Sequence[Pair], chance: np.random.Generator) -> Traffic:
    """Return every question of the line in other words, those of the test set included."""
    asked = [_asked(reworded(pair.text, chance), pair, 1) for pair in pairs]
    return Traffic(kind=REPLAYED, asked=tuple(asked), seen=len(asked), without=0)


def _asked(text: str, pair: Pair, count: int) -> Asked:
    return Asked(
        messages=written([{"role": USER, "content": text}]),
        text=text,
        right=pair.answer,
        group=normalised(pair.answer),
        count=count,
    )
