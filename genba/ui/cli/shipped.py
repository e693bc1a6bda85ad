"""Lines that ship with Genba, copied as a start: real data, ready to run."""

import re
from pathlib import Path
from typing import Final

from genba.core.codec import nearest
from genba.core.line import Line
from genba.core.linefile import parse_line
from genba.core.problem import Problem
from genba.ui.cli.pages import folder

_NAME: Final = re.compile(r'^name\s*=\s*".*?"', re.MULTILINE)


def shipped() -> dict[str, Path]:
    """Return the line files that ship with Genba by name."""
    return {path.stem: path for path in sorted(folder("lines").glob("*.toml"))}


def shipped_line(name: str) -> Path:
    """Return the path of a line that ships with Genba.

    Raises:
        Problem: G109 when none has that name.
    """
    known = shipped()
    if name in known:
        return known[name]
    near = nearest(name, list(known))
    raise Problem(
        "G109",
        f"No line called {name} ships with Genba" + (f"; did you mean {near}?" if near else "."),
        where=str(folder("lines")),
        why=f"There are: {', '.join(known) or 'none'}.",
        tries=[f"genba new {near or next(iter(known), 'NAME')}", "genba init"],
    )


def renamed(name: str, template: str) -> tuple[str, Line]:
    """Return the text of a shipped line under another name, and the line it says.

    Args:
        name: Of the new line.
        template: Name of the shipped one.

    Raises:
        Problem: G109 when nothing ships under that name.
    """
    text = shipped_line(template).read_text(encoding="utf-8")
    text = _NAME.sub(f'name = "{name}"', text, count=1)
    return text, parse_line(text, file=f"{name}.toml")
