"""Every bad request gets its own refusal, and good ones between them go on being answered."""

import pytest

from genba.testing.serving import RunningServer
from tests.hostile import bodies, corpus
from tests.hostile.wire import connect, exchange, good

CASES = [
    pytest.param(sent, expected, id=f"{group}: {name}")
    for group, cases in [("http", corpus.HTTP), *bodies.ALL]
    for name, sent, expected in cases
]


@pytest.mark.parametrize(("sent", "expected"), CASES)
def test_a_bad_request_is_told_so(victim: RunningServer, sent: bytes, expected: list[str]) -> None:
    with connect(victim.port) as friend:
        assert good(friend).status == 200
        found = exchange(victim.port, [sent])
        assert [answer.said for answer in found] == expected
        for answer in found:
            if answer.status != 200:
                assert b"\r\nContent-Type: application/json\r\n" in answer.head
                assert len(answer.body) < 2_000  # what was wrong is not sent back whole
        assert good(friend).status == 200
