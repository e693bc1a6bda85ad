"""What a command returns: plain data for programs, blocks of text and tables for people."""

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

FORMAT: Final = 1  # of the JSON: keys are added without changing it, never renamed or removed
_PIPE_WIDTH: Final = 110  # columns where stdout is not a terminal


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The end of a command.

    Args:
        data: Plain JSON data with stable keys.
        blocks: The same for people, printed in order.
        next: Commands that are likely to come next, ready to be typed.
        exit_code: 0 done, 1 the answer is no, 4 budget spent, 130 interrupted.
        raw: Print the only value of `data` alone, as JSON, for a file another program reads.
    """

    data: dict[str, Any]
    blocks: Sequence[RenderableType] = ()
    next: tuple[str, ...] = ()
    exit_code: int = 0
    raw: bool = False

    def print_json(self, command: str) -> None:
        """Print the data with its frame on stdout."""
        frame = {"format": FORMAT, "command": command, "exit_code": self.exit_code}
        write_json({**frame, **self.data, "next": list(self.next)})

    def print_text(self) -> None:
        """Print the blocks with a blank line between them, then what comes next."""
        if self.raw:
            write_json(*self.data.values())
            return
        console = make_console()
        with console.capture() as text:
            for number, block in enumerate(self.blocks):
                if number:
                    console.print()
                console.print(block)
            if self.next:
                console.print()
                for number, command in enumerate(self.next):  # never wrapped: they are to be typed
                    name = "      " if number else "next  "
                    line = Text.assemble("  ", (name, "dim"), (command, "bold cyan"))
                    console.print(line, soft_wrap=True)
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in text.get().splitlines()))


def write_json(data: Any) -> None:
    """Print one JSON document on stdout; what is not a number is null there."""
    text = json.dumps(_finite(data), indent=2, ensure_ascii=False, default=str, allow_nan=False)
    sys.stdout.write(f"{text}\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def make_console(*, stderr: bool = False) -> Console:
    """Return a console; where nobody watches it writes plain lines of a fixed width."""
    console = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


def heading(text: str, *, mark: str = "", style: str = "bold") -> Text:
    """Return a line that opens a block; `mark` is "yes", "no" or "wait"."""
    marks = {"yes": ("✓ ", "bold green"), "no": ("✗ ", "bold red"), "wait": ("● ", "bold yellow")}
    sign, colour = marks.get(mark, ("", ""))
    return Text.assemble((sign, colour), (text, style))


def facts(pairs: Iterable[tuple[str, RenderableType]]) -> Table:
    """Return names and values in two columns, wrapped under their own column."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(f"  {name}", value)
    return grid


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[RenderableType]],
    *,
    right: Iterable[str] = (),
    whole: Iterable[str] = (),
) -> Table:
    """Return a table with one rule under its head.

    Args:
        columns: Their heads.
        rows: A cell for each column.
        right: Columns of numbers.
        whole: Columns whose cells are never broken, however narrow the terminal.
    """
    grid = Table(box=SIMPLE_HEAD, header_style="dim", show_edge=False, show_header=any(columns))
    numbers, unbroken = set(right), set(whole)
    for name in columns:
        grid.add_column(
            name,
            justify="right" if name in numbers else "left",
            overflow="fold",
            no_wrap=name in unbroken,
        )
    for row in rows:
        grid.add_row(*row)
    return grid


def passed(yes: bool) -> Text:
    """Return the mark of a thing that passed or did not."""
    return Text("✓", style="green") if yes else Text("✗", style="bold red")
