"""Questions for `genba predict`: a text file with one on each line, or JSON Lines."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.edge.texts import as_bytes, question_of, written
from genba.ui.cli.predict_input import Part

_AT_ONCE: Final = 16  # questions of one request
_MOST_BYTES: Final = 64 << 20
_JSON: Final = (".jsonl", ".ndjson")
_PLAIN: Final = ("text", "question", "prompt", "instruction")  # fields that hold a question
_NO_QUESTION: Final = "no question in it"


def questions(path: Path, tensor: str, rejected: Counter[str]) -> Iterator[Part]:
    """Yield the questions of a file as samples, as many at a time as one request may hold.

    Args:
        path: A text file with a question on each line; or JSON Lines whose objects have `messages`
            or one of text, question, prompt, instruction.
        tensor: Name of the input that takes them: `messages` takes whole conversations.
        rejected: Counts what cannot be used, by reason.

    Raises:
        Problem: G722 when the file cannot be read.
    """
    waiting: list[tuple[int, bytes]] = []
    for number, line in enumerate(_lines(path)):
        text = _question(line, tensor) if path.suffix.lower() in _JSON else line.strip().encode()
        if not text:
            rejected[_NO_QUESTION] += bool(line.strip())
            continue
        waiting.append((number, text))
        if len(waiting) == _AT_ONCE:
            yield _part(waiting, tensor)
            waiting = []
    if waiting:
        yield _part(waiting, tensor)


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _unreadable(path, f"It is larger than {_MOST_BYTES >> 20} MiB.")
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error


def _question(line: str, tensor: str) -> bytes:
    try:
        found: Any = json.loads(line) if line.strip() else {}
    except ValueError:
        return b""
    if not isinstance(found, dict):
        return b""
    messages = found.get("messages")
    if isinstance(messages, list) and all(isinstance(m, dict) for m in messages):
        while messages and messages[-1].get("role") == "assistant":
            messages = messages[:-1]
        if not messages:
            return b""
        return written(messages) if tensor == "messages" else question_of(messages).encode()
    return next((str(found[name]).strip().encode() for name in _PLAIN if found.get(name)), b"")


def _part(waiting: list[tuple[int, bytes]], tensor: str) -> Part:
    return Part(
        tensors={tensor: as_bytes([text for _, text in waiting])},
        entities=("",) * len(waiting),
        rows=np.array([number for number, _ in waiting]),
        names=("",) * len(waiting),
    )


def _unreadable(path: Path, why: str) -> Problem:
    return Problem(
        "G722",
        f"{path} cannot be read as questions.",
        where=str(path),
        why=why,
        tries=[f"head -3 {path}", "genba explain G722"],
    )
