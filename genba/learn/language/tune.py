"""Tuning a base model on conversations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.learn.language.bases import Base
from genba.learn.language.examples import Example, Pair, Tuned, Tuning, fits, tokens_of
from genba.learn.language.spread import spread
from genba.learn.language.training import Lesson, train
from genba.runs.effort import Effort


def tune(
    base: Base,
    examples: Sequence[Example] | Sequence[Pair],
    validation: Sequence[Example] | Sequence[Pair],
    settings: Tuning | Mapping[str, Any],
    effort: Effort,
    *,
    start: Mapping[str, Array] | None = None,
) -> Tuned:
    """Tune a base model on examples, or on pairs where the kind of `settings` is "dpo".

    It measures the validation set now and then, keeps the best of what it saw, saves checkpoints
    through `effort` and goes on from them bit for bit, and ends with the plan, with the budget of
    `effort`, or when it has not got better for a while. Where torch has a process group, each
    process takes its share of every step.

    Args:
        base: The model to begin with.
        examples: What to learn from; those too long or without an answer are left out.
        validation: What is measured and never learned; may be empty.
        settings: How; of a mapping, the entries that `Tuning` knows.
        effort: Seed, budget, checkpoint, progress, stop sign.
        start: Arrays of an earlier result to go on from: for "full" weights, else an adapter.

    Raises:
        Problem: G562 when nothing can be learned from what was given, G563 when the loss becomes
            no number.
    """
    tuning = settings if isinstance(settings, Tuning) else Tuning.of(settings)
    lesson = Lesson(
        base=base,
        examples=[item for item in examples if fits(item, tuning.longest)],
        validation=_some(validation, tuning, effort.seed),
        start=start or {},
    )
    if not lesson.examples:
        raise Problem(
            "G562",
            f"None of {len(examples)} examples can be learned.",
            why=f"Each is longer than {tuning.longest} tokens, or has no answer.",
            tries=[f"longest = {2 * tuning.longest}", "genba explain G562"],
        )
    return train(lesson, tuning, effort, spread())


def _some(items: Sequence[Example | Pair], tuning: Tuning, seed: int) -> list[Example | Pair]:
    """Return as many of the validation set as are measured each time, the same for one seed."""
    found: list[Example | Pair] = []
    left = tuning.validation_tokens or float("inf")
    for i in np.random.default_rng(seed).permutation(len(items)):
        if fits(items[i], tuning.longest) and left > 0:
            found.append(items[i])
            left -= tokens_of(items[i])
    return found
