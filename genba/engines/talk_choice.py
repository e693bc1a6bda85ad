"""Which token comes next, and how likely it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array
from genba.core.talk import Ask

_FEW: Final = 256  # tokens that usually hold the whole of `top_p`


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token and what is known of it."""

    token: int
    log_probability: float  # by the model itself, before temperature or anything forbidden
    likeliest: tuple[tuple[int, float], ...] = ()


def generator(ask: Ask) -> Any:
    """Return where a question's chances come from; None where it leaves nothing to chance."""
    return np.random.default_rng(ask.seed) if ask.temperature > 0 else None


def choose(logits: Array, best: float, ask: Ask, chance: Any, allowed: Array | None) -> Chosen:
    """Choose a token.

    Args:
        logits: float32 [tokens].
        best: Probability of the likeliest of them.
        ask: How to choose.
        chance: See `generator`.
        allowed: bool [tokens] where something is forbidden.

    Example:
        >>> logits = np.log(np.array([0.1, 0.7, 0.2], dtype=np.float32))
        >>> chosen = choose(logits, 0.7, Ask(tokens=np.array([0])), None, None)
        >>> chosen.token, round(float(np.exp(chosen.log_probability)), 2)
        (1, 0.7)
        >>> choose(logits, 0.7, Ask(tokens=np.array([0])), None, np.array([1, 0, 1], bool)).token
        2
    """
    top = int(logits.argmax())
    whole = float(logits[top]) - float(np.log(best))  # logarithm of the sum of all
    left = logits if allowed is None else np.where(allowed, logits, -np.inf)
    if ask.temperature > 0:
        token = _drawn(left, ask.temperature, ask.top_p, chance)
    else:
        token = top if allowed is None else int(left.argmax())
    return Chosen(token, float(logits[token]) - whole, likeliest(logits, whole, ask.likeliest))


def likeliest(logits: Array, whole: float, count: int) -> tuple[tuple[int, float], ...]:
    """Return the likeliest tokens with the logarithms of their probabilities, likeliest first."""
    if count == 0:
        return ()
    if count == 1:
        top = int(logits.argmax())
        return ((top, float(logits[top]) - whole),)
    few = (
        np.argpartition(logits, -count)[-count:] if count < len(logits) else np.arange(len(logits))
    )
    ordered = few[np.argsort(-logits[few], kind="stable")]
    return tuple((int(token), float(logits[token]) - whole) for token in ordered)


def judge(
    logits: Array, best: Array, tokens: Sequence[int], count: int
) -> tuple[list[float], list[tuple[tuple[int, float], ...]]]:
    """Return how likely given tokens were, one for each row of logits."""
    tops = logits.max(axis=1)
    whole = tops - np.log(best[:, 0])
    found = logits[np.arange(len(tokens)), np.asarray(tokens)] - whole
    alternatives = [likeliest(row, float(w), count) for row, w in zip(logits, whole, strict=True)]
    return [float(value) for value in found], alternatives


def _drawn(logits: Array, temperature: float, top_p: float, chance: Any) -> int:
    wide = (logits - logits.max()).astype(np.float64) / temperature
    shares = np.exp(wide)
    shares /= shares.sum()
    if top_p < 1:
        kept = _nucleus(shares, top_p)
        shares = shares[kept] / shares[kept].sum()
    else:
        kept = None
    at = int(np.searchsorted(np.cumsum(shares), chance.random(), side="right"))
    at = min(at, len(shares) - 1)
    return at if kept is None else int(kept[at])


def _nucleus(shares: Array, top_p: float) -> Array:
    """Return the fewest tokens that have so much of the probability together.

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration".
    """
    count = min(_FEW, len(shares))
    few = np.argpartition(shares, -count)[-count:]
    if shares[few].sum() < top_p:
        few = np.arange(len(shares))
    ordered = few[np.argsort(-shares[few], kind="stable")]
    enough = int(np.searchsorted(np.cumsum(shares[ordered]), top_p)) + 1
    return ordered[:enough]
