"""Thousands of damaged requests on real sockets: nothing breaks and nothing grows."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from genba.testing.serving import RunningServer
from tests.hostile.mutations import mutated
from tests.hostile.wire import DELIBERATE, Answer, connect, exchange, good

_CLIENTS: Final = 4
_BETWEEN: Final = 50  # bad requests between two good ones
_PAGE: Final = 4_096


def resident(server: RunningServer) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * _PAGE


def check(sent: bytes, found: list[Answer]) -> None:
    for answer in found:
        assert answer.status in DELIBERATE, (sent, answer)
        if answer.status >= 400:
            assert answer.code.startswith("G"), (sent, answer)
        if answer.status == 503:
            assert b"\r\nRetry-After: " in answer.head, (sent, answer)


def attack(server: RunningServer, seed: int, count: int) -> Counter[int]:
    """Send bad requests, each on a connection of its own, and good ones on one that stays."""
    chance = random.Random(seed)
    statuses: Counter[int] = Counter()
    with connect(server.port) as friend:
        for number in range(count):
            sent = mutated(chance)
            found = exchange(server.port, [sent])
            check(sent, found)
            statuses.update(answer.status for answer in found)
            if number % _BETWEEN == 0:
                assert good(friend).status == 200
    return statuses


def all_out(server: RunningServer, seed: int, count: int) -> Counter[int]:
    with ThreadPoolExecutor(_CLIENTS) as pool:
        each = [
            pool.submit(attack, server, seed + client, count // _CLIENTS)
            for client in range(_CLIENTS)
        ]
        return sum((one.result() for one in each), Counter())


def test_damaged_requests(victim: RunningServer) -> None:
    statuses = all_out(victim, 1, 3_000)
    assert statuses.keys() >= {200, 400, 403, 404, 405, 413}
    assert sum(statuses.values()) > 2_000
    assert victim.process.poll() is None


@pytest.mark.slow
def test_twenty_thousand_damaged_requests_leave_nothing_behind(victim: RunningServer) -> None:
    all_out(victim, 100, 20_000)  # buffers and caches fill up once, by 17 MB as measured
    warm = resident(victim)
    statuses = all_out(victim, 200, 20_000)
    assert resident(victim) < 1.05 * warm
    assert sum(statuses.values()) > 13_000
    assert victim.process.poll() is None
