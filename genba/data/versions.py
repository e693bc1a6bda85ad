"""Dataset versions in the ledger: sealed, recorded, found again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from genba.core.codec import decode, encode
from genba.core.digest import canonical_json, digest_json
from genba.core.problem import Problem
from genba.core.values import DatasetVersion
from genba.store.home import Store

KIND = "dataset"
_BESIDE = "source"  # kept in the record next to the version itself


def seal(version: DatasetVersion) -> DatasetVersion:
    """Return the version with its id: the digest of its rows, schema and rejected rows."""
    identity = {
        "line": version.line,
        "columns": version.columns,
        "entities": version.entities,
        "segments": [segment.digest for segment in version.segments],
        "rejects": version.rejects,
        "parent": version.parent,
    }
    return replace(version, id=digest_json(identity))


def record(
    store: Store,
    version: DatasetVersion,
    sheet: Mapping[str, Any],
    source: Mapping[str, Any],
    inputs: Sequence[tuple[str, str]] = (),
) -> DatasetVersion:
    """Record a sealed version with its sheet; one that is known is returned as it was recorded."""
    body = {**sheet, "dataset": version.id}
    version = replace(version, sheet=store.blobs.put(canonical_json(body)))
    parents = [("parent", version.parent)] if version.parent else []
    plain = {**encode(version), _BESIDE: dict(source)}
    store.ledger.record(KIND, version.id, plain, line=version.line, inputs=[*parents, *inputs])
    return load(store, version.id)


def load(store: Store, id: str) -> DatasetVersion:
    """Return a recorded version.

    Raises:
        Problem: G219 when there is none with that id.
    """
    body = store.ledger.get(KIND, id)
    if body is None:
        raise Problem(
            "G219",
            f"There is no dataset version {id[:12]} in this home.",
            where=str(store.path),
            why="It was made in another home, or the id is not complete.",
            tries=["genba run LINE", "export GENBA_HOME=PATH"],
        )
    return _version(body)


def newest(store: Store, line: str) -> list[DatasetVersion]:
    """Return the versions of a line, newest first."""
    return [_version(record.body) for record in store.ledger.find(KIND, line=line)]


def source_facts(store: Store, id: str) -> dict[str, Any]:
    """Return what was recorded about the source of a version."""
    return dict((store.ledger.get(KIND, id) or {}).get(_BESIDE, {}))


def _version(body: Mapping[str, Any]) -> DatasetVersion:
    return decode(DatasetVersion, {k: v for k, v in body.items() if k != _BESIDE})
