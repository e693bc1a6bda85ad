"""The agent's state on the disk: one file, replaced as a whole, with the way that led to it.

The process that answers and the one that updates both change it; a lock lets one of them read,
change and write at a time. Whatever interrupts them, the file is the one before or the one after.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from genba.core.codec import decode, encode
from genba.core.io import explained, make_dirs_durable, write_durable
from genba.core.problem import Problem
from genba.edge.agent.states import step
from genba.edge.agent.values import Event, Install, State

FOLDER: Final = "agent"
_FILE: Final = "state.json"
_LOCK: Final = "state.lock"
_CHANGES: Final = 100  # that are remembered


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One transition, as people and the factory read it."""

    number: int  # rises by one with every change of this device
    time_ms: int
    event: str
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """The file."""

    state: State
    changes: tuple[Change, ...] = ()

    @property
    def number(self) -> int:
        """Number of the newest change."""
        return self.changes[-1].number if self.changes else 0


class Record:
    """The state of an agent.

    Args:
        folder: Of the agent.
        line: Name of the line it runs.
    """

    def __init__(self, folder: Path, line: str) -> None:
        self.path = folder / _FILE
        self._line = line

    def read(self) -> Recorded:
        """Return what is on the disk; a new state where there is none.

        Raises:
            Problem: G687 when it is damaged.
        """
        try:
            body: Any = json.loads(self.path.read_bytes())
            return decode(Recorded, body)
        except FileNotFoundError:
            return Recorded(state=State(line=self._line))
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(self.path, str(error)) from error
        except Problem as problem:
            raise damaged(self.path, problem.what) from problem

    def step(self, event: Event, now_ms: int) -> State:
        """Take an event in; what it changes is durable on return.

        Raises:
            Problem: G687 when the state is damaged, G303 when the disk is full: then nothing
                changed.
        """
        with self._alone():
            before = self.read()
            state = step(before.state, event, now_ms)
            if state == before.state:
                return state
            change = Change(
                number=before.number + 1,
                time_ms=now_ms,
                event=type(event).__name__.lower(),
                what=told(before.state, state),
            )
            known = replace(before, state=state, changes=(*before.changes, change)[-_CHANGES:])
            text = json.dumps(encode(known), indent=1, ensure_ascii=False, allow_nan=False)
            write_durable(self.path, f"{text}\n".encode())
            return state

    @contextmanager
    def _alone(self) -> Iterator[None]:
        make_dirs_durable(self.path.parent)
        with explained(self.path.parent):
            lock = os.open(self.path.parent / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def told(before: State, after: State) -> str:
    """Say what changed, in one line.

    Example:
        >>> from genba.edge.agent.values import Offer
        >>> old = State(line="pump")
        >>> told(old, State(line="pump", offer=Offer(release=3, digest="d")))
        'release 3 is offered'
    """
    said = [*_offered(before, after)]
    for role in ("candidate", "active", "previous"):
        said += _moved(getattr(before, role), getattr(after, role))
    for refused in after.refused:
        if refused not in before.refused:
            said.append(f"release {refused.release} is refused: {refused.reason}")
    if len(after.refused) < len(before.refused):
        said.append("a refused release may be tried again")
    if after.starts > before.starts:
        said.append(f"what answers was started, {after.starts} times without a healthy answer yet")
    elif before.starts and not said:
        said.append("what answers is healthy")
    return "; ".join(said) or "the state changed"


def _offered(before: State, after: State) -> Iterator[str]:
    if after.offer is not None and after.offer != before.offer:
        is_new = before.offer is None or before.offer.release != after.offer.release
        yield f"release {after.offer.release} is {'offered' if is_new else 'here'}"


def _moved(old: Install | None, new: Install | None) -> Iterator[str]:
    if new is None:
        return
    if old is None or (old.release, old.phase) != (new.release, new.phase):
        yield f"release {new.release} is {new.phase}"
    elif new.confirmed_by != old.confirmed_by:
        yield f"release {new.release} is confirmed by {new.confirmed_by}"
    elif new.settled and not old.settled:
        yield f"release {new.release} is past its watch"


def damaged(path: Path, why: str) -> Problem:
    """Return the Problem of a file of the agent that cannot be read."""
    return Problem(
        "G687",
        f"{path.name} of the agent cannot be read.",
        where=str(path),
        why=why,
        tries=[f"mv {path} {path}.damaged", "genba-edge update", "genba explain G687"],
    )
