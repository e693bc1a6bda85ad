"""What a person sees while a run is going on."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.text import Text


class Progress(Protocol):
    """Where a stage says what it is doing. Calls are cheap and may come from any thread."""

    def stage(self, name: str) -> None:
        """Begin a stage."""
        ...

    def step(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Say what is being done now and how far it is; the next call replaces it."""
        ...

    def note(self, text: str) -> None:
        """Say something that stays on the screen."""
        ...

    def close(self) -> None:
        """Leave the screen as a person wants to find it."""
        ...


class SilentProgress:
    """Says nothing; for tests and services."""

    def stage(self, name: str) -> None:
        """Say nothing."""

    def step(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Do nothing."""


class ChannelProgress:
    """Passes everything on as JSON lines; a stage in a child process talks through it."""

    def __init__(self, channel: TextIO) -> None:
        self._channel = channel

    def stage(self, name: str) -> None:
        """Pass it on."""
        self._send("stage", name)

    def step(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Pass it on."""
        self._send("step", text, done, total)

    def note(self, text: str) -> None:
        """Pass it on."""
        self._send("note", text)

    def close(self) -> None:
        """Do nothing; the channel belongs to the process."""

    def _send(self, *call: Any) -> None:
        self._channel.write(json.dumps({"progress": call}) + "\n")
        self._channel.flush()


def forward(progress: Progress, call: list[Any]) -> None:
    """Repeat a call that came through a channel."""
    name, *arguments = call
    calls: dict[str, Callable[..., None]] = {
        "stage": progress.stage,
        "step": progress.step,
        "note": progress.note,
    }
    calls[name](*arguments)


class ConsoleProgress:
    """One live line on a terminal; plain lines, and few of them, where there is none.

    Args:
        file: Where to write; standard error if not given, so that output can be piped.
        every_s: Without a terminal, steps are printed at most this often.
        console: Instead of a file, for those who print to the same terminal meanwhile.
        indent: Spaces before every line.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        every_s: float = 5.0,
        console: Console | None = None,
        indent: int = 0,
    ) -> None:
        self._console = console or Console(file=file or sys.stderr, highlight=False)
        self._every_s = every_s
        self._indent = " " * indent
        self._last_s = 0.0
        self._name = ""
        self._started_s = 0.0
        self._live: Live | None = None
        self._spinner = Spinner("dots")

    def stage(self, name: str) -> None:
        """Begin a stage; the line of the one before is finished with the time it took."""
        self._finish()
        self._name, self._started_s = name, time.monotonic()
        if not self._console.is_terminal:
            return
        self._spinner = Spinner("dots", Text(name))
        shown = Padding(self._spinner, (0, 0, 0, len(self._indent)), expand=False)
        self._live = Live(shown, console=self._console, refresh_per_second=10, transient=True)
        self._live.start()

    def step(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Show what is being done now and how far it is."""
        line = f"{self._name}  {text}" + _how_far(done, total)
        if self._live is not None:
            self._spinner.update(text=Text(line, no_wrap=True, overflow="ellipsis"))
            return
        now_s = time.monotonic()
        if now_s - self._last_s >= self._every_s:
            self._last_s = now_s
            self._print(line)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._print(text)

    def close(self) -> None:
        """Finish the line of the last stage."""
        self._finish()

    def _finish(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._name:
            self._print(f"{self._name}  {time.monotonic() - self._started_s:.1f} s")
            self._name = ""

    def _print(self, line: str) -> None:
        self._console.print(Text(f"{self._indent}{line}"), soft_wrap=True)


def _how_far(done: float | None, total: float | None) -> str:
    """Say how far something is.

    Example:
        >>> _how_far(3, 12), _how_far(3, None), _how_far(None, None)
        ('  3 of 12', '  3', '')
    """
    if done is None:
        return ""
    return f"  {done:,.10g}" + ("" if total is None else f" of {total:,.10g}")
