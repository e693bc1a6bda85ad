"""Captured predictions: written in a durable order, read back, found by their id."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.serve.store import measure
from genba.core.problem import Problem
from genba.store import capture_index
from genba.store.captures import (
    ERROR,
    NOT_A_NUMBER,
    OK,
    SCHEMA,
    CapturedRows,
    CaptureWriter,
    Interval,
    as_table,
    find_prediction,
    in_sample,
    inputs_kept,
    read_capture,
    sample_of,
    traced,
)
from genba.store.home import Store

SUMMARY = {"role": "stable", "n": 2, "errors": 0, "not_a_number": 1}


def rows(n: list[int], role: str = "stable", **changes: Any) -> CapturedRows:
    count = len(n)
    fields: dict[str, Any] = {
        "package": "p1",
        "n": np.array(n),
        "received_ms": np.full(count, 1_000),
        "role": [role] * count,
        "entity": ["R1"] * count,
        "time": [None] * count,
        "latency_us": np.full(count, 80),
        "status": [OK] * count,
        "features": {"window": np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)},
        "outputs": {
            "score": np.arange(count, dtype=np.float32),
            "alarm": np.zeros(count, dtype=np.bool_),
            "expected": np.ones((count, 1), dtype=np.float32),
        },
    }
    return CapturedRows(**{**fields, **changes})


def interval(*parts: CapturedRows) -> Interval:
    return Interval(from_ms=900, to_ms=1_100, packages={"p1": SUMMARY}, rows=parts)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


def test_what_is_written_is_read(store: Store) -> None:
    record = CaptureWriter(store, "pump", "s-1").write(
        interval(rows([5, 6], time=[7, None], status=[OK, NOT_A_NUMBER]))
    )
    (found,) = store.ledger.find("capture", line="pump")
    assert found.id == record
    body = found.body
    assert (body["server"], body["first"], body["last"], body["rows"]) == ("s-1", 5, 6, 2)
    assert (body["from_ms"], body["to_ms"], body["packages"]) == (900, 1_100, {"p1": SUMMARY})
    assert [(edge.src, edge.role) for edge in store.ledger.parents(record)] == [("p1", "package")]
    table = read_capture(store, found)
    assert table.schema.names[: len(SCHEMA)] == SCHEMA.names
    assert table.schema.field("window").type == pa.list_(pa.float32())
    assert table.to_pylist()[1] == {
        "n": 6,
        "received_ms": 1_000,
        "package": "p1",
        "role": "stable",
        "entity": "R1",
        "time": None,
        "latency_us": 80,
        "status": "nan",
        "window": [6, 7, 8, 9, 10, 11],
        "score": 1.0,
        "alarm": False,
        "expected": [1.0],
    }


def test_rows_are_in_order_and_packages_may_differ() -> None:
    longer = rows(
        [2],
        package="p2",
        features={
            "window": np.zeros((1, 4, 3), dtype=np.float32),
            "extra": np.array([b"x"], object),
        },
    )
    failed = rows([0], status=[ERROR], outputs={}, entity=[None])
    table = as_table([rows([1, 3]), longer, failed])
    assert table["n"].to_pylist() == [0, 1, 2, 3]
    assert [len(window) for window in table["window"].to_pylist()] == [6, 6, 12, 6]
    assert table["score"].to_pylist() == [None, 0.0, 0.0, 1.0]
    assert table["extra"].to_pylist() == [None, None, b"x", None]


def test_an_interval_without_rows_still_says_what_happened(store: Store) -> None:
    CaptureWriter(store, "pump", "s-1").write(interval())
    (found,) = store.ledger.find("capture")
    assert (found.body["rows"], found.body["first"], found.body["last"]) == (0, None, None)
    assert read_capture(store, found).num_rows == 0
    assert find_prediction(store, "s-1-0") is None


def test_predictions_are_found_by_id(store: Store) -> None:
    writer = CaptureWriter(store, "pump", "s-1")
    writer.write(interval(rows([0, 1, 2])))
    writer.write(interval(rows([3, 9])))
    CaptureWriter(store, "pump", "s-2").write(interval(rows([0], entity=["R2"])))
    found = find_prediction(store, "s-1-9")
    assert found is not None
    record, row = found
    assert (record.body["server"], row["n"], row["entity"]) == ("s-1", 9, "R1")
    other = find_prediction(store, "s-2-0")
    assert other is not None
    assert other[1]["entity"] == "R2"
    for unknown in ("s-1-5", "s-3-0", "s-1", "s-1-x", "s-1-", "", "s-1-²"):
        assert find_prediction(store, unknown) is None


def test_the_answer_is_found_rather_than_a_shadow(store: Store) -> None:
    writer = CaptureWriter(store, "pump", "s-1")
    shadow = rows([1], role="shadow", package="p2")
    writer.write(interval(shadow))
    alone = find_prediction(store, "s-1-1")
    assert alone is not None
    assert alone[1]["role"] == "shadow"
    writer.write(interval(rows([1])))
    writer.write(interval(shadow))
    found = find_prediction(store, "s-1-1")
    assert found is not None
    assert found[1]["role"] == "stable"


def test_the_blob_is_there_before_the_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> str:
        raise Problem("G303", "The disk is full.", tries=["df"])

    monkeypatch.setattr(store.blobs, "put", full)
    with pytest.raises(Problem):
        CaptureWriter(store, "pump", "s-1").write(interval(rows([0])))
    assert store.ledger.find("capture") == []


def test_images_are_kept_byte_for_byte_and_may_be_left_out(store: Store) -> None:
    files = [b"\x89PNG\x00\x00", b""]
    image = np.empty(2, dtype=object)
    image[:] = files
    given = {"image": image, "bar": np.array([0.5, 0.7], np.float32)}
    CaptureWriter(store, "parts", "s-1").write(interval(rows([0, 1], features=given)))
    (record,) = store.ledger.find("capture")
    table = read_capture(store, record)
    assert table.schema.field("image").type == pa.binary()
    assert table["image"].to_pylist() == files
    small = read_capture(store, record, images=False)
    assert "image" not in small.column_names
    assert small["bar"].to_pylist() == pytest.approx([0.5, 0.7])


@pytest.fixture
def opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The blobs that are read."""
    seen: list[str] = []
    read = store.blobs.read

    def counted(digest: str) -> bytes:
        seen.append(digest)
        return read(digest)

    monkeypatch.setattr(store.blobs, "read", counted)
    return seen


