"""A runtime's refusal in one sentence; its own text names source files and pages of help."""

import re
from typing import Final

from genba.core.problem import Problem

_MOST_CHARACTERS: Final = 200
_NOISE: Final = re.compile(
    r"\S*://\S+|\b0x[0-9a-fA-F]+\b|\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"|Exception from \S+|Check '[^']*' failed at \S+|\S*/\S+\.(?:cc?|[ch]pp|h)(?::\d+)?"
)


def refused(runtime: str, error: Exception, missing: str, tries: list[str]) -> Problem:
    r"""Return the Problem of a runtime that cannot run a graph.

    Args:
        runtime: Its name for people: "OpenVINO".
        error: What it raised.
        missing: How it names an operator it does not have; the group that matches is the name.
        tries: What to type next.

    Example:
        >>> error = RuntimeError("[x.cpp:9] No rule for: Foo\nSee https://docs/ 0x7f00")
        >>> problem = refused("OpenVINO", error, r"No rule for: (\S+)", ["genba doctor"])
        >>> problem.what
        'OpenVINO has no operator Foo.'
    """
    found = re.search(missing, str(error))
    name = found and found[found.lastindex or 0]
    what = f"{runtime} has no operator {name}." if name else f"{runtime} cannot run this graph."
    return Problem("G601", what, why=in_short(error), tries=tries)


def in_short(error: Exception) -> str:
    r"""Return what a runtime said on one line, without addresses, cut to 200 characters.

    Example:
        >>> in_short(RuntimeError("no\n  rule at 0x7f12, see https://docs.openvino.ai/x.html"))
        'no rule at , see'
    """
    text = " ".join(_NOISE.sub("", str(error)).split())
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"
