"""Bad requests and what has to be said to each of them: data, checked by `test_corpus.py`.

A case is a name, the bytes, and the status and code of every answer, in order; what is not
answered at all has none. The server has a line `pump` of sensors and a line `parts` of images.
"""

import json
from typing import Final

from tests.hostile.wire import GOOD, URL, post, window

Case = tuple[str, bytes, list[str]]

_FINE: Final = ["200"]
_BAD: Final = ["400 G708"]
_WRONG: Final = ["400 G704"]
_GET: Final = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
_INFER: Final = f"POST {URL} HTTP/1.1\r\n".encode()
_BODY: Final = json.dumps(window()).encode()
_MOST: Final = 20 * 1_024 * 1_024  # of a body


def _head(*fields: str, line: bytes = _INFER, end: bytes = b"\r\n") -> bytes:
    return line + b"".join(field.encode("latin-1") + end for field in fields) + end


def _sized(*fields: str, size: int = len(_BODY)) -> bytes:
    return _head("Host: localhost", f"Content-Length: {size}", *fields) + _BODY


def _chunked(*pieces: bytes, fields: tuple[str, ...] = ()) -> bytes:
    return _head("Host: localhost", "Transfer-Encoding: chunked", *fields) + b"".join(pieces)


def _chunk(data: bytes, size: bytes = b"", end: bytes = b"\r\n") -> bytes:
    return (size or b"%x" % len(data)) + b"\r\n" + data + end


_LAST: Final = b"0\r\n\r\n"