def test_a_prediction_is_found_among_many_by_opening_one(
    store: Store, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_index, "_NEAR", 8)
    for server in ("s-1", "s-2"):
        writers = [CaptureWriter(store, line, server) for line in ("pump", "fan")]
        for first in range(0, 60, 2):
            writers[first // 2 % 2].write(interval(rows([first])))
        writers[0].write(interval())
    for server, number in (("s-1", 0), ("s-1", 30), ("s-2", 0), ("s-2", 58)):
        opened.clear()
        found = find_prediction(store, f"{server}-{number}")
        assert found is not None
        assert (found[0].body["server"], found[1]["n"]) == (server, number)
        assert opened == [found[0].body["blob"]]
    opened.clear()
    for unknown in ("s-2-1", "s-2-60", "s-3-0", f"s-1-{10**20}", "s-11-0"):
        assert find_prediction(store, unknown) is None
    assert opened == []


def test_a_prediction_that_was_written_long_after_is_found_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_index, "_NEAR", 8)
    writer = CaptureWriter(store, "pump", "s-1")
    writer.write(interval(rows([0, 700])))  # one of them waited long for its answer
    for first in range(1, 20):
        writer.write(interval(rows([first])))
    found = find_prediction(store, "s-1-700")
    assert found is not None
    assert found[0].body["first"] == 0


