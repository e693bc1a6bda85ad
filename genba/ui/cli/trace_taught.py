"""What people taught a model that was asked in words: the corrections that it has learned from."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import RenderableType

from genba.store.home import Store
from genba.ui.cli.answer import facts

_FEEDBACK: Final = "feedback:"
_LIVE: Final = "live"
_SHOWN: Final = 5
_COLUMNS: Final = ("text", "answer", "name", "split", "row")


def taught(
    store: Store, datasets: Sequence[Mapping[str, Any]], question: str
) -> list[dict[str, Any]]:
    """Return the corrections that a model has learned from, most like a question first.

    Args:
        store: The home.
        datasets: What it was trained on, as `genba trace` describes it.
        question: What it was asked.

    Returns:
        Up to five: `feedback` (id of the row), `question`, `answer`, `likeness` (0 to 1, letter by
        letter, 1: the same question), `split`, `row`, and who said it when: `author`, `said_ms`.
    """
    plain = _plain(question)
    found = [
        {**row, "likeness": round(SequenceMatcher(None, plain, _plain(row["question"])).ratio(), 3)}
        for dataset in datasets
        for row in _corrections(store, dataset)
    ]
    nearest = sorted(found, key=lambda row: -float(row["likeness"]))[:_SHOWN]
    return [{**row, **_who(store, str(row["feedback"]))} for row in nearest]


def told(rows: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Return the corrections as blocks."""
    shown: list[RenderableType] = []
    for row in rows:
        same = "the same question" if row["likeness"] == 1 else f"likeness {row['likeness']:.2f}"
        shown.append(
            facts(
                [
                    ("correction", f"{row['feedback']} ({same}; {row['split']} row {row['row']})"),
                    ("asked", str(row["question"])),
                    ("answer", str(row["answer"])),
                    *([("by", str(row["author"]))] if row.get("author") else []),
                ]
            )
        )
    return shown


def _corrections(store: Store, dataset: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for segment in dataset["segments"]:
        if segment["origin"] != _LIVE:
            continue
        with pq.ParquetFile(store.blobs.path(str(segment["digest"]))) as file:
            if not set(_COLUMNS) <= set(file.schema_arrow.names):
                continue
            table = file.read(columns=list(_COLUMNS))
        mine = table.filter(pc.starts_with(pc.fill_null(table["name"], ""), pattern=_FEEDBACK))
        for row in mine.to_pylist():
            yield {
                "feedback": row["name"].removeprefix(_FEEDBACK),
                "question": row["text"],
                "answer": row["answer"],
                "split": row["split"],
                "row": row["row"],
            }


def _who(store: Store, feedback: str) -> dict[str, Any]:
    """Return who gave a correction, and when."""
    row = store.feedback.get(feedback)
    return {"author": row.author, "said_ms": row.received_ms} if row else {}


def _plain(text: str) -> str:
    return " ".join(str(text or "").casefold().split())
