"""Watching a stream of text for secrets; says how far it may go out."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Final

from genba.edge.rails.automaton import Substrings
from genba.edge.rails.canary import Secret, morse, shift
from genba.edge.rails.letters import fold

#: A run of signs without a space from which it may be code; below, it holds under 8 letters.
_RUN: Final = 10
#: A longer run is not looked into, and does not go out.
LONGEST_RUN: Final = 4_096
_SIGNS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-")
_BEATS: Final = {".": ".", "·": ".", "•": ".", "-": "-", "−": "-", "–": "-", "—": "-", "_": "-"}
_MOST_BEATS: Final = 24  # in a row, of the canary's about 90
_HEX: Final = re.compile(r"[0-9a-fA-F]{8,}")
_BASE32: Final = re.compile(r"[A-Z2-7]{8,}")
_DEPTH: Final = 2  # codes within codes that are looked into


class LeakWatch:
    """Reads a stream piece by piece.

    Args:
        secrets: See `genba.edge.rails.canary.secrets_of`.
        beats: The canary as dots and dashes, None where there is none.

    Attributes:
        reason: Why nothing more may go out; "" while all is well.
    """

    def __init__(
        self, secrets: Sequence[Secret], beats: Substrings | None, depth: int = _DEPTH
    ) -> None:
        self._secrets = secrets
        self._beats = beats
        self._depth = depth
        self._at = [(0, 0)] * len(secrets)
        self._beat = (0, 0)
        self._origins: list[int] = []  # place in the stream of each of the newest letters
        self._beat_origins: list[int] = []
        self._run: list[str] = []
        self._count = 0
        self._most = max((s.most for s in secrets), default=0)
        self.reason = ""

    def take(self, text: str) -> None:
        """Read on."""
        for character in text:
            if self.reason:
                return
            self._letters(character)
            self._beats_of(character)
            self._signs(character)
            self._count += 1
        del self._origins[: -self._most or None]
        del self._beat_origins[:-_MOST_BEATS]

    def end(self) -> None:
        """Say that the stream is over."""
        if not self.reason:
            self._look_into()

    @property
    def safe(self) -> int:
        """How many characters of the stream can no longer become part of a secret."""
        held = [self._count]
        longest = max((matched for _, matched in self._at), default=0)
        if longest:
            held.append(self._origins[-longest])
        if self._beat[1]:
            held.append(self._beat_origins[-self._beat[1]])
        if len(self._run) >= _RUN:
            held.append(self._count - len(self._run))
        return min(held)

    def _letters(self, character: str) -> None:
        for letter in fold(character):
            self._origins.append(self._count)
            for n, secret in enumerate(self._secrets):
                self._at[n] = secret.parts.step(self._at[n], letter)
                if self._at[n][1] >= secret.most:
                    self.reason = "The answer repeats what only the instructions of the line say."

    def _beats_of(self, character: str) -> None:
        beat = _BEATS.get(character)
        if self._beats is None or (beat is None and character.isalnum()):
            self._beat = (0, 0)
        elif beat is not None:
            self._beat_origins.append(self._count)
            self._beat = self._beats.step(self._beat, beat)
            if self._beat[1] >= _MOST_BEATS:
                self.reason = "The answer spells the mark of its instructions in Morse code."

    def _signs(self, character: str) -> None:
        if character in _SIGNS:
            self._run.append(character)
            if len(self._run) > LONGEST_RUN:
                self.reason = f"The answer has over {LONGEST_RUN:,} signs without a space."
        elif self._run:
            self._look_into()

    def _look_into(self) -> None:
        """Look for the secrets in what a run of signs may stand for."""
        run, self._run = "".join(self._run), []
        word = run.isalpha() and run[1:].islower()  # codes have capitals or digits before long
        if len(run) < _RUN or word or not self._depth:
            return
        for text in decoded(run):
            inner = LeakWatch(self._secrets, self._beats, self._depth - 1)
            inner.take(text)
            inner.end()
            if inner.reason:
                self.reason = "The answer hides what only the instructions of the line say."
                return


def beats_of(canary: str) -> Substrings | None:
    """Return a canary as dots and dashes, to look for in a stream."""
    return Substrings([morse(canary)]) if canary else None


def decoded(run: str) -> Iterator[str]:
    """Yield the texts that a run of signs may stand for: base64, base32, hex; forth and back.

    Example:
        >>> "secret" in list(decoded("c2VjcmV0")), "secret" in list(decoded("x-736563726574"))
        (True, True)
    """
    for signs in (run, run[::-1], _turned(run)):
        clean = signs.replace("-", "+").replace("_", "/").replace("=", "")
        for skipped in range(4):
            part = clean[skipped:]
            yield from _text(part[: len(part) // 4 * 4] if skipped else _padded(part), "64")
        for digits in _HEX.findall(signs):
            for skipped in range(2):
                even = digits[skipped:]
                yield from _text(even[: len(even) // 2 * 2], "16")
        for found in _BASE32.findall(signs.upper()):
            for skipped in range(8):
                part = found[skipped:]
                yield from _text(part[: len(part) // 8 * 8], "32")


def _turned(signs: str) -> str:
    """Return signs with rot13, capitals as capitals."""
    return "".join(shift(c, 13) if c.islower() else shift(c.lower(), 13).upper() for c in signs)


def _padded(signs: str) -> str:
    """Return base64 with its padding; a single sign too many is left out."""
    whole = signs[:-1] if len(signs) % 4 == 1 else signs
    return whole + "=" * (-len(whole) % 4)


def _text(signs: str, code: str) -> Iterator[str]:
    """Yield what signs say in a code, if that is text."""
    try:
        if code == "64":
            data = base64.b64decode(signs, validate=True)
        elif code == "32":
            data = base64.b32decode(signs)
        else:
            data = binascii.unhexlify(signs)
    except (binascii.Error, ValueError):
        return
    text = data.decode("utf-8", errors="replace")
    if text and sum(c.isprintable() or c.isspace() for c in text) > len(text) // 2:
        yield text.replace("\ufffd", "")
