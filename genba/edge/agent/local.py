"""A release that was brought on a stick: the same way into a slot, without a factory."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from genba.core.problem import Problem
from genba.edge.agent.enrolment import not_enrolled
from genba.edge.agent.listing import Listing, cut, encode_listing, piece_of
from genba.edge.agent.values import Offer, Offered
from genba.edge.memory import Memory
from genba.edge.release import open_release
from genba.edge.trust import Trust

if TYPE_CHECKING:
    from genba.edge.agent.runner import Agent

_PIECE: Final = 4 << 20


def stage_folder(agent: "Agent", folder: Path) -> Offered:
    """Bring the files of a release onto the device, checked, and offer it.

    Args:
        agent: Of the device.
        folder: What `genba export edge` wrote.

    Raises:
        Problem: As `genba.edge.release.open_release`; G687 when this device would not take it,
            G303 when the disk is full.
    """
    state = agent.state
    release = open_release(
        folder,
        Trust.at(agent.state_dir),
        Memory.at(agent.state_dir),
        agent.time.now_ms(),
        line=state.line,
    )
    number = release.statement.release
    refusal = state.refusal(number)
    if refusal is not None:
        raise _refused(number, refusal.reason)
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        parts = cut(data, range(_PIECE, len(data), _PIECE))
        for part in parts:
            piece = piece_of(part)
            if agent.stock.incoming.have(piece) < piece.size:
                agent.stock.incoming.add(piece, 0, part)
        files[path.relative_to(folder).as_posix()] = tuple(map(piece_of, parts))
    listing = Listing(line=state.line, release=number, files=files)
    digest = agent.stock.keep_list(encode_listing(listing))
    offer = Offer(release=number, digest=digest, size_bytes=listing.size_bytes)
    return Offered(offer=offer)


def _refused(number: int, reason: str) -> Problem:
    problem = not_enrolled(f"Release {number} was refused here before: {reason}.")
    problem.tries = (f"genba-edge update --retry {number} --from DIR", "genba-edge status")
    return problem
