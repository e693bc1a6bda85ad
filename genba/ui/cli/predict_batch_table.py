"""Predictions as columns: the same columns for every part of a batch."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from genba.core.line import Line
from genba.core.protocols import Array
from genba.core.values import Manifest, Tensor
from genba.ui.cli.predict_ask import Made

_TYPES: Final[Mapping[str, Any]] = {
    "BOOL": pa.bool_(),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "UINT8": pa.uint8(),
    "UINT16": pa.uint16(),
    "UINT32": pa.uint32(),
    "UINT64": pa.uint64(),
    "FP16": pa.float32(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BYTES": pa.string(),
}
_UNSURE: Final = "unsure"  # the model abstains


class Columns:
    """Turns predictions into columns.

    A number stays a number, several become a list; what is not a number is null. Words follow the
    line: `entity` and `time_ms` are there where it has them, `class_name` where there are classes.

    Args:
        line: Says what rows have.
        manifest: Of the package that answers.
        outputs: Names of those that are wanted.
        images: Whether files are asked about instead of rows.
        numbered: Whether predictions have ids, as those of a server do.
    """

    def __init__(
        self,
        line: Line,
        manifest: Manifest,
        outputs: Sequence[str],
        *,
        images: bool,
        numbered: bool,
    ) -> None:
        by_name = {tensor.name: tensor for tensor in manifest.signature.outputs}
        self._outputs = [by_name[name] for name in outputs]
        self._classes = manifest.classes
        self._class = next((t.name for t in self._outputs if t.role == "class"), None)
        fields = [("row", pa.int64())]
        fields += [("file", pa.string())] if images else []
        fields += [("entity", pa.string())] if line.data.entity and not images else []
        fields += [("time_ms", pa.int64())] if line.data.time and not images else []
        fields += [(t.name, _type(t)) for t in self._outputs]
        fields += [("class_name", pa.string())] if self._class else []
        fields += [("prediction", pa.string())] if numbered else []
        fields += [("package", pa.string())]
        self.schema = pa.schema(
            [pa.field(name, kind) for name, kind in dict(fields).items()],
            metadata={"genba.line": line.name},
        )

    def table(self, made: Sequence[Made]) -> pa.Table:
        """Return predictions in their order as one table."""
        tables = [self._one(one) for one in made]
        return pa.concat_tables(tables) if tables else self.schema.empty_table()

    def _one(self, made: Made) -> pa.Table:
        part = made.part
        known: dict[str, Any] = {
            "row": np.asarray(part.rows, dtype=np.int64),
            "file": list(part.names),
            "entity": list(part.entities),
            "time_ms": part.times,
            "prediction": list(made.ids),
            "package": [made.package] * len(part),
        }
        for tensor in self._outputs:
            known[tensor.name] = column(made.outputs[tensor.name], tensor)
        if self._class:
            known["class_name"] = [self._name(c) for c in made.outputs[self._class].tolist()]
        arrays = [
            known[field.name]
            if isinstance(known[field.name], pa.Array)
            else pa.array(known[field.name], type=field.type)
            for field in self.schema
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _name(self, index: int) -> str:
        if index < 0:
            return _UNSURE
        return self._classes[index] if index < len(self._classes) else str(index)


def _lengths(tensor: Tensor) -> list[int]:
    """Return the sizes of the lists of an output; a single value is no list."""
    return [n for n in tensor.shape[1:] if n != 1]


def _type(tensor: Tensor) -> pa.DataType:
    kind = _TYPES[tensor.datatype]
    for _ in _lengths(tensor):
        kind = pa.list_(kind)
    return kind


def column(values: Array, tensor: Tensor) -> pa.Array:
    """Return an output as a column; what is not a number is null.

    Example:
        >>> low = Tensor(name="low", datatype="FP32", shape=(-1, 2))
        >>> column(np.array([[1.0, np.nan]], dtype=np.float32), low).to_pylist()
        [[1.0, None]]
    """
    array = np.asarray(values)
    flat = array.reshape(-1)
    if flat.dtype.kind == "O":
        texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in flat]
        made = pa.array(texts, type=_TYPES[tensor.datatype])
    else:
        missing = ~np.isfinite(flat) if flat.dtype.kind == "f" else None
        made = pa.array(flat.astype(flat.dtype.newbyteorder("="), copy=False), mask=missing)
        made = made.cast(_TYPES[tensor.datatype])
    kept = [found for found, n in zip(array.shape[1:], tensor.shape[1:], strict=True) if n != 1]
    for depth in range(len(kept), 0, -1):
        lists = int(np.prod(array.shape[:1] + tuple(kept[: depth - 1])))
        offsets = np.arange(lists + 1, dtype=np.int32) * kept[depth - 1]
        made = pa.ListArray.from_arrays(pa.array(offsets), made)
    return made
