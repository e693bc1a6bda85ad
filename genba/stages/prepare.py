"""Prepare: read the source, check every row, split, and record a dataset version."""

from typing import Any

from genba.core.codec import decode
from genba.core.line import Data, Line
from genba.core.protocols import Modality
from genba.core.resolve import resolve
from genba.core.task import Task
from genba.core.values import DatasetVersion
from genba.data import versions
from genba.data.sources import StoppableProgress, source_of
from genba.data.view import DatasetView
from genba.runs.stage import StageContext
from genba.store.home import Store

_ORIGIN = "source"


def prepare(context: StageContext) -> dict[str, Any]:
    """Return the dataset version to work on, made from the source or handed in.

    Where the same line has read an earlier state of the source, the new version continues it: rows
    that were there keep their splits, so what was tested on stays tested on.

    Raises:
        Problem: G2xx when the source cannot be read, is not what the line says, or leaks.
    """
    line, store = context.line, context.store
    task: type[Task] = resolve("task", line.task)
    modality: type[Modality] = resolve("modality", task.modality)
    if dataset := context.extra.get("dataset"):
        version = versions.load(store, str(dataset))
    else:
        source = source_of(line, context.progress, context.effort.check)
        before = _parent(store, line, task.split_by, source.facts().fingerprint)
        version = modality.ingest(
            source,
            line,
            store,
            StoppableProgress(context.progress, context.effort.check),
            parent=modality.parent(store, before) if before else None,
            split_by=task.split_by,
        )
    view = DatasetView(store, version, line)
    context.progress.step("looking for leaks between the splits")
    modality.refuse_leakage(view)
    sheet = view.sheet()
    joined = {"joined": sheet["join"]} if "join" in sheet else {}
    return {
        **joined,
        "dataset": version.id,
        "rows": version.rows,
        "rejected": dict(version.rejected),
        "sheet": version.sheet,
        "rejects": version.rejects,
        "entities": len(version.entities),
        "splits": sheet["split"]["rows"],
        "source": versions.source_facts(store, version.id),
        "derived": sheet["derived"],
    }


def _parent(
    store: Store, line: Line, split_by: str | None, fingerprint: str
) -> DatasetVersion | None:
    """Return the newest version of the line that read the same columns in the same way.

    Where that version is of the very source, its own parent: reading it again makes it again.
    """
    for version in versions.newest(store, line.name):
        if not (_only_source(version) and _read_alike(store, version, line, split_by)):
            continue
        if versions.source_facts(store, version.id).get("fingerprint") != fingerprint:
            return version
        return versions.load(store, version.parent) if version.parent else None
    return None


def _only_source(version: DatasetVersion) -> bool:
    return all(segment.origin == _ORIGIN for segment in version.segments)


def _read_alike(store: Store, version: DatasetVersion, line: Line, split_by: str | None) -> bool:
    sheet = DatasetView(store, version, line).sheet()
    split = sheet["split"]
    same_split = split["rule"]["seed"] == line.train.seed and split.get("asked") == split_by
    # As values, not as JSON: a field that did not exist when the sheet was written has its default.
    return bool(decode(Data, sheet["data"]) == line.data) and same_split
