"""What was served and said becomes data: histories are read, late words arrive, counts count."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genba.core.line import Check, Line, Split
from genba.core.task import Lesson
from genba.core.values import DatasetVersion
from genba.data import live, recovered, segments
from genba.data.ingest import ingest
from genba.data.leakage import check_leakage
from genba.data.live import extend
from genba.data.recovered import PREDICTION, settled
from genba.data.sources.files import FileSource
from genba.data.view import DatasetView
from genba.store.home import Store
from genba.tasks.sensor.anomaly import SensorAnomaly
from tests.unit.test_data_live import (
    END,
    LAGS,
    STEP,
    lesson,
    line_of,
    live_rows,
    record_package,
    served,
    source_version,
)

NAN = float("nan")


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        record_package(opened)
        yield opened


def windows(*rows: Sequence[float]) -> Any:
    """One window per argument: its flows, oldest first; power is ten times the flow."""
    flows = np.array(rows, dtype=np.float32)
    return np.stack([flows, flows * 10], axis=2)


def labels(store: Store, version: DatasetVersion) -> dict[int, float]:
    rows = live_rows(store, version).filter(pl.col("label").is_not_nan())
    return {(time - END) // STEP: label for time, label in rows.select("time", "label").rows()}


def live_segments(version: DatasetVersion) -> list[str]:
    return [s.digest for s in version.segments if s.origin == "live"]


def test_rows_before_a_prediction_are_found_in_its_window(store: Store) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    record = served(store, [END + 4 * STEP], window=windows([3.0, NAN, 5.0]))
    rows = live_rows(store, extend(store, line, version, [record], []))
    assert rows.select("time", "flow", "power").rows() == [
        (END + 2 * STEP, 3.0, 30.0),
        (END + 4 * STEP, 5.0, 50.0),
    ]


def test_the_rows_own_prediction_counts_before_later_ones_and_the_newest_of_equals(
    store: Store,
) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    captures = [
        served(store, [END + STEP], window=windows([7.0, 6.0, 1.0])),
        served(store, [END + 2 * STEP], first=2, window=windows([8.0, 9.0, 2.0])),
        served(store, [END + 2 * STEP], first=3, window=windows([8.5, 9.0, 2.5])),
    ]
    rows = live_rows(store, extend(store, line, version, captures, []))
    # END was seen one step later (6) and two steps later (8, 8.5); END - STEP is the source's.
    assert rows["flow"].to_list() == [6.0, 1.0, 2.5]
    again = extend(store, line, version, captures[::-1], [])
    assert live_rows(store, again)["flow"].to_list() == [6.0, 1.0, 2.5]


def test_a_clock_that_is_a_little_off_makes_no_second_row(store: Store) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    off = STEP // 6
    captures = [
        served(store, [END - off], window=windows([4.0, 5.0, 6.0])),  # reaches into the source
        served(store, [END + STEP + off], first=2, window=windows([5.0, 6.1, 7.0])),
    ]
    rows = live_rows(store, extend(store, line, version, captures, []))
    assert rows.select("time", "flow").rows() == [(END - off, 6.0), (END + STEP + off, 7.0)]


def test_a_word_that_came_late_reaches_a_row_of_an_earlier_extension(store: Store) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    first = served(store, [END + n * STEP for n in range(100)])
    second = served(store, [END + n * STEP for n in range(100, 200)], first=101)
    one = extend(store, line, version, [first], [lesson(1.0, "s1-2", "a", END + STEP)])
    two = extend(store, line, one, [second], [])
    assert live_segments(two)[:1] == live_segments(one)
    said = [lesson(1.0, "s1-60", "a", END + 59 * STEP)]
    three = extend(store, line, two, [first, second], said)
    assert labels(store, three) == {1: 1.0, 59: 1.0}
    assert three.rows == two.rows
    assert three.parent == two.id
    assert live_segments(three)[1:] == live_segments(two)[1:]
    before, after = live_rows(store, two), live_rows(store, three)
    kept = [name for name in before.columns if name != "label"]
    assert after.select(kept).equals(before.select(kept))
    assert check_leakage(DatasetView(store, three, line)) == ()
    assert extend(store, line, three, [first, second], said) == three


def test_what_the_source_says_stays_as_it_is(store: Store) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    record = served(store, [END - STEP])
    assert extend(store, line, version, [record], [lesson(1.0, "s1-1", "a", END - STEP)]) == version


def test_a_word_about_another_prediction_of_the_moment_reaches_its_row(store: Store) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    captures = [served(store, [END]), served(store, [END], first=9)]
    new = extend(store, line, version, captures, [lesson(1.0, "s1-1", "a", END)])
    assert labels(store, new) == {0: 1.0}
    other = [lesson(1.0, "s1-1", None, END), lesson(1.0, "s1-77", "a"), lesson(1.0, None, "z", END)]
    assert labels(store, extend(store, line, version, captures, other)) == {}


class Corrected(SensorAnomaly):
    """People say what the power was."""

    def teach(self, columns: Any, lessons: Sequence[Lesson]) -> Any:
        power = np.array(columns["power"])
        for one in lessons:
            power[np.flatnonzero(columns["time"] == one.time_ms)] = one.label
        assert columns["entity"].dtype == np.int32
        assert set(np.diff(columns["time"])) <= {STEP}
        assert [name for name in columns if name.startswith("_")] == []
        return {**columns, "power": power}


def test_a_correction_changes_what_was_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "resolve", lambda *_: Corrected)
    line = line_of(checks={})
    version = source_version(store, line)
    record = served(store, [END + n * STEP for n in range(9)])
    said = [replace(lesson(12.5, "s1-3", "a", END + 2 * STEP), value="12.5")]
    new = extend(store, line, version, [record], said)
    assert live_rows(store, new)["power"].to_list()[:4] == [10.0, 20.0, 12.5, 40.0]
    assert np.isnan(live_rows(store, new)["label"].to_numpy()).all()


def test_a_live_row_knows_its_prediction(store: Store) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    record = served(store, [END + STEP], window=windows([NAN, 4.0, 5.0]))
    new = extend(store, line, version, [record], [])
    (digest,) = live_segments(new)
    frame = segments.read(store.blobs, new.segments[-1], [PREDICTION, "flow"])
    assert frame.rows() == [(None, 4.0), ("s1-1", 5.0)]
    assert new.segments[-1].digest == digest
    part = DatasetView(store, new, line).sheet()["live"][0]
    assert (part["captured"], part["rows"], part["found_in_histories"]) == (1, 2, 1)


def test_segments_of_an_earlier_genba_are_continued(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not say which predictions their rows were; moments do."""
    line = line_of(checks={})
    version = source_version(store, line)
    record = served(store, [END + n * STEP for n in range(30)])
    write = segments.write

    def as_before(blobs: Any, frame: pl.DataFrame, **how: Any) -> Any:
        return write(blobs, frame.drop(PREDICTION), **how)

    monkeypatch.setattr(segments, "write", as_before)
    one = extend(store, line, version, [record], [])
    monkeypatch.setattr(segments, "write", write)
    assert extend(store, line, one, [record], []) == one
    two = extend(store, line, one, [record], [lesson(1.0, "s1-5", "a", END + 4 * STEP)])
    assert labels(store, two) == {4: 1.0}


