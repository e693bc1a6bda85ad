"""Who answers, who may ask."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.problem import Problem
from genba.serve.access import Access, check_bind, is_loopback
from genba.serve.responses import Refusal
from genba.serve.router import Routes, falls_in_share


@given(
    share=st.floats(0, 1),
    salt=st.integers(0, 10**9),
    start=st.integers(0, 10**12),
    step=st.integers(1, 12),
)
def test_the_share_holds_for_any_stretch_and_any_thinning(
    share: float, salt: int, start: int, step: int
) -> None:
    """Machines that report in turn each see the canary as often as all together do."""
    n = 2_000
    hits = sum(falls_in_share(start + i * step, share, salt) for i in range(n))
    assert abs(hits / n - share) < 0.02  # a coin would need 0.05


def test_everything_and_nothing() -> None:
    assert all(falls_in_share(n, 1.0) for n in range(1_000))
    assert not any(falls_in_share(n, 0.0) for n in range(1_000))


def test_roles() -> None:
    assert Routes[str]().choose(1) is None
    assert Routes[str](canary="b", share=1.0, shadow="c").choose(1) is None
    routes = Routes("a", canary="b", share=0.5, shadow="c", salt=7)
    answered = [routes.choose(n) for n in range(1_000)]
    assert answered == [routes.choose(n) for n in range(1_000)]
    assert answered.count(("b", "canary")) == pytest.approx(500, abs=5)
    assert set(answered) == {("a", "stable"), ("b", "canary")}


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    if not loopback:
        for key, behind_tls in [(None, True), ("k", False), ("", True)]:
            with pytest.raises(Problem) as caught:
                check_bind(host, key, behind_tls=behind_tls)
            assert caught.value.code == "G702"
        check_bind(host, "k", behind_tls=True)
    else:
        check_bind(host, None, behind_tls=False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({b"host": b"localhost"}, None),
        ({b"host": b"localhost:8080"}, None),
        ({b"host": b"127.0.0.1:1"}, None),
        ({b"host": b"[::1]:8080"}, None),
        ({b"host": b"[::1]"}, None),
        ({b"host": b"localhost:8080", b"origin": b"http://localhost:8080"}, None),
        ({b"host": b"localhost", b"sec-fetch-site": b"same-origin"}, None),
        ({}, 400),
        ({b"host": b""}, 403),
        ({b"host": b"evil.example"}, 403),
        ({b"host": b"evil.example:127.0.0.1"}, 403),
        ({b"host": b"[::1].evil.example"}, 403),
        ({b"host": b"[::1"}, 403),
        ({b"host": b"localhost:8080", b"origin": b"http://evil.example"}, 403),
        ({b"host": b"localhost:8080", b"origin": b"http://localhost:9"}, 403),
        ({b"host": b"localhost", b"origin": b"null"}, 403),
        ({b"host": b"localhost", b"sec-fetch-site": b"cross-site"}, 403),
        ({b"host": b"localhost", b"sec-fetch-site": b"same-site"}, 403),
    ],
)
def test_without_a_key_only_this_machine_may_ask(
    headers: dict[bytes, bytes], status: int | None
) -> None:
    if status is None:
        Access().check(headers)
        return
    with pytest.raises(Refusal) as caught:
        Access().check(headers)
    assert caught.value.status == status


def test_with_a_key_any_host_but_only_with_the_key() -> None:
    access = Access("secret")
    access.check({b"host": b"factory.example", b"authorization": b"Bearer secret"})
    for sent in (b"", b"Bearer wrong", b"secret", b"Bearer secret "):
        with pytest.raises(Refusal) as caught:
            access.check({b"host": b"localhost", b"authorization": sent})
        assert caught.value.status == 401
