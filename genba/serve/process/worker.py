"""The server as a child process: started, watched, started again when it died, stopped cleanly."""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from genba.core.problem import Problem
from genba.serve.settings import Settings, arguments

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_STEADY_S: Final = 30.0  # a server that lived so long starts its next life without waiting
_STOP_S: Final = 20.0
_PATIENCE_S: Final = 60.0


class Worker:
    """One server of a home.

    Args:
        settings: How it serves; port 0 takes a free one, which is then kept.
        clock: Seconds; tests give their own.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.ready: dict[str, Any] = {}  # what it said when it was ready
        self.restarts = 0
        self._clock = clock
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.Queue[str] = queue.Queue()
        self._started_s = 0.0
        self._wait_s = _FIRST_WAIT_S
        self._retry_s: float | None = None

    def start(self, *, timeout_s: float = _PATIENCE_S) -> dict[str, Any]:
        """Start the server and wait until it answers; return its ready line.

        Raises:
            Problem: As `wait`.
        """
        self.launch()
        return self.wait(timeout_s=timeout_s)

    def launch(self) -> None:
        """Start the server; `wait` must follow."""
        process = subprocess.Popen(  # noqa: S603  # an argument list made here, no shell
            self._command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._said = queue.Queue()
        threading.Thread(target=_first_line, args=(process, self._said), daemon=True).start()
        self._process, self._started_s = process, self._clock()

    def wait(self, *, timeout_s: float = _PATIENCE_S) -> dict[str, Any]:
        """Wait until a server that was launched answers; return its ready line.

        Raises:
            Problem: What the server says when it cannot start, such as a port that is taken; G721
                when it neither answers nor says why.
        """
        process = self._process
        assert process is not None
        try:
            line = self._said.get(timeout=timeout_s)
        except queue.Empty:
            line = ""
        if not line:
            raise self._failed(process)
        threading.Thread(target=_pass_on, args=(process,), daemon=True).start()
        self.ready = json.loads(line)
        self.settings = replace(self.settings, port=int(self.ready["port"]))
        return self.ready

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def look_after(self) -> str | None:
        """Start a server that died again, later and later if it keeps dying.

        Returns:
            A sentence when something happened, else None.
        """
        if self.running:
            return None
        now = self._clock()
        if self._retry_s is None:
            if now - self._started_s > _STEADY_S:
                self._wait_s = _FIRST_WAIT_S
            self._retry_s = now + self._wait_s
            code = self._process.poll() if self._process else None
            return f"the server died (exit code {code}); starting it again in {self._wait_s:g} s"
        if now < self._retry_s:
            return None
        self._retry_s, self._wait_s = None, min(2 * self._wait_s, _LONGEST_WAIT_S)
        self.restarts += 1
        try:
            self.start()
        except Problem as problem:
            return f"the server did not start: {problem.what}"
        return f"the server answers again at {self.settings.url}"

    def stop(self) -> None:
        """Ask the server to finish what it is answering and end; then wait for it."""
        self.end()
        self.join()

    def end(self) -> None:
        """Ask the server to finish what it is answering and end."""
        if self.running and self._process is not None:
            self._process.terminate()

    def join(self) -> None:
        """Wait for a server that was told to end."""
        if self._process is None:
            return
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "genba.serve", *arguments(self.settings)]

    def _failed(self, process: "subprocess.Popen[str]") -> Problem:
        if process.poll() is None:
            process.kill()
        assert process.stderr is not None
        with process.stderr:
            errors = process.stderr.read().strip() or "It said nothing."
        process.wait()
        for line in reversed(errors.splitlines()):
            try:
                told = json.loads(line)["problem"]
            except (ValueError, KeyError, TypeError):
                continue
            return Problem(
                told["code"],
                told["what"],
                where=told["where"],
                why=told["why"],
                tries=told["try"],
            )
        return Problem(
            "G721",
            f"The server did not start at {self.settings.url}.",
            where=str(self.settings.home),
            why="\n".join(errors.splitlines()[-3:]),
            tries=["genba doctor", f"python -m genba.serve --home {self.settings.home}"],
        )


def _first_line(process: "subprocess.Popen[str]", said: "queue.Queue[str]") -> None:
    assert process.stdout is not None
    with process.stdout:
        said.put(process.stdout.readline())
        for _ in process.stdout:
            continue  # a pipe that nobody reads fills up and stops whoever writes to it


def _pass_on(process: "subprocess.Popen[str]") -> None:
    """Show what the server logs."""
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            sys.stderr.write(line)
