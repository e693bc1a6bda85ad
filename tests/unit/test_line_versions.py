"""Which version of a line is in force: the one that was run last, not the one recorded last."""

from dataclasses import replace
from pathlib import Path

from genba.core.codec import encode
from genba.core.line import Data, Limit, Line
from genba.loop.runner import current_line
from genba.runs.lines import newest_line
from genba.runs.run import execute
from genba.store.home import Store
from genba.ui.cli.lookup import known_line

STRICT = Line(
    name="pump",
    task="sensor.anomaly",
    data=Data(source="files:pump.csv"),
    gates={"r2": Limit(min=0.95)},
)


def test_a_line_that_was_changed_and_changed_back_is_what_it_is_now(tmp_path: Path) -> None:
    lax = replace(STRICT, gates={})
    with Store.open(tmp_path / "home") as store:
        for line in (STRICT, lax, STRICT):
            execute((), line=line, store=store)
        assert known_line(store, "pump") == STRICT
        record = newest_line(store, "pump")
        assert record is not None
        assert current_line(store, "pump", None) == (record.id, encode(STRICT))
        execute((), line=replace(lax, name="fan"), store=store)
        assert known_line(store, "pump") == STRICT


def test_a_line_that_was_recorded_and_not_run_is_known(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        assert newest_line(store, "pump") is None
        store.ledger.record("line", "l1", encode(STRICT), line="pump")
        assert known_line(store, "pump") == STRICT