def test_without_a_clock_an_extension_goes_on_where_the_last_one_ended(store: Store) -> None:
    line = line_of(time=None, entity=None)
    version = source_version(store, line)
    first = served(store, [None] * 40)
    one = extend(store, line, version, [first], [])
    assert extend(store, line, one, [first], []) == one
    second = served(store, [None] * 10, first=41)
    two = extend(store, line, one, [first, second], [lesson(1.0, "s1-5"), lesson(1.0, "s1-45")])
    rows = live_rows(store, two)
    assert rows["time"].to_list() == list(range(1, 51))
    assert rows.filter(pl.col("label") == 1)["flow"].to_list() == [5.0, 45.0]


def test_a_damaged_batch_hides_its_own_rows_and_no_others(store: Store) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    captures = [served(store, [END]), served(store, [END + STEP], first=2)]
    path = store.blobs.path(captures[0].body["blob"])
    path.chmod(0o644)
    path.write_bytes(b"rust")
    new = extend(store, line, version, captures, [])
    assert live_rows(store, new)["flow"].to_list() == [2.0]
    assert DatasetView(store, new, line).sheet()["live"][0]["damaged_batches"] == 1


def test_predictions_whose_inputs_were_not_kept_are_counted(store: Store) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    captures = [served(store, [END]), served(store, [END + STEP], first=2)]
    unkept = replace(captures[0], body={**captures[0].body, "inputs": "digest"})
    new = extend(store, line, version, [unkept, captures[1]], [])
    assert DatasetView(store, new, line).sheet()["live"][0]["inputs_not_kept"] == 1


def test_predictions_of_unknown_packages_are_no_rows(store: Store) -> None:
    line = line_of(checks={}, inputs=("heat",))
    record = served(store, [END])
    version = source_version(store, line_of(checks={}))
    store.ledger.record("package", "p2", {"settings": {}}, line="pumps")
    found = recovered.find_rows(
        store, SensorAnomaly(), live._roles(line_of(), version), [record], counts=False
    )
    assert found.frame.height == 1
    strange = replace(live._roles(line, version), inputs=("heat",), output=None)
    assert recovered.find_rows(store, SensorAnomaly(), strange, [record]).frame.height == 0


