from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genba.core.line import Check, Data, Line
from genba.core.task import Lesson
from genba.core.values import DatasetVersion
from genba.data import live, segments
from genba.data.ingest import ingest
from genba.data.leakage import check_leakage
from genba.data.live import extend
from genba.data.sources.files import FileSource
from genba.data.view import DatasetView
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store
from genba.store.ledger import Record

STEP = 600_000
END = 500 * STEP  # behind the last row of the source
LAGS = 3


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        record_package(opened)
        yield opened


def record_package(store: Store, sensors: Sequence[str] = ("flow", "power")) -> None:
    shape = [-1, LAGS, len(sensors)]
    manifest = {
        "settings": {"step_ms": STEP, "sensors": list(sensors), "lags": LAGS},
        "signature": {
            "inputs": [
                {"name": "window", "datatype": "FP32", "shape": shape, "role": "feature"},
                {"name": "entity", "datatype": "INT64", "shape": [-1], "role": "entity"},
            ],
            "outputs": [{"name": "score", "datatype": "FP32", "shape": [-1], "role": "score"}],
        },
    }
    store.ledger.record("package", "p1", manifest, line="pumps")


def line_of(**changes: Any) -> Line:
    fields: dict[str, Any] = {
        "source": "f",
        "time": "t",
        "entity": "pump",
        "inputs": ("flow",),
        "output": "power",
        "checks": {"flow": Check(max=100)},
    }
    return Line(name="pumps", task="sensor.anomaly", data=Data(**(fields | changes)))


def source_version(store: Store, line: Line, rows: int = 500) -> DatasetVersion:
    chance = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "t": np.repeat(np.arange(rows) * STEP, 2),
            "pump": ["a", "b"] * rows,
            "flow": chance.normal(10, 1, rows * 2),
            "power": chance.normal(50, 1, rows * 2),
            "state": ["on"] * (rows * 2),
            "loss": [0.0] * (rows * 2),
        }
    )
    path = store.path.parent / "pumps.parquet"
    frame.with_columns(pl.from_epoch("t", time_unit="ms")).write_parquet(path)
    return ingest(FileSource(str(path), line.data), line, store)


def served(
    store: Store,
    times: Sequence[int | None],
    *,
    first: int = 1,
    entity: Sequence[str | None] | None = None,
    role: str = "stable",
    **more: Any,
) -> Record:
    """Capture one prediction per time; the last row of its window is (flow n, power 10 n)."""
    count = len(times)
    n = np.arange(first, first + count)
    window = np.full((count, LAGS, 2), np.nan, dtype=np.float32)  # it is told of no row before
    window[:, -1] = np.stack([n, n * 10], axis=1)
    rows = CapturedRows(
        package=more.get("package", "p1"),
        n=n,
        received_ms=np.arange(count) + END * 10,
        role=[role] * count,
        entity=list(entity or ["a"] * count),
        time=list(times),
        latency_us=np.ones(count, dtype=np.int64),
        status=more.get("status", ["ok"] * count),
        features={"window": more.get("window", window)},
        outputs={"score": np.zeros(count, dtype=np.float32)},
    )
    interval = Interval(from_ms=0, to_ms=1, packages={"p1": {}}, rows=[rows])
    id = CaptureWriter(store, "pumps", "s1").write(interval)
    (record,) = [r for r in store.ledger.find("capture") if r.id == id]
    return record


def lesson(
    label: float, prediction: str | None, entity: str | None = None, time_ms: int | None = None
) -> Lesson:
    return Lesson(
        value=str(label), label=label, prediction=prediction, entity=entity, time_ms=time_ms
    )


def live_rows(store: Store, version: DatasetVersion) -> pl.DataFrame:
    frames = [
        segments.read(store.blobs, s, list(version.columns))
        for s in version.segments
        if s.origin == "live"
    ]
    return pl.concat(frames).sort("time", "entity")


