"""A small generated dataset: questions about a factory that does not exist, and a tiny model."""

import json
from pathlib import Path
from typing import Final

import numpy as np

from genba.core import io
from genba.core.line import Budget, Data, Limit, Line, Target, Train
from genba.core.protocols import Array, Tensors
from genba.edge.texts import as_bytes, as_text, content_of, messages_of, written
from genba.learn.encoder import LETTERS
from genba.learn.language.tiny import tiny_talk

_PARTS: Final = (
    *("filter", "pump", "valve", "belt", "motor", "sensor", "lamp", "fan", "hose", "gear"),
    *("nozzle", "spindle", "gasket", "relay", "fuse", "clamp"),
)
_ASKED: Final = (
    ("How often is the {part} checked?", "The {part} is checked every {days} days."),
    ("Where do I find a new {part}?", "A new {part} is in shelf {shelf}."),
    ("Who repairs the {part}?", "Team {shelf} repairs the {part}."),
    ("What does a {part} cost?", "A {part} costs {days} euros."),
    ("May I clean the {part} myself?", "Yes, after you have switched off line {shelf}."),
    ("The {part} makes a strange noise, what now?", "Stop line {shelf} and call team {shelf}."),
)
_STRANGE: Final = " 0123456789"  # what nobody in the example asks


def example(folder: Path) -> Line:
    """Write 96 questions with answers and a language model that has learnt nothing yet."""
    io.make_dirs_durable(folder)
    rows = []
    for number, part in enumerate(_PARTS):
        for place, (question, answer) in enumerate(_ASKED):
            facts = {"part": part, "days": 3 + number, "shelf": 1 + (number + place) % 9}
            messages = [
                {"role": "user", "content": question.format(**facts)},
                {"role": "assistant", "content": answer.format(**facts)},
            ]
            rows.append(json.dumps({"messages": messages}))
    io.write_durable(folder / "questions.jsonl", "\n".join(rows).encode())
    io.write_durable(folder / "tiny.gguf", tiny_talk())
    return Line(
        name="generated-questions",
        task="language.chat",
        data=Data(source=f"files:{folder / 'questions.jsonl'}"),
        options={
            "base": str(folder / "tiny.gguf"),
            "encoder": LETTERS,
            "answer_tokens": 16,
            "epochs": 20,
            "written": 8,
            "quant": "f16",
            "precision": "fp32",
            "rails": False,
        },
        train=Train(budget=Budget(minutes=0.5, trials=2)),
        gates={"loss_gain": Limit(min=0.1)},
        target=Target(engines=("openvino-talk",)),
    )


def disturbed(tensors: Tensors) -> dict[str, Array]:
    """Return questions as if people asked about something else, and at length."""
    changed = []
    for value in tensors["messages"]:
        messages = messages_of(as_text(value))
        last = messages[-1]
        messages[-1] = {**last, "content": content_of(last) + _STRANGE * 3}
        changed.append(written(messages))
    return {**tensors, "messages": np.asarray(as_bytes(changed), dtype=object)}
