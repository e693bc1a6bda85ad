"""Samples, derived settings, labels, simulated faults, parity and explanations."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.line import Check, Data, Limit, Line, Train
from genba.core.problem import Problem
from genba.learn.rows import RowsView
from genba.tasks.sensor.anomaly import SensorAnomaly, faults, schema
from genba.tasks.sensor.anomaly.model import fill

STEP = 600_000
LINE = Line(
    name="pump",
    task="sensor.anomaly",
    data=Data(source="x:", inputs=("a",), output="b", checks={"a": Check(min=0, max=9)}),
    gates={"false_alarms_per_day": Limit(max=2)},
)


def columns(time: Any, entity: int = 0) -> dict[str, Any]:
    count = len(time)
    return {
        "entity": np.full(count, entity, dtype=np.int32),
        "time": np.asarray(time, dtype=np.int64),
        "row": np.arange(count),
        "label": np.full(count, np.nan),
        "a": np.arange(count, dtype=np.float64),
        "b": np.arange(count, dtype=np.float64) * 10,
        "split": np.full(count, "train"),
    }


def settings_of(line: Line = LINE, *, has_clock: bool = True) -> dict[str, Any]:
    return schema.derive(line, RowsView(line, columns(np.arange(9) * STEP), has_clock=has_clock))


def test_what_the_line_leaves_open_is_derived() -> None:
    found = settings_of()
    assert found["mode"] == "regression"
    assert (found["lags"], found["step_ms"], found["merge"]) == (3, STEP, 6 * STEP)
    assert found["context"] == 2
    assert (found["low"], found["high"]) == ([0, None], [9, None])
    assert found["alarm_budget"]["value"] == 0.5
    assert found["candidates"] == ["ridge", "boosting"]
    loose = replace(LINE, data=replace(LINE.data, output=None, inputs=("a", "b")), gates={})
    found = settings_of(loose, has_clock=False)
    assert (found["mode"], found["lags"], found["step_ms"]) == ("sensors", 1, None)
    assert found["alarm_budget"] == {
        "unit": "share of rows",
        "value": 0.005,
        "because": "the default",
    }
    assert found["outputs"] == ["a", "b"]
    one_row = RowsView(LINE, columns([5]))
    assert schema.derive(LINE, one_row)["step_ms"] == 1


def test_an_unknown_candidate_is_refused_with_the_nearest() -> None:
    line = replace(LINE, train=Train(candidates=("bosting",)))
    with pytest.raises(Problem) as caught:
        settings_of(line)
    assert caught.value.code == "G105"
    assert caught.value.tries == ('candidates = ["boosting"]',)
    chosen = replace(LINE, train=Train(candidates=("ridge",)))
    assert settings_of(chosen)["candidates"] == ["ridge"]


def test_a_window_holds_the_rows_before_by_the_clock() -> None:
    time = np.array([0, 1, 2, 5, 6]) * STEP + np.array([0, 9, -9, 0, 0])  # a gap, and jitter
    made = schema.samples(columns(time), settings_of())
    first = made.tensors["window"][:, :, 0]
    nan = np.nan
    wanted = [[nan, nan, 0], [nan, 0, 1], [0, 1, 2], [nan, nan, 3], [nan, 3, 4]]
    np.testing.assert_array_equal(first, np.array(wanted, dtype=np.float32))
    assert made.truth.ravel().tolist() == [0, 10, 20, 30, 40]
    assert made.tensors["window"].dtype == np.float32


@given(st.integers(1, 7), st.integers(1, 40))
def test_reading_in_chunks_changes_nothing(rows: int, count: int) -> None:
    settings = settings_of()
    both = {
        n: np.concatenate([c, d])
        for (n, c), d in zip(
            columns(np.arange(count) * STEP).items(),
            columns(np.arange(count) * STEP, entity=1).values(),
            strict=True,
        )
    }

    class Chunked(RowsView):
        def chunks(self, split: str, *, rows: int = rows) -> Any:
            return super().chunks(split, rows=rows)

    parts = list(schema.read(Chunked(LINE, both, ("p", "q")), "train", settings))
    whole = list(schema.read(RowsView(LINE, both, ("p", "q")), "train", settings))
    np.testing.assert_array_equal(
        schema.gather(parts).tensors["window"], schema.gather(whole).tensors["window"]
    )
    assert schema.gather(parts).row.tolist() == list(range(2 * count))


def test_missing_and_implausible_readings_are_replaced() -> None:
    nan = np.nan
    window = np.array([[[1, 5], [nan, 6]], [[nan, 99], [3, nan]]], dtype=np.float32)
    low, high = np.array([0, 0], dtype=np.float32), np.array([9, 9], dtype=np.float32)
    filled, valid = fill(window, low, high, np.array([7, 8], dtype=np.float32))
    assert filled.tolist() == [[1, 5, 7, 6], [3, 8, 3, 8]]
    assert valid.tolist() == [[True, True, False, True], [False, False, True, False]]


def test_labels_are_words_people_use() -> None:
    assert schema.label(" Fault ") == 1.0
    assert schema.label("FALSE_ALARM") == 0.0
    with pytest.raises(Problem) as caught:
        schema.label("normla")
    assert caught.value.code == "G801"
    assert "did you mean normal?" in caught.value.what
    with pytest.raises(Problem):
        schema.label("")


def test_faults_disturb_only_what_they_should() -> None:
    settings = settings_of()
    time = np.arange(400) * STEP
    made = {**columns(time), "b": 100 + np.sin(np.arange(400) / 9), "a": np.ones(400)}
    samples = schema.samples(made, settings)
    found = faults.inject(samples, settings)
    assert found.steps == 36
    assert set(found.kind.tolist()) == set(range(5))
    before = np.concatenate(
        [samples.tensors["window"][r : r + 36] for r in found.row]  # rows are positions here
    )
    changed = found.tensors["window"]
    np.testing.assert_array_equal(changed[:, :, 0], before[:, :, 0])
    half = np.repeat(found.kind == faults.OUTPUT_FAULTS.index("half"), 36)
    np.testing.assert_allclose(changed[half, -1, 1], before[half, -1, 1] / 2)
    stuck = changed[np.repeat(found.kind == 4, 36), -1, 1].reshape(-1, 36)
    assert (stuck == stuck[:, :1]).all()
    first, second = changed[::36], changed[1::36]  # the memory of the fault grows row by row
    np.testing.assert_array_equal(first[:, 0, 1], before[::36][:, 0, 1])
    np.testing.assert_array_equal(second[:, -2, 1], first[:, -1, 1])


def test_faults_need_whole_stretches_of_normal_rows() -> None:
    settings = settings_of()
    short = schema.samples(columns(np.arange(20) * STEP), settings)
    assert len(faults.inject(short, settings).row) == 0
    gaps = schema.samples(columns(np.arange(400) * 2 * STEP), settings)
    assert len(faults.inject(gaps, settings).row) == 0
    nothing = {**columns(np.arange(50) * STEP), "a": np.full(50, -1.0)}
    assert len(faults.inject(schema.samples(nothing, settings), settings).row) == 0


def test_sensors_fail_one_at_a_time_where_there_is_no_output() -> None:
    line = replace(LINE, data=Data(source="x:", inputs=("a", "b")))
    settings = settings_of(line, has_clock=False)
    samples = schema.samples(columns(np.arange(60)), settings)
    found = faults.inject(samples, settings)
    changed = found.tensors["window"][:, 0] != samples.tensors["window"][found.row, 0]
    assert (changed.sum(axis=1) == 1).all()
    assert changed.any(axis=0).all()
    filled = np.zeros((4, 2), dtype=np.float32)
    moved = faults.disturbed(filled, 2, np.array([1.0, 2.0]))
    assert moved.tolist() == [[3, 0], [0, 6], [-3, 0], [0, -6]]
    assert faults.average_precision(np.array([3.0]), np.array([1.0, 4.0])) == pytest.approx(5 / 6)


def test_parity_counts_decisions_and_errors() -> None:
    task = SensorAnomaly()
    count = 1000
    one = {
        "score": np.linspace(0, 2, count),
        "alarm": np.linspace(0, 2, count) > 1,
        "expected": np.linspace(-5, 5, count)[:, None],
    }
    assert task.parity(one, one).decision_agreement == 1.0
    flipped = {**one, "alarm": one["alarm"].copy()}
    flipped["alarm"][:2] = True
    found = task.parity(one, flipped)
    assert found.decision_agreement == pytest.approx(0.998)
    assert not found.passed
    broken = {**one, "score": np.full(count, np.nan)}
    assert not task.parity(one, broken).passed
    empty = {name: value[:0] for name, value in one.items()}
    assert task.parity(empty, empty).passed


def test_an_explanation_names_the_sensor_that_did_it() -> None:
    settings = {"sensors": ["a", "b"], "outputs": ["b"], "usual": {"a": 1.0, "b": 0.0}}

    def predict(tensors: Any) -> Any:
        now = tensors["window"][:, -1]
        score = np.abs(now[:, 1] - 2 * now[:, 0])
        return {"score": score, "alarm": score > 1, "expected": 2 * now[:, :1]}

    window = np.array([[[1.0, 9.0]]], dtype=np.float32)
    found = explained(predict, window, settings)
    assert [(a.name, a.share) for a in found] == [("b", 1.0), ("a", 0.0)]
    assert (found[0].value, found[0].usual) == (9.0, 2.0)
    fine = np.array([[[1.0, 2.0]]], dtype=np.float32)
    assert [a.share for a in explained(predict, fine, settings)] == [0.5, 0.5]


def explained(predict: Any, window: Any, settings: Any) -> Any:
    tensors = {"window": window, "entity": np.zeros(1, dtype=np.int64)}
    return SensorAnomaly().explain(predict, tensors, settings).attributions


def test_an_explanation_names_the_lag_that_did_it() -> None:
    settings = {"sensors": ["a", "b"], "outputs": ["b"], "usual": {"a": 0.0, "b": 0.0}}

    def predict(tensors: Any) -> Any:
        window = np.nan_to_num(tensors["window"])
        score = np.abs(3 * window[:, 0, 0] + window[:, 2, 0])
        return {"score": score, "alarm": score > 1, "expected": np.zeros((len(window), 1))}

    window = np.array([[[5.0, 0.0], [7.0, 0.0], [5.0, 0.0]]], dtype=np.float32)
    found = [(a.name, round(a.share, 6), a.value) for a in explained(predict, window, settings)]
    assert found == [("a, 2 steps before", 0.75, 5.0), ("a", 0.25, 5.0), ("b", 0.0, 0.0)]
    window[0, 0, 0] = np.nan  # what was never read drove nothing
    assert [a.name for a in explained(predict, window, settings)] == ["a", "b"]


def test_served_rows_are_found_again() -> None:
    settings = settings_of()
    time = np.delete(np.arange(8), 4) * STEP
    known = {**columns(time), "a": np.arange(7.0), "b": np.arange(7.0) * 2}
    found = SensorAnomaly().rows(schema.samples(known, settings).tensors, settings)
    own = found.steps_back == 0
    assert found.of[own].tolist() == list(range(7))
    np.testing.assert_array_equal(found.columns["a"][own], known["a"])
    moment = time[found.of] - found.steps_back * STEP
    assert set(moment.tolist()) == set(time.tolist())  # the gap is no row
    for at in time:
        assert len(set(found.columns["b"][moment == at])) == 1
    nothing = {"window": np.full((1, 3, 2), np.nan, dtype=np.float32)}
    assert SensorAnomaly().rows(nothing, settings).steps_back.tolist() == [0]


def test_alike_samples_lie_together_and_missing_is_usual() -> None:
    settings = {**settings_of(), "usual": {"a": 5.0, "b": 10.0}, "spread": {"a": 2.0, "b": 10.0}}
    now = np.array([[5.0, 10.0], [7.0, 20.0], [np.nan, 10.0], [-5.0, 1e30]], dtype=np.float32)
    task, outputs = SensorAnomaly(), {"score": np.array([0.0, 1.0, np.nan, -1.0])}
    found = task.embed({"window": now[:, None]}, outputs, settings)
    assert found.tolist() == [[0, 0, 0], [1, 1, np.log(2)], [0, 0, 0], [0, 0, 0]]
    plain = {n: v for n, v in settings.items() if n not in ("usual", "spread")}
    old = task.embed({"window": now[:, None]}, {}, plain)  # from before the spread was kept
    assert old[:2].tolist() == [[5, 10], [7, 20]]


def test_the_example_says_that_it_is_generated(tmp_path: Path) -> None:
    line = SensorAnomaly.example(tmp_path)
    assert line.name.startswith("generated")
    assert Path(line.data.source.removeprefix("files:")).stat().st_size > 10_000
    window = np.ones((2, 3, 4), dtype=np.float32)
    changed = SensorAnomaly.disturbed({"window": window, "entity": np.zeros(2)})["window"]
    assert (changed != window).sum() == 6
    assert (window == 1).all()