def test_large_captures_are_taken_in_blocks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    flows = np.arange(60.0)
    window = windows(*[(flows[max(n - 2, 0)], flows[max(n - 1, 0)], flows[n]) for n in range(60)])
    record = served(store, [END + n * STEP for n in range(60)], window=window)
    whole = extend(store, line, version, [record], [])
    monkeypatch.setattr(recovered, "_BLOCK", 7 * LAGS * 2)
    monkeypatch.setattr(recovered, "_ROWS", 10)
    assert live_segments(extend(store, line, version, [record], [])) == live_segments(whole)
    assert live_rows(store, whole)["flow"].to_list() == flows.tolist()


STATEMENTS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 5), st.integers(-1, 1)),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(said=STATEMENTS, seed=st.randoms(use_true_random=False))
def test_the_order_of_statements_does_not_matter(
    said: list[tuple[int, int, int, int]], seed: Any
) -> None:
    def frame(rows: list[tuple[int, int, int, int]]) -> pl.DataFrame:
        columns = {
            PREDICTION: [str(r) for r in rows],
            "entity": ["a"] * len(rows),
            "time": [10 * (at - back) + off for at, back, _, off in rows],
            "received_ms": [when for _, _, when, _ in rows],
            "n": [hash(r) % 1_000 for r in rows],
            "back": [back for _, back, _, _ in rows],
        }
        return pl.DataFrame(columns, schema={**recovered._FOUND})

    shuffled = list(said)
    seed.shuffle(shuffled)
    once = settled(frame(said), 10)
    assert settled(frame(shuffled), 10).drop(PREDICTION).equals(once.drop(PREDICTION))
    own = {10 * at + off for at, back, _, off in said if back == 0}
    assert own <= set(once["time"])
    assert once["time"].n_unique() == once.height


def cycles(store: Store, line: Line) -> DatasetVersion:
    chance = np.random.default_rng(0)
    units, life = 12, 60
    frame = pl.DataFrame(
        {
            "t": np.tile(np.arange(1, life + 1), units),
            "pump": np.repeat([f"u{n}" for n in range(units)], life),
            "flow": chance.normal(10, 1, units * life),
            "power": chance.normal(50, 1, units * life),
        }
    )
    path = store.path.parent / "cycles.csv"
    frame.write_csv(path)
    return ingest(FileSource(str(path), line.data), line, store)


def test_counts_of_cycles_are_continued_unit_by_unit(store: Store) -> None:
    line = line_of(checks={}, split=Split(by="entity"))
    manifest = store.ledger.get("package", "p1") or {}
    by_cycle = {**manifest, "settings": {**manifest["settings"], "step_ms": 1}}
    store.ledger.record("package", "p3", by_cycle, line="pumps")
    version = cycles(store, line)
    units = [f"new-{n}" for n in range(40)]
    captures = [
        served(store, [7, None], entity=["u0", "u0"], package="p3"),
        served(store, [61], first=3, entity=["u0"], package="p3", window=windows([NAN, 9.0, 3.0])),
        served(store, [2] * 40, first=10, entity=units, package="p3"),
    ]
    new = extend(store, line, version, captures, [lesson(1.0, "s1-3", "u0", 61)])
    rows = live_rows(store, new)
    mine = rows.filter(pl.col("entity") == "u0").select("time", "flow", "label").rows()
    assert mine == [(61, 3.0, 1.0)]  # of the rest the time is known to the source, or to nobody
    sheet = DatasetView(store, new, line).sheet()
    dealt = sheet["split"]["rule"]["entities"]
    assert {dealt[name] for name in units} == {"train", "calibrate", "test"}
    assert rows.filter(pl.col("entity") == "u0")["split"][0] == dealt["u0"]
    assert check_leakage(DatasetView(store, new, line)) == ()
    more = extend(
        store, line, new, [served(store, [3] * 40, first=100, entity=units, package="p3")], []
    )
    for name in units:
        assert set(live_rows(store, more).filter(pl.col("entity") == name)["split"]) == {
            dealt[name]
        }


def test_a_check_of_the_line_holds_for_what_a_history_says(store: Store) -> None:
    line = line_of(checks={"flow": Check(max=100)})
    version = source_version(store, line)
    record = served(store, [END + STEP], window=windows([NAN, 400.0, 5.0]))
    new = extend(store, line, version, [record], [])
    assert live_rows(store, new)["flow"].to_list() == [5.0]
    assert new.rejected == {"flow is above 100": 1}


def test_words_about_rows_that_nobody_served_change_nothing(store: Store) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    new = extend(store, line, version, [], [lesson(1.0, "s1-1", "a", END)])
    assert new == version
