"""Answers in pieces, bodies in pieces, and requests that are turned away before they are read."""

import pytest

from genba.serve.http.responses import Refusal, overloaded
from tests.unit.http_clients import GET, POST, SMALL, Owner, bodies, connected, feed, statuses

LONG = b"POST /long HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n"


def test_events_are_sent_as_they_come() -> None:
    owner = Owner(hold=True)
    connection, transport = connected(owner)
    feed(connection, GET)
    stream = owner.held[0].open_stream()
    assert b"text/event-stream" in transport.written
    assert b"Transfer-Encoding: chunked" in transport.written
    stream.send("hello")
    assert transport.written.endswith(b"d\r\ndata: hello\n\n\r\n")
    stream.send("two\nlines", event="token")
    assert b"event: token\ndata: two\ndata: lines\n\n" in transport.written
    stream.end()
    stream.end()
    assert transport.written.endswith(b"\r\n0\r\n\r\n")
    assert owner.inside == 0
    feed(connection, GET)  # the connection goes on
    owner.answer(owner.held[1])
    assert statuses(transport.written) == [200, 200]


def test_a_stream_waits_for_the_answers_before_it() -> None:
    owner = Owner(hold=True)
    connection, transport = connected(owner)
    feed(connection, GET + GET)
    stream = owner.held[1].open_stream()
    stream.send("early")
    assert transport.written == b""
    owner.answer(owner.held[0])
    assert b"data: early" in transport.written
    stream.send("later")
    assert b"data: later" in transport.written


def test_a_producer_is_told_of_a_slow_client_and_of_one_that_left() -> None:
    owner = Owner(hold=True)
    connection, _ = connected(owner)
    feed(connection, GET)
    stream = owner.held[0].open_stream()
    told: list[bool] = []
    stream.on_room = lambda: told.append(stream.room)
    before = stream.room
    connection.pause_writing()
    assert (before, stream.room) == (True, False)
    connection.resume_writing()
    assert told == [True]
    connection.connection_lost(None)
    assert (stream.gone, told, owner.inside) == (True, [True, False], 0)
    stream.send("to nobody")
    assert not stream.pieces


def test_pieces_that_wait_are_bounded() -> None:
    owner = Owner(hold=True)
    connection, _ = connected(owner)
    feed(connection, GET + GET)
    stream = owner.held[1].open_stream()  # it waits for the first
    while stream.room:
        stream.send("more")
    assert len(stream.pieces) == 64


def test_an_old_client_gets_no_pieces() -> None:
    owner = Owner(hold=True)
    connection, _ = connected(owner)
    feed(connection, GET.replace(b"1.1", b"1.0"))
    with pytest.raises(Refusal):
        owner.held[0].open_stream()


def test_a_body_in_pieces_is_received_in_place() -> None:
    owner = Owner(hold=True)
    connection, _ = connected(owner)
    feed(connection, LONG + b"a" * 1_000)
    assert len(memoryview(connection.get_buffer(-1))) == 3_000
    assert owner.held_bytes == 4_000
    feed(connection, b"b" * 2_000)
    feed(connection, b"c" * 1_000 + GET)
    first, second = owner.held
    assert first.body == b"a" * 1_000 + b"b" * 2_000 + b"c" * 1_000
    assert (first.size, second.target) == (4_000, b"/a")
    owner.answer(first)
    assert owner.held_bytes == 0


def test_who_is_turned_away_may_ask_again_on_the_same_connection() -> None:
    owner = Owner()
    connection, transport = connected(owner)
    owner.turn_away = overloaded("Later.")
    feed(connection, POST)
    feed(connection, LONG + b"a" * 3_000)
    assert statuses(transport.written) == [503, 503]
    assert b"Retry-After: 1" in transport.written
    assert len(owner.refusals) == 2
    owner.turn_away = None
    feed(connection, b"a" * 1_000 + POST)  # the rest of what was turned away, and a new one
    assert statuses(transport.written) == [503, 503, 200]
    assert bodies(transport.written)[-1] == b"/b abc"
    assert (owner.held_bytes, owner.inside, connection.deadline > 0) == (0, 0, True)


def test_a_long_body_that_is_not_wanted_ends_the_connection() -> None:
    owner = Owner(limits=SMALL)
    connection, transport = connected(owner)
    owner.turn_away = overloaded("Later.")
    feed(connection, LONG.replace(b"4000", b"%d" % SMALL.body_bytes) + b"a" * 10)
    assert statuses(transport.written) == [503]
    close = LONG.replace(b"Host", b"Connection: close\r\nHost")
    connection, transport = connected(owner)
    feed(connection, close)
    assert statuses(transport.written) == [503]
    assert transport.ended


def test_a_client_that_leaves_in_the_middle_of_its_body_is_let_go() -> None:
    owner = Owner()
    connection, _ = connected(owner)
    feed(connection, LONG + b"a" * 10)
    assert (owner.inside, owner.held_bytes) == (1, 4_000)
    connection.connection_lost(None)
    assert (owner.inside, owner.held_bytes) == (0, 0)


def test_an_answer_that_comes_too_late_still_gives_back_its_place() -> None:
    owner = Owner(hold=True)
    connection, _ = connected(owner)
    feed(connection, POST)
    connection.connection_lost(None)
    assert owner.inside == 1
    owner.answer(owner.held[0])
    assert owner.inside == 0


def test_another_version_of_the_protocol() -> None:
    connection, transport = connected(Owner())
    feed(connection, GET.replace(b"1.1", b"2.0"))
    assert statuses(transport.written) == [505]
