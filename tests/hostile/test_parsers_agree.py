"""The connection with its kept plans against llhttp alone: they must see the same requests.

Where two parsers disagree about where a request ends, one request can be smuggled inside another.
Here they are compared on the hostile corpus and on what hypothesis makes of it, in one piece and
cut anywhere, with plans that are new and with plans that are known already.
"""

import re
from typing import Any, Final

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba.serve.http.plans import Plan, Plans
from genba.serve.http.request import Request
from genba.serve.limits import Limits
from tests.hostile import corpus
from tests.unit.http_clients import Owner, connected, feed

LIMITS: Final = Limits(head_bytes=16 * 1_024, body_bytes=8_192, pipelined=1_000)
_DATE: Final = re.compile(rb"\r\nDate: [^\r]*\r\n")
_PIECES: Final = [
    b"GET /a HTTP/1.1\r\n", b"POST /b HTTP/1.1\r\n", b"HEAD / HTTP/1.0\r\n", b"Host: localhost\r\n",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: 3, 3\r\n",
    b"Content-Length : 3\r\n", b"Content-Length: +3\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: chunked, chunked\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"X: a\r\n b\r\n", b"X: a\nY: b\r\n", b"X:\r\n",
    b"\r\n", b"\n", b"\r", b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nX: a\r\n\r\n",
    b"3;x=y\r\nabc\r\n",
    b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
]  # fmt: skip

Seen = list[tuple[bytes, bytes, bytes]]


class Oracle:
    """llhttp, and nothing else: the requests in a stream up to where it is none any more."""

    def __init__(self, stream: bytes) -> None:
        self.seen: Seen = []
        self.failed = self.upgraded = False
        self._url = self._body = b""
        self._parser: Any = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(stream)
        except httptools.HttpParserUpgrade:
            self.upgraded = True
        except httptools.HttpParserError:
            self.failed = True

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.seen.append((self._parser.get_method(), self._url, self._body))


class NoPlans(Plans):
    """Knows nothing and learns nothing."""

    def get(self, head: bytes) -> Plan | None:
        return None


class Witness(Owner):
    """Takes down every request that the connection believes to have got."""

    def __init__(self, plans: Plans) -> None:
        super().__init__(LIMITS)
        self.plans = plans
        self.seen: Seen = []

    def handle(self, request: Request) -> None:
        self.seen.append((request.method, request.target, bytes(request.body)))
        super().handle(request)


def told(pieces: list[bytes], plans: Plans) -> tuple[Seen, bytes, list[int]]:
    """Feed a stream; return the requests in it, the answers, and what was refused."""
    owner = Witness(plans)
    connection, transport = connected(owner)
    for piece in pieces:
        feed(connection, piece)
    refused = [refusal.status for refusal in owner.refusals]
    return owner.seen, _DATE.sub(b"\r\n", transport.written), refused


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(stream)) for place in at} | {0, len(stream)})
    return [stream[start:end] for start, end in zip(ends, ends[1:], strict=False)]


def check(stream: bytes, at: list[int]) -> None:
    oracle = Oracle(stream)
    plans = Plans()
    seen, answers, refused = told([stream], plans)
    assert seen == oracle.seen[: len(seen)], "requests that llhttp does not see"
    if len(seen) < len(oracle.seen) or oracle.failed or oracle.upgraded:
        # We may be stricter, never laxer; and after an end of the connection nothing counts.
        assert refused or b"Connection: close" in answers
    pieces = cut(stream, at)
    for again in (
        told([stream], plans),
        told(pieces, plans),
        told([stream], NoPlans()),
        told(pieces, NoPlans()),
    ):
        assert again[0] == seen
        assert again[2] == refused
    assert told([stream], plans)[1] == answers


@pytest.mark.parametrize("case", corpus.HTTP, ids=lambda case: case[0])
def test_they_agree_on_the_corpus(case: corpus.Case) -> None:
    stream = case[1]
    check(stream, list(range(0, len(stream), 7)))
    check(stream, list(range(min(len(stream), 600))))


_STREAMS: Final = st.one_of(
    st.lists(st.sampled_from(_PIECES), max_size=12).map(b"".join),
    st.lists(st.sampled_from([case[1][:2_000] for case in corpus.HTTP]), max_size=3).map(b"".join),
    st.lists(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=8)), max_size=12).map(b"".join),
)


@given(stream=_STREAMS, at=st.lists(st.integers(0, 600), max_size=8))
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_they_agree_on_anything(stream: bytes, at: list[int]) -> None:
    check(stream, at)


@pytest.mark.slow
@pytest.mark.timeout(600)
@given(stream=_STREAMS, at=st.lists(st.integers(0, 600), max_size=8))
@settings(max_examples=20_000, deadline=None, derandomize=True, database=None)
def test_they_agree_on_twenty_thousand_streams(stream: bytes, at: list[int]) -> None:
    check(stream, at)
