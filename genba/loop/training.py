"""How a challenger comes about: the data it is trained on and the process that trains it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.protocols import Modality
from genba.core.resolve import resolve
from genba.core.task import Task
from genba.core.values import DatasetVersion
from genba.data.feedback import effective_labels
from genba.data.live import ORIGIN
from genba.data.versions import load
from genba.loop.state import LineState
from genba.store.home import Store

Launch = Callable[[Sequence[str]], None]


#: Priority of a run beside a server on the same cores: whoever asks for predictions goes first.
NICE: Final = 10
_STOP_S: Final = 10.0


class ProcessLauncher:
    """Starts runs as child processes of low priority; their progress goes to stderr."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []

    def __call__(self, command: Sequence[str]) -> None:
        """Start a command and return at once."""
        self._children = [c for c in self._children if c.poll() is None]
        child = subprocess.Popen(  # noqa: S603  # an argument list made here, no shell
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        with suppress(ProcessLookupError):  # it may have ended already
            os.setpriority(os.PRIO_PROCESS, child.pid, NICE)
        self._children.append(child)

    def wait(self) -> None:
        """Wait until every run that was started has ended."""
        for child in self._children:
            child.wait()

    def stop(self) -> None:
        """Interrupt the runs that are going on, as Ctrl-C would; they continue when run again."""
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
        for child in self._children:
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def command(store: Store, line: str, reason: str, dataset: str) -> list[str]:
    """Return the command that runs a line on a dataset version, as a list of arguments."""
    options = ["--home", str(store.path), "--line", line, "--reason", reason, "--dataset", dataset]
    return [sys.executable, "-m", "genba", "run", *options]


def extended_dataset(store: Store, line: Line, state: LineState) -> str:
    """Return a dataset version with everything that was served and said since the first one.

    It starts from the version that was read from the source, so a label that came late reaches a
    row captured long ago, and one that was taken back is gone. Where rows are split by time the
    newest live ones are always the test: as time passes, what was once newest becomes training
    data, and no model is ever tested on rows it was trained on.
    """
    task: Task = resolve("task", line.task)()
    modality: Modality = resolve("modality", task.modality)()
    version = _root(store, line, state)
    captures = store.ledger.find("capture", line=line.name)[::-1]
    lessons = effective_labels(store, line.name)
    return modality.extend(store, line, version, captures, lessons).id


def _root(store: Store, line: Line, state: LineState) -> DatasetVersion:
    dataset: str | None = state.dataset
    stable = state.rollout.stable
    if dataset is None and stable:
        dataset = (store.ledger.get("package", stable.package) or {}).get("dataset")
    if dataset is None:
        raise Problem(
            "G811",
            f"The line {line.name} has no dataset to extend.",
            where=line.name,
            why="No run of it has finished reading its source.",
            tries=[f"genba run {line.name}"],
        )
    version = load(store, dataset)
    while version.parent and any(s.origin == ORIGIN for s in version.segments):
        version = load(store, version.parent)
    return version
