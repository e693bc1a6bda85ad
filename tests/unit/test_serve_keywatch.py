"""A server follows the keys of its home, and records on which days they were used."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from genba.core import keys
from genba.core.keys import Key
from genba.serve.access import keywatch
from genba.serve.access.keywatch import KeyWatch
from genba.serve.limits import Limits
from genba.store.home import Store
from genba.store.keys import Grant, add_key, revoke_key
from genba.testing.serving import until

GRANT = Grant(scopes=("infer",))


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


class Watched:
    """What a watch hands over, and what it is told was used."""

    def __init__(self, store: Store) -> None:
        self.handed: list[Mapping[str, Key]] = []
        self.in_use: set[str] = set()
        limits = Limits(keys_s=0.005)
        self.watch = KeyWatch(store.ledger, limits, self.handed.append, self.used)

    def used(self) -> set[str]:
        found, self.in_use = self.in_use, set()
        return found


def test_changes_are_handed_over_and_nothing_else_is(store: Store) -> None:
    watched = Watched(store)
    watched.watch.poll()
    assert watched.handed == []
    key, _ = add_key(store.ledger, "mes", GRANT, by="me", now_ms=0)
    watched.watch.poll()
    store.ledger.append("note", {})
    watched.watch.poll()
    watched.in_use = {key.id}
    watched.watch.mark()
    watched.watch.poll()
    assert [set(known) for known in watched.handed] == [{key.id}]
    revoke_key(store.ledger, key.id, by="me")
    watched.watch.poll()
    assert watched.handed[-1][key.id].revoked_ms is not None


def test_a_day_of_use_is_recorded_once(store: Store) -> None:
    watched = Watched(store)
    key, _ = add_key(store.ledger, "mes", GRANT, by="me", now_ms=0)
    for _ in range(3):
        watched.in_use = {key.id}
        watched.watch.mark()
    assert len(store.ledger.events(kinds=(keys.USED,))) == 1


def test_the_thread_goes_on_when_the_store_does_not(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keywatch, "_USED_S", 0.0)
    watched = Watched(store)
    key, _ = add_key(store.ledger, "mes", GRANT, by="me", now_ms=0)
    head = store.ledger.head

    def broken() -> tuple[int, str]:
        raise OSError("the disk is gone")

    monkeypatch.setattr(store.ledger, "head", broken)
    watched.watch.start()
    until(lambda: "the disk is gone" in caplog.text)
    monkeypatch.setattr(store.ledger, "head", head)
    until(lambda: bool(watched.handed))
    watched.in_use = {key.id}
    until(lambda: len(store.ledger.events(kinds=(keys.USED,))) == 1)
    watched.watch.stop()
    watched.watch.stop()
