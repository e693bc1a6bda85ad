"""Opening a store, its errors, and that PostgreSQL understands every statement."""

import multiprocessing
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import event, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.schema import CreateIndex, CreateTable

from genba.core.digest import digest_json
from genba.core.problem import Problem
from genba.store import database as databases
from genba.store import postgresql as postgresql_reports
from genba.store import sqlite, tables
from genba.store.chain import Draft
from genba.store.database import Database
from genba.store.feedback import FeedbackRow
from genba.store.home import Store, home_path
from genba.store.lineage import ancestors

POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def test_the_home_comes_from_the_argument_the_environment_or_here(home: Path) -> None:
    assert home_path(Path("/x")) == Path("/x")
    assert home_path() == home
    assert home_path(environment={}) == Path.cwd() / ".genba"


def test_a_store_is_made_at_first_use_and_found_again(home: Path) -> None:
    with Store.open() as store:
        store.ledger.append("note", {})
        assert store.path == home
    with Store.open(create=False) as store:
        assert store.ledger.head()[0] == 1


def test_a_home_with_any_name_works(tmp_path: Path) -> None:
    home = tmp_path / "ä home?with=odd&characters #%20"
    with Store.open(home) as store:
        store.ledger.append("note", {})

    assert (home / "ledger.db").exists()


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no Genba home") as caught:
        Store.open(tmp_path / "nowhere", create=False)
    assert caught.value.code == "G301"
    (tmp_path / "empty").mkdir()
    with pytest.raises(Problem, match="no store") as caught:
        Store.open(tmp_path / "empty", create=False)
    assert caught.value.code == "G301"


def test_a_home_made_by_a_newer_genba_is_left_alone(store: Store) -> None:
    with store.transaction() as connection:
        connection.execute(tables.head.update().values(format=tables.FORMAT + 1))

    with pytest.raises(Problem, match="no store") as caught:
        Store.open(store.path)
    assert str(tables.FORMAT + 1) in caught.value.why


def test_a_ledger_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"this is not a database" * 100)

    with pytest.raises(Problem, match="damaged") as caught:
        Store.open(tmp_path)
    assert caught.value.code == "G306"


def test_a_database_without_its_driver() -> None:
    for url in ("postgresql+nothing://host/genba", "nothing://host/genba"):
        with pytest.raises(Problem, match="no driver") as caught:
            Database(url)
        assert caught.value.code == "G301"


def test_a_work_directory_is_a_name_and_never_a_path(store: Store) -> None:
    assert store.work_dir("download").is_dir()
    assert store.work_dir(digest_json(1)).parent == store.path / "work"
    with pytest.raises(Problem) as caught:
        store.work_dir("../elsewhere")
    assert caught.value.code == "G104"


