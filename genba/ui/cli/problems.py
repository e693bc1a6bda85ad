"""A problem as a person reads it: what, where, why, what to try, and where to read more."""

import textwrap

from rich.text import Text

from genba.core.problem import Problem

_INDENT = " " * 9


def render_problem(problem: Problem, width: int = 100) -> Text:
    """Return a problem as text of at most `width` columns; lines to type are never wrapped.

    Example:
        >>> problem = Problem("G101", "pump.toml does not exist.", tries=["genba new p"])
        >>> print(render_problem(problem))
        error G101  pump.toml does not exist.
          try    genba new p
          more   genba explain G101
    """
    is_answer = problem.code.startswith("G5")
    first = textwrap.wrap(_printable(problem.what), max(width - 12, 40)) or [""]
    text = Text()
    text.append("no" if is_answer else "error", "bold yellow" if is_answer else "bold red")
    text.append(f" {problem.code}  ", "bold")
    text.append(("\n" + " " * (9 if is_answer else 12)).join(first))
    for name, body in (("where", problem.where), ("why", problem.why)):
        if body:
            _append(text, name, _wrap(body, width))
    explain = f"genba explain {problem.code}"
    tries = [_printable(step) for step in dict.fromkeys(problem.tries) if step != explain]
    if tries:
        _append(text, "try", tries, style="cyan")
    _append(text, "more", [explain], style="dim")
    return text


def _wrap(body: str, width: int) -> list[str]:
    lines = [
        textwrap.wrap(_printable(line), max(width - 9, 40)) or [""] for line in body.splitlines()
    ]
    return [piece for line in lines for piece in line]


def _printable(text: str) -> str:
    r"""Write out what a terminal would obey: files and devices can say anything.

    Example:
        >>> _printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _append(text: Text, name: str, lines: list[str], style: str = "") -> None:
    text.append(f"\n  {name:<7}", "dim")
    text.append(("\n" + _INDENT).join(lines), style)
