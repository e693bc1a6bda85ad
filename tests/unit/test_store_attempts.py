"""Leases, heartbeats, fencing; feedback."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genba.core.digest import digest_json
from genba.store import owner
from genba.store.attempts import Attempts, Claim
from genba.store.chain import Draft
from genba.store.database import Database
from genba.store.feedback import FeedbackRow, FeedbackTable
from genba.store.home import Store
from genba.store.ledger import Ledger

KEY = digest_json("stage")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    database.prepare()
    return database


@pytest.fixture
def attempts(database: Database) -> Attempts:
    return Attempts(database)


def claim(attempts: Attempts, who: str, lease_s: float = 30.0) -> Claim:
    return attempts.claim(KEY, name="train", run="run-1", owner=who, lease_s=lease_s)


def test_one_holds_and_the_others_wait_then_reuse(attempts: Attempts) -> None:
    mine, held = claim(attempts, "a"), claim(attempts, "b")

    assert (mine.state, mine.attempt) == ("mine", 1)
    assert (held.state, held.holder, held.attempt) == ("held", "a", 1)
    assert held.lease_until_ms == mine.lease_until_ms
    assert attempts.result(KEY) is None
    assert attempts.complete(KEY, "a", 1, {"n": 1})
    assert attempts.result(KEY) == {"n": 1}
    done = claim(attempts, "b")
    assert (done.state, done.result) == ("done", {"n": 1})


def test_the_holder_itself_is_held_off_a_second_time(attempts: Attempts) -> None:
    claim(attempts, "a")

    assert claim(attempts, "a").state == "held"


def test_an_expired_lease_is_taken_and_the_old_owner_is_fenced_off(
    attempts: Attempts, database: Database
) -> None:
    old = claim(attempts, "a", lease_s=0.0)
    new = claim(attempts, "b")

    assert (new.state, new.attempt) == ("mine", 2)
    assert not attempts.heartbeat(KEY, "a", old.attempt, lease_s=30)
    assert not attempts.complete(KEY, "a", old.attempt, {"n": 1}, event=("x", {}, "", ""))
    assert not attempts.fail(KEY, "a", old.attempt, {})
    assert not attempts.complete(KEY, "a", new.attempt, {"n": 1})  # not its attempt either
    assert attempts.complete(KEY, "b", new.attempt, {"n": 2})
    assert not attempts.complete(KEY, "b", new.attempt, {"n": 3})  # once is once
    assert not attempts.heartbeat(KEY, "b", new.attempt, lease_s=30)
    assert attempts.result(KEY) == {"n": 2}
    assert Ledger(database).events() == []
    assert [row.state for row in attempts.history(key=KEY)] == ["lost", "done"]


def test_a_lease_that_expired_but_was_not_taken_is_kept_by_a_heartbeat(attempts: Attempts) -> None:
    mine = claim(attempts, "a", lease_s=0.0)

    assert attempts.heartbeat(KEY, "a", mine.attempt, lease_s=30)
    assert claim(attempts, "b").state == "held"


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_stage_given_up_is_free_at_once(attempts: Attempts, cancelled: bool) -> None:
    claim(attempts, "a")
    assert attempts.fail(KEY, "a", 1, {"what": "no memory"}, cancelled=cancelled)

    assert (claim(attempts, "b").state, claim(attempts, "c").holder) == ("mine", "b")
    rows = attempts.history(run="run-1")
    assert [row.state for row in rows] == ["cancelled" if cancelled else "failed", "running"]
    assert rows[0].finished_ms is not None


def test_result_and_event_are_one_commit(attempts: Attempts, database: Database) -> None:
    claim(attempts, "a")
    event = ("stage.finished", {"stage": "train"}, "pump", "run-1")
    assert attempts.complete(KEY, "a", 1, {"n": 1}, event=event)

    (found,) = Ledger(database).events()
    assert (found.kind, found.body, found.line, found.subject) == event


def test_a_holder_that_is_gone_is_not_waited_for(database: Database) -> None:
    attempts = Attempts(database, is_gone=lambda who: who == "dead")
    claim(attempts, "dead")

    assert claim(attempts, "b").attempt == 2


def race(path: Path, ready: str, who: str) -> None:
    """Claim as soon as told; the winner works longer than the losers look."""
    database = Database(f"sqlite:///{path / 'ledger.db'}")
    while not Path(ready).exists():
        time.sleep(0.0005)
    attempts = Attempts(database, is_gone=lambda _: False)
    state = claim(attempts, who).state
    (path / f"{who}.state").write_text(state)


def test_of_processes_that_race_one_wins(database: Database, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    context = multiprocessing.get_context("fork")
    racers = [
        context.Process(target=race, args=(tmp_path, str(ready), f"racer-{n}")) for n in range(4)
    ]
    for racer in racers:
        racer.start()
    ready.touch()
    for racer in racers:
        racer.join()

    states = sorted(path.read_text() for path in tmp_path.glob("*.state"))
    assert states == ["held", "held", "held", "mine"]


linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="owners are looked up in /proc"
)


@linux
def test_whether_an_owner_is_gone() -> None:
    mine = owner.new_owner()
    machine, pid, started, chance = mine.split("/")
    child = subprocess.run(
        [sys.executable, "-c", "from genba.store.owner import new_owner; print(new_owner())"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout.strip()

    assert not owner.is_gone(mine)
    assert owner.is_gone(child)
    assert owner.is_gone(f"{machine}/{pid}/1/{chance}")  # the number was given to another process
    assert owner.is_gone(f"{machine}/x/1/{chance}")
    assert not owner.is_gone(f"another-machine/{pid}/1/{chance}")
    assert not owner.is_gone("not an owner")
    owner.retire(mine)
    assert owner.is_gone(mine)
    assert not owner.is_gone(owner.new_owner())


def test_where_processes_cannot_be_looked_up_leases_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "_machine", lambda: "elsewhere")
    mine = owner.new_owner()
    owner.retire(mine)

    assert not owner.is_gone(mine)


def row(number: int, **more: object) -> FeedbackRow:
    values: dict[str, object] = {
        "id": f"f{number}",
        "line": "pump",
        "prediction": f"s-{number}",
        "entity": "P1",
        "time_ms": 1000,
        "kind": "label",
        "value": "normal",
        "author": "ann",
        "received_ms": number,
        "status": "accepted",
        "batch": "b1",
    }
    return FeedbackRow(**{**values, **more})  # type: ignore[arg-type]  # plain values, as from a table


def test_feedback_is_found_by_what_it_is_about(database: Database) -> None:
    table = FeedbackTable(database)
    rows = [row(1), row(2, status="late"), row(3, entity=None, time_ms=None), row(4, line="fan")]
    event = table.add(rows, Draft(kind="feedback", body={"rows": 4}, line="pump", key="b1"))

    assert table.by_prediction("s-2") == [rows[1]]
    assert table.by_entity_time("pump", "P1", 1000) == rows[:2]
    assert table.all("fan") == [rows[3]]
    assert table.counts("pump") == {"accepted": 2, "late": 1}
    assert event.body["rows"] == 4
    assert len(event.body["rows_digest"]) == 64


def test_a_batch_counts_once(database: Database) -> None:
    table = FeedbackTable(database)
    batch = Draft(kind="feedback", body={}, line="pump", key="b1")
    first = table.add([row(1)], batch)

    assert table.add([row(2)], batch) == first
    assert table.all("pump") == [row(1)]
    assert table.add([], Draft(kind="feedback", body={})).seq == 2


def test_attempts_and_feedback_are_part_of_the_store(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        store.attempts.claim(KEY, name="n", run="r", owner=owner.new_owner(), lease_s=1)
        assert json.dumps([r.name for r in store.attempts.history()]) == '["n"]'
        assert store.feedback.counts("pump") == {}
