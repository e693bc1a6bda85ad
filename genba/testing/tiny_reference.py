"""What the tiny language model computes, in numpy."""

from typing import Final

import numpy as np

from genba.core.protocols import Array
from genba.testing.tiny_talk import HEADS, KEY_HEADS, LAYERS, WIDTH, tiny_weights

_HEAD: Final = WIDTH // HEADS
_GROUPS: Final = HEADS // KEY_HEADS


def tiny_reference(tokens: Array, seed: int = 0) -> Array:
    """Return what the model thinks of tokens, in float64.

    Args:
        tokens: int64 [N].
        seed: See `tiny_talk`.

    Returns:
        float64 [N, vocabulary]: the logarithm of the probability of each token to come next.
    """
    weights = {name: array.astype(np.float64) for name, array in tiny_weights(seed).items()}
    count = len(tokens)
    x = weights["token_embd.weight"][np.asarray(tokens)]
    waves = 10_000.0 ** (-np.arange(0, _HEAD, 2) / _HEAD)
    turn = np.exp(1j * np.arange(count)[:, None, None] * waves)  # two neighbours are one number
    later = np.triu(np.full((count, count), -np.inf), 1)
    for layer in range(LAYERS):
        own = {n.split(".")[2]: w for n, w in weights.items() if n.startswith(f"blk.{layer}.")}
        y = _normed(x, own["attn_norm"])
        query = _turned((y @ own["attn_q"].T).reshape(count, HEADS, _HEAD), turn)
        key = _turned((y @ own["attn_k"].T).reshape(count, KEY_HEADS, _HEAD), turn)
        value = (y @ own["attn_v"].T).reshape(count, KEY_HEADS, _HEAD)
        near = np.einsum("qhd,khd->hqk", query, key.repeat(_GROUPS, 1)) / _HEAD**0.5 + later
        share = np.exp(near - near.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        read = np.einsum("hqk,khd->qhd", share, value.repeat(_GROUPS, 1))
        x = x + read.reshape(count, WIDTH) @ own["attn_output"].T
        y = _normed(x, own["ffn_norm"])
        gate = y @ own["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ own["ffn_up"].T)) @ own["ffn_down"].T
    logits = _normed(x, weights["output_norm.weight"]) @ weights["token_embd.weight"].T
    top = logits.max(-1, keepdims=True)
    thought: Array = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    return thought


def _normed(x: Array, gamma: Array) -> Array:
    normed: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gamma
    return normed


def _turned(x: Array, turn: Array) -> Array:
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)
