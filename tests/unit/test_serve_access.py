"""Who may ask: hosts, pages, keys with their scopes, lines, limits and end."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core import keys
from genba.core.keys import SCOPES, Key
from genba.core.problem import Problem
from genba.serve.access import callers as module
from genba.serve.access.callers import (
    ANYONE,
    DESCRIBE,
    Access,
    Caller,
    Rules,
    WrongKey,
    check_bind,
    is_loopback,
    parse_origin,
)
from genba.serve.access.quota import Bucket, Quota, WrongKeys
from genba.serve.http.responses import Refusal

HOST = {b"host": b"localhost:8080"}
PAGE = b"https://board.example"


def key(id: str = "aaaaaaaa", **more: Any) -> tuple[Key, dict[bytes, bytes]]:
    """Return a key and the header that shows it."""
    token = f"gk_{id}_{'s' * 43}".encode()
    made = Key(
        id=id, name="mes", digest=keys.token_digest(token), scopes=frozenset({"infer"}), **more
    )
    return made, {**HOST, b"authorization": b"Bearer " + token}


def refused(act: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        act()
    return caught.value


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
def test_where_it_may_listen(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    for have_key, tls, behind_proxy in [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]:
        allowed = (loopback and not behind_proxy) or (have_key and (tls or behind_proxy))
        given = {"keys": bool(have_key), "tls": bool(tls), "behind_proxy": bool(behind_proxy)}
        if allowed:
            check_bind(host, **given)
            continue
        with pytest.raises(Problem) as caught:
            check_bind(host, **given)
        assert caught.value.code == "G702"
        assert ("without a key" in caught.value.what) is not bool(have_key)


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
        caller = Access().check(headers)
        assert caller.known
        assert caller.admit() is None
        page = len(headers) > 1
        assert ({"deploy", "admin"} & caller.scopes == set()) is page
        caller.done()
        return
    assert refused(lambda: Access().check(headers)).status == status


def test_the_key_of_the_environment_allows_everything() -> None:
    access = Access("secret")
    caller = access.check({**HOST, b"authorization": b"bearer secret"})
    for scope in (*SCOPES, DESCRIBE, ANYONE):
        caller.allow(scope, "pump")
    for sent in (b"", b"Bearer wrong", b"secret", b"Bearer secret ", b"Basic secret", b"Bearer"):
        with pytest.raises(WrongKey):
            access.check({**HOST, b"authorization": sent})
    nobody = access.check(HOST)
    assert not nobody.known
    nobody.allow(ANYONE)
    for other in (None, *SCOPES, DESCRIBE):
        refusal = refused(partial(nobody.allow, other, "pump"))
        assert (refusal.status, refusal.code) == (401, "G709")
        assert b"WWW-Authenticate" in refusal.fields


def test_a_key_allows_its_scopes_and_what_every_key_allows() -> None:
    made, sent = key()
    access = Access()
    access.update({made.id: made})
    caller = access.check(sent)
    assert caller.id == made.id
    for scope in ("infer", DESCRIBE, ANYONE):
        caller.allow(scope, "pump")
    for other in ("read", "feedback", "deploy", "admin", None):
        refusal = refused(partial(caller.allow, other))
        assert (refusal.status, refusal.code) == (403, "G758")
    access.update({made.id: replace(made, scopes=frozenset({"admin"}))})
    for scope in SCOPES:
        access.check(sent).allow(scope)


def test_a_key_for_some_lines() -> None:
    made, sent = key(lines=frozenset({"pump", "fan"}))
    access = Access()
    access.update({made.id: made})
    caller = access.check(sent)
    caller.allow("infer", "pump")
    caller.allow(DESCRIBE, "fan")
    caller.allow(DESCRIBE)
    caller.allow(ANYONE)
    for scope, line in [("infer", "saw"), ("infer", ""), (DESCRIBE, "saw")]:
        refusal = refused(partial(caller.allow, scope, line))
        assert (refusal.status, refusal.code) == (403, "G759")


def test_from_the_first_key_on_everybody_needs_one() -> None:
    made, sent = key()
    access = Access()
    assert access.check(HOST).known
    access.update({})
    assert access.check(HOST).known, "there never was one"
    access.update({made.id: made})
    assert not access.check(HOST).known
    access.update({made.id: replace(made, revoked_ms=1)})
    assert not access.check(HOST).known, "the last one was revoked: nobody may ask"
    assert refused(lambda: access.check(sent)).code == "G754"
    for rules in (Rules(loopback=False), Rules(behind_proxy=True)):
        assert not Access(rules=rules).check({b"host": b"factory.example"}).known


def test_a_change_of_keys_is_seen_by_whoever_keeps_answers() -> None:
    made, _ = key()
    access = Access()
    versions = [access.version]
    for known in ({made.id: made}, {made.id: replace(made, revoked_ms=1)}):
        access.update(known)
        versions.append(access.version)
    assert len(set(versions)) == 3


def test_a_wrong_key_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    made, sent = key()
    access = Access()
    access.update({made.id: made})
    hashed: list[bytes] = []

    def digest(token: bytes) -> str:
        hashed.append(token)
        return keys.token_digest(token)

    monkeypatch.setattr(module, "token_digest", digest)
    unknown = key("bbbbbbbb")[1]
    long = {**HOST, b"authorization": sent[b"authorization"] + b"x" * 4_000}
    for headers in (unknown, long, {**HOST, b"authorization": b"Bearer gk_x"}):
        with pytest.raises(WrongKey):
            access.check(headers)
    assert hashed == [], "nothing is hashed for an id that there is not"
    near = {**HOST, b"authorization": sent[b"authorization"][:-1] + b"t"}
    with pytest.raises(WrongKey):
        access.check(near)
    assert len(hashed) == 1


def test_the_end_of_a_key() -> None:
    now_s = [9.0]
    made, sent = key(expires_ms=10_000)
    access = Access(today=lambda: now_s[0])
    access.update({made.id: made})
    caller = access.check(sent)
    assert caller.admit() is None
    caller.done()
    now_s[0] = 10.0
    late = caller.admit()
    assert late is not None
    assert (late.status, late.code) == (401, "G754"), "also when its check was kept"
    assert refused(lambda: access.check(sent)).code == "G754"


def test_a_rate_holds_over_time_and_lets_a_short_burst_pass() -> None:
    now_s = [0.0]
    made, sent = key(rate=10.0)
    access = Access(clock=lambda: now_s[0])
    access.update({made.id: made})
    let_in = 0
    for tick in range(1_000):  # 10 s, a request every 10 ms
        now_s[0] = tick / 100
        refusal = access.check(sent).admit()
        if refusal is None:
            let_in += 1
        else:
            assert (refusal.status, refusal.code) == (429, "G755")
            assert refusal.fields == b"Retry-After: 1\r\n"
    assert let_in == pytest.approx(109, abs=1), "a second's worth at once, then ten a second"


@given(
    rate=st.floats(0.1, 1_000),
    steps=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_a_bucket_never_gives_more_than_agreed(rate: float, steps: list[float]) -> None:
    size = max(1.0, rate)
    bucket, now_s, taken = Bucket(rate, size, 0.0), 0.0, 0
    for step in steps:
        now_s += step
        wait_s = bucket.take(now_s)
        assert 0 <= wait_s <= 1 / rate + 1e-9
        taken += wait_s == 0.0
    assert taken <= size + rate * now_s + 1e-6


def test_workers_share_the_limits_of_a_key() -> None:
    made, _ = key(rate=8.0, concurrent=5)
    quota = Quota(made, workers=4, clock=lambda: 0.0)
    refusals = [quota.take() for _ in range(3)]
    assert refusals[0] is None
    assert refusals[1] is not None
    assert refusals[1].code == "G756", "one of five at a time is this worker's"
    quota.give_back()
    assert quota.take() is None
    quota.give_back()
    last = quota.take()
    assert last is not None
    assert last.code == "G755", "two a second are this worker's"


def test_requests_at_the_same_time() -> None:
    made, sent = key(concurrent=2)
    access = Access()
    access.update({made.id: made})
    first, second = access.check(sent), access.check(sent)
    assert first.admit() is None
    assert second.admit() is None
    refusal = first.admit()
    assert refusal is not None
    assert (refusal.status, refusal.code) == (429, "G756")
    access.update({made.id: made, "other": key("cccccccc")[0]})
    assert access.check(sent).admit() is not None, "also across a change of keys"
    first.done()
    assert access.check(sent).admit() is None


def test_keys_that_were_used_are_known_once() -> None:
    made, sent = key()
    access = Access()
    access.update({made.id: made, "cccccccc": key("cccccccc")[0]})
    access.check(sent).admit()
    assert access.used() == {made.id}
    assert access.used() == set()


def test_wrong_keys_are_throttled_by_address_and_a_right_one_never_is() -> None:
    now_s = [0.0]
    made, sent = key()
    access = Access(clock=lambda: now_s[0])
    access.update({made.id: made})
    answers = [access.count_wrong("10.0.0.9") for _ in range(30)]
    assert answers[:20] == [None] * 20
    refusal = answers[20]
    assert refusal is not None
    assert (refusal.status, refusal.code) == (429, "G757")
    assert refusal.fields == b"Retry-After: 5\r\n"
    assert access.count_wrong("10.0.0.8") is None, "another address"
    assert access.check(sent).admit() is None
    now_s[0] = 5.1
    assert access.count_wrong("10.0.0.9") is None


def test_a_bounded_number_of_addresses_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genba.serve.access.quota._PEERS", 3)
    wrong = WrongKeys(lambda: 0.0)
    for n in range(40):
        wrong.count(f"10.0.0.{n}")
        wrong.count("10.0.0.1")
    assert len(wrong._peers) == 3
    assert wrong.count("10.0.0.1") is not None, "who goes on is not forgotten"


def test_a_page_elsewhere_may_ask_when_it_is_named() -> None:
    made, sent = key(concurrent=1)
    access = Access(rules=Rules(origins=frozenset({PAGE})))
    access.update({made.id: made})
    page = {b"origin": PAGE, b"sec-fetch-site": b"cross-site"}
    caller = access.check({**sent, **page})
    assert b"Access-Control-Allow-Origin: https://board.example\r\n" in caller.fields
    assert b"Vary: Origin" in caller.fields
    assert caller.admit() is None
    for refusal in (
        caller.admit(),
        refused(lambda: caller.allow("admin")),
        refused(lambda: access.check({**HOST, **page}).allow("infer")),
        refused(lambda: access.check({**HOST, **page, b"authorization": b"Bearer x"})),
    ):
        assert refusal is not None
        assert b"Access-Control-Allow-Origin" in refusal.fields, "so that the page can read it"
    for origin in (b"https://board.example:444", b"http://board.example", b"null", PAGE + b"/"):
        assert refused(partial(access.check, {**sent, b"origin": origin})).status == 403


def test_a_browser_asks_first() -> None:
    access = Access("secret", Rules(origins=frozenset({PAGE})))
    asked = {**HOST, b"origin": PAGE, b"access-control-request-method": b"POST"}
    fields = access.preflight(asked)
    assert fields is not None
    assert b"Access-Control-Allow-Origin: https://board.example\r\n" in fields
    assert b"Private-Network" not in fields
    near = access.preflight({**asked, b"access-control-request-private-network": b"true"})
    assert near is not None
    assert b"Access-Control-Allow-Private-Network: true" in near
    assert access.preflight({**asked, b"origin": b"https://evil.example"}) is None
    assert access.preflight({**asked, b"host": b"evil.example"}) is None
    assert access.preflight({**HOST, b"origin": PAGE}) is None
    assert Access("secret").preflight(asked) is None


@pytest.mark.parametrize(
    "text", ["*", "board.example", "https://", "https://a b", "https://a/b", "https://a:x", "null"]
)
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(Problem) as caught:
        parse_origin(text)
    assert caught.value.code == "G753"


def test_a_caller_without_limits_counts_nothing() -> None:
    caller = Caller("", frozenset({ANYONE}))
    caller.done()
    assert caller.admit() is None
