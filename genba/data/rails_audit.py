"""What rails have closed on in service, read from what was captured."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from genba.core.problem import Problem
from genba.data.feedback.join import captures, value
from genba.data.served import ANSWERED
from genba.edge.texts import as_text, messages_of, question_of
from genba.store.captures import OK, read_capture
from genba.store.home import Store

#: Columns of a capture: who answered, and what was asked.
BY: Final = "by"
ASKED: Final = "messages"
_RAIL: Final = "rail:"
#: Capture batches that are looked through, newest first.
_BATCHES: Final = 2_000
_NEWEST: Final = 20
_LONGEST: Final = 200  # characters of a question that are shown


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """One answer that a rail gave."""

    prediction: str
    rail: str
    package: str
    time_ms: int  # when the question came
    question: str  # its beginning; as it was captured, so masked where the line masks


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What rails did in service."""

    answered: int  # questions, by whomever
    rails: Mapping[str, int]  # how often each closed
    newest: tuple[Closed, ...]


def closed(store: Store, line: str) -> Audit:
    """Return how often each rail of a line has closed, and on what last.

    Args:
        store: Where captures are.
        line: Name of the line.
    """
    answered, newest = 0, list[Closed]()
    rails: Counter[str] = Counter()
    for number, record in enumerate(captures(store, line)):
        if number >= _BATCHES:
            break
        try:
            table = read_capture(store, record)
        except Problem:
            continue  # a damaged batch hides its own answers and no others
        if BY not in table.column_names:
            continue
        told = pc.is_in(table["role"], pa.array(ANSWERED))
        table = table.filter(pc.and_(told, pc.equal(table["status"], OK)))
        answered += table.num_rows
        for row, origin in enumerate(table[BY].to_pylist()):
            name = as_text(origin)
            if name.startswith(_RAIL):
                rails[name.removeprefix(_RAIL)] += 1
                newest.append(_closed(table, row, name, str(record.body["server"])))
    newest.sort(key=lambda one: one.time_ms, reverse=True)
    return Audit(answered=answered, rails=dict(rails.most_common()), newest=tuple(newest[:_NEWEST]))


def _closed(table: pa.Table, row: int, name: str, server: str) -> Closed:
    asked = value(table, ASKED, row)
    return Closed(
        prediction=f"{server}-{table['n'][row].as_py()}",
        rail=name.removeprefix(_RAIL),
        package=table["package"][row].as_py(),
        time_ms=table["received_ms"][row].as_py(),
        question=question_of(messages_of(asked))[:_LONGEST] if asked else "",
    )
