"""What a line file says is kept of predictions: inputs, a digest or none; all or a sample."""

import hashlib
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genba.core.codec import encode
from genba.core.digest import digest_json
from genba.core.line import Capture, Data, Line
from genba.core.linefile import parse_line
from genba.core.problem import Problem
from genba.serve.limits import Limits
from genba.serve.oip.schema import Schema
from genba.serve.watch import capture
from genba.serve.watch.capture import Buffer, Recorder, Tally
from genba.serve.watch.columns import as_rows
from genba.store.captures import DIGEST, CaptureWriter, find_prediction, in_sample, read_capture
from genba.store.home import Store
from genba.testing.serving import image_signature
from tests.unit.served_part import part

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_requests_of_several_kinds_become_one_block() -> None:
    named = part(2, 3, entity_names=["new", "R80721"], time=np.array([7, 8]), trace=TRACE)
    (block,) = as_rows([part(3), named, part(1, 5, role="canary")])
    assert block.n.tolist() == [0, 1, 2, 3, 4, 5]
    columns: Any = block
    assert columns.time.to_pylist() == [None, None, None, 7, 8, None]
    assert columns.role.to_pylist() == ["stable"] * 5 + ["canary"]
    assert columns.entity.to_pylist() == [None, "R80711", "R80721", "new", "R80721", None]
    assert columns.trace.to_pylist() == [None] * 3 + [TRACE] * 2 + [None]
    (timed,) = as_rows([part(1, time=np.array([4])), part(1, 1, time=np.array([5]))])
    columns = timed
    assert columns.time.to_pylist() == [4, 5]


def test_alarms_and_errors_are_kept_beyond_the_sample() -> None:
    rule = Capture(sample=0.1)
    (block,) = as_rows([part(500), part(20, 500, alarms=True), part(20, 520, bad=True)], rule)
    sampled = np.flatnonzero(in_sample(np.arange(540), 0.1))
    assert block.n.tolist() == sorted({*sampled.tolist(), *range(500, 540)})
    assert len(block.features["window"]) == len(block.n)
    assert block.features["window"][0, 0, 0] == 12 * sampled[0]
    states: Any = block.status
    assert states.to_pylist().count("nan") == 20
    (failed,) = as_rows([part(20, error=ValueError("x"))], rule)
    assert failed.n.tolist() == list(range(20))


def test_nothing_of_a_block_may_be_in_the_sample() -> None:
    first = int(np.flatnonzero(~in_sample(np.arange(100), 0.01))[0])
    assert as_rows([part(1, first)], Capture(sample=0.01)) == []


def test_a_digest_stands_for_the_inputs() -> None:
    (whole,) = as_rows([part(3)])
    (block,) = as_rows([part(3)], Capture(inputs="digest"))
    (none,) = as_rows([part(3)], Capture(inputs="none"))
    assert none.features == {}
    expected = [hashlib.sha256(row.tobytes()).digest() for row in whole.features["window"]]
    assert block.features[DIGEST].to_pylist() == expected


def test_a_digest_of_a_file_is_that_of_its_bytes() -> None:
    files = [b"one", b"three", b"five"]
    made = part(3, 7, pictures=files)
    made.model = SimpleNamespace(package="p2", schema=Schema(image_signature(), ()))  # type: ignore[assignment]  # all that is read of it
    made.tensors = {"bar": np.array([0.5, 0.6, 0.7], np.float32)}
    made.outputs = {n: np.zeros(3, np.bool_) for n in made.model.schema.kept_outputs}
    (block,) = as_rows([made], Capture(inputs="digest"))
    bar = made.tensors["bar"]
    assert block.features[DIGEST].to_pylist() == [
        hashlib.sha256(file + bar[k].tobytes()).digest() for k, file in enumerate(files)
    ]
    (kept,) = as_rows([made], Capture(sample=0.5))
    chosen = in_sample(np.array([7, 8, 9]), 0.5).tolist()
    assert kept.features["image"].tolist() == [f for f, c in zip(files, chosen, strict=True) if c]


