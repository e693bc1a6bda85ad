"""What the base model makes of the same questions: every tuned model is held against it.

The base runs in an engine, as whoever did not train anything would run it. What it said is kept in
memory, so that the reference, the exported form and the champion are compared with the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.catalog import DRILLS
from genba.core.digest import digest_json
from genba.core.problem import Problem
from genba.core.protocols import Array, Engine, JsonObject, Predict, Tensors
from genba.core.resolve import installed, resolve
from genba.edge.texts import as_bytes, as_text
from genba.learn.language.bases import base_of
from genba.runs.progress import SilentProgress
from genba.targets.probe import probe

_MOST_KEPT: Final = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What the base said of one sample."""

    answer: str
    log_probability: float
    tokens: int


_KEPT: Final[dict[str, Said]] = {}


def base_says(tensors: Tensors, settings: JsonObject) -> list[Said]:
    """Return what the base model answers, or thinks of the answers that are given.

    Raises:
        Problem: G570 when no engine for language models is installed.
    """
    keys = [_key(tensors, at, settings) for at in range(len(tensors["messages"]))]
    missing = [at for at, key in enumerate(keys) if key not in _KEPT]
    if missing:
        if len(_KEPT) + len(missing) > _MOST_KEPT:
            _KEPT.clear()
            missing = list(range(len(keys)))
        engine = open_talk(base_of(str(settings["base"]["name"]), SilentProgress()).gguf)
        try:
            made = engine.run({name: tensor[missing] for name, tensor in tensors.items()})
        finally:
            engine.close()
        _KEPT.update(zip([keys[at] for at in missing], _said(made), strict=True))
    return [_KEPT[key] for key in keys]


def open_talk(model: bytes) -> Engine:
    """Open a language model in the first engine that takes it.

    Raises:
        Problem: G570 when no engine for language models is installed, and what the last of them
            said when none takes the model.
    """
    problem: Problem | None = None
    for name in installed("engine"):
        kind: Any = resolve("engine", name)
        offers = kind.candidates(probe().whole_cores) if hasattr(kind, "ask") else ()
        if name in DRILLS or not offers:
            continue
        try:
            engine: Engine = kind(model, offers[0])
            return engine
        except Problem as refused:
            problem = refused
    raise problem or Problem(
        "G570",
        "No engine for language models is installed.",
        why="The base model is needed to say whether training has helped.",
        tries=['pip install "genba[language]"', "genba doctor", "genba explain G570"],
    )


def losses(said: Sequence[Said]) -> npt.NDArray[np.float64]:
    """Return the negative logarithm of the probability per token of each answer."""
    return np.array([-one.log_probability for one in said], dtype=np.float64)


def _said(made: Tensors) -> list[Said]:
    rows = zip(made["answer"], made["log_probability"], made["tokens"], strict=True)
    return [
        Said(answer=as_text(answer), log_probability=float(p), tokens=int(tokens[1]))
        for answer, p, tokens in rows
    ]


def _key(tensors: Tensors, at: int, settings: JsonObject) -> str:
    row: dict[str, Any] = {name: _plain(tensor, at) for name, tensor in sorted(tensors.items())}
    return digest_json([settings["base"]["digest"], row])


def _plain(tensor: Array, at: int) -> Any:
    value = tensor[at]
    return as_text(value) if isinstance(value, (bytes, str)) else float(value)


def base_predict(settings: JsonObject) -> Predict:
    """Return the base model as a predict function of the task."""

    def predict(tensors: Tensors) -> dict[str, Array]:
        said = base_says(tensors, settings)
        return {
            "answer": as_bytes([one.answer for one in said]),
            "log_probability": np.array([one.log_probability for one in said], dtype=np.float32),
            "tokens": np.array([(0, one.tokens) for one in said], dtype=np.int32).reshape(-1, 2),
        }

    return predict
