"""Keys in the ledger: made, read back, revoked for good; what cannot be read allows nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core import keys
from genba.core.keys import Key, fold, new_token, token_digest, token_id
from genba.core.problem import Problem
from genba.core.values import Event
from genba.store.home import Store
from genba.store.keys import Grant, add_key, all_keys, mark_used, revoke_key

DAY_MS = 86_400_000
ALL = Grant(scopes=("infer", "read"), lines=("pump",), days=2, rate=2.5, concurrent=3)


def event(kind: str, body: dict[str, Any], *, subject: str = "k", time_ms: int = 5) -> Event:
    return Event(
        seq=1,
        time_ms=time_ms,
        kind=kind,
        line="",
        subject=subject,
        body=body,
        previous="",
        digest="",
    )


BODY: dict[str, Any] = {
    "name": "mes",
    "digest": "00",
    "scopes": ["infer"],
    "lines": [],
    "expires_ms": None,
    "rate": None,
    "concurrent": None,
    "by": "me",
}


def test_a_key_is_256_random_bits_behind_its_id() -> None:
    made = {new_token() for _ in range(200)}
    assert len({id for id, _ in made}) == len({token for _, token in made}) == 200
    for id, token in made:
        assert token.startswith(f"gk_{id}_")
        assert token_id(token.encode()) == id
        assert token_id(token.encode() + b"x") is None
        assert token_id(token.encode()[:-1]) is None
        assert token_digest(token.encode()) != token_digest(token.encode()[:-1] + b"~")


@given(st.binary(max_size=80))
def test_what_is_no_key_has_no_id(token: bytes) -> None:
    assert token_id(token) is None


def test_a_key_is_made_read_back_and_revoked(home: Path) -> None:
    with Store.open(home) as store:
        key, token = add_key(store.ledger, "mes", ALL, by="me", now_ms=1_000)
        other, _ = add_key(store.ledger, "mes", Grant(scopes=("admin",)), by="me", now_ms=1_001)
        assert all_keys(store.ledger) == {key.id: key, other.id: other}
        assert key == Key(
            id=key.id,
            name="mes",
            digest=token_digest(token.encode()),
            scopes=frozenset({"infer", "read"}),
            lines=frozenset({"pump"}),
            expires_ms=1_000 + 2 * DAY_MS,
            rate=2.5,
            concurrent=3,
            by="me",
            added_ms=1_000,
        )
        said = [repr(e.body) for e in store.ledger.events(kinds=keys.KINDS)]
        assert not any(token[-43:] in body for body in said), "only the digest is kept"
        revoked = revoke_key(store.ledger, key.id, by="boss", reason="lost")
        assert revoked.state(0) == "revoked"
        assert revoked.revoked_by == "boss"
        assert revoke_key(store.ledger, token, by="x").revoked_by == "boss", "the first counts"
        assert all_keys(store.ledger)[key.id] == revoked
        assert store.ledger.verify().ok


def test_a_day_on_which_a_key_was_used_is_one_event(home: Path) -> None:
    with Store.open(home) as store:
        key, _ = add_key(store.ledger, "mes", ALL, by="me", now_ms=0)
        for now_ms in (10, 20, DAY_MS - 1, DAY_MS, DAY_MS + 5):
            mark_used(store.ledger, [key.id], now_ms)
        used = store.ledger.events(kinds=(keys.USED,))
        assert [e.time_ms for e in used] == [10, DAY_MS]
        assert all_keys(store.ledger)[key.id].used_ms == DAY_MS


@pytest.mark.parametrize(
    ("grant", "says"),
    [
        (Grant(scopes=()), "needs a scope"),
        (Grant(scopes=("infre",)), "no scope 'infre'"),
        (replace(ALL, days=0), "A key lasts"),
        (replace(ALL, days=float("nan")), "A key lasts"),
        (replace(ALL, days=1e9), "A key lasts"),
        (replace(ALL, rate=0.0), "no limit"),
        (replace(ALL, rate=float("inf")), "no limit"),
        (replace(ALL, concurrent=0), "no limit"),
    ],
)
def test_a_grant_that_is_none(grant: Grant, says: str, home: Path) -> None:
    with Store.open(home) as store:
        with pytest.raises(Problem) as caught:
            add_key(store.ledger, "mes", grant, by="me", now_ms=0)
        assert caught.value.code == "G751"
        assert says in caught.value.what
        for name, lines in [("../x", ()), ("mes", ("../x",))]:
            with pytest.raises(Problem) as caught:
                add_key(store.ledger, name, replace(ALL, lines=lines), by="me", now_ms=0)
            assert caught.value.code == "G104"
        assert all_keys(store.ledger) == {}


def test_a_key_that_there_is_not(home: Path) -> None:
    with Store.open(home) as store:
        with pytest.raises(Problem) as caught:
            revoke_key(store.ledger, "nothing", by="me")
        assert caught.value.code == "G752"
        key, _ = add_key(store.ledger, "mes", ALL, by="me", now_ms=0)
        with pytest.raises(Problem) as caught:
            revoke_key(store.ledger, new_token()[1], by="me")
        assert f"{key.id} (mes)" in caught.value.why
        assert "gk_" not in caught.value.what, "what may be a key is not repeated"


def test_what_cannot_be_read_allows_nothing() -> None:
    good = fold([event(keys.ADDED, BODY)])
    assert good["k"].scopes == {"infer"}
    for name in BODY:
        assert fold([event(keys.ADDED, {n: v for n, v in BODY.items() if n != name})]) == {}
    for wrong in ({"rate": "x"}, {"scopes": 3}, {"expires_ms": [1]}):
        assert fold([event(keys.ADDED, {**BODY, **wrong})]) == {}
    # A second event of the same id gives nobody a second chance.
    again = event(keys.ADDED, {**BODY, "scopes": ["admin"]})
    assert fold([again], good) == good
    revoked = fold([event(keys.REVOKED, {}, time_ms=9)], good)
    assert revoked["k"].revoked_ms == 9
    assert fold([again, event(keys.REVOKED, {}, time_ms=10)], revoked) == revoked
    assert fold([event(keys.REVOKED, {}), event(keys.USED, {})]) == {}


@given(st.lists(st.sampled_from([keys.ADDED, keys.REVOKED, keys.USED]), max_size=8))
def test_a_revoked_key_never_comes_back(kinds: list[str]) -> None:
    events = [event(kind, BODY, time_ms=n) for n, kind in enumerate(kinds)]
    for cut in range(len(events) + 1):
        assert fold(events[cut:], fold(events[:cut])) == fold(events), "however it is read"
    known = fold(events).get("k")
    added = kinds.index(keys.ADDED) if keys.ADDED in kinds else len(kinds)
    assert (known is not None) == (added < len(kinds))
    if known:
        assert (known.revoked_ms is not None) == (keys.REVOKED in kinds[added:])