def test_captured_rows_continue_a_version(store: Store) -> None:
    line = line_of()
    version = source_version(store, line)
    times = [END + n * STEP for n in range(100)]
    lessons = [
        lesson(1.0, "s1-3", "a", times[2]),
        lesson(0.0, None, "a", times[5]),
        lesson(1.0, "elsewhere-1", "b", times[6]),
    ]
    new = extend(store, line, version, captures=[served(store, times)], lessons=lessons)
    assert new.parent == version.id
    assert new.segments[:-1] == version.segments
    assert (new.rows, new.columns, new.entities) == (1_100, version.columns, ("a", "b"))
    rows = live_rows(store, new)
    assert rows["time"].to_list() == times
    assert rows["flow"].to_list() == [float(n) for n in range(1, 101)]
    assert rows["power"][4] == 50.0
    assert rows["row"].to_list() == list(range(1_000, 1_100))
    labels = rows["label"].to_list()
    assert (labels[2], labels[5]) == (1.0, 0.0)
    assert np.isnan([x for n, x in enumerate(labels) if n not in (2, 5)]).all()


def test_live_rows_are_split_by_time_and_do_not_leak(store: Store) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    record = served(store, [END + n * STEP for n in range(200)])
    new = extend(store, line, version, captures=[record], lessons=[])
    rows = live_rows(store, new)
    assert rows["split"].to_list() == (
        ["purged"] * 4  # neighbours of rows that the version tests on
        + ["train"] * 116
        + ["purged"] * 4
        + ["calibrate"] * 36
        + ["purged"] * 4
        + ["test"] * 36
    )
    view = DatasetView(store, new, line)
    assert check_leakage(view) == ()
    assert view.part("live").count("test") == 36
    assert view.count("test") == 36 + DatasetView(store, version, line).count("test")
    sheet = view.sheet()
    assert sheet["rows"]["kept"] == 1_200
    assert sum(sheet["split"]["rows"].values()) == 1_200
    assert sheet["live"][0]["split"]["rows"]["test"] == 36
    later = extend(
        store,
        line,
        new,
        captures=[record, served(store, [END + n * STEP for n in range(200, 300)], first=300)],
        lessons=[],
    )
    assert later.segments[:-1] == new.segments
    assert check_leakage(DatasetView(store, later, line)) == ()
    assert DatasetView(store, later, line).sheet()["live"][1]["already_known"] == 200


def test_rows_beside_those_of_the_source_do_not_leak_either(store: Store) -> None:
    """A row that came late lies between rows that are tested on, so it teaches nothing."""
    line = line_of(checks={})
    version = source_version(store, line)
    late = [END - 50 * STEP + 1, END - 40 * STEP + 1]  # at no moment that the source knows
    record = served(store, [*late, *(END + n * STEP for n in range(200))])
    new = extend(store, line, version, captures=[record], lessons=[])
    rows = live_rows(store, new)
    assert rows["split"][:6].to_list() == ["purged"] * 6
    assert set(rows["split"][6:]) == {"train", "calibrate", "test", "purged"}
    assert check_leakage(DatasetView(store, new, line)) == ()