def test_a_busy_ledger_says_so_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_S", 0.05)
    with Store.open(tmp_path / "home") as store:
        other = sqlite3.connect(store.path / "ledger.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Problem) as caught:
            store.ledger.append("note", {})
        other.execute("ROLLBACK")
        other.close()

        assert caught.value.code == "G308"
        assert store.ledger.append("note", {}).seq == 1


def open_and_append(path: Path) -> None:
    with Store.open(path) as store:
        store.ledger.append("note", {})


def test_processes_that_make_the_same_home_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "home"
    openers = [context.Process(target=open_and_append, args=(path,)) for _ in range(6)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()

    assert [opener.exitcode for opener in openers] == [0] * 6
    with Store.open(path, create=False) as store:
        assert store.ledger.verify().events == 6


class Reluctant:
    """An engine whose switch to the log is refused a few times, as when others switch at once."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    def raw_connection(self) -> "Reluctant":
        return self

    def cursor(self) -> "Reluctant":
        return self

    def execute(self, _statement: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise sqlite3.OperationalError("database is locked")

    def close(self) -> None:
        return


def test_a_switch_to_the_log_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Reluctant(2)
    sqlite.use_wal(engine)  # type: ignore[arg-type]  # a stand-in
    assert engine.refusals == 0

    monkeypatch.setattr(sqlite, "BUSY_S", 0.0)
    with pytest.raises(sqlite3.OperationalError):
        sqlite.use_wal(Reluctant(10_000))  # type: ignore[arg-type]  # a stand-in


def test_a_new_ledger_that_never_gets_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_S", 0.02)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(Problem) as caught:
        Store.open(tmp_path)
    other.close()
    assert caught.value.code == "G308"


@pytest.mark.parametrize(
    ("code", "name", "problem"),
    [
        (13, "full", "G303"),
        (8, "read-only", "G304"),
        (14, "read-only", "G304"),
        (5, "busy", "G308"),
        (261, "busy", "G308"),
        (11, "damaged", "G306"),
        (778, "io", "G306"),
    ],
)
def test_every_trouble_of_the_database_has_a_problem(
    store: Store, code: int, name: str, problem: str
) -> None:
    class Trouble(sqlite3.OperationalError):
        sqlite_errorcode = code

    error = DBAPIError("SELECT", {}, Trouble("in trouble"))

    def fail() -> NoReturn:
        with store.transaction():
            raise error

    assert sqlite.failure(error) == name
    with pytest.raises(Problem) as caught:
        fail()
    assert caught.value.code == problem


@pytest.mark.parametrize(
    ("state", "name"), [("53100", "full"), ("25006", "read-only"), (None, "away"), ("42601", None)]
)
def test_what_a_server_reports(state: str | None, name: str | None) -> None:
    trouble = OSError("in trouble")
    trouble.sqlstate = state  # type: ignore[attr-defined]  # as the driver has it

    assert postgresql_reports.failure(OperationalError("SELECT", {}, trouble)) == name


def test_other_errors_of_the_database_pass_unchanged(store: Store) -> None:
    def misspelt() -> None:
        with store.transaction() as connection:
            connection.execute(text("SELECT * FROM nothing"))

    with pytest.raises(DBAPIError, match="nothing"):
        misspelt()
    assert not store.database.busy


def test_a_thread_knows_whether_it_is_inside_a_transaction(store: Store) -> None:
    database = store.database
    seen = [database.busy]
    with database.read():
        with database.read():
            seen.append(database.busy)
        seen.append(database.busy)
    with database.transaction():
        seen.append(database.busy)
    seen.append(database.busy)

    assert seen == [False, True, True, True, False]


def test_a_server_keeps_the_time(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Where there is a database server, its clock decides about leases, not the client's."""

    class Answer:
        def scalar_one(self) -> float:
            return 1_700_000_000.5

    class Connection:
        def execute(self, statement: Any) -> Answer:
            sql = str(statement.compile(dialect=POSTGRESQL))
            assert sql == "SELECT EXTRACT(epoch FROM clock_timestamp()) AS anon_1"
            return Answer()

    monkeypatch.setattr(store.database, "is_local", False)

    assert store.database.now_ms(Connection()) == 1_700_000_000_500  # type: ignore[arg-type]  # a stand-in


def exercise(store: Store) -> None:
    """Do everything the store can do."""
    ledger, attempts = store.ledger, store.attempts
    ledger.append("note", {}, line="pump", key="k")
    ledger.append("note", {}, key="k")
    ledger.record("dataset", "d", {}, line="pump")
    ledger.record("model", "m", {}, inputs=[("dataset", "d")])
    ledger.events(after=0, line="pump", kinds=["note"], limit=2)
    ledger.find("model", line="pump", limit=1)
    ledger.get("model", "m")
    ancestors(ledger, "m")
    ledger.verify()
    key = digest_json(1)
    for who in "ab":
        attempts.claim(key, name="n", run="r", owner=who, lease_s=0)
    attempts.heartbeat(key, "b", 2, lease_s=1)
    attempts.complete(key, "b", 2, {}, event=("e", {}, "", ""))
    attempts.history(key=key, run="r")
    attempts.result(key)
    row = FeedbackRow(
        id="f", line="pump", kind="label", received_ms=1, status="accepted", batch="b"
    )
    store.feedback.add([row], Draft(kind="feedback", body={}))
    store.feedback.by_entity_time("pump", None, 1)
    store.feedback.by_prediction("x")
    store.feedback.all("pump")
    store.feedback.counts("pump")


def test_postgresql_understands_every_statement(store: Store) -> None:
    seen: list[Any] = []
    event.listen(
        store.database._engine, "before_execute", lambda _c, clause, *_rest: seen.append(clause)
    )
    exercise(store)

    compiled = {str(clause.compile(dialect=POSTGRESQL)) for clause in seen}
    assert len(compiled) > 25
    assert any("FOR UPDATE" in sql for sql in compiled)
    for table in tables.metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=POSTGRESQL))
        for index in table.indexes:
            assert "CREATE INDEX" in str(CreateIndex(index).compile(dialect=POSTGRESQL))


def test_sqlite_is_spoken_in_one_file_only() -> None:
    folder = Path(databases.__file__).parent
    words = ("PRAGMA", "IMMEDIATE", "sqlite3", "sqlite_master", "RAISE(", "TRIGGER")
    found = [
        f"{path.name}: {word}"
        for path in folder.glob("*.py")
        for word in words
        if path.name not in ("sqlite.py", "postgresql.py") and word in path.read_text()
    ]
    assert found == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_many_small_transactions_leave_no_descriptor_open(store: Store) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for n in range(200):
        store.ledger.append("note", {"n": n})

    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
