"""Small sources and lines of texts for tests."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from genba.core.line import Check, Data, Line, Split
from genba.core.values import DatasetVersion
from genba.data.sources.files import FileSource
from genba.data.texts import Texts
from genba.data.texts.ingest import ingest
from genba.data.view import DatasetView
from genba.runs.progress import SilentProgress
from genba.store.home import Store

TOPICS = (
    *("permit", "roof", "kitchen", "bathroom", "garden wall", "sauna", "chimney", "balcony"),
    *("garage", "cellar", "window frame", "heat pump", "drain", "attic", "fence", "staircase"),
    *("terrace", "carport", "skylight", "water heater"),
)

#: So that no question is near another one.
_TAIL = (
    *("", " in spring", " made of slate", " without gas", " by the river", " for six people"),
    *(" after a fire", " on the third floor", " near the road", " that leaks oil", " with mice"),
    *(" facing north", " older than me", " under snow", " full of junk", " beyond the hedge"),
    *(" when it thunders", " paid in cash", " of blue glass", " run by coal"),
)


def faq(count: int = 20) -> list[dict[str, Any]]:
    """Return questions and answers, none near another."""
    return [
        {
            "q": f"{_ask(n)} {topic}{_TAIL[n]}?",
            "a": f"{topic.capitalize()}: {_tell(n)} "
            f"Ask office {n + 1} about the {topic} on day {n}.",
            "category": "cost" if n % 2 else "time",
        }
        for n, topic in enumerate(TOPICS[:count])
    ]


def _ask(n: int) -> str:
    return ("What is paid for the", "How many weeks pass before a", "Who looks after a broken",
            "Where is it allowed to build a", "May neighbours object to my new")[n % 5]  # fmt: skip


def _tell(n: int) -> str:
    return ("It depends on size.", "Craftsmen come early.", "The council decides.",
            "Paper work is short.", "Nobody has to wait.")[n % 5]  # fmt: skip


def write(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write records as JSON Lines."""
    path.write_text("".join(f"{json.dumps(r, ensure_ascii=False)}\n" for r in records))
    return path


def line(path: Path, task: str = "language.chat", **data: Any) -> Line:
    """Return a line that reads a file."""
    checks = {name: Check(**check) for name, check in data.pop("checks", {}).items()}
    split = Split(**data.pop("split", {}))
    given = Data(source=f"files:{path}", checks=checks, split=split, **data)
    return Line(name="desk", task=task, data=given)


def taken(store: Store, of: Line, parent: DatasetVersion | None = None) -> DatasetView:
    """Ingest what a line names and return the view."""
    source = FileSource(of.data.source.partition(":")[2], of.data)
    source.modality = "text"
    before = Texts.parent(store, parent) if parent else None
    version = ingest(source, of, store, SilentProgress(), parent=before)
    return DatasetView(store, version, of)


def rows(view: DatasetView, *splits: str) -> list[dict[str, Any]]:
    """Return the rows of a view as dicts, with their splits."""
    return list(_rows(view, splits or ("train", "calibrate", "test", "purged")))


def _rows(view: DatasetView, splits: Sequence[str]) -> Iterator[dict[str, Any]]:
    for split in splits:
        for chunk in view.chunks(split):
            columns = {name: values.tolist() for name, values in chunk.items()}
            for n in range(len(columns["row"])):
                yield {**{name: values[n] for name, values in columns.items()}, "split": split}


def rejects(view: DatasetView) -> list[dict[str, Any]]:
    """Return the rejected rows of a version."""
    blob = view.version.rejects
    return pl.read_parquet(view.store.blobs.path(blob)).to_dicts() if blob else []
