"""Opening the release in a slot, with exactly the content that the agent decided on."""

from pathlib import Path

from genba.core.problem import Problem
from genba.edge.agent.record import FOLDER
from genba.edge.agent.slots import Slots
from genba.edge.agent.values import Install
from genba.edge.memory import Memory
from genba.edge.release import Release, open_release
from genba.edge.trust import Trust


def open_slot(state: Path, install: Install, line: str, now_ms: int) -> Release:
    """Open what is in a slot.

    Args:
        state: The folder of the device.
        install: What the agent's state says of the slot.
        line: Of the device.
        now_ms: Trusted time, ms since 1970 UTC.

    Raises:
        Problem: G670 when the slot holds another release than the state says; as `open_release`.
    """
    release = open_release(
        Slots(state / FOLDER).folder(install.slot),
        Trust.at(state),
        Memory.at(state),
        now_ms,
        line=line,
        pinned=install.root,
    )
    number = release.statement.release
    if number != install.release or (install.root and release.signed.root != install.root):
        raise Problem(
            "G670",
            f"The slot {install.slot} holds release {number}, not {install.release}.",
            where=str(release.folder),
            why="Something else than the agent wrote to it.",
            tries=["genba-edge status", "genba-edge update"],
        )
    return release
