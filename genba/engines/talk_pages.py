"""Pages of the cache of keys and values: who has which, and which can be used again.

A full page is known by the tokens in it and all before them, so questions that begin alike (the
same instructions, the same documents) share the pages of their beginning. What is shared is never
written to again. Pages that nobody has are kept until their room is needed, the oldest going first.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from genba.core.protocols import Array

_START: Final = b""
_DIGEST_BYTES: Final = 16


@dataclass(slots=True)
class Held:
    """The pages of one question, in order."""

    pages: list[int]
    shared: int  # tokens at the beginning that were computed before
    names: list[bytes] = field(default_factory=list)  # of its full pages so far


class Pages:
    """Hands out pages.

    Args:
        count: How many there are.
        size: Tokens of a page.

    Example:
        >>> pages = Pages(4, 2)
        >>> first = pages.take(np.array([7, 8, 9]), 4)
        >>> pages.full(first, np.array([7, 8, 9]))
        >>> second = pages.take(np.array([7, 8, 5]), 4)
        >>> second.shared, second.pages[0] == first.pages[0], pages.take(np.array([1]), 4)
        (2, True, None)
    """

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self._size = size
        self._free = list(range(count))[::-1]
        self._users = [0] * count
        self._named: dict[bytes, int] = {}
        self._names: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # named, had by nobody; oldest first

    @property
    def used(self) -> int:
        """How many pages somebody has."""
        return self.count - len(self._free) - len(self._idle)

    def take(self, tokens: Array, length: int) -> Held | None:
        """Return pages for a question, None while there is no room for it.

        Args:
            tokens: The prompt. At least its last token is left to be computed.
            length: Tokens that prompt and answer may have together.
        """
        names, found = [], []
        for name in self._chain(_START, tokens[: len(tokens) - 1]):
            page = self._named.get(name)
            if page is None:
                break
            names.append(name)
            found.append(page)
        need = -(-length // self._size) - len(found)
        waiting = sum(self._users[page] == 0 for page in found)
        if need > len(self._free) + len(self._idle) - waiting:
            return None
        for page in found:
            self._users[page] += 1
            self._idle.pop(page, None)
        fresh = [self._fresh() for _ in range(need)]
        return Held(pages=found + fresh, shared=len(found) * self._size, names=names)

    def full(self, held: Held, tokens: Array) -> None:
        """Make known the pages that are full now.

        Args:
            held: Pages of a question.
            tokens: All its tokens that have been computed.
        """
        known = len(held.names)
        last = held.names[-1] if held.names else _START
        for name in self._chain(last, tokens[known * self._size :]):
            page = held.pages[len(held.names)]
            held.names.append(name)
            if name not in self._named:  # else another question was faster; both keep their own
                self._named[name] = page
                self._names[page] = name

    def give_back(self, held: Held) -> None:
        """Take pages back; those that are known stay for the next question that begins alike."""
        for page in reversed(held.pages):  # the beginning, shared by most, goes last
            self._users[page] -= 1
            if self._users[page]:
                continue
            if page in self._names:
                self._idle[page] = None
            else:
                self._free.append(page)
        held.pages = []

    def _fresh(self) -> int:
        if self._free:
            page = self._free.pop()
        else:
            page, _ = self._idle.popitem(last=False)
            del self._named[self._names.pop(page)]
        self._users[page] = 1
        return page

    def _chain(self, last: bytes, tokens: Array) -> list[bytes]:
        """Return a name for each full page; equal names, equal tokens up to the page's end."""
        names = []
        for at in range(0, len(tokens) - self._size + 1, self._size):
            part = np.ascontiguousarray(tokens[at : at + self._size], dtype=np.int64).tobytes()
            last = hashlib.blake2b(last + part, digest_size=_DIGEST_BYTES).digest()
            names.append(last)
        return names
