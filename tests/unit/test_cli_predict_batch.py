"""`genba predict --batch`: the same answers however often it is killed, and in bounded memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba.core import io
from genba.core.codec import decode
from genba.core.values import Manifest, Tensor
from genba.stages.deploy import deploy
from genba.store.home import Store
from genba.testing.crash import FullDisk
from genba.testing.serving import image_package, small_package
from genba.ui.cli.predict_batch_job import PARQUET, Job
from genba.ui.cli.predict_batch_rows import Rows
from genba.ui.cli.predict_batch_table import column
from tests.unit.predict_batch_rows import (
    FIRST_MS,
    SETTINGS,
    batch,
    pump_home,
    read,
    rows_of_pumps,
    small_parts,
    write,
)
from tests.unit.test_cli_predict import IMAGES, PUMP, add_line, part_image

Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def pump(home: Path) -> Store:
    return pump_home(home)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch)


@pytest.mark.parametrize("kind", [".parquet", ".csv", ".jsonl"])
def test_a_batch_says_what_predict_says(pump: Store, tmp_path: Path, ask: Ask, kind: str) -> None:
    path = write(rows_of_pumps(40), tmp_path / f"rows{kind}")
    plain = ask("predict", "pump", "--input", str(path), "--local", "stable")[1]["predictions"]
    expected = {(row["row"], row["score"], row["alarm"], row["expected"]) for row in plain}
    for to in (tmp_path / "out.parquet", tmp_path / "out.jsonl"):
        code, told = ask(*batch(path, to))
        assert (code, told["rows"], told["rejected"], told["order"]) == (0, 40, {}, "row")
        found = read(to)
        assert [row["row"] for row in found] == list(range(40))
        assert {(r["row"], r["score"], r["alarm"], r["expected"]) for r in found} == expected
        assert {row["entity"] for row in found} == {"R0", "R1", "R2"}
        assert found[0]["time_ms"] == FIRST_MS
        assert not to.with_name(f"{to.name}.parts").exists()
    assert told["parts"] == 6


def test_rows_in_no_order_are_sorted_first(pump: Store, tmp_path: Path, ask: Ask) -> None:
    frame = rows_of_pumps(40)
    mixed = frame.sample(fraction=1.0, shuffle=True, seed=3)
    path, other = write(frame, tmp_path / "in.parquet"), write(mixed, tmp_path / "mixed.parquet")
    ask(*batch(path, tmp_path / "a.jsonl"))
    code, told = ask(*batch(other, tmp_path / "b.jsonl"))
    assert (code, told["order"], told["rows"]) == (0, "time", 40)
    assert "sorted" in told["notes"][0]

    def answers(name: str) -> set[tuple[Any, ...]]:
        return {(r["entity"], r["time_ms"], r["score"]) for r in read(tmp_path / name)}

    assert answers("a.jsonl") == answers("b.jsonl")
    times = [row["time_ms"] for row in read(tmp_path / "b.jsonl")]
    assert times == sorted(times)


def test_rejected_rows_are_counted_and_written_when_asked(
    pump: Store, tmp_path: Path, ask: Ask, show: Callable[..., str]
) -> None:
    path = write(rows_of_pumps(20), tmp_path / "rows.csv")
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace("R", "no time,R", 1).split(",", 1)[1]
    lines[9] = lines[9].rsplit(",", 1)[0] + ",broken"
    path.write_text("\n".join(lines))
    side = tmp_path / "rejected.jsonl"
    code, told = ask(*batch(path, tmp_path / "out.parquet", "--rejected", str(side)))
    assert (code, told["rows"]) == (0, 18)
    assert sum(told["rejected"].values()) == 2
    rejected = read(side)
    assert {row["reason"] for row in rejected} == set(told["rejected"])
    assert [row["row"] for row in rejected] == [2, 8]
    assert rejected[1]["line"] == 10
    text = show(*batch(path, tmp_path / "out.parquet"))
    assert "2 rows rejected" in text
    assert "d is not a number" in text


def test_nothing_that_can_be_used(pump: Store, tmp_path: Path, ask: Ask) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("time,pump,a,b,c,d\n2026-01-01T00:00:00Z,,1,2,3,4\n")
    code, told = ask(*batch(path, tmp_path / "out.parquet"))
    assert (code, told["problem"]["code"]) == (3, "G722")
    assert not (tmp_path / "out.parquet").exists()
    assert not (tmp_path / "out.parquet.parts").exists()


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (("--to", "out.csv"), "G765", "Parquet or JSON Lines"),
        ((), "G110", "--to"),
        (("--to", "out.jsonl", "--explain"), "G110", "--explain"),
    ],
)
def test_what_a_batch_cannot_do(
    pump: Store, tmp_path: Path, ask: Ask, more: tuple[str, ...], code: str, says: str
) -> None:
    path = write(rows_of_pumps(5), tmp_path / "rows.csv")
    told = ask("predict", "pump", "--input", str(path), "--local", "stable", "--batch", *more)[1][
        "problem"
    ]
    assert told["code"] == code
    assert says in told["what"] + told["try"][0]


def test_two_do_not_write_one_file(pump: Store, tmp_path: Path, ask: Ask) -> None:
    path = write(rows_of_pumps(9), tmp_path / "rows.parquet")
    to = tmp_path / "out.parquet"
    with Job(to, PARQUET, {}):
        assert ask(*batch(path, to))[1]["problem"]["code"] == "G766"
    assert ask(*batch(path, to))[0] == 0


def test_another_input_begins_anew_and_says_so(
    pump: Store, tmp_path: Path, ask: Ask, show: Callable[..., str]
) -> None:
    path, to = tmp_path / "rows.parquet", tmp_path / "out.jsonl"
    write(rows_of_pumps(40), path)
    disk = FullDisk(25)
    with io.using(disk):
        assert ask(*batch(path, to))[1]["problem"]["code"] == "G303"
    kept = [p.name for p in Path(f"{to}.parts").iterdir() if p.suffix == ".part"]
    assert kept
    assert not to.exists()
    text = show(*batch(path, to))
    assert f"going on: {len(kept)} parts are finished already" in text
    assert f"{len(kept)} of 6 parts were finished before" in text
    with io.using(FullDisk(25)):
        ask(*batch(path, to))
    write(rows_of_pumps(40, seed=2), path)
    code, told = ask(*batch(path, to))
    assert (code, told["parts_before"]) == (0, 0)
    assert told["notes"] == ["begun anew: input changed since the last time"]
    clean = tmp_path / "clean.jsonl"
    ask(*batch(path, clean))
    assert to.read_bytes() == clean.read_bytes()


def test_an_input_that_is_still_being_written_is_refused(
    pump: Store, tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, to = write(rows_of_pumps(9), tmp_path / "rows.csv"), tmp_path / "out.parquet"
    add = Job.add

    def growing(job: Job, index: int, table: pa.Table) -> None:
        add(job, index, table)
        path.write_text(path.read_text() + "\n")

    monkeypatch.setattr(Job, "add", growing)
    assert ask(*batch(path, to))[1]["problem"]["code"] == "G213"
    assert not to.exists()


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 60),
    pumps=st.integers(1, 5),
    part_rows=st.integers(1, 70),
    done=st.sets(st.integers(0, 70)),
    ahead=st.integers(0, 4),
)
def test_what_is_passed_by_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    pumps: int,
    part_rows: int,
    done: set[int],
    ahead: int,
) -> None:
    """Every row is asked once, whatever the size of parts, and the same with some of them done."""
    tmp_path = tmp_path_factory.mktemp("rows")
    path = write(rows_of_pumps(count, pumps), tmp_path / "rows.parquet")
    with Store.open(tmp_path / "home", create=True) as store:
        package = small_package(store, "pump", settings=SETTINGS | {"ahead": ahead})
        loaded = decode(Manifest, store.ledger.get("package", package))

    def asked(finished: set[int]) -> dict[int, list[Any]]:
        rows = Rows(PUMP, loaded, path, None, part_rows=part_rows)
        return {
            stretch.index: [
                (row, part.entities[i], part.tensors["window"][i].tobytes())
                for part in stretch.parts
                for i, row in enumerate(part.rows.tolist())
            ]
            for stretch in rows.stretches(finished.__contains__, lambda *_: None)
        }

    every = asked(set())
    assert sorted(row for part in every.values() for row, _, _ in part) == list(range(count))
    resumed = asked(done)
    assert resumed.keys() == every.keys()
    assert {i: r for i, r in resumed.items() if i not in done} == {
        i: r for i, r in every.items() if i not in done
    }


def test_a_folder_of_images_with_one_that_is_broken(home: Path, tmp_path: Path, ask: Ask) -> None:
    with Store.open(home) as store:
        add_line(store, IMAGES)
        package = image_package(store, "parts", bar=0.5)
        deploy(store, "parts", "deploy", package, reason="first", by="me")
    folder, side = tmp_path / "images", tmp_path / "bad.jsonl"
    folder.mkdir()
    for index in range(20):
        (folder / f"{index:02d}.png").write_bytes(part_image(10 * index))
    (folder / "07.png").write_bytes(part_image(1)[:60])
    argv = ("predict", "parts", "--input", str(folder), "--local", "stable", "--batch")
    code, told = ask(*argv, "--to", str(tmp_path / "out.parquet"), "--rejected", str(side))
    assert (code, told["rows"], list(told["rejected"].values())) == (0, 19, [1])
    found = read(tmp_path / "out.parquet")
    assert [Path(row["file"]).name[:2] for row in found[:9]] == [
        f"{i:02d}" for i in range(10) if i != 7
    ]
    assert found[0]["class_name"] in ("red", "green", "blue", "unsure")
    assert len(found[0]["probability"]) == 3
    assert "map" not in found[0]
    assert read(side)[0]["file"].endswith("07.png")


def test_outputs_of_every_shape() -> None:
    cube = Tensor(name="x", datatype="FP64", shape=(-1, 2, 1, -1))
    values = np.arange(12, dtype=np.float64).reshape(2, 2, 1, 3)
    values[0, 0, 0, 1] = np.inf
    assert column(values, cube).to_pylist() == [
        [[0.0, None, 2.0], [3.0, 4.0, 5.0]],
        [[6.0, 7.0, 8.0], [9.0, 10.0, 11.0]],
    ]
    words = np.array([b"red", "blue"], dtype=object)
    assert column(words, Tensor(name="w", datatype="BYTES", shape=(-1,))).to_pylist() == [
        "red",
        "blue",
    ]
    half = np.array([1.5], dtype=np.float16)
    assert column(half, Tensor(name="h", datatype="FP16", shape=(-1,))).to_pylist() == [1.5]
