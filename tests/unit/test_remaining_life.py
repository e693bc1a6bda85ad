from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.line import Data, Line, Train
from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.resolve import resolve
from genba.core.task import Lesson, Model
from genba.learn.rows import RowsView
from genba.runs.effort import Effort
from genba.tasks.sensor.remaining_life import SensorRemainingLife, schema
from genba.tasks.sensor.remaining_life.lives import Lives, capped
from tests.unit.lives import SENSORS, life_line, life_view, unit_rows, with_unit

TASK = SensorRemainingLife()


def fitted(view: RowsView, line: Line | None = None) -> Model:
    settings = TASK.derive(line or view.line, view)
    return TASK.fit(view, settings, Effort.simple(seed=0, minutes=1, trials=2))


@pytest.fixture(scope="module")
def view() -> RowsView:
    return life_view()


@pytest.fixture(scope="module")
def model(view: RowsView) -> Model:
    return fitted(view)


@pytest.fixture(scope="module")
def tensors(view: RowsView, model: Model) -> dict[str, Array]:
    parts = list(schema.read(view, "test", model.settings))
    return {n: np.concatenate([p.tensors[n] for p in parts]) for n in parts[0].tensors}


def problem(action: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        action()
    assert caught.value.tries
    return caught.value


def test_a_model_knows_what_age_and_newest_readings_do_not(view: RowsView, model: Model) -> None:
    scores = TASK.score(TASK.reference(model), view, "test", model.settings)
    baselines = TASK.baselines(view, model.settings)
    rmse = scores.measures["rmse"]
    for name in ("age only", "linear on the newest readings"):
        assert rmse.value < baselines[name].measures["rmse"].value
    assert rmse.low is not None
    assert rmse.low <= rmse.value < 6.0
    assert scores.measures["coverage"].value >= 0.85
    assert scores.measures["coverage_below_cap"].value >= 0.8
    assert scores.measures["rmse_raw"].value > rmse.value
    cost = scores.measures["cost_per_unit"].value
    assert 1.0 <= cost < baselines["run to failure"].measures["cost_per_unit"].value == 10.0
    planned = next(b for n, b in baselines.items() if n.startswith("stop at age"))
    assert cost < planned.measures["cost_per_unit"].value
    assert set(scores.evidence["block"]) == set(range(9))
    missed = scores.measures["missed_failures"]
    assert missed.high is not None
    assert missed.high > 0.2  # nine units prove little


def test_the_same_seed_gives_the_same_model(view: RowsView, model: Model) -> None:
    again = fitted(view)
    assert again.settings == model.settings
    assert all(np.array_equal(a, again.arrays[n]) for n, a in model.arrays.items())


@pytest.mark.parametrize("candidate", ["ridge", "boosting"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_every_body_is_exported_as_it_is(
    view: RowsView, tensors: dict[str, Array], candidate: str, engine: str
) -> None:
    line = replace(view.line, train=Train(candidates=(candidate,)))
    model = fitted(view, line)
    runtime = resolve("engine", engine)(TASK.export(model), {"precision": "float32"})
    found = runtime.run(tensors)
    parity = TASK.parity(TASK.reference(model)(tensors), found)
    assert parity.passed
    assert parity.decision_agreement == 1.0
    assert np.array_equal(found["alarm"], found["score"] > 1.0)
    assert not TASK.parity(
        TASK.reference(model)(tensors), {**found, "expected": found["low"]}
    ).passed


def test_one_operating_condition_is_exported_too(tensors: dict[str, Array]) -> None:
    view = life_view(conditions=["none"], cap=0)
    model = fitted(view)
    assert model.settings["regimes"]["conditions"] == []
    runtime = resolve("engine", "onnxruntime")(TASK.export(model), {"precision": "float32"})
    assert TASK.parity(TASK.reference(model)(tensors), runtime.run(tensors)).passed
    scores = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert scores.measures["rmse"].value == scores.measures["rmse_raw"].value
    assert TASK.baselines(view, model.settings)["age only"].measures["rmse"].value > 0


def test_the_load_is_a_condition_and_what_says_nothing_is_left_out(model: Model) -> None:
    assert model.settings["regimes"] == {"conditions": ["load"], "count": 2}
    assert model.settings["used"] == ["heat", "noise"]
    assert model.settings["dropped"] == ["still"]


def test_moving_the_alarm_point_moves_alarms_and_nothing_else(
    model: Model, tensors: dict[str, Array]
) -> None:
    predict = TASK.reference(model)
    before = predict(tensors)
    at = np.full(len(tensors["alarm_at"]), 25.0, dtype=np.float32)
    after = predict({**tensors, "alarm_at": at})
    assert np.array_equal(before["expected"], after["expected"])
    assert after["alarm"].sum() > before["alarm"].sum()
    assert np.array_equal(after["alarm"], after["expected"] < 25.0)
    calibration = model.settings["calibration"]
    assert calibration["parameter"] == "alarm_at"
    missed = np.mean(np.array(calibration["quantiles"]) > model.settings["alarm_at"])
    assert missed == pytest.approx(model.settings["alarm"]["missed"], abs=1e-9)


def test_readings_that_are_missing_or_absurd_change_little(
    model: Model, tensors: dict[str, Array]
) -> None:
    predict = TASK.reference(model)
    holes = tensors["window"].copy()
    holes[:, ::3, :] = np.nan
    holes[:, 1, 1] = np.inf
    found = predict({**tensors, "window": holes})
    assert np.isfinite(found["expected"]).all()
    assert np.abs(found["expected"] - predict(tensors)["expected"]).mean() < 4.0
    nothing = predict({**tensors, "window": np.full_like(holes, np.nan)})
    assert np.isfinite(nothing["score"]).all()
    ageless = predict({**tensors, "age": np.full_like(tensors["age"], np.nan)})
    assert np.isfinite(ageless["expected"]).all()


def test_a_window_is_empty_before_its_unit_began(view: RowsView, model: Model) -> None:
    columns = next(iter(view.chunks("test")))
    samples = TASK.samples(columns, model.settings)
    assert np.isnan(samples.tensors["window"][0, :-1]).all()
    assert samples.tensors["age"][:3].tolist() == [1.0, 2.0, 3.0]
    assert np.isnan(samples.truth).all()  # no row knows its own end
    found = TASK.rows(samples.tensors, model.settings)
    assert np.bincount(found.of)[:3].tolist() == [1, 2, 3]
    ragged = {n: np.delete(c, 5) for n, c in columns.items()}
    window = TASK.samples(ragged, model.settings).tensors["window"]
    assert np.isnan(window[5, -2]).all()  # the row before is missing, not moved
    assert not np.isnan(window[5, -3]).all()


def test_lives_are_read_across_chunks(view: RowsView, model: Model) -> None:
    whole = [s.tensors["window"] for s in schema.read(view, "test", model.settings)]

    class Cut(RowsView):
        def chunks(self, split: str, *, rows: int = 7) -> Iterator[dict[str, Array]]:
            yield from super().chunks(split, rows=7)

    cut = object.__new__(Cut)
    cut.__dict__.update(view.__dict__)
    parts = [s.tensors["window"] for s in schema.read(cut, "test", model.settings)]
    assert np.array_equal(np.concatenate(whole), np.concatenate(parts), equal_nan=True)
    settings = {**model.settings, "has_clock": False}
    assert np.array_equal(Lives.of(cut, settings).first, Lives.of(view, settings).first)


def test_a_label_column_says_when_units_failed() -> None:
    plain, labelled = life_view(), life_view(label=True)
    settings = TASK.derive(plain.line, plain)
    assert np.array_equal(Lives.of(plain, settings).end, Lives.of(labelled, settings).end)


def test_a_unit_that_has_not_failed_teaches_only_that_it_outlived_the_cap() -> None:
    rows = unit_rows(200, 99, cycles=50)
    view = with_unit(life_view(label=True), rows, "train", np.zeros(50))
    settings = TASK.derive(view.line, view)
    lives = Lives.of(view, settings)
    unit = len(view.entities) - 1
    assert np.isnan(lives.end[unit])
    left = capped(lives.left(unit, rows["time"]), lives.at_least(unit, rows["time"]), 30.0)
    assert left[:20].tolist() == [30.0] * 20
    assert np.isnan(left[20:]).all()
    assert fitted(view).settings["alarm"]["units"] == 27  # it cannot judge an alarm


def test_what_an_inspection_found_stands_in_for_the_end() -> None:
    label = np.full(50, np.nan)
    label[39] = TASK.label("60 cycles")
    view = with_unit(life_view(label=True), unit_rows(200, 99, cycles=50), "train", label)
    settings = TASK.derive(view.line, view)
    assert Lives.of(view, settings).end[-1] == 100.0
    label[44] = 1.0  # and a failure counts more
    view = with_unit(life_view(label=True), unit_rows(200, 99, cycles=50), "train", label)
    assert Lives.of(view, settings).end[-1] == 45.0


def test_with_a_clock_lives_are_counted_in_steps() -> None:
    view = life_view(clock_ms=600_000)
    model = fitted(view)
    assert model.settings["step_ms"] == 600_000
    scores = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert scores.measures["rmse"].value < 8.0
    assert scores.evidence["unit_end"].max() < 61
    assert np.isnan(next(schema.read(view, "test", model.settings)).tensors["age"]).all()


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("failed", 1.0),
        (" End of life ", 1.0),
        ("needless_stop", 0.0),
        ("REPLACED", 0.0),
        ("40", 42.0),
        ("1 cycle", 3.0),
        ("12.5 cycles left", 14.5),
        ("0 cycles", 1.0),
    ],
)
def test_words_and_numbers_are_labels(said: str, label: float) -> None:
    assert TASK.label(said) == label


@pytest.mark.parametrize("said", ["0", "1", "?!", "-3", "faild", "40 apples", ""])
def test_what_is_in_doubt_is_no_label(said: str) -> None:
    found = problem(lambda: TASK.label(said))
    assert found.code == "G801"
    assert ("may mean" in found.why) == (said in ("0", "1"))


def test_a_label_judges_an_answer(model: Model) -> None:
    answer = {"expected": 10.0, "low": 5.0, "high": 18.0, "alarm": True}
    calm = {**answer, "alarm": False}
    judge = TASK.outcome
    assert judge(answer, 1.0, model.settings) == "confirmed"
    assert judge(calm, 1.0, model.settings) == "missed"
    assert judge(answer, 0.0, model.settings) == "false_alarms"
    assert judge(calm, 0.0, model.settings) == ""
    assert judge(answer, TASK.label("7 cycles"), model.settings) == "confirmed"
    assert judge(answer, TASK.label("19 cycles"), model.settings) == "wrong"
    whole = {**answer, "high": 30.0}
    assert judge(whole, TASK.label("500 cycles"), model.settings) == "confirmed"  # beyond the cap


def test_a_failure_taught_ends_the_life() -> None:
    columns = {
        **{n: np.arange(4.0) for n in SENSORS},
        "time": np.arange(1, 5),
        "label": np.full(4, np.nan),
        "prediction": np.array(["a", "b", None, None], dtype=object),
    }
    lessons = [Lesson(value="failed", label=1.0, entity="u", time_ms=4)]
    taught = TASK.teach(columns, lessons)["label"]
    assert np.isnan(taught[:3]).all()
    assert taught[3] == 1.0


def test_doubt_is_largest_at_the_alarm_point(model: Model) -> None:
    at = model.settings["alarm_at"]
    expected = np.array([at, at + 4.0, at + 20.0, max(at - 4.0, 0.0)])
    outputs = {"expected": expected, "low": expected - 5.0, "high": expected + 5.0}
    found = TASK.uncertainty(outputs, model.settings)
    assert found[0] == 1.0
    assert found[1] > 0.5 > found[2]
    assert found[3] < 1.0
    moved = {**model.settings, "parameters": {"alarm_at": at + 20.0}}
    assert TASK.uncertainty(outputs, moved)[2] == 1.0


def test_an_explanation_names_the_sensor_that_wears(
    model: Model, tensors: dict[str, Array], view: RowsView
) -> None:
    worn = int(np.argmin(TASK.reference(model)(tensors)["expected"]))
    one = {n: t[worn : worn + 1] for n, t in tensors.items()}
    found = TASK.explain(TASK.reference(model), one, model.settings).attributions
    assert sum(a.share for a in found) == pytest.approx(1.0)
    heat = [a for a in found if a.name.startswith("heat")]
    assert sum(a.share for a in heat) > 0.6
    level = next(a for a in heat if a.name == "heat level")
    assert level.value > level.usual + 3  # held against what is usual at that load
    blank = {**one, "window": np.full_like(one["window"], np.nan)}
    shares = [
        a.share for a in TASK.explain(TASK.reference(model), blank, model.settings).attributions
    ]
    assert sum(shares) == pytest.approx(1.0)


def test_units_alike_lie_together(model: Model, tensors: dict[str, Array]) -> None:
    outputs = TASK.reference(model)(tensors)
    found = TASK.embed(tensors, outputs, model.settings)
    order = np.argsort(outputs["expected"])
    young, old = found[order[-40:]], found[order[:40]]
    apart = np.linalg.norm(young.mean(axis=0) - old.mean(axis=0))
    assert apart > 2 * np.linalg.norm(young.std(axis=0))
    assert TASK.embed(tensors, {}, model.settings).shape[1] == found.shape[1] - 1


def test_hindsight_sees_what_was_outlived_and_judges_a_failure(model: Model) -> None:
    time = np.arange(1, 41)
    expected = np.maximum(20.0 - time, 0.0)
    seen = {"time": time, "expected": expected, "low": expected - 2, "high": expected + 2}
    running = TASK.hindsight(seen, model.settings)
    assert running["outlived"].value == pytest.approx(np.mean(40 - time > expected + 2))
    assert set(running) == {"outlived"}
    right = {**seen, "expected": 40.0 - time, "low": 38.0 - time, "high": 42.0 - time}
    judged = TASK.hindsight({**right, "label": np.where(time == 40, 1.0, np.nan)}, model.settings)
    assert judged["coverage"].value > 0.6  # capped at 30, the first ten are "30 or more"
    assert judged["outlived"].value == 0.0
    assert judged["rmse"].value < 6.0
    assert TASK.hindsight({"time": np.zeros(0)}, model.settings) == {}


def test_a_fleet_that_ages_is_no_drift_and_a_loose_gauge_is(view: RowsView, model: Model) -> None:
    predict = TASK.reference(model)
    found = TASK.drift_reference(predict, view, model.settings)
    assert set(found["columns"]) == {*SENSORS, "expected"}
    assert found["columns"]["still"]["index"] == -1
    assert found["columns"]["expected"]["kind"] == "output"


def test_lines_that_cannot_be_are_refused_with_a_way_out(view: RowsView) -> None:
    line = view.line

    def derived(changed: Line) -> Any:
        return lambda: TASK.derive(changed, view)

    bare = replace(line, data=Data(source="files:x", time="cycle"))
    assert (problem(derived(bare)).code, problem(derived(bare)).where) == ("G242", "data.entity")
    assert problem(derived(life_line(conditions=["lod"]))).code == "G243"
    assert problem(derived(life_line(window=1))).code == "G103"
    assert problem(derived(life_line(windov=9))).code == "G102"
    wrong = replace(line, train=Train(candidates=("rigde",)))
    found = problem(derived(wrong))
    assert found.code == "G105"
    assert "ridge" in found.what


def test_few_units_guarantee_nothing_and_too_few_are_refused() -> None:
    assert not fitted(life_view(8)).settings["interval"]["guaranteed"]
    found = problem(lambda: fitted(life_view(4)))
    assert (found.code, found.where) == ("G545", "data.label")


def test_the_example_is_a_text_file_without_a_header(tmp_path: Path) -> None:
    line = TASK.example(tmp_path)
    first = (tmp_path / "train.txt").read_text().splitlines()[0]
    assert first.startswith("1 1  ")
    assert first.endswith("  ")
    assert line.data.entity == "column_1"
    suggested = TASK.suggest(replace(line, options={"cap": 40}, gates={}))
    assert suggested.options["cap"] == 40
    assert suggested.options["cost_missed"] == 10.0
    assert "coverage" in suggested.gates
    assert TASK.corrections() == ("failed", "healthy")
