"""A tuned model as a function of texts, in float32: the yardstick of every exported form."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as functional

from genba.core.protocols import Array, Tensors
from genba.edge.texts import as_bytes, messages_of
from genba.edge.vocabulary import GgufVocabulary
from genba.learn.language.attention import rotate
from genba.learn.language.bases import Base
from genba.learn.language.examples import Example
from genba.learn.language.layout import micro_batches
from genba.learn.language.merge import adapted
from genba.learn.language.network import Network
from genba.learn.language.passes import log_probabilities
from genba.learn.language.places import angles

_MOST_TOKENS: Final = 2048  # scored at once
_PARAMETERS: Final = {"max_tokens": 128.0, "temperature": 0.0, "top_p": 1.0}


class Reference:
    """A base with what was learned, answering as `genba.core.talk.Talks.run` says.

    Args:
        base: What was tuned.
        arrays: Of the `Tuned`; empty: the base itself.
        settings: Of the same `Tuned`.
    """

    def __init__(
        self, base: Base, arrays: Mapping[str, Array], settings: Mapping[str, Any]
    ) -> None:
        weights = adapted(base.arrays(), arrays, settings)
        self._network = Network(base.shape, weights, torch.float32)
        self._context = base.shape.context
        self.vocabulary = GgufVocabulary(base.file)

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Answer a batch of texts; where `given` holds an answer, say how likely that is.

        Args:
            tensors: `messages`, and optionally `given`, `max_tokens`, `temperature`, `top_p`.

        Returns:
            `answer`, `log_probability` and `tokens`, see `genba.core.talk.Talks.run`.
        """
        messages = as_bytes(tensors["messages"])
        count = len(messages)
        given = as_bytes(tensors.get("given", [b""] * count))
        prompts = [self.vocabulary.prompt(messages_of(text)) for text in messages]
        answer = given.copy()
        log_probability = np.zeros(count, np.float32)
        tokens = np.array([[len(prompt), 0] for prompt in prompts], np.int32).reshape(-1, 2)
        scored = [row for row in range(count) if given[row]]
        for row, found in zip(scored, self._score(prompts, given, scored), strict=True):
            log_probability[row], tokens[row, 1] = np.mean(found), len(found)
        for row in range(count):
            if not given[row]:
                said, likely = self._write(prompts[row], row, tensors)
                answer[row] = self.vocabulary.decode(said).encode()
                log_probability[row], tokens[row, 1] = np.mean(likely or [0.0]), len(said)
        return {"answer": answer, "log_probability": log_probability, "tokens": tokens}

    def score(self, examples: Sequence[Example]) -> list[Array]:
        """Return the log probability of each learned token of each example, float64."""
        found: list[Array] = [np.empty(0)] * len(examples)
        for part in micro_batches([len(e.tokens) for e in examples], _MOST_TOKENS):
            said, of = log_probabilities(self._network, [examples[i] for i in part])
            for place, i in enumerate(part):
                found[i] = said[of == place]
        return found

    def _score(
        self, prompts: Sequence[Sequence[int]], given: Array, rows: Sequence[int]
    ) -> list[Array]:
        examples = []
        for row in rows:
            said = self.vocabulary.encode(bytes(given[row]).decode("utf-8", "replace"))
            whole = [*prompts[row], *said, *self.vocabulary.end[:1]]
            learned = np.arange(len(whole)) >= len(prompts[row])
            examples.append(Example(tokens=np.array(whole, np.int32), answer=learned))
        return self.score(examples)

    def _write(
        self, prompt: Sequence[int], row: int, tensors: Tensors
    ) -> tuple[list[int], list[float]]:
        """Write an answer; the token that ends it is counted, and not decoded to any text."""
        most, temperature, top_p = (
            float(tensors[name][row]) if name in tensors else default
            for name, default in _PARAMETERS.items()
        )
        writer = _Writer(self._network)
        random = torch.Generator().manual_seed(row)
        logits = writer.read(prompt)
        said: list[int] = []
        found: list[float] = []
        room = min(int(most), self._context - len(prompt))
        while len(said) < room and not (said and said[-1] in self.vocabulary.end):
            if said:
                logits = writer.read(said[-1:])
            share = torch.log_softmax(logits, -1)
            said.append(_chosen(share, temperature, top_p, random))
            found.append(float(share[said[-1]]))
        return said, found


class _Writer:
    """Reads tokens one after the other and keeps what attention needs of those before."""

    def __init__(self, network: Network) -> None:
        self._network = network
        shape = network.shape
        empty = torch.empty(shape.key_heads, 0, shape.head_width)
        self._seen = [(empty, empty)] * shape.layers

    def read(self, tokens: Sequence[int]) -> torch.Tensor:
        """Return the logits of the token that follows, float32 [vocabulary]."""
        network, shape = self._network, self._network.shape
        before = self._seen[0][0].shape[1]
        cosine, sine = angles(torch.arange(before, before + len(tokens)), shape)
        stream = network.weight["embedding"][torch.tensor(tokens)].float()
        for layer in range(shape.layers):
            normed, _ = network.norm(stream, f"{layer}.norm1")
            projected = normed @ network.weight[f"{layer}.qkv"].t()
            rotate(projected, cosine, sine, shape)
            seen = self._attend(layer, projected)
            stream = stream + seen @ network.weight[f"{layer}.out"].t()
            normed, _ = network.norm(stream, f"{layer}.norm2")
            gate, up = (normed @ network.weight[f"{layer}.gate_up"].t()).chunk(2, -1)
            inner = functional.silu(gate) * up
            stream = stream + inner @ network.weight[f"{layer}.down"].t()
        normed, _ = network.norm(stream[-1:], "norm")
        return (normed @ network.head.t())[0]

    def _attend(self, layer: int, projected: torch.Tensor) -> torch.Tensor:
        shape = self._network.shape
        count, width = len(projected), shape.head_width
        heads = projected.view(count, -1, width).transpose(0, 1)
        queries, keys, values = heads.split([shape.heads, shape.key_heads, shape.key_heads])
        old_keys, old_values = self._seen[layer]
        keys, values = torch.cat([old_keys, keys], 1), torch.cat([old_values, values], 1)
        self._seen[layer] = keys, values
        ahead = torch.ones(count, keys.shape[1], dtype=torch.bool).triu(keys.shape[1] - count + 1)
        group = shape.heads // shape.key_heads
        scores = queries @ keys.repeat_interleave(group, 0).transpose(1, 2) * width**-0.5
        looked = torch.softmax(scores.masked_fill(ahead, -torch.inf), -1)
        seen = looked @ values.repeat_interleave(group, 0)
        return seen.transpose(0, 1).reshape(count, -1)


def _chosen(share: torch.Tensor, temperature: float, top_p: float, random: torch.Generator) -> int:
    """Draw a token; with temperature 0 it is the likeliest."""
    if temperature <= 0:
        return int(share.argmax())
    ordered, tokens = torch.softmax(share / temperature, -1).sort(descending=True)
    # A token stays when those likelier than it have less than top_p together.
    ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
    return int(tokens[torch.multinomial(ordered, 1, generator=random)])
