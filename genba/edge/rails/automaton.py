"""Finding secrets in a stream of letters: how much of what was just said is part of a secret.

A suffix automaton knows every substring of a text; fed letter by letter it says how many of the
last letters are together one of them (matching statistics; Blumer et al., "The smallest automaton
recognizing the subwords of a text", TCS 40, 1985). So a stream is held back exactly as far as it
could still turn into a secret, which for ordinary sentences is a few letters.
"""

from collections import deque
from collections.abc import Iterable

from genba.edge.rails.letters import fold

#: Between texts; no stream of letters holds it.
_BETWEEN = "\n"


class Substrings:
    """Every substring of some texts.

    Args:
        texts: As letters; see `genba.edge.rails.letters`.

    Example:
        >>> secret = Substrings(["swordfish"])
        >>> place = (0, 0)
        >>> for letter in "thewordfi":
        ...     place = secret.step(place, letter)
        >>> place[1]
        6
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._link = [-1]
        self._length = [0]
        self._last = 0
        for text in texts:
            for letter in (*text, _BETWEEN):
                self._add(letter)

    def step(self, place: tuple[int, int], letter: str) -> tuple[int, int]:
        """Go on by one letter.

        Args:
            place: (state, letters matched); begins as (0, 0).
            letter: The next of the stream.

        Returns:
            Where that leads; the second number says how many of the last letters of the stream
            are together part of a text.
        """
        state, matched = place
        while state and letter not in self._next[state]:
            state = self._link[state]
            matched = self._length[state]
        found = self._next[state].get(letter)
        return (0, 0) if found is None else (found, matched + 1)

    def _add(self, letter: str) -> None:
        state = self._new(dict[str, int](), -1, self._length[self._last] + 1)
        before = self._last
        while before >= 0 and letter not in self._next[before]:
            self._next[before][letter] = state
            before = self._link[before]
        self._link[state] = 0 if before < 0 else self._split(before, letter)
        self._last = state

    def _split(self, before: int, letter: str) -> int:
        """Return the state that ends like the new one, made where it is part of a longer one."""
        found = self._next[before][letter]
        if self._length[before] + 1 == self._length[found]:
            return found
        clone = self._new(dict(self._next[found]), self._link[found], self._length[before] + 1)
        self._link[found] = clone
        at = before
        while at >= 0 and self._next[at].get(letter) == found:
            self._next[at][letter] = clone
            at = self._link[at]
        return clone

    def _new(self, next_: dict[str, int], link: int, length: int) -> int:
        self._next.append(next_)
        self._link.append(link)
        self._length.append(length)
        return len(self._length) - 1


class Beginnings:
    """Phrases that must not be completed.

    Args:
        phrases: As letters.

    Example:
        >>> Beginnings(["competitor"]).step("compe", "t")
        ('compet', ())
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self._whole = frozenset(p for p in phrases if p)
        self._begun = frozenset(p[:n] for p in self._whole for n in range(1, len(p) + 1))
        self._longest = max(map(len, self._whole), default=0)

    def step(self, begun: str, letter: str) -> tuple[str, tuple[int, ...]]:
        """Go on by one letter.

        Args:
            begun: What `step` returned before; "" at first.
            letter: The next of the stream.

        Returns:
            The last letters that may become a phrase, and how long those are that are complete.
        """
        tail = (begun + letter)[-self._longest :] if self._longest else ""
        ends = tuple(len(p) for p in self._whole if tail.endswith(p)) if tail else ()
        while tail and tail not in self._begun:
            tail = tail[1:]
        return tail, ends

    def within(self, text: str) -> bool:
        """Say whether a word of a text begins with a phrase, however it is written.

        Example:
            >>> shops = Beginnings(["ant"])
            >>> shops.within("An ants' nest"), shops.within("We want it")
            (True, False)
        """
        begun, places = "", deque[int](maxlen=max(self._longest, 1))
        for n, character in enumerate(text):
            for letter in fold(character):
                places.append(n)
                begun, ends = self.step(begun, letter)
                if any(starts_word(text, places[-size]) for size in ends):
                    return True
        return False


def starts_word(text: str, at: int) -> bool:
    """Say whether a word begins here; scripts without spaces begin one anywhere."""
    return at == 0 or not (text[at - 1].isalnum() and text[at - 1].isascii())
