"""A word that nobody says by chance, put into the instructions: where it comes out, they leak.

The canary has 24 of 15 letters (93 bits). None of them is a vowel, and none has a digit that looks
like it, so neither a sentence nor digits for letters can make it by chance. It is told from the
letters and digits of an answer alone, in every form in which a model could be asked to write it:
spaced, in other scripts, reversed, with shifted letters, as codes; and inside of what base64, hex
or base32 hides (`genba.edge.rails.readings`).
"""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from genba.edge.rails.automaton import Substrings
from genba.edge.rails.letters import letters

_ALPHABET: Final = "cdfhjkmnpqrvwxy"
_LENGTH: Final = 24
_A: Final = ord("a")
_ROTATIONS: Final = 26
#: Of a to z.
_NATO: Final = """
    alfa bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar
    papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu
""".split()  # noqa: SIM905  # an alphabet is easier to read like this
MORSE: Final = """
    .- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .--
    -..- -.-- --..
""".split()  # noqa: SIM905  # as above


@dataclass(frozen=True, slots=True)
class Secret:
    """Texts that may not go out, and how much of them may not."""

    parts: Substrings
    most: int  # as many letters in a row do not go out


def canary_of(secret: bytes) -> str:
    """Return the canary that belongs to a secret: the same for the same, guessed by nobody else.

    Args:
        secret: At least 16 random bytes, or what is as hard to guess.

    Example:
        >>> canary_of(b"0123456789abcdef")
        'vvjxvjwnvrcncqfxqjvrdvjc'
    """
    number = int.from_bytes(hashlib.sha256(b"genba canary\n" + secret).digest(), "big")
    made = []
    for _ in range(_LENGTH):
        number, place = divmod(number, len(_ALPHABET))
        made.append(_ALPHABET[place])
    return "".join(made)


def with_canary(system: str, canary: str) -> str:
    r"""Return instructions with a canary behind them; without one as they were.

    Example:
        >>> with_canary("You answer questions about trains.", "cdfh")
        'You answer questions about trains.\n(cdfh)'
    """
    return f"{system}\n({canary})".lstrip() if canary else system


def secrets_of(canary: str, system: str, leak_letters: int) -> tuple[Secret, ...]:
    """Return what an answer is compared with, letter by letter.

    Args:
        canary: "" where there is none.
        system: The instructions; "" where there are none.
        leak_letters: So many letters of the instructions in a row are a leak.
    """
    found = []
    if canary:
        both = (canary, canary[::-1])
        shifted = [shift(one, by) for one in both for by in range(1, _ROTATIONS)]
        shifted += [_mirrored(one) for one in both]
        codes = [form for one in both for form in _codes(one)]
        found = [
            Secret(Substrings(both), 6),
            Secret(Substrings(shifted), 10),
            Secret(Substrings(codes), 16),
            Secret(Substrings(form for one in both for form in _spelt(one)), 40),
        ]
    said = letters(system)
    if len(said) >= leak_letters:
        found.append(Secret(Substrings([said]), leak_letters))
    return tuple(found)


def shift(text: str, by: int) -> str:
    """Return small letters shifted along the alphabet; rot13 is by 13.

    Example:
        >>> shift("hello", 13)
        'uryyb'
    """
    return "".join(
        chr((ord(c) - _A + by) % _ROTATIONS + _A) if "a" <= c <= "z" else c for c in text
    )


def morse(text: str) -> str:
    """Return small letters as dots and dashes with nothing between them."""
    return "".join(MORSE[ord(c) - _A] for c in text)


def _mirrored(text: str) -> str:
    """Return small letters with a for z and z for a (atbash)."""
    return "".join(chr(ord("z") - (ord(c) - _A)) for c in text)


def _codes(canary: str) -> Iterator[str]:
    """Yield the letters and digits of a canary in codes, small and capital, wherever it begins."""
    for word in (canary, canary.upper()):
        for spaced in (word, " ".join(word), "-".join(word), ".".join(word)):
            data = spaced.encode()
            for skipped in range(5):
                padded = b"\0" * skipped + data
                if skipped < 3:  # base64 has three bytes to a group
                    yield letters(base64.b64encode(padded).decode()[_first(skipped, 6) :])
                if spaced is word:
                    yield letters(base64.b32encode(padded).decode()[_first(skipped, 5) :])
        yield word.encode().hex()
        yield "".join(str(ord(c)) for c in word)
        yield "".join(f"{ord(c):o}" for c in word)
        yield "".join(f"{ord(c):03o}" for c in word)
        yield "".join(f"x{ord(c):02x}" for c in word)
        yield "".join(f"0x{ord(c):02x}" for c in word)
    yield "".join(str(ord(c) - _A + 1) for c in canary)
    yield "".join(f"{ord(c) - _A + 1:02d}" for c in canary)


def _spelt(canary: str) -> Iterator[str]:
    """Yield the forms that take many letters for one."""
    for word in (canary, canary.upper()):
        yield "".join(f"{ord(c):08b}" for c in word)
        yield "".join(f"{ord(c):07b}" for c in word)
        yield "".join(f"u{ord(c):04x}" for c in word)
    yield "".join(_NATO[ord(c) - _A] for c in canary)


def _first(skipped: int, bits: int) -> int:
    """Return the first sign that depends on nothing in front of `skipped` bytes."""
    return -(-skipped * 8 // bits)
