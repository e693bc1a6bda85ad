"""Where a function runs: in this process, or in a child process that may die alone."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Final

from genba.core.problem import Problem
from genba.core.protocols import JsonObject
from genba.runs.progress import Progress, SilentProgress, forward

CHANNEL: Final = "GENBA_CHANNEL"  # environment: the descriptor a child answers through
_PATIENCE_S: Final = 5.0  # between asking a child to stop and killing it


def find_function(name: str) -> Callable[..., Any]:
    """Return the function behind "module:function"."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


class InlineExecutor:
    """Runs the function in this process.

    Example:
        >>> InlineExecutor().run("genba.core.digest:digest_json", {"a": 1})[:8]
        '015abd7f'
    """

    def run(self, function: str, payload: JsonObject) -> JsonObject:
        """Run "module:function" on JSON and return JSON."""
        result: JsonObject = find_function(function)(payload)
        return result


class ProcessExecutor:
    """Runs the function in a child process with a process group of its own.

    The child dies with its parent, whatever kills the parent; its children die with it. Ctrl-C
    reaches the parent, which asks the child to stop and kills it when it does not.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or SilentProgress()

    def run(self, function: str, payload: JsonObject) -> JsonObject:
        """Run "module:function" on JSON and return JSON.

        Raises:
            Problem: What the function raised, unchanged; G403 when the child died or failed.
        """
        request = json.dumps({"function": function, "payload": payload}) + "\n"
        receive, send = os.pipe()
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", "genba.runs.child"],
                stdin=subprocess.PIPE,
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
                pass_fds=(send,),
                env={**os.environ, CHANNEL: str(send), "PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,
            )
        finally:
            os.close(send)
        try:
            with os.fdopen(receive, encoding="utf-8") as channel:
                _send(child, request)
                answer = self._listen(channel)
            child.wait()
        finally:
            _end(child)
        return _unpack(answer, function, child.returncode)

    def _listen(self, channel: IO[str]) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for line in channel:
            message = json.loads(line)
            if "progress" in message:
                forward(self._progress, message["progress"])
            else:
                answer = message
        return answer


def _has_descriptor(stream: Any) -> bool:
    try:
        return bool(stream.fileno() >= 0)
    except (OSError, ValueError, AttributeError):
        return False


def _send(child: subprocess.Popen[bytes], request: str) -> None:
    assert child.stdin is not None
    with suppress(BrokenPipeError):  # it died already; its exit code says how
        child.stdin.write(request.encode())
        child.stdin.flush()  # left open: its end tells the child that the parent is gone


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave no process of the group behind."""
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_PATIENCE_S)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        with suppress(OSError):
            child.stdin.close()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _unpack(answer: dict[str, Any], function: str, returncode: int) -> JsonObject:
    if "result" in answer:
        result: JsonObject = answer["result"]
        return result
    if "problem" in answer:
        problem = dict(answer["problem"])
        code, what = problem.pop("code"), problem.pop("what")
        raise Problem(code, what, tries=problem.pop("try"), **problem)
    if returncode < 0:
        name = signal.Signals(-returncode).name
        why = f"It was killed by {name}" + (
            ", most often for want of memory." if name == "SIGKILL" else "."
        )
    else:
        why = str(answer.get("crash", f"It ended with exit code {returncode}."))
    raise Problem(
        "G403",
        f"The process that ran {function.rpartition(':')[2]} died before it had a result.",
        where=function,
        why=why,
        tries=["repeat the command; it continues where it was", "genba doctor", "free -m"],
    )
