import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba.core.line import Check, Data, Line, Split
from genba.core.problem import Problem
from genba.core.values import DatasetVersion
from genba.data import segments, versions
from genba.data.ingest import Sizes, ingest
from genba.data.sources.files import FileSource
from genba.store.home import Store

SMALL = Sizes(piece_rows=500, run_rows=800)
START = np.datetime64("2024-01-01T00:00", "m")


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


def pumps(rows: int, pumps: Sequence[str] = ("a", "b"), seed: int = 0, first: int = 0) -> list[str]:
    """Return CSV lines of generated readings every 10 minutes, time by time."""
    chance = np.random.default_rng(seed)
    lines = []
    for step in range(first, first + rows):
        for pump in pumps:
            flow, power = chance.normal(10, 2), chance.normal(50, 5)
            lines.append(f"{START + 10 * step}Z,{pump},{flow:.4f},{power:.4f}")
    return lines


def line_of(**changes: Any) -> Line:
    fields: dict[str, Any] = {
        "source": "files:pumps.csv",
        "time": "time",
        "entity": "pump",
        "inputs": ("flow",),
        "output": "power",
    }
    return Line(name="pumps", task="sensor.anomaly", data=Data(**(fields | changes)))


def write(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(["time,pump,flow,power", *lines]) + "\n")
    return path


def made(
    store: Store,
    lines: Sequence[str],
    line: Line | None = None,
    sizes: Sizes = SMALL,
) -> DatasetVersion:
    line = line or line_of()
    path = write(store.path.parent / "pumps.csv", lines)
    return ingest(FileSource(str(path), line.data), line, store, sizes=sizes)


def kept(store: Store, version: DatasetVersion) -> pl.DataFrame:
    columns = list(version.columns)
    return pl.concat([segments.read(store.blobs, s, columns) for s in version.segments])


def sheet(store: Store, version: DatasetVersion) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.blobs.read(version.sheet))
    return found


