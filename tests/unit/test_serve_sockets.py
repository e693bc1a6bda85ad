"""Connections on real sockets and in real time: clients that are slow, silent or too many."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from genba.serve.http.connection import Connection
from genba.serve.http.owner import INBOX_BYTES
from genba.serve.http.plans import Plan, Plans
from genba.serve.http.request import Release, Request
from genba.serve.http.responses import Refusal
from genba.serve.limits import Limits

HASTY = Limits(connections=4, head_s=0.2, body_s=0.2, idle_s=0.2, write_s=0.2, linger_s=0.2)
GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Owner:
    """Answers with the target and as many dots as it was told."""

    def __init__(self, limits: Limits = HASTY, size: int = 0) -> None:
        self.limits = limits
        self.connections: set[Connection] = set()
        self.draining = False
        self.held_bytes = 0
        self.refusals: list[Refusal] = []
        self._size = size
        self.plans = Plans()
        self.inbox = bytearray(INBOX_BYTES)

    def admit(self, plan: Plan, peer: str) -> Release | None:
        return None

    def handle(self, request: Request) -> None:
        request.respond(200, (request.target, b" ", b"." * self._size))

    def refused(self, refusal: Refusal, plan: Plan) -> None:
        self.refusals.append(refusal)


def statuses(written: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", written)]


Scenario = Callable[[int], Awaitable[None]]


def with_server(owner: Owner, scenario: Scenario) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(owner, loop), "127.0.0.1", 0)

        def sweep() -> None:
            for connection in list(owner.connections):
                if 0 < connection.deadline < loop.time():
                    connection.expire()
            handle[0] = loop.call_later(0.02, sweep)

        handle = [loop.call_later(0.02, sweep)]
        try:
            await asyncio.wait_for(scenario(server.sockets[0].getsockname()[1]), 20)
        finally:
            handle[0].cancel()
            server.close()
            for connection in list(owner.connections):
                connection.abort()
            await asyncio.sleep(0.01)

    asyncio.run(main())


@pytest.mark.parametrize(
    "start",
    [
        b"G",
        b"GET / HTTP/1.1\r\nHost:",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
    ],
)
def test_slow_requests_are_cut(start: bytes) -> None:
    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start)
        assert statuses(await reader.read()) == [408]
        writer.close()

    with_server(Owner(), scenario)


@pytest.mark.parametrize("start", [b"", GET, b"\r\n\r\n"])
def test_idle_connections_end_without_a_word(start: bytes) -> None:
    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start)
        assert statuses(await reader.read()) == [200] * (start == GET)
        writer.close()

    with_server(Owner(), scenario)


def test_a_client_that_does_not_read_is_cut() -> None:
    owner = Owner(size=64 * 1_024 * 1_024)

    async def scenario(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
        writer.write(GET)
        while not owner.connections:
            await asyncio.sleep(0.01)
        while owner.connections:
            await asyncio.sleep(0.01)
        writer.close()

    with_server(owner, scenario)


def test_a_client_that_reads_slowly_gets_everything() -> None:
    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
        writer.write(GET + GET)
        await asyncio.sleep(0.05)
        received = 0
        while received < 2 * 4 * 1_024 * 1_024:
            piece = await reader.read(1 << 20)
            assert piece
            received += len(piece)
        writer.close()

    owner = Owner(replace(HASTY, write_s=10.0, idle_s=10.0), size=4 * 1_024 * 1_024)
    with_server(owner, scenario)


def test_a_client_that_ignores_a_refusal_is_cut() -> None:
    owner = Owner()

    async def scenario(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        while not owner.connections:
            await asyncio.sleep(0.01)
        while owner.connections:
            writer.write(b"a" * 1_000)
            await asyncio.sleep(0.01)
        writer.close()

    with_server(owner, scenario)
    assert [refusal.status for refusal in owner.refusals] == [413]


def test_one_connection_too_many() -> None:
    owner = Owner(replace(HASTY, idle_s=10, head_s=10))

    async def scenario(port: int) -> None:
        open_ = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        for reader, writer in open_:
            writer.write(GET)
            assert statuses(await reader.readuntil(b"/a ")) == [200]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = await reader.read()
        assert statuses(answer) == [503]
        assert b"Retry-After: 1\r\n" in answer
        for _, each in [*open_, (reader, writer)]:
            each.close()

    with_server(owner, scenario)
