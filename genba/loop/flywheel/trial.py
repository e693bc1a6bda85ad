"""Asking a package and measuring what it says and costs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Engine
from genba.core.tuning import defaults
from genba.core.values import Signature
from genba.edge.assistant.seams import Embed
from genba.edge.texts import as_bytes, as_text
from genba.loop.flywheel.asked import Asked

Floats = npt.NDArray[np.float64]
Step = Callable[[str, int, int], None]  # what, done, of how many

TOGETHER: Final = 64  # questions that are asked at the same time where their cost is not measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What a package answered to some questions."""

    answers: tuple[str, ...]
    by: tuple[str, ...]
    seconds: Floats  # of each question
    cpu_seconds: Floats  # of each question


def ask(
    engine: Engine, signature: Signature, asked: Sequence[Asked], step: Step, *, together: int = 1
) -> Trial:
    """Ask a package questions and measure the time that each takes.

    CPU time is that of this process and everything in it, so nothing else should run in it. One
    question at a time is what shows the cost of each; of several at a time each has its part.

    Args:
        engine: The package, opened.
        signature: Of the package.
        asked: The questions.
        step: Told how far it is.
        together: How many are asked at the same time.
    """
    parameters = defaults(signature)
    answers: list[str] = []
    by: list[str] = []
    seconds, cpu_seconds = np.zeros(len(asked)), np.zeros(len(asked))
    for start in range(0, len(asked), together):
        part = asked[start : start + together]
        tensors = {
            "messages": as_bytes([one.messages for one in part]),
            **{n: np.full(len(part), v, dtype=np.float32) for n, v in parameters.items()},
        }
        before, began = time.process_time(), time.perf_counter()
        made = engine.run(tensors)
        rows = slice(start, start + len(part))
        seconds[rows] = (time.perf_counter() - began) / len(part)
        cpu_seconds[rows] = (time.process_time() - before) / len(part)
        answers += [as_text(value) for value in made["answer"]]
        by += [as_text(value) for value in made.get("by", as_bytes(["model"] * len(part)))]
        step("asking", start + len(part), len(asked))
    return Trial(answers=tuple(answers), by=tuple(by), seconds=seconds, cpu_seconds=cpu_seconds)


def quality(answers: Sequence[str], asked: Sequence[Asked], embed: Embed) -> Floats:
    """Return how near answers are to the approved ones, as a sentence encoder sees it [N], 0 to 1.

    Cosines below 0 are 0: an answer cannot be worse than one about something else.
    """
    if not asked:
        return np.zeros(0)
    said = embed([answer or " " for answer in answers])
    right = embed([one.right for one in asked])
    cosines = np.asarray((said * right).sum(axis=1), dtype=np.float64)
    return np.clip(cosines, 0.0, 1.0)
