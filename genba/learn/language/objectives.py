"""What is made better: the likelihood of answers, or the preference of one over another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from genba.core.protocols import Array
from genba.learn.language.examples import Example, Pair, tokens_of
from genba.learn.language.layout import Layout, micro_batches
from genba.learn.language.network import Network
from genba.learn.language.passes import add_gradient, log_probabilities


@dataclass(slots=True)
class Pass:
    """What went through the network."""

    loss: float = 0.0  # summed
    weight: float = 0.0  # what to divide it by
    read: int = 0  # tokens of the conversations
    run: int = 0  # tokens that went through: beginnings in common once
    learned: int = 0  # tokens that were learned, or compared


#: Returns where the work may go on; raises where somebody has asked to stop.
Check = Callable[[], None]


class Objective(Protocol):
    """A loss over items: conversations, or pairs of them."""

    @property
    def items(self) -> int:
        """How many there are to learn from."""
        ...

    def prepare(self, network: Network, most: int, check: Check) -> dict[str, Array]:
        """Compute what the untrained model says, where that is needed; goes into checkpoints."""
        ...

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take over what `prepare` gave."""
        ...

    def parts(self, items: Sequence[int], most: int) -> list[list[int]]:
        """Divide items into parts of at most so many tokens."""
        ...

    def weight(self, items: Sequence[int]) -> float:
        """Return what the loss of a step is divided by."""
        ...

    def learn(self, network: Network, items: Sequence[int], total: float, again: bool) -> Pass:
        """Add the gradient of items, divided by `total`; `again`: run layers a second time."""
        ...

    def judge(self, network: Network, most: int) -> dict[str, float]:
        """Measure the validation set: `validation` is the loss; empty where there is none."""
        ...


@dataclass
class Likelihood:
    """The negative log likelihood of answers, per token, examples weighted."""

    examples: Sequence[Example]
    validation: Sequence[Example] = ()

    @property
    def items(self) -> int:
        """How many examples there are."""
        return len(self.examples)

    def prepare(self, network: Network, most: int, check: Check) -> dict[str, Array]:
        """Nothing is needed."""
        del network, most, check
        return {}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Nothing is kept."""

    def parts(self, items: Sequence[int], most: int) -> list[list[int]]:
        """Divide examples into parts of at most so many tokens."""
        lengths = [len(self.examples[i].tokens) for i in items]
        return [[items[at] for at in part] for part in micro_batches(lengths, most)]

    def weight(self, items: Sequence[int]) -> float:
        """Return the weighted number of learned tokens."""
        return sum(_learned(e) * e.weight for e in (self.examples[i] for i in items))

    def learn(self, network: Network, items: Sequence[int], total: float, again: bool) -> Pass:
        """Add the gradient of examples."""
        batch = [self.examples[i] for i in items]
        counts = torch.tensor([e.weight for e in batch])

        def blame(_said: torch.Tensor, layout: Layout) -> torch.Tensor:
            return counts[layout.of].div(-total)

        said, layout = add_gradient(network, batch, blame, recompute=again)
        weight = counts[layout.of]
        return Pass(
            loss=float(-(said * weight).sum()),
            weight=float(weight.sum()),
            read=layout.read,
            run=len(layout.tokens),
            learned=len(layout.rows),
        )

    def judge(self, network: Network, most: int) -> dict[str, float]:
        """Return the loss per token of the validation set."""
        if not self.validation:
            return {}
        loss = weight = 0.0
        lengths = [len(e.tokens) for e in self.validation]
        for part in micro_batches(lengths, most):
            batch = [self.validation[i] for i in part]
            said, of = log_probabilities(network, batch)
            counts = np.array([e.weight for e in batch])[of]
            loss, weight = loss - float(said @ counts), weight + float(counts.sum())
        return {"validation": loss / weight}


@dataclass
class Preference:
    """Direct preference optimisation (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290)."""

    pairs: Sequence[Pair]
    validation: Sequence[Pair] = ()
    beta: float = 0.1
    before: dict[str, Array] = field(default_factory=dict)  # log p of the untrained, [pairs, 2]

    @property
    def items(self) -> int:
        """How many pairs there are."""
        return len(self.pairs)

    def prepare(self, network: Network, most: int, check: Check) -> dict[str, Array]:
        """Compute the log probability of every answer before training."""
        self.before = {
            "pairs": _of_pairs(network, self.pairs, most, check),
            "validation": _of_pairs(network, self.validation, most, check),
        }
        return self.before

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take over what `prepare` gave."""
        self.before = dict(arrays)

    def parts(self, items: Sequence[int], most: int) -> list[list[int]]:
        """Divide pairs into parts of at most so many tokens."""
        lengths = [tokens_of(self.pairs[i]) for i in items]
        return [[items[at] for at in part] for part in micro_batches(lengths, most)]

    def weight(self, items: Sequence[int]) -> float:
        """Return the sum of the pairs' weights."""
        return sum(self.pairs[i].weight for i in items)

    def learn(self, network: Network, items: Sequence[int], total: float, again: bool) -> Pass:
        """Add the gradient of pairs."""
        pairs = [self.pairs[i] for i in items]
        before = torch.from_numpy(self.before["pairs"][list(items)]).float()
        weight = torch.tensor([pair.weight for pair in pairs])
        lost: list[torch.Tensor] = []

        def blame(said: torch.Tensor, layout: Layout) -> torch.Tensor:
            whole = torch.zeros(2 * len(pairs)).index_add_(0, torch.from_numpy(layout.of), said)
            moved = whole.view(-1, 2) - before
            margin = self.beta * (moved[:, 0] - moved[:, 1])
            lost.append(-torch.nn.functional.logsigmoid(margin) * weight)
            pull = torch.sigmoid(-margin).mul_(weight).mul_(self.beta / total)
            return torch.stack([-pull, pull], 1).view(-1)[layout.of]

        _, layout = add_gradient(network, _flat(pairs), blame, recompute=again)
        return Pass(
            loss=float(lost[0].sum()),
            weight=float(weight.sum()),
            read=layout.read,
            run=len(layout.tokens),
            learned=len(layout.rows),
        )

    def judge(self, network: Network, most: int) -> dict[str, float]:
        """Return the loss of the validation pairs, and the share in which the chosen one gained."""
        if not self.validation:
            return {}
        moved = _of_pairs(network, self.validation, most) - self.before["validation"]
        margin = self.beta * (moved[:, 0] - moved[:, 1])
        weight = np.array([pair.weight for pair in self.validation])
        loss = np.logaddexp(0.0, -margin)
        return {
            "validation": float(loss @ weight / weight.sum()),
            "preferred": float(np.mean(margin > 0)),
        }


def _learned(example: Example) -> int:
    return int(np.count_nonzero(example.answer[1:]))


def _flat(pairs: Sequence[Pair]) -> list[Example]:
    return [example for pair in pairs for example in (pair.chosen, pair.rejected)]


def _of_pairs(
    network: Network, pairs: Sequence[Pair], most: int, check: Check = lambda: None
) -> Array:
    found = np.zeros((len(pairs), 2))
    for part in micro_batches([tokens_of(pair) for pair in pairs], most):
        check()
        batch = _flat([pairs[i] for i in part])
        said, of = log_probabilities(network, batch)
        found[part] = np.bincount(of, said, minlength=len(batch)).reshape(-1, 2)
    return found