#: The grammar of HTTP/1.1 (RFC 9112), and what proxies and servers have disagreed about.
HTTP: Final[list[Case]] = [
    ("a good request", GOOD, _FINE),
    ("two of them", GOOD + GOOD, _FINE * 2),
    ("in chunks", _chunked(_chunk(_BODY[:9]), _chunk(_BODY[9:]), _LAST), _FINE),
    ("an empty line before it", b"\r\n" + GOOD, _FINE),
    ("nothing", b"", []),
    ("not HTTP", b"hello\r\n\r\n", _BAD),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64, _BAD),
    ("HTTP/0.9", b"GET /v2\r\n\r\n", ["505 G708"]),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 9, _BAD),
    ("a version there is not", b"GET /v2 HTTP/1.7\r\nHost: localhost\r\n\r\n", _BAD),
    ("a method there is not", b"FROBNICATE /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", _BAD),
    ("a method in small letters", b"get /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", _BAD),
    ("a method nobody offers", b"DELETE /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", ["405 G708"]),
    ("TRACE", b"TRACE /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", ["405 G708"]),
    ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", _BAD),
    ("the whole server", b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", ["404 G708"]),
    (
        "an address with its host",
        b"GET http://a/v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ["404 G708"],
    ),
    ("an address that is none", b"GET /v2/%zz/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", _BAD),
    ("up and up", b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", ["404 G708"]),
    ("a long address", b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", ["431 G708"]),
    ("two spaces", b"GET  /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", _FINE),
    ("no Host", b"GET /v2 HTTP/1.1\r\n\r\n", _BAD),
    ("an empty Host", b"GET /v2 HTTP/1.1\r\nHost:\r\n\r\n", ["403 G709"]),
    ("two Hosts", b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", _BAD),
    ("another Host", b"GET /v2 HTTP/1.1\r\nHost: evil.example\r\n\r\n", ["403 G709"]),
    ("another Origin", _sized("Origin: https://evil.example"), ["403 G709"]),
    ("a field without colon", b"GET /v2 HTTP/1.1\r\nHost localhost\r\n\r\n", _BAD),
    ("a space before the colon", b"GET /v2 HTTP/1.1\r\nHost : localhost\r\n\r\n", _BAD),
    ("a folded field", b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", _BAD),
    ("NUL in a field", b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", _BAD),
    ("a bare line feed", b"GET /v2 HTTP/1.1\nHost: localhost\n\n", _BAD),
    ("a bare carriage return", b"GET /v2 HTTP/1.1\r\nHost: localhost\rX: a\r\n\r\n", _BAD),
    ("a long field", _GET[:-2] + b"X: " + b"a" * 40_000 + b"\r\n\r\n", ["431 G708"]),
    ("a thousand fields", _GET[:-2] + b"X: abcdefghijklm\r\n" * 1_500 + b"\r\n", ["431 G708"]),
    ("an upgrade", _GET[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", _BAD),
    ("a websocket", _GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", _BAD),
    ("an expectation", _sized("Expect: 200-ok"), ["417 G708"]),
    ("half a head", b"GET /v2 HTTP/1.1\r\nHost: local", []),
    ("half a body", GOOD[:-9], []),
    ("a body nobody announced", _head("Host: localhost") + _BODY, [*_WRONG, *_BAD]),
    ("a body longer than it says", _sized(size=len(_BODY) - 1), [*_WRONG, *_BAD]),
    ("no length", _head("Host: localhost"), _WRONG),
    ("a length of words", _head("Host: localhost", "Content-Length: many"), _BAD),
    ("a negative length", _head("Host: localhost", "Content-Length: -1"), _BAD),
    ("a length with a sign", _sized().replace(b"Length: ", b"Length: +"), _BAD),
    ("a hexadecimal length", _head("Host: localhost", "Content-Length: 0x10"), _BAD),
    ("a length with a comma", _head("Host: localhost", "Content-Length: 5, 5"), _BAD),
    ("a huge length", _head("Host: localhost", f"Content-Length: {10**30}"), _BAD),
    ("a large body", _head("Host: localhost", f"Content-Length: {_MOST + 1}"), ["413 G708"]),
    ("two lengths", _sized(f"Content-Length: {len(_BODY)}"), _BAD),
    ("two lengths that differ", _sized("Content-Length: 3"), _BAD),
    ("a length and chunks", _sized("Transfer-Encoding: chunked"), _BAD),
    ("chunks and a length", _chunked(_LAST, fields=("Content-Length: 5",)), _BAD),
    ("an encoding there is not", _sized("Transfer-Encoding: gzip")[:40] + b"\r\n\r\n", _BAD),
    ("identity", _head("Host: localhost", "Transfer-Encoding: identity"), _BAD),
    ("chunked twice", _chunked(_LAST, fields=("Transfer-Encoding: chunked",)), _BAD),
    ("chunked, and not last", _head("Host: localhost", "Transfer-Encoding: chunked, gzip"), _BAD),
    ("chunked in disguise", _head("Host: localhost", "Transfer-Encoding: \x0bchunked"), _BAD),
    ("chunked with quotes", _head("Host: localhost", 'Transfer-Encoding: "chunked"'), _BAD),
    ("a chunk without a size", _chunked(b"\r\n" + _BODY), _BAD),
    ("a chunk of words", _chunked(b"many\r\n" + _BODY), _BAD),
    ("a negative chunk", _chunked(b"-5\r\nhello\r\n", _LAST), _BAD),
    ("a huge chunk", _chunked(b"f" * 20 + b"\r\n"), _BAD),
    ("a chunk larger than a body", _chunked(b"%x\r\n" % (_MOST + 1)), []),
    ("a chunk that goes on", _chunked(_chunk(_BODY, b"5"), _LAST), _BAD),
    ("a chunk without its end", _chunked(_chunk(b"{}", end=b""), _LAST), _BAD),
    ("a chunk of 0x", _chunked(_chunk(_BODY, b"0x%x" % len(_BODY)), _LAST), _BAD),
    ("a line feed after a chunk", _chunked(_chunk(b"{}", end=b"\n"), _LAST), _BAD),
    ("chunks without an end", _chunked(_chunk(_BODY)), []),
    ("a trailer", _chunked(_chunk(_BODY), b"0\r\nX: a\r\n\r\n"), _FINE),
    ("a Host in the trailer", _chunked(_chunk(_BODY), b"0\r\nHost: evil.example\r\n\r\n"), _FINE),
    (
        "a long trailer",
        _chunked(_chunk(_BODY), b"0\r\n" + b"X: abcdefghijklm\r\n" * 1_500),
        ["431 G708"],
    ),
    ("smuggled behind a GET", _GET[:-2] + b"Content-Length: 5\r\n\r\nhello" + _GET, _FINE * 2),
    ("a request in a body", post(_GET) + _GET, [*_WRONG, "200"]),
    ("one that closes, then more", _sized("Connection: close") + GOOD, _FINE),
    ("HTTP/1.0, then more", _GET.replace(b"1.1", b"1.0") + GOOD, _FINE),
    ("a priority of words", _sized("X-Genba-Priority: now"), _FINE),
    ("a deadline of words", _sized("X-Genba-Deadline-Ms: soon"), _BAD),
    ("a deadline before now", _sized("X-Genba-Deadline-Ms: -5"), _BAD),
    ("an endless deadline", _sized("X-Genba-Deadline-Ms: 1e999"), _FINE),
    ("a trace that is none", _sized("traceparent: 00-xyz"), _FINE),
    ("two traces", _sized("traceparent: 00-a", "traceparent: 00-b"), _BAD),
    ("two types", _sized("Content-Type: a/b", "Content-Type: image/png"), _BAD),
    ("two keys", _sized("Authorization: Bearer a", "Authorization: Bearer b"), _BAD),
]
