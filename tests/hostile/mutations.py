"""Requests that were damaged at random, always the same ones for the same seed."""

import random
import re
from collections.abc import Callable
from typing import Final

from tests.hostile import bodies, corpus

_MOST_BYTES: Final = 8_192
_ANYWHERE: Final = 0.4  # of the damages; the others spare the head, which is then right about it
_OFTEN: Final = 0.5  # what was right before it was damaged gets furthest
_LENGTH: Final = re.compile(rb"\r\nContent-Length: \d+")
#: What parsers trip over.
_TOKENS: Final = (
    b"\r\n", b"\n", b"\r", b"\0", b"\xff", b" ", b"\t", b":", b"0", b"-1", b"{", b"}", b"[", b"]",
    b'"', b"\\u0000", b"null", b"1e999", b"NaN", b"Content-Length: 0\r\n", b"\r\n\r\n",
    b"0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
    b"99999999999999999999", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"%00", b"../",
    b"Content-Encoding: gzip\r\n", b"Accept-Encoding: gzip\r\n",
    b"Inference-Header-Content-Length: 9\r\n",
    b"X-Genba-Deadline-Ms: 1\r\n", b"X-Genba-Priority: batch\r\n", b"HTTP/1.0",
)  # fmt: skip
_SEEDS: Final = [
    sent
    for _, cases in [("http", corpus.HTTP), *bodies.ALL]
    for _, sent, _ in cases
    if 0 < len(sent) <= _MOST_BYTES
]
_FINE: Final = [
    sent
    for _, cases in [("http", corpus.HTTP), *bodies.ALL]
    for _, sent, expected in cases
    if len(sent) <= _MOST_BYTES and expected and set(expected) == {"200"}
]


def _flip(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at] ^= 1 << chance.randrange(8)


def _replace(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at : at + chance.randrange(1, 5)] = chance.choice(_TOKENS)


def _insert(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(_TOKENS)


def _remove(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.randrange(1, 17)]


def _repeat(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at:at] = data[at : at + chance.randrange(1, 65)] * chance.randrange(1, 4)


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _splice(data: bytearray, chance: random.Random) -> None:
    other = chance.choice(_SEEDS)
    data[chance.randrange(len(data)) :] = other[chance.randrange(len(other)) :]


_WAYS: Final[tuple[Callable[[bytearray, random.Random], None], ...]] = (
    _flip, _flip, _replace, _replace, _insert, _insert, _remove, _repeat, _cut, _splice
)  # fmt: skip


def damage(data: bytearray, chance: random.Random) -> bytes:
    """Return bytes with a few damages."""
    for _ in range(chance.randrange(1, 4)):
        if data:
            chance.choice(_WAYS)(data, chance)
    return bytes(data)


def mutated(chance: random.Random) -> bytes:
    """Return a request of the corpus with a few damages: anywhere, or in its body only."""
    sent = chance.choice(_FINE if chance.random() < _OFTEN else _SEEDS)
    if chance.random() < _ANYWHERE:
        return damage(bytearray(sent), chance)
    head, end, body = sent.partition(b"\r\n\r\n")
    body = damage(bytearray(body), chance) if body else body
    head = _LENGTH.sub(b"\r\nContent-Length: %d" % len(body), head, count=1)
    return head + end + body
