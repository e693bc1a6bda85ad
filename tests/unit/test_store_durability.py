"""Which commits wait for the disk: those that somebody has been promised."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from genba.core.line import Data, Line
from genba.runs import run as runs
from genba.runs.run import execute
from genba.runs.stage import Stage, StageContext
from genba.store.chain import Draft
from genba.store.home import Store

LEVELS = {1: "NORMAL", 2: "FULL"}
LINE = Line(name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv"))
KEY = "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as store:
        yield store


@pytest.fixture
def commits(store: Store) -> list[str]:
    """The level of every commit that writes, as SQLite itself says it."""
    levels: list[str] = []

    def committing(connection: Connection) -> None:
        if connection.get_execution_options().get("write"):
            level = connection.exec_driver_sql("PRAGMA synchronous").scalar()
            levels.append(LEVELS[int(level or 0)])

    event.listen(store.database._engine, "commit", committing)
    return levels


def stage(_context: StageContext) -> dict[str, Any]:
    return {"n": 1}


def test_what_is_appended_and_recorded_waits_for_the_disk(store: Store, commits: list[str]) -> None:
    store.ledger.append("note", {})
    store.ledger.record("model", "m", {})
    with store.transaction(durable=False):
        pass
    store.ledger.append_all([Draft(kind="note", body={})])

    assert commits == ["FULL", "FULL", "NORMAL", "FULL"]


def test_a_lease_does_not_wait_and_a_result_does(store: Store, commits: list[str]) -> None:
    claim = store.attempts.claim(KEY, name="s", run="r", owner="me", lease_s=60)
    store.attempts.heartbeat(KEY, "me", claim.attempt, lease_s=60)
    store.attempts.complete(KEY, "me", claim.attempt, {})

    assert commits == ["NORMAL", "NORMAL", "FULL"]


def test_the_outermost_transaction_decides(store: Store, commits: list[str]) -> None:
    with store.transaction():
        store.attempts.claim(KEY, name="s", run="r", owner="me", lease_s=60)
    with store.transaction(durable=False):
        store.ledger.append("note", {})

    assert commits == ["FULL", "NORMAL"]


@pytest.mark.parametrize(("worth_s", "level"), [(0.0, "FULL"), (60.0, "NORMAL")])
def test_a_stage_waits_for_the_disk_if_it_took_long_and_a_run_always_does(
    store: Store,
    commits: list[str],
    monkeypatch: pytest.MonkeyPatch,
    worth_s: float,
    level: str,
) -> None:
    monkeypatch.setattr(runs, "_WORTH_A_SYNC_S", worth_s)
    assert execute([Stage("one", stage)], line=LINE, store=store).outcome == "done"

    begun, claimed, done, finished = commits
    assert (begun, claimed, done, finished) == ("NORMAL", "NORMAL", level, "FULL")