def test_a_live_row_that_teaches_what_the_source_tests_on_is_a_leak(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = line_of(checks={})
    version = source_version(store, line)
    monkeypatch.setattr(live, "_end", lambda _: 0)  # forgets to look at the source
    record = served(store, [END - 50 * STEP + 1, *(END + n * STEP for n in range(200))])
    new = extend(store, line, version, captures=[record], lessons=[])
    (leak,) = check_leakage(DatasetView(store, new, line))
    assert leak.kind == "time"
    assert "later part" in leak.reason


def test_rows_are_numbered_behind_those_that_were_rejected(store: Store) -> None:
    line = line_of(checks={"flow": Check(max=11)})
    version = source_version(store, line)
    assert version.rows < 1_000
    first = extend(store, line, version, captures=[served(store, [END])], lessons=[])
    later = served(store, [END + STEP], first=2)
    second = extend(store, line, first, captures=[later], lessons=[])
    assert live_rows(store, second)["row"].to_list() == [1_000, 1_001]


def test_what_is_known_already_is_left_out(store: Store) -> None:
    line = line_of()
    version = source_version(store, line)
    inside = served(store, [0, STEP, END])
    new = extend(store, line, version, captures=[inside], lessons=[])
    assert live_rows(store, new)["time"].to_list() == [END]
    assert extend(store, line, version, captures=[served(store, [0])], lessons=[]) == version
    assert extend(store, line, version, captures=[], lessons=[]) == version


def test_only_good_answers_become_rows_once(store: Store) -> None:
    line = line_of()
    version = source_version(store, line)
    captures = [
        served(store, [END, END + STEP, END + 2 * STEP], status=["ok", "error", "nan"]),
        served(store, [END], first=50),  # the same moment again: the newest statement counts
        served(store, [END + 5 * STEP], first=60, role="shadow"),
        served(store, [END + 6 * STEP], first=70, role="canary"),
    ]
    rows = live_rows(store, extend(store, line, version, captures=captures, lessons=[]))
    assert rows.select("time", "flow").rows() == [(END, 50.0), (END + 6 * STEP, 70.0)]


def test_captured_rows_are_checked_and_rejects_are_kept(store: Store) -> None:
    line = line_of()
    version = source_version(store, line)
    record = served(store, [END, END + STEP, END + 2 * STEP], first=99, entity=["a", "a", None])
    new = extend(store, line, version, captures=[record], lessons=[])
    assert live_rows(store, new)["flow"].to_list() == [99.0, 100.0]
    assert new.rejected == {"entity is missing": 1}
    more = served(store, [END + 9 * STEP, END + 10 * STEP], first=100)
    newer = extend(store, line, version, captures=[more], lessons=[])
    assert newer.rejected == {"flow is above 100": 1}
    assert newer.rejects is not None
    (rejects,) = segments.read_rejects(store.blobs, newer.rejects)
    assert rejects.select("file", "reason", "detail").rows() == [
        ("s1-101", "flow is above 100", "101.0")
    ]


def test_missing_values_stay_missing(store: Store) -> None:
    line = line_of()
    version = source_version(store, line)
    window = np.full((1, LAGS, 2), np.nan, dtype=np.float32)
    record = served(store, [END], window=window)
    rows = live_rows(store, extend(store, line, version, captures=[record], lessons=[]))
    assert np.isnan(rows["flow"][0])
    assert rows["flow"].null_count() == 0


def test_a_prediction_without_time_counts_when_it_came(store: Store) -> None:
    line = line_of()
    version = source_version(store, line)
    record = served(store, [None])
    rows = live_rows(store, extend(store, line, version, captures=[record], lessons=[]))
    assert rows["time"].to_list() == [END * 10]


def test_columns_that_are_not_served_are_missing(store: Store) -> None:
    checks = {"loss": Check(max=1), "state": Check(allowed=("on",))}
    line = line_of(checks=checks)
    version = source_version(store, line)
    assert version.columns[-2:] == ("loss", "state")
    new = extend(store, line, version, captures=[served(store, [END])], lessons=[])
    rows = live_rows(store, new)
    assert np.isnan(rows["loss"][0])
    assert rows["state"][0] is None


def test_a_new_entity_joins_behind_the_known_ones(store: Store) -> None:
    line = line_of()
    version = source_version(store, line)
    times = [END + n * STEP for n in range(50) for _ in range(2)]
    record = served(store, times, entity=["0-new", "a"] * 50)
    new = extend(store, line, version, captures=[record], lessons=[])
    assert new.entities == ("a", "b", "0-new")
    chunks = list(DatasetView(store, new, line).part("live").chunks("test"))
    assert sorted(int(chunk["entity"][0]) for chunk in chunks) == [0, 2]


def test_without_a_clock_every_prediction_is_a_row(store: Store) -> None:
    line = line_of(time=None, entity=None)
    version = source_version(store, line)
    captures = [served(store, [None] * 50), served(store, [None] * 50, first=51)]
    lessons = [lesson(1.0, "s1-7")]
    new = extend(store, line, version, captures=captures, lessons=lessons)
    rows = live_rows(store, new)
    assert rows.height == 100
    assert rows.filter(pl.col("label") == 1)["flow"].to_list() == [7.0]
    assert set(rows["split"]) == {"train", "calibrate", "test"}
    assert check_leakage(DatasetView(store, new, line)) == ()
