"""Stores made by an earlier Genba: opened, completed, and still good for the earlier one."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from genba.core.problem import Problem
from genba.store.chain import Draft
from genba.store.feedback import FeedbackRow, rows_digest
from genba.store.home import Store

ROW = FeedbackRow(
    id="f1",
    line="pump",
    prediction="s1-7",
    kind="label",
    value="normal",
    received_ms=1,
    status="accepted",
    batch="b1",
)
BATCH = Draft(kind="feedback.received", body={"rows": 1}, line="pump")
#: The table and the digest of this row as they were before rows had masks.
BEFORE = [
    *("id", "line", "prediction", "entity", "time_ms", "kind", "value"),
    *("author", "comment", "received_ms", "status", "batch"),
]
DIGEST = "f55cbbb26c8b6039b2a63af1b7295f1ce4591a14acb0e9e9729ea3404839c770"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A home with one row of feedback, without the column for masks."""
    home = tmp_path / "home"
    with Store.open(home) as store:
        store.feedback.add([ROW], BATCH)
    connection = sqlite3.connect(home / "ledger.db")
    connection.execute("ALTER TABLE feedback DROP COLUMN mask")
    assert columns(home) == BEFORE
    connection.close()
    return home


def columns(home: Path) -> list[str]:
    connection = sqlite3.connect(home / "ledger.db")
    found = [row[1] for row in connection.execute("PRAGMA table_info(feedback)")]
    connection.close()
    return found


def test_an_earlier_store_gets_the_column_and_keeps_its_rows(earlier: Path) -> None:
    with Store.open(earlier, create=False) as store:
        assert columns(earlier) == [*BEFORE, "mask"]
        assert store.feedback.all("pump") == [ROW]
        assert store.ledger.events()[-1].body["rows_digest"] == rows_digest([ROW]) == DIGEST
        marked = replace(ROW, id="f2", mask="ab" * 32)
        store.feedback.add([marked], BATCH)
        assert store.feedback.by_prediction("s1-7") == [ROW, marked]
        assert rows_digest([marked]) != rows_digest([replace(marked, mask=None)])
        assert store.ledger.verify().ok


def test_what_an_earlier_genba_writes_afterwards_is_read(earlier: Path) -> None:
    with Store.open(earlier):
        pass
    connection = sqlite3.connect(earlier / "ledger.db")
    names = ", ".join(BEFORE)
    values = "'f3', 'pump', 's1-7', NULL, NULL, 'label', 'ok', '', '', 2, 'accepted', 'b2'"
    connection.execute(f"INSERT INTO feedback ({names}) VALUES ({values})")
    connection.commit()
    connection.close()
    with Store.open(earlier) as store:
        assert [row.mask for row in store.feedback.all("pump")] == [None, None]


def test_several_processes_may_open_it_at_once(earlier: Path) -> None:
    def opened(_: int) -> int:
        with Store.open(earlier) as store:
            return len(store.feedback.all("pump"))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(opened, range(8))) == [1] * 8
    assert columns(earlier) == [*BEFORE, "mask"]


def test_a_store_of_a_later_genba_is_refused_before_anything_is_added(earlier: Path) -> None:
    connection = sqlite3.connect(earlier / "ledger.db")
    connection.execute("UPDATE head SET format = 99")
    connection.commit()
    connection.close()
    with pytest.raises(Problem, match="G301"):
        Store.open(earlier)
    assert columns(earlier) == BEFORE
