"""What training takes and gives, as plain numbers; nothing here needs torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array

Kind = Literal["lora", "full", "dpo"]
Precision = Literal["auto", "bf16", "fp32"]
KINDS: Final = ("lora", "full", "dpo")
PRECISIONS: Final = ("auto", "bf16", "fp32")
#: Rates where none is given. That of adapters: the better of 1e-3 and 3e-3 on the helpdesk line.
RATES: Final = {"lora": 3e-3, "full": 2e-4, "dpo": 2e-4}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Example:
    """A conversation as tokens, and which of them are learned."""

    tokens: Array  # int32 [N]
    answer: Array  # bool [N]: the token is one the model is to say
    weight: float = 1.0  # how much this example counts


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pair:
    """Two answers to one question, of which people liked one better."""

    chosen: Example
    rejected: Example
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """How a model is tuned."""

    kind: Kind = "lora"
    rank: int = 16  # of the adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685)
    alpha: float = 32.0  # an adapter counts alpha / rank times
    learning_rate: float = 0.0  # of the first steps after the warm-up; 0 = that of `RATES`
    weight_decay: float = 0.0
    clip: float = 1.0  # largest norm of a step's gradient
    batch: int = 16  # examples of a step
    epochs: float = 3.0
    warmup: int = 8  # steps in which the learning rate grows
    patience: int = 2  # evaluations without a better one after which training ends; 0 = never
    evaluations: int = 6  # of the validation set, over the whole training
    validation_tokens: int = 4096  # of that set that are measured, drawn by the seed; 0 = all
    longest: int = 1024  # tokens of an example; what is longer is left out
    micro_tokens: int = 1024  # tokens that go through the network at once; bounds the memory
    recompute: bool = False  # activation checkpointing: less memory, a third more work
    precision: Precision = "auto"  # of the arithmetic; weights that are learned stay float32
    threads: int = 0  # of this process; 0 = as many as torch takes
    beta: float = 0.1  # of the preference loss: how far the model may move away
    save_s: float = 20.0  # seconds between checkpoints

    def __post_init__(self) -> None:
        low = {
            **dict.fromkeys(("rank", "batch", "evaluations", "longest", "micro_tokens"), 1),
            **dict.fromkeys(("warmup", "patience", "threads", "weight_decay", "save_s"), 0),
            "validation_tokens": 0,
        }
        for name, least in low.items():
            if getattr(self, name) < least:
                raise _bad(name, getattr(self, name), f"It must be at least {least}.")
        if self.kind not in KINDS:
            raise _bad("kind", self.kind, f"Known: {', '.join(KINDS)}.")
        if not self.learning_rate:
            object.__setattr__(self, "learning_rate", RATES[self.kind])
        for name in ("alpha", "learning_rate", "clip", "epochs", "beta"):
            if not getattr(self, name) > 0:
                raise _bad(name, getattr(self, name), "It must be above 0.")
        if self.precision not in PRECISIONS:
            raise _bad("precision", self.precision, f"Known: {', '.join(PRECISIONS)}.")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Tuning":
        """Return the settings in a mapping that may hold others too.

        Example:
            >>> Tuning.of({"rank": 4, "seed": 1}).rank
            4
        """
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in settings.items() if name in known})

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What training made of a base model."""

    #: lora and dpo: float32 under the names of PEFT. full: under the names of transformers.
    arrays: Mapping[str, Array]
    curve: Sequence[Mapping[str, float]]  # at each evaluation: step, loss, validation, ...
    measures: Mapping[str, float]  # tokens/s, FLOP/s, ..., see docs/language/training.md
    settings: Mapping[str, Any] = field(default_factory=dict)  # as used, precision included


def fits(item: Example | Pair, longest: int) -> bool:
    """Return whether there is something to learn, and it is not too long.

    Example:
        >>> tokens = np.array([1, 2, 3], np.int32)
        >>> fits(Example(tokens=tokens, answer=np.array([False, True, True])), 3)
        True
        >>> fits(Example(tokens=tokens, answer=np.array([True, False, False])), 3)
        False
    """
    if isinstance(item, Pair):
        return fits(item.chosen, longest) and fits(item.rejected, longest)
    return len(item.tokens) <= longest and bool(np.any(item.answer[1:]))


def tokens_of(item: Example | Pair) -> int:
    """Return how many tokens an example, or both of a pair, have."""
    if isinstance(item, Pair):
        return len(item.chosen.tokens) + len(item.rejected.tokens)
    return len(item.tokens)


def _bad(name: str, value: Any, why: str) -> Problem:
    return Problem(
        "G562",
        f"The training setting {name} = {value!r} cannot be used.",
        why=why,
        tries=["genba explain G562"],
    )