def test_captures_whose_ids_do_not_say_what_they_hold_are_found(store: Store) -> None:
    CaptureWriter(store, "pump", "s-1").write(interval(rows([4])))
    (record,) = store.ledger.find("capture")
    body = {**record.body, "server": "s-0", "first": 3, "last": 5}
    store.ledger.record("capture", "capture-1m82j66352000db", body, line="pump")
    found = find_prediction(store, "s-0-4")
    assert found is not None
    assert found[0].id == "capture-1m82j66352000db"
    assert find_prediction(store, "s-0-6") is None


def test_of_a_large_capture_one_row_group_is_decoded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    CaptureWriter(store, "pump", "s-1").write(interval(rows(list(range(10_000)))))
    read: list[list[int]] = []
    real = pq.ParquetFile.read_row_groups

    def counted(self: Any, groups: list[int]) -> Any:
        read.append(groups)
        return real(self, groups)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counted)
    found = find_prediction(store, "s-1-5000")
    assert found is not None
    assert found[1]["window"] == [30_000 + k for k in range(6)]
    assert read == [[1]]


def test_large_rows_make_small_row_groups(store: Store) -> None:
    files = np.empty(5, dtype=object)
    files[:] = [bytes([k]) * 3_000_000 for k in range(5)]
    CaptureWriter(store, "parts", "s-1").write(interval(rows([*range(5)], features={"i": files})))
    (record,) = store.ledger.find("capture")
    data = pa.BufferReader(store.blobs.read(record.body["blob"]))
    assert pq.ParquetFile(data).num_row_groups == 5


def test_a_sample_is_what_the_numbers_say(store: Store) -> None:
    n = np.arange(100_000)
    for share in (0.01, 0.25, 0.5):
        chosen = in_sample(n, share)
        assert abs(chosen.mean() - share) < 0.001
        assert np.all(in_sample(n, share + 0.1)[chosen])  # a larger sample has it too
    assert in_sample(n, 1.0).all()
    kept = np.flatnonzero(in_sample(n[:40], 0.25))
    numbers = sorted({*kept.tolist(), 1, 2})  # two of them are alarms
    writer = CaptureWriter(store, "pump", "s-1")
    made = interval(rows(numbers))
    writer.write(replace(made, sample=0.25, inputs="none", dropped=7))
    (record,) = store.ledger.find("capture")
    assert (record.body["sample"], record.body["dropped"]) == (0.25, 7)
    assert inputs_kept(record.body) == "none"
    table = read_capture(store, record)
    assert table["n"].to_pylist() == numbers
    assert sample_of(record, table)["n"].to_pylist() == kept.tolist()


def test_only_columns_that_are_wanted_are_read(store: Store) -> None:
    CaptureWriter(store, "pump", "s-1").write(interval(rows([0])))
    (record,) = store.ledger.find("capture")
    assert read_capture(store, record, columns=("score", "n", "unknown")).column_names == [
        "n",
        "score",
    ]
    assert "window" not in read_capture(store, record, but=("window",)).column_names


def test_predictions_are_found_by_their_trace(store: Store) -> None:
    writer = CaptureWriter(store, "pump", "s-1")
    one, two = "a" * 32, "b" * 32
    writer.write(interval(rows([0, 1, 2], trace=[one, None, one]), rows([0], role="shadow")))
    writer.write(interval(rows([3])))
    writer.write(interval(rows([4], trace=[two])))
    assert traced(store, one) == ["s-1-0", "s-1-2"]
    assert traced(store, two) == ["s-1-4"]
    assert traced(store, "c" * 32) == []
    assert [r.body.get("traced") for r in store.ledger.find("capture")] == [1, None, 2]


def test_the_benchmark_finds_what_it_wrote() -> None:
    found = measure(60, 20, 3)
    assert (found["predictions"], found["captures"]) == (60, 4)
    assert found["unknown_server_ms"].keys() == {"p50", "p99"}
    assert found["size_mib"] > 0
