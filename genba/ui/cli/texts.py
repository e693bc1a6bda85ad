"""A line guessed from conversations: questions with answers, or texts with classes."""

import json
from itertools import islice
from pathlib import Path
from typing import Any, Final

import polars as pl

from genba.catalog import GUESSED_TASKS
from genba.core.line import Data, Line, Retrain, RollBackOn, Rollout
from genba.core.resolve import resolve
from genba.data.sources import source_of

_FILES: Final = "files:"
_JSON: Final = (".jsonl", ".ndjson")
_LOOKED_AT: Final = 20  # lines of a file
#: Fields that only conversations have, one set of which must be there.
_FIELDS: Final = (
    {"messages"},
    {"conversations"},
    {"prompt", "completion"},
    {"instruction", "output"},
    {"chosen", "rejected"},
)
_PAIRS: Final = (*_FIELDS, {"question", "answer"})  # of the columns of a table
_WORDS: Final = 3.0  # in the middle, of a column that people wrote
_DISTINCT: Final = 0.8  # share of different texts in such a column, at least
_REPEATED: Final = 3.0  # rows of a class, on average
_SLOW_MS: Final = 30_000.0  # an answer is written word by word
_DECIDE_AFTER: Final = 50  # answers; there are fewer of them than of readings


def is_texts(source: str) -> bool:
    """Say whether a source is JSON Lines of conversations, by its first lines."""
    if not source.startswith(_FILES):
        return False
    path = Path(source.removeprefix(_FILES))
    if path.suffix.lower() not in _JSON or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return any(_is_conversation(line) for line in islice(file, _LOOKED_AT))


def in_columns(frame: pl.DataFrame, source: str) -> Data | None:
    """Say how to read a table whose rows are texts, None where they are not.

    Rows with a question and its answer are conversations; rows with one column of written text and
    one column that repeats itself are texts with their class.

    Example:
        >>> asked = [f"where is parcel number {n}" for n in range(12)]
        >>> frame = pl.DataFrame({"text": asked, "about": ["parcels", "prices"] * 6})
        >>> found = in_columns(frame, "files:asked.csv")
        >>> found.inputs, found.label
        (('text',), 'about')
    """
    if any(fields <= set(frame.columns) for fields in _PAIRS):
        return Data(source=source)
    written = [name for name in frame.columns if _is_written(frame[name])]
    others = [name for name in frame.columns if name not in written]
    if len(written) != 1 or len(others) != 1 or not _is_class(frame[others[0]]):
        return None
    return Data(source=source, inputs=(written[0],), label=others[0])


def _is_written(column: pl.Series) -> bool:
    known = column.drop_nulls()
    if column.dtype != pl.String or not len(known):
        return False
    count = known.str.count_matches(r"\s+").median()
    return (
        isinstance(count, float)
        and count + 1 >= _WORDS
        and known.n_unique() >= _DISTINCT * len(known)
    )


def _is_class(column: pl.Series) -> bool:
    known = column.drop_nulls()
    return 1 < known.n_unique() <= len(known) / _REPEATED


def propose_texts(
    name: str, source: str, task: str | None, data: Data | None = None
) -> tuple[Line, dict[str, str], int]:
    """Guess a line from texts.

    Args:
        name: Of the line.
        source: `files:FILE`, `files:FOLDER` or `package:NAME`.
        task: What it is for; None: to sort texts that have a class, otherwise to answer.
        data: How to read the source, where more is known than its address.

    Returns:
        The line, the reason of each guess by the dotted path of the setting, and how many texts.

    Raises:
        Problem: What the reader says of a file it cannot read.
    """
    data = data or Data(source=source)
    chosen = task or GUESSED_TASKS["classes of texts" if data.label else "conversations"]
    line = _sorting(name, chosen, data) if data.label else _answering(name, chosen, data)
    count = sum(len(batch) for batch, _ in source_of(line).batches())
    reasons = {
        "gates": "the line stops here, not in production; set what you need",
        "retrain": "when to train a challenger: corrections of people, drift (PSI)",
    }
    if task is None and data.label:
        reasons["task"] = "guessed: one column of texts, one that repeats itself"
    elif task is None:
        reasons["task"] = "guessed: conversations; to sort texts: --task language.classify"
    suggested: Line = resolve("task", chosen).suggest(line)
    return suggested, reasons, count


def _answering(name: str, task: str, data: Data) -> Line:
    slow = Rollout(decide_after=_DECIDE_AFTER, roll_back_on=RollBackOn(latency_ms_p99=_SLOW_MS))
    when = {"labels": 1.0, "drift": 0.3}
    return Line(name=name, task=task, data=data, rollout=slow, retrain=Retrain(when=when))


def _sorting(name: str, task: str, data: Data) -> Line:
    when = {"labels": 50.0, "drift": 0.2}
    return Line(name=name, task=task, data=data, retrain=Retrain(when=when))


def _is_conversation(line: str) -> bool:
    try:
        found: Any = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and any(fields <= found.keys() for fields in _FIELDS)
