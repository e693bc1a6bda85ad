"""`assistant.json`: how the parts of an assistant work together."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from genba.core.codec import decode
from genba.core.problem import Problem

#: Said in place of what must not be said, where neither rail nor package has words of their own.
REFUSAL: Final = "I cannot help with that."
#: Put before passages that are given to the model. Few words: with a longer instruction a model of
#: 135M parameters went on with the instruction instead of answering.
CONTEXT: Final = "Use this:"


@dataclass(frozen=True, kw_only=True, slots=True)
class AssistantSettings:
    """What `assistant.json` holds."""

    format: int = 1
    system: str = ""  # said to the model where a conversation has no system message
    refusal: str = REFUSAL
    context: str = CONTEXT
    input_ms: float = 1_000.0  # that rails may take for a question; beyond it nobody answers
    output_ms: float = 250.0  # that rails may take for a piece of an answer; beyond it it ends
    rails: Mapping[str, Any] | None = None  # None: no rails
    student: Mapping[str, Any] = field(default_factory=dict)
    library: Mapping[str, Any] = field(default_factory=dict)


def read_settings(data: bytes, where: str) -> AssistantSettings:
    """Read `assistant.json`.

    Raises:
        Problem: G650 when it is not of this form.
    """
    try:
        settings = decode(AssistantSettings, json.loads(data), where="assistant.json")
    except (ValueError, Problem) as error:
        raise _strange(str(error), where) from error
    if settings.format != 1:
        raise _strange(f"It has format {settings.format}; this version reads format 1.", where)
    return settings


def _strange(why: str, where: str) -> Problem:
    return Problem(
        "G650",
        "The package's assistant.json cannot be read.",
        where=where,
        why=why,
        tries=["pip install --upgrade genba", "genba explain G650"],
    )
