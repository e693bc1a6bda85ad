"""The two slots of a device, and the pieces on the way into one.

A slot is a folder with one release. It is filled from pieces that arrived and from pieces of the
releases that are already here; every piece is compared with its digest while it is copied. Only
when everything is in place and synced does the state of the agent name the slot.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from genba.core import io
from genba.core.digest import digest_bytes
from genba.core.problem import Problem
from genba.edge.agent.listing import Listing, Piece, encode_listing, read_listing
from genba.edge.agent.values import Slot

SLOTS: Final = "slots"
INCOMING: Final = "incoming"
_DIGITS: Final = 12  # of an offset in the name of a segment


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece is on this device."""

    path: Path
    offset: int


class Incoming:
    """Pieces that arrive: each is a row of segments, so that what was cut off can go on.

    Args:
        folder: Theirs alone; made when the first piece arrives.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def have(self, piece: Piece) -> int:
        """Return how many bytes of a piece are here without a gap from its beginning."""
        end = 0
        for offset, path in self._segments(piece):
            if offset != end:
                break
            end += path.stat().st_size
        return min(end, piece.size)

    def add(self, piece: Piece, offset: int, data: bytes) -> None:
        """Keep bytes that arrived; durable on return.

        Raises:
            Problem: G303 when the disk is full; what was here before stays.
        """
        io.make_dirs_durable(self.folder)
        io.write_durable(self.folder / f"{piece.digest}.{offset:0{_DIGITS}d}", data)

    def read(self, piece: Piece) -> bytes:
        """Return a piece that is here whole."""
        return b"".join(path.read_bytes() for _, path in self._segments(piece))[: piece.size]

    def drop(self, piece: Piece) -> None:
        """Forget what is here of a piece."""
        for _, path in self._segments(piece):
            io.disk().remove(path)

    def clear(self) -> None:
        """Forget everything."""
        if self.folder.is_dir():
            for path in list(self.folder.iterdir()):
                io.disk().remove(path)

    def _segments(self, piece: Piece) -> list[tuple[int, Path]]:
        found = self.folder.glob(f"{piece.digest}.*")
        return sorted((int(path.suffix[1:]), path) for path in found if path.suffix[1:].isdigit())


class Slots:
    """Both slots of a device.

    Args:
        folder: Of the agent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / SLOTS

    def folder(self, slot: Slot) -> Path:
        """Return where the release of a slot lies."""
        return self._folder / slot

    def fill(self, slot: Slot, listing: Listing, incoming: Incoming) -> None:
        """Put a release into a slot that nothing names; durable on return.

        Raises:
            Problem: G685 when a piece is not what its digest says (it is forgotten, to be fetched
                again), G303 when the disk is full.
        """
        here = self.places(besides=slot)
        self.clear(slot)
        target = self.folder(slot)
        for path in sorted(listing.files):
            io.make_dirs_durable((target / path).parent)
            self._write(target / path, listing.files[path], here, incoming)
        io.write_durable(self._list(slot), encode_listing(listing))

    def places(self, besides: Slot | None = None) -> dict[str, Place]:
        """Return where every piece of the releases on this device lies, by digest.

        Args:
            besides: A slot to leave out, because it is about to be filled.
        """
        found: dict[str, Place] = {}
        slots: tuple[Slot, ...] = ("a", "b")
        for slot in slots:
            listing = None if slot == besides else self.listing(slot)
            for path, pieces in listing.files.items() if listing else ():
                offset = 0
                for piece in pieces:
                    found[piece.digest] = Place(self.folder(slot) / path, offset)
                    offset += piece.size
        return found

    def listing(self, slot: Slot) -> Listing | None:
        """Return the list of what a slot holds; None where that is not known."""
        with suppress(OSError, Problem):
            return read_listing(self._list(slot).read_bytes())
        return None

    def clear(self, slot: Slot) -> None:
        """Empty a slot that nothing names."""
        root = self.folder(slot)
        io.disk().remove(self._list(slot))
        for path in sorted(root.rglob("*"), reverse=True):  # what is inside a folder comes first
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):
                    path.rmdir()
            else:
                io.disk().remove(path)

    def _write(
        self, path: Path, pieces: tuple[Piece, ...], here: dict[str, Place], incoming: Incoming
    ) -> None:
        with io.new_file(path.parent) as (temporary, file):
            for piece in pieces:
                io.disk().write(file, _read(piece, here, incoming))
        io.replace_durable(temporary, path)

    def _list(self, slot: Slot) -> Path:
        return self._folder / f"{slot}.json"


def missing(listing: Listing, here: dict[str, Place], incoming: Incoming) -> Iterator[Piece]:
    """Yield the pieces of a release that are not on this device, each once."""
    seen: set[str] = set()
    for piece in listing.pieces():
        if piece.digest in seen or _found(piece, here) is not None:
            continue
        seen.add(piece.digest)
        if incoming.have(piece) < piece.size or digest_bytes(incoming.read(piece)) != piece.digest:
            yield piece


def _found(piece: Piece, here: dict[str, Place]) -> bytes | None:
    """Return a piece of a release that is here, if it is still what it was."""
    if not piece.size:
        return b""
    place = here.get(piece.digest)
    if place is None:
        return None
    with suppress(OSError), place.path.open("rb") as file:
        file.seek(place.offset)
        data = file.read(piece.size)
        if digest_bytes(data) == piece.digest:
            return data
    return None


def _read(piece: Piece, here: dict[str, Place], incoming: Incoming) -> bytes:
    found = _found(piece, here)
    if found is not None:
        return found
    data = incoming.read(piece)
    if digest_bytes(data) == piece.digest:
        return data
    incoming.drop(piece)
    raise Problem(
        "G685",
        "A piece of the release is not what its digest says; it is fetched again.",
        where=piece.digest,
        tries=["genba-edge update", "df -h .  # a disk that fails also shows like this"],
    )


def write_json(path: Path, body: object) -> None:
    """Write a small file of the agent as JSON that people can read."""
    text = json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False)
    io.write_durable(path, f"{text}\n".encode())
