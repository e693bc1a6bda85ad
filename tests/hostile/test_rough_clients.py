"""Clients that are slow, silent, greedy or gone: they are cut, and nobody else notices."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from genba.testing.serving import RunningServer, until
from tests.hostile.wire import GOOD, answers, connect, everything, exchange, good, post, window

_BODY = post(window())[-40:]
_HEAD = GOOD[: -len(_BODY)]


@pytest.fixture
def friend(victim: RunningServer) -> Iterator[socket.socket]:
    """A client that does everything right while others do not."""
    with connect(victim.port) as connection:
        assert good(connection).status == 200
        yield connection
        assert good(connection).status == 200


def open_connections(server: RunningServer) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


@pytest.mark.parametrize(
    "start", [b"", b"G", GOOD[:40], _HEAD, _HEAD[:-2] + b"Expect: 100-continue"]
)
def test_who_says_nothing_more_is_cut(
    victim: RunningServer, friend: socket.socket, start: bytes
) -> None:
    with connect(victim.port) as connection:
        connection.sendall(start)
        time.sleep(0.2)
        assert good(friend).status == 200
        told = [answer.said for answer in answers(everything(connection))]
    assert told == (["408 G708"] if start else [])


@pytest.mark.slow
@pytest.mark.parametrize("sent", [GOOD, GOOD.replace(b"Host:", b"X: " + b"a" * 200 + b"\r\nHost:")])
def test_a_byte_at_a_time_is_not_for_ever(
    victim: RunningServer, friend: socket.socket, sent: bytes
) -> None:
    with connect(victim.port) as connection:
        started = time.monotonic()
        told: list[str] = []
        for byte in sent:
            try:
                connection.sendall(bytes([byte]))
            except ConnectionError:
                break
            time.sleep(0.02)
            if time.monotonic() - started > 1.5:
                break
        told = [answer.said for answer in answers(everything(connection))]
    assert told in (["408 G708"], [])  # cut off so hard that the refusal may be lost


@pytest.mark.slow
def test_who_does_not_read_is_cut(victim: RunningServer, friend: socket.socket) -> None:
    before = open_connections(victim)
    with connect(victim.port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        metadata = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.settimeout(2)
        try:
            for _ in range(20_000):
                connection.sendall(metadata)
        except (ConnectionError, TimeoutError):
            pass
        assert good(friend).status == 200
        until(lambda: open_connections(victim) <= before)


@pytest.mark.parametrize("sent", [GOOD, GOOD * 20])
def test_who_has_said_everything_is_answered(victim: RunningServer, sent: bytes) -> None:
    found = exchange(victim.port, [sent])
    assert [answer.status for answer in found] == [200] * (len(sent) // len(GOOD))


@pytest.mark.parametrize("sent", [GOOD[:50], _HEAD, GOOD + GOOD[:50]])
def test_who_leaves_in_the_middle_leaves_nothing(
    victim: RunningServer, friend: socket.socket, sent: bytes
) -> None:
    before = open_connections(victim)
    for _ in range(50):
        with connect(victim.port) as connection:
            connection.sendall(sent)
            linger = b"\x01\0\0\0\0\0\0\0"  # a reset instead of an end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    until(lambda: open_connections(victim) <= before)


def test_a_flood_on_one_connection_is_answered_in_order(
    victim: RunningServer, friend: socket.socket
) -> None:
    ask = b"".join(post({**window(), "id": str(number)}) for number in range(2_000))
    received = b""
    with connect(victim.port) as connection:
        connection.setblocking(False)
        while received.count(b"HTTP/1.1 200 OK") < 2_000:
            with suppress(BlockingIOError):
                ask = ask[connection.send(ask[:65_536]) :] if ask else b""
            try:
                piece = connection.recv(1 << 20)
                assert piece
                received += piece
            except BlockingIOError:
                time.sleep(0.001)
        found = answers(received)
    assert [answer.status for answer in found] == [200] * 2_000
    for number, answer in enumerate(found):
        assert f'"id":"{number}"'.encode() in answer.body


def test_more_connections_than_there_is_room_for(victim: RunningServer) -> None:
    with ExitStack() as stack:
        friend = stack.enter_context(connect(victim.port))
        assert good(friend).status == 200
        crowd = [stack.enter_context(connect(victim.port)) for _ in range(100)]
        turned_away = 0
        for connection in crowd[80:]:
            (answer,) = answers(everything(connection))
            assert answer.said == "503 G706"
            assert b"\r\nRetry-After: " in answer.head
            turned_away += 1
        assert turned_away == 20
        assert good(friend).status == 200
    until(lambda: [a.status for a in exchange(victim.port, [GOOD])] == [200])


def test_connections_that_come_and_go(victim: RunningServer, friend: socket.socket) -> None:
    before = open_connections(victim)
    for _ in range(1_000):
        connect(victim.port).close()
    assert good(friend).status == 200
    until(lambda: open_connections(victim) <= before)
