"""From computed parts to capture records: what is kept, what is counted, what is dropped."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genba.loop.traffic import batch_of
from genba.serve.lanes.jobs import Part
from genba.serve.limits import Limits
from genba.serve.oip.schema import Schema
from genba.serve.watch import capture, columns
from genba.serve.watch.capture import Batch, Recorder, Tally
from genba.serve.watch.metrics import Histogram, Metrics, PackageMetrics
from genba.store.captures import CaptureWriter, read_capture
from genba.store.home import Store
from genba.testing.serving import ENTITY_NAMES, SIGNATURE

SCHEMA = Schema(SIGNATURE, ENTITY_NAMES)
MODEL: Any = SimpleNamespace(package="p1", schema=SCHEMA)


def as_rows(parts: list[Part]) -> list[Any]:
    """Return the rows; whole columns of them belong to Arrow."""
    return list(columns.as_rows(parts))


def part(
    *sizes: int,
    first: int = 0,
    error: Exception | None = None,
    bad: list[bool] | None = None,
    names: list[str] | None = None,
    model: Any = MODEL,
    given_up: bool = False,
) -> Part:
    rows = sum(sizes)
    jobs: list[Any] = []
    at = first
    for size in sizes:
        jobs.append(
            SimpleNamespace(
                rows=size,
                given_up=given_up,
                first=at,
                role="canary",
                received=10.0,
                received_ms=1_000,
                entity_names=names,
                time=None if names is None else np.arange(size),
                trace="",
                pictures=(),
            )
        )
        at += size
    made = Part(model, jobs, started=10.001)
    made.seconds, made.finished = 0.001, 10.002
    made.tensors = {
        "window": np.zeros((rows, 3, 4), dtype=np.float32),
        "entity": np.arange(rows) % 3 - 1,
    }
    made.error = error
    if error is None:
        made.outputs = {
            "score": np.zeros(rows, dtype=np.float32),
            "alarm": np.ones(rows, dtype=np.bool_),
            "expected": np.zeros((rows, 1), dtype=np.float32),
        }
        made.bad_rows = None if bad is None else np.array(bad)
    return made


def test_parts_become_rows() -> None:
    blocks = as_rows([part(2, 1, first=4), part(2, first=9, bad=[False, True]), part(1, first=20)])
    (block,) = blocks
    assert block.n.tolist() == [4, 5, 6, 9, 10, 20]
    assert block.entity.to_pylist() == [None, "R80711", "R80721", None, "R80711", None]
    assert block.time.to_pylist() == [None] * 6
    assert block.status.to_pylist() == ["ok", "ok", "ok", "ok", "nan", "ok"]
    assert block.latency_us.tolist() == pytest.approx([2_000] * 6, abs=1)
    assert set(block.role.to_pylist()) == {"canary"}
    assert block.features["window"].shape == (6, 3, 4)
    assert block.outputs["score"].shape == (6,)


def test_names_and_times_are_kept_as_sent() -> None:
    (block,) = as_rows([part(2, names=["R80721", "new"])])
    assert block.entity.to_pylist() == ["R80721", "new"]
    assert block.time.to_pylist() == [0, 1]


def test_failures_and_other_packages_are_blocks_of_their_own() -> None:
    bare: Any = SimpleNamespace(package="p2", schema=Schema(SIGNATURE, ()))
    bare.schema.entity = None
    failed, other = part(1, error=ValueError("x")), part(2, model=bare)
    blocks = as_rows([part(1), failed, other])
    assert [block.package for block in blocks] == ["p1", "p1", "p2"]
    assert blocks[1].status.to_pylist() == ["error"]
    assert blocks[1].outputs == {}
    assert blocks[2].entity.to_pylist() == [None, None]


def test_latencies_count_once_for_each_prediction() -> None:
    tally = Tally()
    tally.add(part(*[1] * 9), [0.030] * 9)
    tally.add(part(991), [0.001])
    found = tally.summary(0.0)
    assert found["n"] == 1_000
    assert found["latency_ms_p50"] == found["latency_ms_p99"] == 1.0
    assert batch_of(found).slow(10.0) <= 9  # the controller says "at least so many"


def test_counts_never_exceed_predictions() -> None:
    tally = Tally()
    # Given up, and counted, in an earlier interval.
    tally.add(part(4, bad=[True] * 4, given_up=True), [5.0])
    tally.add(part(4, error=ValueError("x"), given_up=True), [5.0])
    tally.add(part(1), [0.001])
    found = tally.summary(0.0)
    assert (found["n"], found["errors"]) == (1, 0)
    assert (found["not_a_number"], found["alarms"]) == (0, 1)
    assert found["latency_ms_p99"] == 1.0


def test_tally() -> None:
    tally = Tally()
    tally.add(part(3, bad=[True, False, False]), [0.001])
    tally.add(part(2, error=ValueError("x")), [0.003])
    tally.give_up(SimpleNamespace(rows=2, role="canary"), 5.0)  # type: ignore[arg-type]  # it reads rows and role only
    tally.add(part(2, given_up=True), [6.0])
    assert tally.summary(0.5) == {
        "role": "canary",
        "n": 7,
        "errors": 4,
        "not_a_number": 1,
        "alarms": 3,
        "latency_ms_p50": 3.0,
        "latency_ms_p99": 5000.0,
        "cpu_seconds": 0.5,
    }
    assert Tally().summary(0)["latency_ms_p99"] == 0


def batch(*parts: Part) -> Batch:
    tally = Tally()
    for each in parts:
        tally.add(each, [0.001])
    return Batch(
        line="pump",
        from_ms=1,
        to_ms=2,
        tallies={"p1": (tally, 0.1)},
        parts=parts,
        rows=sum(each.rows for each in parts),
    )


def test_recorder_writes_everything_before_it_stops(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        recorder = Recorder(store, "s-1", Limits(capture_rows=10))
        recorder.start()
        for first in (0, 2, 4):
            assert recorder.admit(2, 1)
            recorder.hand_over(batch(part(2, first=first)))
        recorder.stop()
        records = store.ledger.find("capture")
        assert [read_capture(store, r)["n"].to_pylist() for r in records] == [
            [4, 5],
            [2, 3],
            [0, 1],
        ]
        assert (recorder.written, recorder.dropped) == (6, 0)


def test_rows_beyond_the_bound_are_dropped_but_counts_are_not(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        recorder = Recorder(store, "s-1", Limits(capture_rows=3))
        assert recorder.admit(2, 1)
        assert not recorder.admit(2, 1)
        assert recorder.admit(1, 1)
        assert recorder.dropped == 2
        tally = Tally()
        tally.add(part(2), [0.1])
        recorder.hand_over(
            Batch(line="pump", from_ms=1, to_ms=2, tallies={"p1": (tally, 0.0)}, parts=(), rows=0)
        )
        recorder.start()
        recorder.stop()
        (record,) = store.ledger.find("capture")
        assert record.body["packages"]["p1"]["n"] == 2
        assert record.body["rows"] == 0


def test_outputs_of_other_shapes_are_blocks_of_their_own() -> None:
    wide = part(2, first=7)
    wide.outputs = {**wide.outputs, "expected": np.zeros((2, 5), dtype=np.float32)}
    blocks = as_rows([part(1), wide])
    assert [block.outputs["expected"].shape for block in blocks] == [(1, 1), (2, 5)]


def test_rows_that_cannot_be_written_do_not_end_the_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_RETRY_S", 0.001)
    spoilt = part(2)
    spoilt.tensors = {}
    with Store.open(tmp_path / "home") as store:
        recorder = Recorder(store, "s-1", Limits(capture_rows=10))
        recorder.start()
        recorder.hand_over(batch(spoilt))
        recorder.hand_over(batch(part(3)))
        recorder.stop()
        assert (recorder.written, recorder.dropped) == (3, 2)
        newer, older = (record.body for record in store.ledger.find("capture"))
        assert (newer["rows"], older["rows"]) == (3, 0)
        assert older["packages"]["p1"]["n"] == 2  # what a rollback is decided by is not lost


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        one = part(1)
        arrays = (*one.tensors.values(), *one.outputs.values())
        size = sum(array.nbytes for array in arrays)
        recorder = Recorder(store, "s-1", Limits(capture_bytes=2 * size))
        assert [recorder.admit(1, one.nbytes) for _ in range(3)] == [True, True, False]


def test_a_disk_that_recovers_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([OSError("full"), OSError("full")])
    real = CaptureWriter.write

    def write(self: CaptureWriter, interval: Any) -> str:
        for failure in failures:
            raise failure
        return real(self, interval)

    monkeypatch.setattr(CaptureWriter, "write", write)
    monkeypatch.setattr(capture, "_RETRY_S", 0.001)
    with Store.open(tmp_path / "home") as store:
        recorder = Recorder(store, "s-1", Limits(capture_rows=10))
        recorder.start()
        recorder.hand_over(batch(part(2)))
        recorder.stop()
        assert (recorder.written, recorder.dropped) == (2, 0)


def test_a_disk_that_does_not_recover_frees_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def write(*_: Any) -> str:
        attempts.append(threading.get_ident())
        raise OSError("full")

    monkeypatch.setattr(CaptureWriter, "write", write)
    monkeypatch.setattr(capture, "_RETRY_S", 0.001)
    with Store.open(tmp_path / "home") as store:
        recorder = Recorder(store, "s-1", Limits(capture_rows=2))
        recorder.start()
        assert recorder.admit(2, 1)
        recorder.hand_over(batch(part(2)))
        recorder.hand_over(batch(part(1)))
        while recorder.dropped < 3:
            time.sleep(0.001)
        assert recorder.admit(2, 1)
        recorder.stop()
        assert len(attempts) == 6
        assert recorder.written == 0


def test_metrics_text() -> None:
    metrics = Metrics(watts_per_core=5.0)
    package = metrics.package("pump", "p1", lambda: 3)
    package.add(part(2, 1, bad=[True, False, False]), [0.002, 0.2])
    package.add(part(1, error=ValueError("x")), [0.002])
    package.give_up(SimpleNamespace(rows=1, role="stable"), 5.0)  # type: ignore[arg-type]  # it reads rows and role only
    package.cpu_seconds = 2.0
    metrics.answered("infer", 200)
    metrics.shed("queue")
    metrics.roles = lambda: {("pump", "p1"): "stable"}
    metrics.gauges["genba_connections"] = ("Open.", lambda: 4)
    metrics.counters["genba_capture_rows"] = ("Captured.", lambda: 9)
    lines = set(metrics.text().decode().splitlines())
    labels = 'line="pump",package="p1"'
    assert {
        'genba_http_requests_total{code="200",route="infer"} 1.0',
        'genba_requests_shed_total{reason="queue"} 1.0',
        "genba_connections 4.0",
        "genba_capture_rows_total 9.0",
        f'genba_model_loaded{{{labels},role="stable"}} 1.0',
        f'genba_predictions_total{{{labels},role="canary",status="ok"}} 2.0',
        f'genba_predictions_total{{{labels},role="canary",status="nan"}} 1.0',
        f'genba_predictions_total{{{labels},role="canary",status="error"}} 1.0',
        f'genba_predictions_total{{{labels},role="stable",status="error"}} 1.0',
        f"genba_energy_joules_total{{{labels}}} 10.0",
        f"genba_queue_depth{{{labels}}} 3.0",
        f"genba_inference_batch_size_sum{{{labels}}} 4.0",
        f"genba_inference_compute_seconds_count{{{labels}}} 2.0",
        f'genba_request_duration_seconds_bucket{{le="0.0025",{labels}}} 2.0',
        f'genba_request_duration_seconds_bucket{{le="+Inf",{labels}}} 4.0',
        f"genba_inference_queue_seconds_count{{{labels}}} 3.0",
    } <= lines
    assert "Modelled" in metrics.text().decode()


def test_counts_go_on_after_a_reload() -> None:
    metrics = Metrics(5.0)
    metrics.package("pump", "p1", lambda: 0).add(part(2), [0.1])
    again = metrics.package("pump", "p1", lambda: 1)
    assert again.counts() == {"predictions": 2, "errors": 0, "not_a_number": 0}
    assert again.waiting() == 1


def test_a_bucket_includes_its_bound() -> None:
    histogram = Histogram((1, 2))
    histogram.observe(1)
    assert histogram.buckets() == [("1", 1), ("2", 1), ("+Inf", 1)]
    assert PackageMetrics(lambda: 0).counts()["predictions"] == 0


def test_many_observations_are_sorted_as_few_are() -> None:
    values = [k % 7 + 0.5 for k in range(10_000)]
    few, many = Histogram((1, 3, 5)), Histogram((1, 3, 5))
    for value in values:
        few.observe(value)
    many.observe_all([value + 2 for value in values], less=2.0)
    assert few.buckets() == many.buckets()
    assert few.count == many.count == 10_000
    assert many.total == pytest.approx(sum(values))


def test_requests_that_were_given_up_are_counted_once() -> None:
    package = PackageMetrics(lambda: 0)
    made = part(2, 3)
    made.jobs[0].given_up = True
    package.give_up(made.jobs[0], 5.0)
    package.add(made, [6.0, 0.002])
    assert package.counts() == {"predictions": 5, "errors": 2, "not_a_number": 0}
    assert package.latency.count == 2
