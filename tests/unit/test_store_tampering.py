"""The ledger against everybody who would like to change the past."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from genba.core.digest import canonical_json, digest_bytes
from genba.store.database import Database
from tests.unit.open_ledger import open_ledger


def filled(path: Path) -> Path:
    ledger = open_ledger(path)
    for n in range(5):
        ledger.append("note", {"n": n}, key=f"k{n}")
    ledger.record("dataset", "d1", {"rows": 7}, line="pump")
    ledger.record("model", "m1", {"r2": 0.9}, line="pump", inputs=[("dataset", "d1")])
    assert ledger.verify().ok
    return path / "ledger.db"


def rewrite_from(connection: sqlite3.Connection, seq: int) -> None:
    """Compute the chain anew, as somebody would who owns the disk."""
    previous = connection.execute("SELECT previous FROM event WHERE seq = ?", [seq]).fetchone()[0]
    columns = "seq, time_ms, kind, line, subject, key, body"
    rows = connection.execute(f"SELECT {columns} FROM event WHERE seq >= ? ORDER BY seq", [seq])
    for row in rows.fetchall():
        digest = digest_bytes(canonical_json([previous, *row]))
        connection.execute(
            "UPDATE event SET previous = ?, digest = ? WHERE seq = ?", [previous, digest, row[0]]
        )
        previous = digest
    connection.execute("UPDATE head SET digest = ?", [previous])


TAMPERINGS: dict[str, tuple[str, int | None]] = {
    "edit a body": ("UPDATE event SET body = '{\"n\":9}' WHERE seq = 3", 3),
    "edit only spaces": ("UPDATE event SET body = '{\"n\": 2}' WHERE seq = 3", 3),
    "edit a time": ("UPDATE event SET time_ms = time_ms + 1 WHERE seq = 1", 1),
    "edit a key": ("UPDATE event SET key = 'other' WHERE seq = 2", 2),
    "edit a digest": ("UPDATE event SET digest = previous WHERE seq = 4", 4),
    "delete in the middle": ("DELETE FROM event WHERE seq = 3", 3),
    "delete the first": ("DELETE FROM event WHERE seq = 1", 1),
    "cut off the end": (
        "DELETE FROM event WHERE seq >= 6; DELETE FROM record; DELETE FROM edge",
        6,
    ),
    "swap two": (
        "UPDATE event SET seq = 100 WHERE seq = 2; UPDATE event SET seq = 2 WHERE seq = 3;"
        "UPDATE event SET seq = 3 WHERE seq = 100",
        2,
    ),
    "set the head back": (
        "UPDATE head SET seq = 6, digest = (SELECT digest FROM event WHERE seq=6)",
        8,
    ),
    "edit a record": ("UPDATE record SET body = '{\"r2\":1.0}' WHERE id = 'm1'", 7),
    "move a record to another line": ("UPDATE record SET line = 'fan' WHERE id = 'd1'", 6),
    "delete a record": ("DELETE FROM record WHERE id = 'd1'", 6),
    "delete an edge": ("DELETE FROM edge", 7),
    "add an edge": ("INSERT INTO edge (src, dst, role) VALUES ('x', 'm1', 'dataset')", 7),
    "add an edge to nothing": (
        "INSERT INTO edge (src, dst, role) VALUES ('x', 'y', 'dataset')",
        None,
    ),
    "add a record": (
        "INSERT INTO record (id, kind, line, body, seq, time_ms) VALUES ('m2','model','','{}',7,0)",
        7,
    ),
}


def tamper(path: Path, change: Callable[[sqlite3.Connection], object]) -> None:
    connection = sqlite3.connect(path)
    triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    for (name,) in triggers.fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    change(connection)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("what", list(TAMPERINGS))
def test_tampering_is_found(tmp_path: Path, what: str) -> None:
    path = filled(tmp_path)
    script, first_bad = TAMPERINGS[what]
    tamper(path, lambda connection: connection.executescript(script))

    report = open_ledger(tmp_path).verify()

    assert not report.ok
    assert report.reason
    assert report.first_bad == (first_bad if first_bad is not None else 0)


def test_a_chain_that_was_computed_anew_is_found_with_a_pinned_head(tmp_path: Path) -> None:
    path = filled(tmp_path)
    pinned = open_ledger(tmp_path).head()

    def edit(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE event SET body = '{\"n\":9}' WHERE seq = 3")
        rewrite_from(connection, 3)

    tamper(path, edit)
    ledger = open_ledger(tmp_path)

    assert ledger.verify().ok  # from within it cannot be seen
    report = ledger.verify([pinned])
    assert (report.ok, report.first_bad) == (False, 7)


def test_a_chain_cut_off_with_its_head_is_found_with_a_pinned_head(tmp_path: Path) -> None:
    path = filled(tmp_path)
    pinned = open_ledger(tmp_path).head()

    def cut(connection: sqlite3.Connection) -> None:
        connection.executescript(
            "DELETE FROM record; DELETE FROM edge; DELETE FROM event WHERE seq > 4;"
            "UPDATE head SET seq = 4, digest = (SELECT digest FROM event WHERE seq = 4)"
        )

    tamper(path, cut)
    ledger = open_ledger(tmp_path)

    assert ledger.verify().ok
    report = ledger.verify([pinned])
    assert (report.ok, report.first_bad) == (False, 5)
    assert "cut off" in report.reason


def test_two_pins_of_one_event_that_differ_cannot_both_be_right(tmp_path: Path) -> None:
    filled(tmp_path)
    ledger = open_ledger(tmp_path)
    seq, digest = ledger.head()

    assert not ledger.verify([(seq, "f" * 64), (seq, digest)]).ok


@pytest.mark.parametrize("table", ["event", "record", "edge"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET rowid = rowid", "DELETE FROM {}"])
def test_the_database_itself_refuses_to_change_the_past(
    tmp_path: Path, table: str, statement: str
) -> None:
    filled(tmp_path)
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}")

    with (
        pytest.raises(DBAPIError, match="append-only"),
        database.transaction() as connection,
    ):
        connection.exec_driver_sql(statement.format(table))


def test_the_chain_can_be_verified_without_this_code(tmp_path: Path) -> None:
    """The format is documented; an auditor needs sha256 and JSON only."""
    path = filled(tmp_path)
    rows = sqlite3.connect(path).execute(
        "SELECT seq, time_ms, kind, line, subject, key, body, digest FROM event ORDER BY seq"
    )
    previous = "0" * 64
    for *fields, digest in rows:
        text = json.dumps([previous, *fields], separators=(",", ":"), ensure_ascii=False)
        previous = digest_bytes(text.encode())
        assert previous == digest
