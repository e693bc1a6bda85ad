"""The tensors of a model under the names of transformers and under those of GGUF.

GGUF stores the rows of query and key matrices so that the two numbers rotated together are
neighbours; transformers keeps them half a head apart. Source: `convert_hf_to_gguf.py` of llama.cpp.
"""

import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.gguf import Gguf
from genba.learn.language.shape import Shape

_OUTER: Final = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INNER: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER: Final = re.compile(r"model\.layers\.(\d+)\.(.+)\.weight")


def gguf_name(name: str) -> str:
    """Return the name in GGUF of a tensor that transformers knows by another.

    Example:
        >>> gguf_name("model.layers.3.self_attn.q_proj.weight")
        'blk.3.attn_q.weight'
    """
    if name in _OUTER:
        return _OUTER[name]
    found = _LAYER.fullmatch(name)
    if found is None:
        raise ValueError(f"{name} is no tensor of a Llama model")
    return f"blk.{found[1]}.{_INNER[found[2]]}.weight"


def from_gguf(shape: Shape, file: Gguf, where: str) -> dict[str, Array]:
    """Return the tensors of a GGUF file as float32, under the names transformers uses.

    Args:
        shape: Of the model.
        file: The file.
        where: Its path, for messages.

    Raises:
        Problem: G561 when tensors are missing or of another shape, G642 for unknown formats.
    """
    found = {}
    for name, wanted in shape.tensors().items():
        there = file.tensors.get(gguf_name(name))
        if there is None or there.shape != wanted:
            what = "is missing" if there is None else f"has the shape {there.shape}, not {wanted}"
            raise Problem(
                "G561",
                "The tensors of the base model are not those that its description names.",
                where=where,
                why=f"The tensor {gguf_name(name)} {what}.",
                tries=['base = "package:smollm2-135m"', "genba explain G561"],
            )
        found[name] = _halves(name, file.array(gguf_name(name)), shape)
    return found


def to_gguf(shape: Shape, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return tensors under the names and in the order of rows that GGUF has, as float32."""
    return {
        gguf_name(name): _neighbours(name, np.asarray(arrays[name], np.float32), shape)
        for name in shape.tensors()
        if name in arrays
    }


def _heads(name: str, shape: Shape) -> int:
    """Return how many heads' rows a tensor holds whose order differs; 0 = it has the same order."""
    if name.endswith("q_proj.weight"):
        return shape.heads
    return shape.key_heads if name.endswith("k_proj.weight") else 0


def _halves(name: str, array: Array, shape: Shape) -> Array:
    heads = _heads(name, shape)
    if not heads:
        return array
    pairs = array.reshape(heads, shape.head_width // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)


def _neighbours(name: str, array: Array, shape: Shape) -> Array:
    heads = _heads(name, shape)
    if not heads:
        return array
    halves = array.reshape(heads, 2, shape.head_width // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)
