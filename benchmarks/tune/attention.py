"""Attention and its gradient, by hand and as torch has it fused, on conversations of one length."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from genba.learn.language.attention import attend, attend_back
from genba.learn.language.examples import Example
from genba.learn.language.layout import lay_out
from genba.learn.language.places import places_of
from genba.learn.language.shape import Shape

COUNT, LENGTH, TRIAL_S = 8, 128, 0.5


def attention(shape: Shape) -> dict[str, float]:
    """Return milliseconds of CPU time, forward and both ways, of each; bfloat16."""
    random = np.random.default_rng(0)
    examples = [
        Example(
            tokens=random.integers(0, 1000, LENGTH).astype(np.int32), answer=np.ones(LENGTH, bool)
        )
        for _ in range(COUNT)
    ]
    places = places_of(lay_out(examples, share=False), shape, torch.bfloat16)
    columns = (shape.heads + 2 * shape.key_heads) * shape.head_width
    given = torch.randn(COUNT * LENGTH, columns).to(torch.bfloat16)
    parts = given.view(COUNT, LENGTH, -1, shape.head_width).transpose(1, 2)
    sizes = [shape.heads, shape.key_heads, shape.key_heads]
    leaves = [part.contiguous().requires_grad_() for part in parts.split(sizes, 1)]

    def fused() -> Any:
        return torch.nn.functional.scaled_dot_product_attention(
            *leaves, is_causal=True, enable_gqa=True
        )

    def by_hand_back() -> None:
        seen, kept = attend(given, places, shape)
        attend_back(seen, kept, places, shape)

    return {
        "by_hand_ms": milliseconds(lambda: attend(given, places, shape)),
        "by_hand_both_ms": milliseconds(by_hand_back),
        "fused_ms": milliseconds(fused),
        "fused_both_ms": milliseconds(lambda: fused().sum().backward()),
    }


def milliseconds(work: Callable[[], Any]) -> float:
    """Return the CPU time of one go."""
    work()
    start, count = time.process_time(), 0
    while time.process_time() - start < TRIAL_S:
        work()
        count += 1
    return 1000 * (time.process_time() - start) / count
