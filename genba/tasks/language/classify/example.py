"""A small generated dataset: questions that nobody asked, and the line that reads them."""

import json
from pathlib import Path
from typing import Final

import numpy as np

from genba.core import io
from genba.core.line import Budget, Data, Limit, Line, Train
from genba.core.protocols import Array, Tensors
from genba.edge.texts import as_bytes, as_text

#: Class -> (what is asked about, what is asked).
_ABOUT: Final = {
    "opening hours": ("the shop", ("when does {} open", "until what hour is {} open")),
    "delivery": ("my parcel", ("where is {} now", "has {} been shipped")),
    "refund": ("money", ("I want {} back", "please return {} to my account")),
    "password": ("my password", ("I have forgotten {}", "how can {} be reset")),
    "oos": ("nothing", ("{} but quizzical zebras juggle", "fuzzy wizards vex jumpy {}")),
}
_BEFORE: Final = ("hello", "hi", "please", "good day", "quick question", "excuse me", "sorry")
_BEHIND: Final = ("thanks", "today", "for order 17", "as soon as possible", "regards", "please")
_EACH: Final = 40


def example(folder: Path) -> Line:
    """Write generated questions and return a line that reads them."""
    chance = np.random.default_rng(0)
    lines = [
        json.dumps({"query": question(name, chance), "intent": name})
        for name in _ABOUT
        for _ in range(_EACH)
    ]
    io.write_durable(folder / "questions.jsonl", ("\n".join(lines) + "\n").encode())
    return Line(
        name="generated-questions",
        task="language.classify",
        data=Data(source=f"files:{folder / 'questions.jsonl'}", label="intent"),
        options={"encoder": "letters"},
        train=Train(budget=Budget(minutes=0.5, trials=2)),
        gates={"accuracy": Limit(min=0.7)},
    )


def question(name: str, chance: np.random.Generator) -> str:
    """Return a generated question of a class, different from the others by a number.

    Args:
        name: The class.
        chance: Decides the words.
    """
    about, asked = _ABOUT[name]
    parts = (_BEFORE, asked, _BEHIND)
    before, middle, behind = (part[int(chance.integers(len(part)))] for part in parts)
    return f"{before} {middle.format(about)} {behind} {chance.integers(1_000_000)}"


def disturbed(tensors: Tensors) -> dict[str, Array]:
    """Return the texts as if people had begun to write another language."""
    turned = [" ".join(word[::-1] for word in as_text(t).split()) for t in tensors["text"]]
    return {**tensors, "text": as_bytes(turned)}
