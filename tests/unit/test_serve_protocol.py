"""One connection: grammar, limits, order of answers, and what happens to clients that misbehave."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.serve.http.request import Request
from tests.unit.http_clients import (
    GET,
    POST,
    SMALL,
    Owner,
    bodies,
    connected,
    exchange,
    feed,
    statuses,
)


def test_answers_on_one_connection() -> None:
    written = exchange(GET, POST, GET)
    assert statuses(written) == [200, 200, 200]
    assert bodies(written) == [b"/a ", b"/b abc", b"/a "]
    assert b"Connection: close" not in written


def test_pipelined_requests_in_one_piece() -> None:
    assert bodies(exchange(POST + GET + POST)) == [b"/b abc", b"/a ", b"/b abc"]


def test_answers_keep_the_order_of_the_requests() -> None:
    owner = Owner(hold=True)
    connection, transport = connected(owner)
    feed(connection, GET + POST)
    first, second = owner.held
    owner.answer(second)
    assert transport.written == b""
    owner.answer(first)
    assert bodies(transport.written) == [b"/a ", b"/b abc"]


def test_chunked_body() -> None:
    head = b"POST /c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    written = exchange(head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")
    assert bodies(written) == [b"/c abcde"]


def test_expect_continue() -> None:
    head = POST.replace(b"\r\n\r\nabc", b"\r\nExpect: 100-continue\r\n\r\n")
    connection, transport = connected(Owner())
    feed(connection, head)
    assert statuses(transport.written) == [100]
    feed(connection, b"abc")
    assert statuses(transport.written) == [100, 200]


def test_expect_continue_waits_for_earlier_answers() -> None:
    owner = Owner(hold=True)
    connection, transport = connected(owner)
    feed(connection, GET + POST.replace(b"\r\n\r\nabc", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert transport.written == b""
    owner.answer(owner.held[0])
    assert statuses(transport.written) == [200, 100]


def test_unknown_expectation() -> None:
    assert statuses(exchange(POST.replace(b"Content", b"Expect: tea\r\nContent"))) == [417]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost localhost\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999999\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\n"
            b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 400),
        (b"GET /" + b"a" * 2_000 + b" HTTP/1.1\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n", 413),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1400\r\n"
            + b"a" * 5_120,
            413,
        ),
    ],
)
def test_refused_requests(request_: bytes, status: int) -> None:
    owner = Owner()
    connection, transport = connected(owner)
    feed(connection, request_)
    feed(connection, GET)  # whatever comes after a refusal is not looked at
    assert statuses(transport.written) == [status]
    assert b'"error":' in transport.written
    assert b"Connection: close" in transport.written
    assert transport.ended
    assert [refusal.status for refusal in owner.refusals] == [status]


def test_a_head_that_trickles_in_is_limited_too() -> None:
    pieces = [b"GET / HTTP/1.1\r\nX: "] + [b"a" * 100] * 20
    assert statuses(exchange(*pieces)) == [431]


def test_a_refusal_comes_after_the_answers_before_it() -> None:
    owner = Owner(hold=True)
    connection, transport = connected(owner)
    feed(connection, GET + b"nonsense\r\n\r\n")
    assert transport.written == b""
    owner.answer(owner.held[0])
    assert statuses(transport.written) == [200, 400]
    assert transport.ended


def test_connection_close_and_http_1_0() -> None:
    for request in (
        GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        GET.replace(b"1.1", b"1.0"),
    ):
        connection, transport = connected(Owner())
        feed(connection, request + GET)
        assert statuses(transport.written) == [200]
        assert b"Connection: close" in transport.written
        assert transport.closed


def test_head_has_no_body() -> None:
    written = exchange(GET.replace(b"GET", b"HEAD"))
    assert b"Content-Length: 3" in written
    assert written.endswith(b"\r\n\r\n")


def test_half_close_still_gets_its_answer() -> None:
    owner = Owner(hold=True)
    connection, transport = connected(owner)
    feed(connection, GET)
    assert connection.eof_received()
    owner.answer(owner.held[0])
    assert statuses(transport.written) == [200]
    assert transport.closed


def test_an_answer_for_a_client_that_left_goes_nowhere() -> None:
    owner = Owner(hold=True)
    connection, transport = connected(owner)
    feed(connection, GET)
    assert owner.connections == {connection}
    connection.connection_lost(None)
    assert owner.connections == set()
    owner.answer(owner.held[0])
    assert transport.written == b""


def test_reading_stops_while_too_many_answers_are_owed() -> None:
    owner = Owner(hold=True)
    connection, transport = connected(owner)
    paused = []
    feed(connection, GET * 6)
    paused.append(transport.reading_paused)
    for request in owner.held:
        owner.answer(request)
    paused.append(transport.reading_paused)
    assert paused == [True, False]
    assert statuses(transport.written) == [200] * 6


def test_drain_closes_idle_connections_and_finishes_busy_ones() -> None:
    owner = Owner(hold=True)
    idle, idle_transport = connected(owner)
    busy, busy_transport = connected(owner)
    feed(busy, GET)
    idle.drain()
    busy.drain()
    assert idle_transport.closed
    assert not busy_transport.closed
    owner.answer(owner.held[0])
    busy.drain()
    assert statuses(busy_transport.written) == [200]
    assert busy_transport.closed


def test_requests_during_a_drain_end_their_connection() -> None:
    owner = Owner()
    owner.draining = True
    connection, transport = connected(owner)
    feed(connection, GET)
    assert statuses(transport.written) == [200]
    assert transport.closed


# Anything at all.

_FRAGMENTS = st.sampled_from(
    [
        GET,
        POST,
        b"GET ",
        b"/a",
        b" HTTP/1.1\r\n",
        b"Host: localhost\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 99999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"\x00",
        b"\xff\xfe",
        b": ",
        b"A" * 300,
    ]
)
_STREAMS = st.lists(_FRAGMENTS | st.binary(max_size=20), max_size=12).map(b"".join)


@given(stream=_STREAMS, cuts=st.lists(st.integers(0, 600), max_size=6))
def test_no_bytes_break_the_parser_and_cuts_do_not_matter(stream: bytes, cuts: list[int]) -> None:
    whole = exchange(stream)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in zip(places, places[1:], strict=False)]
    assert all(status < 500 for status in statuses(whole))
    assert statuses(exchange(*pieces)) == statuses(whole)


def test_trailer_fields_do_not_become_header_fields() -> None:
    class Reader(Owner):
        def handle(self, request: Request) -> None:
            self.held.append(request)

    owner = Reader()
    head = b"POST /b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    trailers = b"Authorization: Bearer stolen\r\nHost: elsewhere\r\n"
    exchange(head, b"3\r\nabc\r\n0\r\n", trailers, b"\r\n", owner=owner)
    (request,) = owner.held
    assert request.body == b"abc"
    assert request.headers == {b"host": b"localhost", b"transfer-encoding": b"chunked"}
    long = b"X: %b\r\n" % (b"x" * SMALL.head_bytes)
    assert statuses(exchange(head, b"3\r\nabc\r\n0\r\n", long, b"\r\n")) == [431]


def test_bodies_of_all_connections_together_are_bounded() -> None:
    owner = Owner(replace(SMALL, held_bytes=100), hold=True)
    head = b"POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    (first, sent), (second, other) = connected(owner), connected(owner)
    feed(first, head % 60 + bytes(60))
    assert owner.held_bytes == 60
    feed(second, head % 41)  # refused by what it announces, before it is sent
    assert statuses(other.written) == [503]
    assert b"Retry-After" in other.written
    third, unannounced = connected(owner)
    chunked = b"POST /b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    feed(third, chunked + b"20\r\n" + bytes(32) + b"\r\n")
    assert owner.held_bytes == 92
    feed(third, b"20\r\n" + bytes(32) + b"\r\n")
    assert statuses(unannounced.written) == [503]
    assert owner.held_bytes == 60
    owner.answer(owner.held[0])
    assert statuses(sent.written) == [200]
    assert owner.held_bytes == 0


def test_a_client_that_goes_away_gives_its_bytes_back() -> None:
    owner = Owner(hold=True)
    connection, _ = connected(owner)
    feed(connection, POST + POST[:-1])
    assert owner.held_bytes == 6  # memory for the whole body is there from its head on
    connection.connection_lost(None)
    assert owner.held_bytes == 0
    owner.answer(owner.held[0])  # nobody is there to read it
    assert owner.held_bytes == 0
