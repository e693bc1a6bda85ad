"""Weights of a language model as constants of an OpenVINO graph, in a number format of choice.

Measured on SmolLM2-135M, AMD EPYC (Zen 5), one thread, 2026-11: milliseconds of a step with 1, 4
and 16 questions, and how much worse a text is foretold than in float32 (nats per token). "int8"
8.8, 10.6, 21 and 0.003; "q8_0" 9.6, 12.2, 22 and 0.001; "int4" 7.9, 10.0, 22 and 0.25. Four bits
are hardly faster and much worse for a model so small, so they are not tried unless asked for.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import openvino as ov
from openvino import opset13

from genba.core.protocols import Array
from genba.edge.gguf import Gguf
from genba.edge.gguf_blocks import BLOCK, dequantise, quantise, split_q4, split_q8

#: "int8": one scale for each row. "q8_0" and "int4": one for 32 numbers, those of the file itself
#: where it has them. "f16": half the bytes of "f32", computed in float32.
FORMS: Final = ("int8", "q8_0", "int4", "f16", "f32")
_HEAD: Final = "output.weight"
_EMBEDDING: Final = "token_embd.weight"
_BLOCKS: Final = {"q8_0": "q8_0", "int4": "q4_0"}
_STORED: Final[dict[str, Any]] = {"f16": np.float16, "f32": np.float32}


class Packer:
    """Makes constants of matrices.

    The embedding is read by row, and is the head too where the file has no other; it stays in 8
    bits when the rest is in 4, since it decides about each token.

    Args:
        file: The model.
        form: One of `FORMS`.
    """

    def __init__(self, file: Gguf, form: str) -> None:
        self._file = file
        self._form = form
        self._careful = "q8_0" if form == "int4" else form
        self._embedding: Any = None

    def named(self, name: str) -> Any:
        """Return a matrix of the file as it is multiplied with: float32 [rows, columns]."""
        return self.matrix([name], [self._file.raw(name)])

    def matrix(self, names: Sequence[str], rows: Sequence[Array]) -> Any:
        """Return several matrices of the file, one below the other.

        Args:
            names: Their names.
            rows: Their rows as stored, perhaps in another order.
        """
        return self._joined(names, rows, self._form)

    def embedding(self, tokens: Any) -> Any:
        """Return the rows of tokens: float32 [..., width]."""
        axis = opset13.constant(np.array(0))
        parts = self._integers([_EMBEDDING], [self._file.raw(_EMBEDDING)], self._careful)
        if parts is None:
            kind = _STORED.get(self._careful, np.float16)
            stored = opset13.constant(self._file.array(_EMBEDDING).astype(kind))
            self._embedding = _float(stored)
            return _float(opset13.gather(stored, tokens, axis))
        stored = [opset13.constant(part) for part in parts]
        self._embedding = _flat(opset13.multiply(*map(_float, stored)), 1)
        picked = (_float(opset13.gather(part, tokens, axis)) for part in stored)
        return _flat(opset13.multiply(*picked), 2)

    def head(self) -> Any:
        """Return the matrix that tells how likely each token is; after `embedding`."""
        if _HEAD not in self._file.tensors:
            return self._embedding
        return self._joined([_HEAD], [self._file.raw(_HEAD)], self._careful)

    def _joined(self, names: Sequence[str], rows: Sequence[Array], form: str) -> Any:
        parts = self._integers(names, rows, form)
        if parts is not None:
            return (_four_bits if form == "int4" else _eight_bits)(*parts)
        kind = _STORED.get(form, np.float16)
        return _float(opset13.constant(self._numbers(names, rows).astype(kind)))

    def _integers(
        self, names: Sequence[str], rows: Sequence[Array], form: str
    ) -> tuple[Array, Array] | None:
        """Return integers and the scales they are multiplied with, None where it is floats.

        Returns:
            [rows, columns] and [rows, 1], or [rows, blocks, 32] and [rows, blocks, 1].
        """
        if form == "int8":
            return _per_row(self._numbers(names, rows))
        if form not in _BLOCKS or self._file.tensors[names[0]].shape[-1] % BLOCK:
            return None
        if {self._file.tensors[name].kind.name for name in names} == {_BLOCKS[form]}:
            raw = np.concatenate(rows)
        else:
            raw = quantise(self._numbers(names, rows), _BLOCKS[form])
        numbers, scales = (split_q4 if form == "int4" else split_q8)(raw)
        return np.ascontiguousarray(numbers), np.ascontiguousarray(scales[..., None])

    def _numbers(self, names: Sequence[str], rows: Sequence[Array]) -> Array:
        kinds = [self._file.tensors[name].kind.name for name in names]
        return np.concatenate([dequantise(r, k) for r, k in zip(rows, kinds, strict=True)])


def _eight_bits(numbers: Array, scales: Array) -> Any:
    stored = (_float(opset13.constant(part)) for part in (numbers, scales))
    return _flat(opset13.multiply(*stored), 1)


def _four_bits(numbers: Array, scales: Array) -> Any:
    packed = numbers[..., 0::2] | (numbers[..., 1::2] << 4)
    tensor = ov.Tensor(ov.Type.u4, ov.Shape(list(numbers.shape)))
    tensor.data.reshape(-1)[:] = packed.reshape(-1)
    zero = _float(opset13.constant(np.array(8, dtype=np.uint8)))
    centred = opset13.subtract(_float(opset13.constant(tensor)), zero)
    return _flat(opset13.multiply(centred, _float(opset13.constant(scales))), 1)


def _per_row(matrix: Array) -> tuple[Array, Array]:
    scales = (np.abs(matrix).max(axis=1, keepdims=True) / 127).astype(np.float16)
    wide = scales.astype(np.float32)
    inverse = np.divide(1, wide, out=np.zeros_like(wide), where=wide != 0)
    return np.clip(np.rint(matrix * inverse), -127, 127).astype(np.int8), scales


def _flat(node: Any, kept: int) -> Any:
    """Join blocks and numbers, the last two axes behind so many others, where there are blocks."""
    if len(node.get_output_partial_shape(0)) == kept + 1:
        return node
    shape = opset13.constant(np.array([*[0] * kept, -1], dtype=np.int64))
    return opset13.reshape(node, shape, True)


def _float(node: Any) -> Any:
    return node if node.get_element_type() == ov.Type.f32 else opset13.convert(node, ov.Type.f32)
