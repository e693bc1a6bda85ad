"""Captured predictions: written in a durable order, read back, found by their id."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genba.core.problem import Problem
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
    read_capture,
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


def test_a_prediction_is_found_among_many_without_reading_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for server in ("s-1", "s-2"):
        writers = [CaptureWriter(store, line, server) for line in ("pump", "fan")]
        for first in range(0, 200, 2):
            writers[first // 2 % 2].write(interval(rows([first])))
        writers[0].write(interval())
    everywhere: list[str] = []
    find = store.ledger.find

    def counted(kind: str, **how: Any) -> Any:
        everywhere.append(kind)
        return find(kind, **how)

    monkeypatch.setattr(store.ledger, "find", counted)
    for server, number in (("s-1", 0), ("s-1", 100), ("s-2", 0), ("s-2", 198)):
        found = find_prediction(store, f"{server}-{number}")
        assert found is not None
        assert (found[0].body["server"], found[1]["n"]) == (server, number)
    assert everywhere == []
    assert find_prediction(store, "s-2-1") is None
    assert everywhere == ["capture"]


def test_a_prediction_out_of_its_place_is_found_too(store: Store) -> None:
    late, other = (CaptureWriter(store, "pump", server) for server in ("s-1", "s-2"))
    late.write(interval(rows([0])))
    for first in range(1, 200):
        other.write(interval(rows([first])))
    late.write(interval(rows([1])))  # an older server that still answers
    found = find_prediction(store, "s-1-1")
    assert found is not None
    assert found[0].body["server"] == "s-1"
