"""Bringing a release onto the device: only the pieces it lacks, from where it was cut off.

Every piece is compared with its digest before it counts. Sizes are known from what was signed, so
that neither a server nor a mistake can fill the disk.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from genba.core import io
from genba.core.digest import digest_bytes
from genba.core.problem import Problem
from genba.edge.agent.factory import Factory
from genba.edge.agent.listing import Listing, Piece, bad_list, read_listing
from genba.edge.agent.slots import INCOMING, Incoming, Slots, missing
from genba.edge.agent.values import Offer, Slot

_OBJECTS: Final = "/edge/objects"
_LISTS: Final = "lists"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What an agent may use."""

    most_bytes: int = 1 << 30  # of one release
    keep_free_bytes: int = 64 << 20  # of the disk


AS_USUAL: Final = Limits()


class Stock:
    """Everything of releases that is on this device.

    Args:
        folder: Of the agent.
    """

    def __init__(self, folder: Path) -> None:
        self.slots = Slots(folder)
        self.incoming = Incoming(folder / INCOMING)
        self._lists = folder / _LISTS

    def keep_list(self, data: bytes) -> str:
        """Keep the list of a release until the release is in a slot; return its digest."""
        digest = digest_bytes(data)
        io.make_dirs_durable(self._lists)
        io.write_durable(self._lists / digest, data)
        return digest

    def list_of(self, digest: str) -> Listing | None:
        """Return a list that was kept; None for one that is not here, or not any more."""
        try:
            data = (self._lists / digest).read_bytes()
        except OSError:
            return None
        return read_listing(data) if digest_bytes(data) == digest else None

    def fetch(self, offer: Offer, slot: Slot, factory: Factory | None, limits: Limits) -> None:
        """Fetch every piece of a release that is not here yet.

        Args:
            offer: The release.
            slot: Where it is going to be; what lies there now does not count.
            factory: Where to ask; None where everything must be here.
            limits: What it may use.

        Raises:
            Problem: G680 when the factory went away (what arrived is kept), G685 for pieces that
                are not what was signed, G686 when the release is too large for this device, G303
                when the disk is full.
        """
        listing = self._needed(offer)
        lacking = list(missing(listing, self.slots.places(besides=slot), self.incoming))
        self._check_room(offer, listing, lacking, limits)
        for piece in lacking:
            if factory is None:
                raise bad_list(f"The piece {piece.digest[:16]}… is not here.")
            self._one(piece, factory)

    def fill(self, offer: Offer, slot: Slot) -> None:
        """Put a release that was fetched into a slot that nothing names.

        Raises:
            Problem: G685 when a piece was damaged meanwhile; it is fetched again.
        """
        self.slots.fill(slot, self._needed(offer), self.incoming)

    def sweep(self, offer: Offer | None) -> None:
        """Forget what no release needs any more; an offer is still being fetched."""
        if offer is None:
            self.incoming.clear()
        for path in self._lists.glob("*"):
            if offer is None or path.name != offer.digest:
                io.disk().remove(path)

    def _needed(self, offer: Offer) -> Listing:
        listing = self.list_of(offer.digest)
        if listing is None:
            raise bad_list("It is not on this device; it is fetched again.")
        return listing

    def _one(self, piece: Piece, factory: Factory) -> None:
        offset = self.incoming.have(piece)
        if offset == piece.size:  # whole, and not what it should be
            self.incoming.drop(piece)
            offset = 0
        for data in factory.stream(f"{_OBJECTS}/{piece.digest}", offset, piece.size):
            self.incoming.add(piece, offset, data)
            offset += len(data)
        if digest_bytes(self.incoming.read(piece)) != piece.digest:
            self.incoming.drop(piece)
            raise Problem(
                "G685",
                "What the factory sent is not what was signed.",
                where=piece.digest,
                why="It was thrown away; nothing of it is used.",
                tries=["genba-edge update", "genba edge publish LINE  # at the factory, again"],
            )

    def _check_room(
        self, offer: Offer, listing: Listing, lacking: list[Piece], limits: Limits
    ) -> None:
        if listing.size_bytes > limits.most_bytes:
            raise _too_large(
                offer, f"It has {listing.size_bytes} bytes; {limits.most_bytes} are allowed here."
            )
        folder = self._lists
        free = shutil.disk_usage(folder).free
        here = sum(self.incoming.have(piece) for piece in lacking)
        needed = sum(piece.size for piece in lacking) - here + listing.size_bytes
        if needed + limits.keep_free_bytes > free:
            raise _too_large(
                offer,
                f"It needs {needed} bytes and {limits.keep_free_bytes} must stay free; "
                f"{free} are free.",
            )


def _too_large(offer: Offer, why: str) -> Problem:
    return Problem(
        "G686",
        f"There is no room on this device for release {offer.release}.",
        why=why,
        tries=["df -h .", "genba-edge agent --most-mib 2048", "genba explain G686"],
    )
