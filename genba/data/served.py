"""Captured predictions as a task knows them: tensors in the shapes of the package that answered."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genba.core.protocols import Array
from genba.core.values import ROLES
from genba.store.captures import OK, SCHEMA
from genba.store.home import Store

#: Roles of what captures keep; entity and time have columns of their own.
_NUMBERS: Final = frozenset({"feature", "image", "parameter"})
_INPUTS: Final = _NUMBERS | {"text", "given"}
_OUTPUTS: Final = frozenset(ROLES) - {*_NUMBERS, "given", "entity", "time", "map", "mask"}
ANSWERED: Final = ("stable", "canary")  # a shadow's predictions are copies of theirs


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """What a ledger knows of a package: enough to read what it was given and has answered."""

    id: str
    task: str
    dataset: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, Any]]  # name -> tensor of the signature
    outputs: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Mapping[str, Any]]
    classes: tuple[str, ...]  # what the labels 0, 1, 2, ... mean; () where they are numbers

    def output(self, role: str) -> str | None:
        """Return the name of the output with a role, None where there is none."""
        return next((n for n, t in self.outputs.items() if t.get("role") == role), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """Rows of one package, all answered and finite."""

    package: Package
    rows: pa.Table
    tensors: Mapping[str, Array]  # what it was given
    outputs: Mapping[str, Array]  # what it answered


class Packages:
    """The packages of a store, each read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Package] = {}

    def get(self, id: str) -> Package:
        """Return a package; one that is not recorded has no settings and no signature."""
        if id not in self._known:
            self._known[id] = _package(id, self._store.ledger.get("package", id) or {})
        return self._known[id]


def _package(id: str, manifest: Mapping[str, Any]) -> Package:
    signature: Mapping[str, Any] = manifest.get("signature") or {}
    return Package(
        id=id,
        task=str(manifest.get("task", "")),
        dataset=str(manifest.get("dataset", "")),
        settings=manifest.get("settings") or {},
        inputs={str(t["name"]): t for t in signature.get("inputs") or ()},
        outputs={str(t["name"]): t for t in signature.get("outputs") or ()},
        files=manifest.get("files") or {},
        classes=tuple(str(name) for name in manifest.get("classes") or ()),
    )


def served(packages: Packages, table: pa.Table) -> Iterator[Served]:
    """Yield the rows of a capture that were answered to somebody, package by package.

    Args:
        packages: Of the store.
        table: As `genba.store.captures.read_capture` returns it.
    """
    answered = pc.and_(pc.is_in(table["role"], pa.array(ANSWERED)), pc.equal(table["status"], OK))
    table = table.filter(answered)
    for id in table["package"].unique().to_pylist():
        rows = table.filter(pc.equal(table["package"], id))
        package = packages.get(id)
        yield Served(
            package=package,
            rows=rows,
            tensors=_tensors(rows, package.inputs, _INPUTS),
            outputs=_tensors(rows, package.outputs, _OUTPUTS),
        )


def answers(table: pa.Table, row: int, package: Package) -> dict[str, Any]:
    """Return what one row answered, by output; empty where the model raised.

    A package that states no signature is taken to answer everything that is not captured always.
    """
    always = {*SCHEMA.names, *package.inputs}
    names = package.outputs or [n for n in table.column_names if n not in always]
    found = {name: table[name][row].as_py() for name in names if name in table.column_names}
    return {} if any(value is None for value in found.values()) else found


def _tensors(
    rows: pa.Table, known: Mapping[str, Mapping[str, Any]], roles: frozenset[str]
) -> dict[str, Array]:
    return {
        name: tensor(rows[name], tuple(t.get("shape") or (-1,)))
        for name, t in known.items()
        if name in rows.column_names and t.get("role", "feature") in roles
    }


def tensor(column: pa.ChunkedArray, shape: tuple[int, ...]) -> Array:
    """Return a column of a capture as the tensor it was.

    Args:
        column: Numbers, lists of numbers, or bytes.
        shape: Of the signature, the batch first; at most one more dimension may be open (-1).

    Example:
        >>> tensor(pa.chunked_array([[[1.0, 2.0, 3.0, 4.0]]]), (-1, 2, 2)).tolist()
        [[[1.0, 2.0], [3.0, 4.0]]]
    """
    values = column.combine_chunks()
    if pa.types.is_list(values.type):
        flat: Array = values.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(values), *shape[1:])
    if pa.types.is_binary(values.type):
        return np.array(values.to_pylist(), dtype=object)
    found: Array = values.to_numpy(zero_copy_only=False)
    return found.reshape(len(values), *shape[1:])
