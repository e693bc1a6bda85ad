"""Small models and conversations for the tests of training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from genba.core.protocols import Array
from genba.learn.language.bases import Base, base_of
from genba.learn.language.examples import Example, Pair
from genba.learn.language.shape import Shape
from genba.runs.progress import SilentProgress
from genba.testing.tiny_talk import tiny_talk

SHAPE = Shape(
    architecture="llama",
    layers=2,
    width=24,
    heads=6,
    key_heads=2,
    head_width=8,
    inner=40,
    vocabulary=60,
    context=128,
    epsilon=1e-5,
    rope=10_000.0,
    tied=True,
)


def weights(shape: Shape, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0, 0.3, size).astype(np.float32)
        for name, size in shape.tensors().items()
    }


def conversations(count: int, seed: int = 0, vocabulary: int = 60) -> list[Example]:
    """Questions of random numbers that begin alike; the answer is each number and the next."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        asked = random.integers(5, vocabulary - 1, random.integers(2, 9))
        said = np.stack([asked, asked + 1], 1).reshape(-1)[: random.integers(2, 13)]
        tokens = np.concatenate([[1, 2, 3, 4], asked, [2], said]).astype(np.int32)
        answer = np.arange(len(tokens)) >= len(tokens) - len(said)
        made.append(Example(tokens=tokens, answer=answer, weight=float(random.integers(1, 3))))
    return made


def preferences(count: int, seed: int = 0) -> list[Pair]:
    """Pairs of an answer that counts up from the question, and one that counts down."""
    made = []
    for asked in conversations(count, seed):
        start = int(np.flatnonzero(asked.answer)[0])
        worse = asked.tokens.copy()
        worse[start:] = np.maximum(5, worse[start:] - 2)
        made.append(Pair(chosen=asked, rejected=Example(tokens=worse, answer=asked.answer)))
    return made


def tiny_base(folder: Path) -> Base:
    path = folder / "tiny.gguf"
    path.write_bytes(tiny_talk())
    return base_of(str(path), SilentProgress())


def plain_loss(
    shape: Shape, arrays: Mapping[str, torch.Tensor], examples: Sequence[Example]
) -> torch.Tensor:
    """The sum of weighted losses, written as plainly as can be, for autograd."""
    total = torch.zeros(())
    for example in examples:
        tokens = torch.from_numpy(example.tokens.astype(np.int64))
        logits = plain_logits(shape, arrays, tokens)
        log_p = torch.log_softmax(logits[:-1], -1)[torch.arange(len(tokens) - 1), tokens[1:]]
        total = total - example.weight * log_p[torch.from_numpy(example.answer[1:])].sum()
    return total


def plain_logits(
    shape: Shape, arrays: Mapping[str, torch.Tensor], tokens: torch.Tensor
) -> torch.Tensor:
    def norm(given: torch.Tensor, name: str) -> torch.Tensor:
        scale = torch.rsqrt(given.pow(2).mean(-1, keepdim=True) + shape.epsilon)
        return given * scale * arrays[name]

    def turned(heads: torch.Tensor) -> torch.Tensor:
        half = shape.head_width // 2
        steps = shape.rope ** (-torch.arange(half) / half)
        angle = torch.arange(len(tokens))[:, None, None] * steps
        first, second = heads[..., :half], heads[..., half:]
        cosine, sine = angle.cos(), angle.sin()
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)

    stream = arrays["model.embed_tokens.weight"][tokens]
    ahead = torch.ones(len(tokens), len(tokens)).triu(1).bool()
    for layer in range(shape.layers):
        of = f"model.layers.{layer}."
        normed = norm(stream, of + "input_layernorm.weight")
        heads = [
            (normed @ arrays[f"{of}self_attn.{n}_proj.weight"].T).view(
                len(tokens), -1, shape.head_width
            )
            for n in "qkv"
        ]
        queries, keys = turned(heads[0]), turned(heads[1])
        group = shape.heads // shape.key_heads
        keys, values = (x.repeat_interleave(group, 1) for x in (keys, heads[2]))
        scores = torch.einsum("qhd,khd->hqk", queries, keys) * shape.head_width**-0.5
        looked = scores.masked_fill(ahead, -torch.inf).softmax(-1)
        seen = torch.einsum("hqk,khd->qhd", looked, values).reshape(len(tokens), -1)
        stream = stream + seen @ arrays[of + "self_attn.o_proj.weight"].T
        normed = norm(stream, of + "post_attention_layernorm.weight")
        gate = torch.nn.functional.silu(normed @ arrays[of + "mlp.gate_proj.weight"].T)
        inner = gate * (normed @ arrays[of + "mlp.up_proj.weight"].T)
        stream = stream + inner @ arrays[of + "mlp.down_proj.weight"].T
    head = "model.embed_tokens.weight" if shape.tied else "lm_head.weight"
    return norm(stream, "model.norm.weight") @ arrays[head].T
