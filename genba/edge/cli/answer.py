"""What a command of a device returns, and how it and a Problem are written."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from genba.core.problem import Problem

FORMAT: Final = 1  # of the JSON: keys are added without changing it
_WIDTH: Final = 14  # columns of the names of facts


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """The end of a command: plain data for programs, lines for people, and what comes next."""

    data: Mapping[str, Any]
    lines: Sequence[str] = ()
    next: tuple[str, ...] = ()
    exit_code: int = 0

    def print_json(self, command: str) -> None:
        """Print the data with its frame on stdout."""
        frame = {"format": FORMAT, "command": command, "exit_code": self.exit_code}
        write_json({**frame, **self.data, "next": list(self.next)})

    def print_text(self) -> None:
        """Print the lines, then what comes next."""
        for line in self.lines:
            sys.stdout.write(f"{line}\n")
        if self.next:
            sys.stdout.write("\n")
        for number, command in enumerate(self.next):
            sys.stdout.write(f"  {'      ' if number else 'next  '}{command}\n")


def fact(name: str, value: object) -> str:
    """Return a line with a name and its value.

    Example:
        >>> fact("release", 3)
        '  release       3'
    """
    return f"  {name:<{_WIDTH}}{value}"


def write_json(data: Any) -> None:
    """Print one JSON document on stdout; what is not a number is null there."""
    text = json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(f"{text}\n")


def write_problem(problem: Problem, *, as_json: bool) -> None:
    """Write what went wrong and what to do: as JSON on stdout, for people on stderr."""
    if as_json:
        write_json({"format": FORMAT, "exit_code": problem.exit_code, "problem": problem.to_json()})
        return
    lines = [f"{problem.code}  {problem.what}"]
    lines += [
        fact(name, text) for name, text in (("where", problem.where), ("why", problem.why)) if text
    ]
    lines += [fact("" if number else "try", step) for number, step in enumerate(problem.tries)]
    sys.stderr.write("\n".join(lines) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
