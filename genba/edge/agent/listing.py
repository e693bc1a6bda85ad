"""What a release consists of: files, and the pieces they are cut into, by digest.

A file is its pieces, one after the other. The factory cuts where tensors begin, so that a tensor
that did not change is the same piece in the next release; a device fetches only pieces that it does
not have. Nothing here is believed before the list itself was checked against signed metadata.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from genba.core.codec import decode, encode
from genba.core.digest import canonical_json, digest_bytes, is_digest
from genba.core.problem import Problem
from genba.edge.agent.rules import Plan, plan_of

FORMAT: Final = 1
LIST_BYTES: Final = 4 << 20  # of a list; more is no list
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_DEEPEST: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of a file."""

    digest: str  # sha256
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A release as a device gets it."""

    format: int = FORMAT
    line: str
    release: int
    files: Mapping[str, tuple[Piece, ...]]
    plan: Plan = field(default_factory=Plan)

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(piece.size for piece in self.pieces())

    def pieces(self) -> Iterator[Piece]:
        """Yield every piece of every file; one that is there twice, twice."""
        for path in sorted(self.files):
            yield from self.files[path]


def encode_listing(listing: Listing) -> bytes:
    """Return a list as it is signed."""
    return canonical_json(encode(listing))


def read_listing(data: bytes) -> Listing:
    """Read a list.

    Raises:
        Problem: G685 for what is none, G603 when a newer version wrote it.

    Example:
        >>> made = Listing(line="pump", release=1, files={"a.json": (piece_of(b"{}"),)})
        >>> read_listing(encode_listing(made)) == made
        True
    """
    try:
        body: Any = json.loads(data)
        version = body["format"]
        if version == FORMAT:
            body = {**body, "plan": plan_of(dict(body.get("plan", {})))}
            listing = decode(Listing, body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise bad_list(f"{type(error).__name__}: {error}") from error
    except Problem as problem:
        raise bad_list(problem.what) from problem
    if version != FORMAT:
        raise Problem(
            "G603",
            f"The list of the release has format {version!r}; this version reads {FORMAT}.",
            tries=["pip install --upgrade genba-edge", "genba explain G603"],
        )
    _check(listing)
    return listing


def piece_of(data: bytes | memoryview) -> Piece:
    """Return the piece that some bytes are."""
    return Piece(digest=digest_bytes(data), size=len(data))


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    """Cut bytes at offsets.

    Example:
        >>> cut(b"abcdef", [2, 4])
        [b'ab', b'cd', b'ef']
    """
    ends = [*sorted({a for a in at if 0 < a < len(data)}), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def bad_list(why: str) -> Problem:
    """Return the Problem of a list that cannot be used."""
    return Problem(
        "G685",
        "The list of the release cannot be used.",
        why=why,
        tries=["genba-edge update", "genba edge publish LINE  # at the factory, again"],
    )


def _check(listing: Listing) -> None:
    for path, pieces in listing.files.items():
        parts = path.split("/")
        if len(parts) > _DEEPEST or not all(_PART.fullmatch(p) and ".." not in p for p in parts):
            raise bad_list(f"It names a file {path[:80]!r}.")
        if any(not is_digest(piece.digest) or piece.size < 0 for piece in pieces):
            raise bad_list(f"A piece of {path} has no digest or size.")
    folders = {path.rpartition("/")[0] for path in listing.files}
    if folders & listing.files.keys() or listing.release < 1 or not listing.files:
        raise bad_list("Its files or its number contradict each other.")
