"""The same store on PostgreSQL, where there is one: a server of its own, on a socket of its own."""

import multiprocessing
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.runs.run import execute
from genba.runs.stage import Stage, StageContext
from genba.store import tables
from genba.store.chain import Draft
from genba.store.feedback import FeedbackRow
from genba.store.home import Store

pytestmark = pytest.mark.slow
LINE = Line(name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv"))
AS_POSTGRES = [] if os.geteuid() else ["setpriv", "--reuid=postgres", "--clear-groups"]


def binaries() -> Path | None:
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Start a server; yield its URL."""
    pytest.importorskip("psycopg", reason="needs the extra: postgres")
    folder = binaries()
    if folder is None:
        pytest.skip("there is no PostgreSQL on this machine")
    place = Path(tempfile.mkdtemp(prefix="genba-pg-"))
    if AS_POSTGRES:
        shutil.chown(place, "postgres")

    def run(*command: str) -> None:
        subprocess.run([*AS_POSTGRES, *command], check=True, capture_output=True, cwd=place)

    try:
        data = str(place / "data")
        run(str(folder / "initdb"), "-D", data, "-A", "trust", "-U", "genba")
        options = f"-k {place} -c listen_addresses="
        run(
            str(folder / "pg_ctl"),
            "-D",
            data,
            "-w",
            "-l",
            str(place / "log"),
            "-o",
            options,
            "start",
        )
        yield f"postgresql+psycopg://genba@/postgres?host={place}"
        run(str(folder / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def store(server: str, tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home", url=server) as opened:
        yield opened
        with opened.database._engine.begin() as connection:
            tables.metadata.drop_all(connection)


def double(context: StageContext) -> dict[str, Any]:
    return {"n": 2}


def test_a_run_and_its_records(store: Store) -> None:
    stages = [Stage("double", double)]
    first = execute(stages, line=LINE, store=store)
    again = execute(stages, line=LINE, store=store)

    assert first.results == again.results == {"double": {"n": 2}}
    assert again.stages[0].reused
    assert [r.id for r in store.ledger.find("run")] == [again.run, first.run]
    assert store.ledger.verify().ok
    assert store.ledger.append("note", {}, key="k") == store.ledger.append("note", {}, key="k")


def test_leases_by_the_clock_of_the_server(store: Store) -> None:
    def claim(owner: str, lease_s: float) -> str:
        return store.attempts.claim("k", name="n", run="r", owner=owner, lease_s=lease_s).state

    assert [claim("a", 0.0), claim("b", 60), claim("c", 60)] == ["mine", "mine", "held"]
    assert not store.attempts.complete("k", "a", 1, {})
    assert store.attempts.heartbeat("k", "b", 2, lease_s=60)
    assert store.attempts.complete("k", "b", 2, {"n": 1}, event=("e", {}, "", ""))


def test_feedback(store: Store) -> None:
    row = FeedbackRow(
        id="f", line="pump", kind="label", received_ms=1, status="accepted", batch="b"
    )
    store.feedback.add([row], Draft(kind="feedback", body={}))

    assert store.feedback.all("pump") == store.feedback.by_entity_time("pump", None, 0) + [row]
    assert store.feedback.counts("pump") == {"accepted": 1}


def append_some(home: Path, url: str, name: str) -> None:
    with Store.open(home, url=url) as store:
        for n in range(10):
            store.ledger.append("note", {"n": n}, line=name)
            store.ledger.append("shared", {}, key=f"k{n}")


def test_processes_create_the_tables_and_append_at_once(store: Store, server: str) -> None:
    with store.database._engine.begin() as connection:
        tables.metadata.drop_all(connection)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=append_some, args=(store.path, server, f"p{n}")) for n in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [worker.exitcode for worker in workers] == [0] * 3
    report = store.ledger.verify()
    assert (report.ok, report.events) == (True, 40)


@pytest.mark.parametrize("statement", ["UPDATE event SET seq = seq", "DELETE FROM event"])
def test_the_past_cannot_be_changed(store: Store, statement: str) -> None:
    store.ledger.append("note", {})

    def change() -> None:
        with store.transaction() as connection:
            connection.exec_driver_sql(statement)

    with pytest.raises(DBAPIError, match="append-only"):
        change()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="needs the extra: postgres")

    with pytest.raises(Problem) as caught:
        Store.open(tmp_path, url=f"postgresql+psycopg://genba:secret@/genba?host={tmp_path}")
    assert caught.value.code == "G309"
    assert "secret" not in str(caught.value.to_json())