@pytest.mark.parametrize(
    ("text", "code"),
    [("sample = 0.001", "G108"), ("sample = 1.5", "G108"), ('inputs = "some"', "G103")],
)
def test_a_rule_must_make_sense(text: str, code: str) -> None:
    head = 'name = "pump"\ntask = "sensor.anomaly"\n[data]\nsource = "files:pump.csv"\n'
    with pytest.raises(Problem) as caught:
        parse_line(f"{head}[capture]\n{text}\n")
    assert caught.value.code == code
    ruled = parse_line(f'{head}[capture]\ninputs = "digest"\nsample = 0.01\n')
    assert ruled.capture == Capture(inputs="digest", sample=0.01)


def known(store: Store, rule: Capture) -> None:
    line = Line(
        name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv"), capture=rule
    )
    body = encode(line)
    store.ledger.record("line", digest_json(body), body, line="pump")


def handed(recorder: Recorder, *parts: Any) -> None:
    buffer, tally = Buffer("pump", recorder), Tally()
    for each in parts:
        tally.add(each, [0.001])
        buffer.add(each)
    batch = buffer.cut(1, 2, {"p1": (tally, 0.1)})
    assert batch is not None
    recorder.hand_over(batch)


def test_the_line_file_rules_what_is_written(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        known(store, Capture(inputs="none", sample=0.5))
        recorder = Recorder(store, "s-1", Limits())
        recorder.start()
        handed(recorder, part(400))
        recorder.stop()
        (record,) = store.ledger.find("capture")
        assert (record.body["inputs"], record.body["sample"]) == ("none", 0.5)
        assert record.body["packages"]["p1"]["n"] == 400
        table = read_capture(store, record)
        assert "window" not in table.column_names
        assert "score" in table.column_names
        assert recorder.written == len(table) == in_sample(np.arange(400), 0.5).sum()
        assert (recorder.skipped, recorder.dropped) == (400 - len(table), 0)
        assert (recorder.waiting, recorder.behind_s) == (0, 0.0)
        assert recorder.nbytes == store.blobs.size(record.body["blob"])
        kept, left = table["n"][0].as_py(), int(np.flatnonzero(~in_sample(np.arange(400), 0.5))[0])
        assert find_prediction(store, f"s-1-{kept}") is not None
        assert find_prediction(store, f"s-1-{left}") is None


def test_a_rule_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        store.ledger.record("line", "from-a-newer-genba", {"name": "pump"}, line="pump")
        recorder = Recorder(store, "s-1", Limits())
        recorder.start()
        handed(recorder, part(3))
        recorder.stop()
        (record,) = store.ledger.find("capture")
        assert record.body["rows"] == 3


def test_many_rows_are_made_into_columns_before_the_interval_ends(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        recorder = Recorder(store, "s-1", Limits(capture_rows=12_000))
        recorder.start()
        handed(recorder, *(part(2_000, 2_000 * k) for k in range(7)))
        recorder.stop()
        (record,) = store.ledger.find("capture")
        assert record.body["rows"] == recorder.written == 12_000
        assert record.body["dropped"] == recorder.dropped == 2_000
        assert record.body["packages"]["p1"]["n"] == 14_000
        assert Buffer("pump", recorder).cut(1, 2, {}) is None


def test_counts_wait_for_a_disk_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_RETRY_S", 0.001)
    full = threading.Event()
    full.set()
    real = CaptureWriter.write

    def write(self: CaptureWriter, interval: Any) -> str:
        if full.is_set():
            raise OSError("full")
        return real(self, interval)

    monkeypatch.setattr(CaptureWriter, "write", write)
    with Store.open(tmp_path / "home") as store:
        recorder = Recorder(store, "s-1", Limits())
        recorder.start()
        handed(recorder, part(3))
        while recorder.dropped < 3:
            time.sleep(0.001)
        full.clear()
        handed(recorder, part(2, 3))
        recorder.stop()
        newest, owed = (record.body for record in store.ledger.find("capture"))
        assert (newest["rows"], owed["rows"], owed["dropped"]) == (2, 0, 3)
        assert owed["packages"]["p1"]["n"] == 3
        assert (recorder.written, recorder.dropped) == (2, 3)