def refused(store: Store, lines: Sequence[str], **meaning: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        made(store, lines, line_of(**meaning))
    assert caught.value.tries
    assert not store.ledger.find("dataset")
    return caught.value


def test_rows_come_out_sorted_and_split_by_time(store: Store) -> None:
    lines = pumps(1_000)
    np.random.default_rng(1).shuffle(lines)
    version = made(store, lines)
    frame = kept(store, version)
    assert version.columns == ("entity", "time", "flow", "power", "label", "split", "row")
    assert version.rows == frame.height == 2_000
    assert len(version.segments) > 2
    for segment in version.segments:
        piece = segments.read(store.blobs, segment, ["entity", "time"])
        assert piece.equals(piece.sort("entity", "time"))
    by_split = frame.group_by("split").agg(
        pl.len(), pl.col("time").min().alias("first"), pl.col("time").max().alias("last")
    )
    found = {row["split"]: row for row in by_split.iter_rows(named=True)}
    assert {split: found[split]["len"] for split in ("train", "calibrate", "test")} == {
        "train": 1_200,
        "calibrate": 400 - 40,
        "test": 400 - 40,
    }
    purge = 20 * 600_000  # 2 % of 1,000 steps
    assert found["calibrate"]["first"] - found["train"]["last"] > purge
    assert found["test"]["first"] - found["calibrate"]["last"] > purge
    assert found["purged"]["len"] == sheet(store, version)["split"]["rows"]["purged"] == 80


def test_values_survive_exactly(store: Store) -> None:
    frame = kept(store, made(store, [*pumps(100), f"{START + 5_000}Z,a,,0.1"]))
    line = pumps(100)[7].split(",")
    row = frame.filter(pl.col("row") == 7)
    assert row["flow"][0] == float(line[2])
    assert row["power"][0] == float(line[3])
    assert np.isnan(frame.filter(pl.col("row") == 200)["flow"][0])
    assert frame["flow"].null_count() == 0  # missing is NaN, never null
    assert frame["label"].is_nan().all()


def test_the_same_rows_give_the_same_version_whatever_fits_in_memory(store: Store) -> None:
    lines = pumps(1_500)
    np.random.default_rng(1).shuffle(lines)
    first = made(store, lines)
    again = made(store, lines)
    spilled = made(store, lines, sizes=Sizes(piece_rows=500, run_rows=100))
    assert first == again == spilled
    assert len(store.ledger.find("dataset")) == 1


def test_duplicates_keep_the_first_and_say_whether_they_agree(store: Store) -> None:
    lines = pumps(500)
    same, other = lines[10], lines[11].rsplit(",", 1)[0] + ",1.0"
    version = made(store, [*lines, same, other, same])
    assert version.rejected == {"duplicate": 2, "duplicate with other values": 1}
    assert version.rejects is not None
    rejects = pl.concat(segments.read_rejects(store.blobs, version.rejects))
    assert rejects["row"].sort().to_list() == [1_000, 1_001, 1_002]
    assert set(rejects["detail"]) == {"same moment as row 10", "same moment as row 11"}
    assert kept(store, version)["row"].max() == 999


def test_every_rejected_row_is_kept_with_place_and_reason(store: Store) -> None:
    lines = pumps(500)
    lines[3] = lines[3] + ",9"
    lines[5] = f"{START}Z,a,-5,1"
    lines[7] = "never,a,1,1"
    version = made(store, lines, line_of(checks={"flow": Check(min=0)}))
    assert version.rejects is not None
    (rejects,) = segments.read_rejects(store.blobs, version.rejects)
    assert rejects.select("row", "line", "reason").rows() == [
        (3, 5, "wrong number of fields"),
        (5, 7, "flow is below 0"),
        (7, 9, "time is missing or unreadable"),
    ]
    assert rejects["file"][0].endswith("pumps.csv")
    assert json.loads(rejects["values"][1])["flow"] == -5
    assert version.rows == 997
    assert sheet(store, version)["rows"] == {
        "read": 1_000,
        "skipped": {},
        "rejected": dict(version.rejected),
        "kept": 997,
    }


def test_gaps_disorder_and_stuck_sensors_are_counted_not_rejected(store: Store) -> None:
    lines = pumps(800)
    lines = [line for line in lines if f"{START + 10 * 300}Z,b" not in line]  # a gap of pump b
    for number in range(200, 260, 2):  # the flow of pump a stands still
        head, _, power = lines[number].rsplit(",", 2)
        lines[number] = f"{head},7.7,{power}"
    lines[1_000], lines[1_100] = lines[1_100], lines[1_000]
    version = made(store, lines)
    found = sheet(store, version)
    assert version.rejected == {}
    assert (found["time"]["gaps"], found["time"]["missing_steps"]) == (1, 1)
    assert found["entities"]["by_name"]["b"]["gaps"] == 1
    assert found["time"]["out_of_order"] > 0
    assert (found["stuck"]["flow"]["runs"], found["stuck"]["flow"]["rows"]) == (1, 30)
    assert found["time"]["step_ms"] == found["derived"]["step_ms"] == 600_000


CELL = st.sampled_from(["1.5", "2", "-3", "", "NaN", "inf", "soon", "99"])
MOMENT = st.sampled_from(["2024-01-01T00:00Z", "2024-01-01T00:10Z", "2024-01-02", "", "x"])
ROW = st.one_of(
    st.tuples(MOMENT, st.sampled_from(["a", "b", ""]), CELL, CELL).map(",".join),
    st.sampled_from(["1,2", "1,2,3,4,5,6"]),
)


@settings(max_examples=20)
@given(odd=st.lists(ROW, max_size=60), seed=st.integers(0, 3))
def test_rows_in_are_rows_kept_and_rows_rejected(odd: list[str], seed: int) -> None:
    lines = [*pumps(60), *odd]
    np.random.default_rng(seed).shuffle(lines)
    with TemporaryDirectory() as folder, Store.open(Path(folder) / "home") as store:
        line = line_of(checks={"flow": Check(min=0, max=50), "power": Check(required=True)})
        version = made(store, lines, line, sizes=Sizes(piece_rows=20, run_rows=30))
        rows = kept(store, version)
        rejected = sum(version.rejected.values())
        assert version.rows + rejected == len(lines)
        assert sheet(store, version)["rows"]["read"] == len(lines)
        read = segments.read_rejects(store.blobs, version.rejects) if version.rejects else ()
        bad = pl.concat([*read]) if rejected else None
        numbers = rows["row"].to_list() + (bad["row"].to_list() if bad is not None else [])
        assert sorted(numbers) == list(range(len(lines)))
        assert bad is None or dict(bad["reason"].value_counts().iter_rows()) == version.rejected
        assert not rows.select("entity", "time").is_duplicated().any()


def test_rows_without_a_clock_are_split_by_their_contents(store: Store) -> None:
    lines = pumps(1_000)
    line = line_of(time=None, entity=None)
    version = made(store, lines + lines, line)
    frame = kept(store, version)
    assert version.rejected == {}
    assert frame["time"].to_list() == frame["row"].to_list() == list(range(4_000))
    assert set(frame["entity"]) == {"all"}
    first, second = frame["split"].to_list()[:2_000], frame["split"].to_list()[2_000:]
    assert first == second
    assert version.segments[0].first_time_ms is None


def test_open_inputs_are_derived_and_said(store: Store) -> None:
    version = made(store, pumps(500), line_of(inputs=()))
    assert sheet(store, version)["derived"]["inputs"] == ["flow"]
    assert sheet(store, version)["derived"]["split.by"] == "time"


def test_naive_times_are_taken_as_utc_and_it_is_said(store: Store) -> None:
    version = made(store, [row.replace("Z,", ",") for row in pumps(200)])
    assert sheet(store, version)["derived"]["time"] == (
        "400 times without an offset are taken as UTC"
    )


def test_extra_columns_lie_behind_the_row_number(store: Store) -> None:
    line = line_of(inputs=("flow",), output=None, checks={"power": Check()})
    version = made(store, pumps(200), line)
    assert version.columns[-2:] == ("row", "power")
    assert sheet(store, version)["columns"]["power"]["role"] == "extra"


def test_the_sheet_says_what_was_read(store: Store) -> None:
    version = made(store, pumps(500))
    found = sheet(store, version)
    assert found["dataset"] == version.id
    assert found["source"]["fingerprint"] == versions.source_facts(store, version.id)["fingerprint"]
    assert found["columns"]["power"]["role"] == "output"
    assert found["columns"]["flow"]["quantiles"]["0.5"] == pytest.approx(10, abs=0.3)
    assert found["entities"]["by_name"]["a"]["rows"] == 500
    assert [s["digest"] for s in found["segments"]] == [s.digest for s in version.segments]
    assert sum(found["split"]["rows"].values()) == version.rows


def test_only_header(store: Store) -> None:
    assert refused(store, []).code == "G202"


def test_one_row(store: Store) -> None:
    found = refused(store, pumps(1, ["a"]))
    assert (found.code, found.what.startswith("1 row is too few")) == ("G211", True)


def test_nothing_left(store: Store) -> None:
    found = refused(store, pumps(100), checks={"flow": Check(min=1_000)})
    assert (found.code, found.why) == (
        "G208",
        "Rows left out or rejected: flow is below 1000: 200.",
    )
    assert refused(store, pumps(100), since="2030-01-01").code == "G208"


def test_a_sensor_without_values(store: Store) -> None:
    lines = [",".join([*row.split(",")[:2], "", row.split(",")[3]]) for row in pumps(200)]
    found = refused(store, lines)
    assert (found.code, "'flow'" in found.what, found.where) == ("G209", True, "data.inputs")


def test_a_constant_output(store: Store) -> None:
    lines = [row.rsplit(",", 1)[0] + ",5" for row in pumps(200)]
    found = refused(store, lines)
    assert (found.code, "always 5" in found.what) == ("G210", True)


@pytest.mark.parametrize(
    ("meaning", "code"),
    [
        ({"entities": ("a", "x")}, "G216"),
        ({"split": Split(holdout=("z",))}, "G216"),
        ({"time": None, "split": Split(by="time")}, "G216"),
        ({"entity": None, "split": Split(by="entity")}, "G216"),
        ({"split": Split(test=0.9, calibrate=0.2)}, "G216"),
        ({"split": Split(by="entity")}, "G216"),
        ({"inputs": ("speed",)}, "G204"),
        ({"time": "pump", "entity": None}, "G207"),
    ],
)
def test_what_the_line_asks_for_and_the_data_do_not_have(
    store: Store, meaning: dict[str, Any], code: str
) -> None:
    assert refused(store, pumps(200), **meaning).code == code


def test_an_unknown_version_is_a_problem(store: Store) -> None:
    with pytest.raises(Problem) as caught:
        versions.load(store, "0" * 64)
    assert caught.value.code == "G219"


def test_nothing_is_left_behind_in_the_work_directory(store: Store) -> None:
    made(store, pumps(1_000))
    assert not list(store.work_dir("ingest").iterdir())
    with pytest.raises(Problem):
        made(store, pumps(1_000), line_of(split=Split(holdout=("z",))))
    assert not list(store.work_dir("ingest").iterdir())
