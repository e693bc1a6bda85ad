"""What follows a forecast: measures, comparison, drift, reasons, hindsight, corrections."""

from typing import Any

import numpy as np
import pytest

from genba.core.digest import canonical_json
from genba.core.problem import Problem
from genba.core.task import Lesson, Scores
from genba.core.values import Measure
from genba.tasks.sensor.forecast import SensorForecast, series
from genba.tasks.sensor.forecast.score import arrivals, stride_of
from tests.unit.forecast_data import HOUR, START, fitted, view


@pytest.fixture(scope="module")
def made() -> Any:
    return view(rows=800, entities=2, candidates=("ridge",))


@pytest.fixture(scope="module")
def trained(made: Any) -> Any:
    return fitted(made)


def served(made: Any, model: Any, task: Any, every: int = 1, width: float = 1.0) -> dict[str, Any]:
    (one, *_) = series.read(made, model.settings)
    at = series.origins(one, model.settings, "test")[::every]
    tensors = dict(series.tensors(one, at, model.settings))
    tensors["width"] = np.full(len(at), width, dtype=np.float32)
    return {**tensors, **task.reference(model)(tensors)}


def test_measures_are_what_they_say(made: Any, trained: Any) -> None:
    task, model = trained
    scores = task.score(task.reference(model), made, "test", model.settings)
    errors, inside = [], []
    for one in series.read(made, model.settings):
        at = series.origins(one, model.settings, "test")
        tensors = {**series.tensors(one, at, model.settings), "width": np.ones(len(at))}
        answer = task.reference(model)(tensors)
        truth = series.truth(one, at, model.settings)
        scale = model.settings["scales"][one.entity][0]
        errors.append(np.abs(truth - answer["expected"]) / scale)
        inside.append((truth >= answer["low"]) & (truth <= answer["high"]))
    assert scores.measures["mae"].value == pytest.approx(np.concatenate(errors).mean())
    assert scores.measures["mse"].value == pytest.approx((np.concatenate(errors) ** 2).mean())
    assert scores.measures["coverage"].value == pytest.approx(np.concatenate(inside).mean())
    assert len(scores.evidence["loss"]) == len(np.concatenate(errors))


def test_missing_truth_counts_for_nothing(made: Any, trained: Any) -> None:
    task, model = trained
    gappy = view(rows=800, entities=2, missing=0.1, candidates=("ridge",))
    scores = task.score(task.reference(model), gappy, "test", model.settings)
    assert (scores.evidence["count"] < 6).any()
    assert np.isfinite(scores.measures["mae"].value)


def test_a_split_without_forecasts_has_no_measures(trained: Any) -> None:
    task, model = trained
    assert task.score(task.reference(model), view(rows=12), "test", model.settings).measures == {}


def test_truth_arrives_one_step_after_the_other() -> None:
    at = np.array([0, 3, 4, 20])
    found = [a.tolist() for a in arrivals(at, 4, 2)]
    assert found[0] == []
    assert found[1] == [0, 1, 2, 3, 4, 5]  # steps 1, 2 and 3 of the first
    assert found[2] == [6, 7, 8, 9]  # step 4 of the first, step 1 of the second
    assert sum(len(f) for f in found) == len({i for f in found for i in f}) == 3 * 4 * 2


def test_too_many_forecasts_are_thinned_evenly() -> None:
    settings = {"ahead": 720, "outputs": ["a"] * 7}
    assert stride_of(3_000, settings) == 1
    assert stride_of(100_000, settings) % 2 == 1
    assert stride_of(100_000, settings) > 20


def test_a_better_model_is_called_better(made: Any, trained: Any) -> None:
    task, model = trained
    good = task.score(task.reference(model), made, "test", model.settings)

    def worse(tensors: Any) -> Any:
        answer = task.reference(model)(tensors)
        return {**answer, "expected": answer["expected"] + 2.0}

    bad = task.score(worse, made, "test", model.settings)
    (loss, pinball) = task.compare(bad, good, "frozen test set")
    assert (loss.name, pinball.name) == ("loss", "pinball")
    assert loss.better
    assert task.compare(good, bad, "frozen test set")[0].worse
    assert task.compare(good, Scores(measures={}), "frozen test set") == ()
    other = Scores(measures={}, evidence={**good.evidence, "horizon": np.array([99])})
    assert task.compare(good, other, "frozen test set") == ()


def test_parity_sees_a_wrong_value(made: Any, trained: Any) -> None:
    task, model = trained
    right = served(made, model, task)
    wrong = {**right, "high": right["high"] + 5.0}
    assert task.parity(right, right).passed
    assert not task.parity(right, wrong).passed
    assert not task.parity(right, {**right, "expected": right["expected"] * np.nan}).passed
    assert task.parity({**right, "expected": right["expected"][:0]}, right).samples == 0


def test_drift_is_watched_by_what_does_not_depend_on_the_hour(made: Any, trained: Any) -> None:
    task, model = trained
    found = task.drift_reference(task.reference(model), made, model.settings)
    canonical_json(found)
    assert found["columns"]["y0"]["tensor"] == "look"
    assert found["columns"]["y0 missing"]["index"] == 5
    assert found["columns"]["y0 expected"]["kind"] == "output"
    answer = served(made, model, task)
    by_hand = answer["window"][:, -24:, 2].mean(axis=1)
    np.testing.assert_allclose(answer["look"][:, 2], by_hand, rtol=1e-5)
    half = answer["window"].copy()
    half[:, -12:, 2] = np.nan
    inputs = {n: answer[n] for n in ("future", "time", "entity", "width")}
    assert task.reference(model)({**inputs, "window": half})["look"][0, 5] == 0.5


def test_reasons_add_up_and_name_what_matters(made: Any, trained: Any) -> None:
    task, model = trained
    tensors = {n: t[:1] for n, t in served(made, model, task).items() if n not in model.arrays}
    inputs = {n: tensors[n] for n in ("window", "future", "time", "entity", "width")}
    found = task.explain(task.reference(model), inputs, model.settings).attributions
    assert sum(a.share for a in found) == pytest.approx(1.0)
    assert any(a.name == "warm, next 6 h" for a in found)
    assert any(a.name.startswith("y0, up to 6 h") for a in found)
    same = task.explain(
        lambda t: {"expected": np.ones((len(t["time"]), 6, 1))}, inputs, model.settings
    )
    assert same.attributions[0].share == pytest.approx(1 / len(same.attributions))


def test_later_requests_tell_what_became_of_earlier_forecasts(made: Any, trained: Any) -> None:
    task, model = trained
    seen = served(made, model, task)
    found = task.hindsight(seen, model.settings)
    later = seen["window"][1:, -1, 2]
    inside = (later >= seen["low"][:-1, 0, 0]) & (later <= seen["high"][:-1, 0, 0])
    assert found["coverage"].n == sum(min(6, len(seen["time"]) - 1 - i) for i in range(len(later)))
    assert found["coverage"].value == pytest.approx(inside.mean(), abs=0.1)
    daily = task.hindsight(served(made, model, task, every=24), model.settings)
    assert daily["coverage"].n is not None
    assert daily["coverage"].n > 0  # a window a day holds the truth of the day before
    assert task.hindsight({n: v[:1] for n, v in seen.items()}, model.settings) == {}
    named = {**seen, "entity": np.array(["site 0"] * len(seen["time"]), dtype=object)}
    assert task.hindsight(named, model.settings)["mae"] == found["mae"]


def test_width_follows_coverage(made: Any, trained: Any) -> None:
    task, model = trained
    settings = dict(model.settings)

    def tuned(value: float, needed: float, n: int = 3_000) -> Any:
        seen = Measure(value=value, low=value - 0.02, high=value + 0.02, n=n)
        measures = {"coverage": seen, "width_needed": Measure(value=needed, n=n)}
        return task.tune(measures, {**settings, "parameters": {"width": 2.0}})

    assert tuned(0.7, 4.0)["width"] == pytest.approx(4.0)
    assert tuned(0.7, 4.0, n=60)["width"] == pytest.approx(2 * 4**0.1)
    assert tuned(0.99, 0.25)["width"] == pytest.approx(1.0)
    assert tuned(0.91, 0.25) == {}  # the promise lies within what was seen
    assert tuned(0.7, 1.001) == {}
    assert 0 < tuned(0.99, 0.0)["width"] < 2.0
    assert task.tune({}, settings) == {}


def test_repeated_tuning_restores_the_promise(made: Any, trained: Any) -> None:
    """A world that has become twice as noisy: the width that is set ends near the right one."""
    task, model = trained
    noisy = view(rows=800, entities=2, seed=3, candidates=("ridge",))
    noise = np.random.default_rng(5).normal(0, 1.2, 1_600)
    noisy._columns["y0"] = noisy._columns["y0"] + noise
    width, coverage = 1.0, []
    for _ in range(12):
        seen = served(noisy, model, task, width=width)
        found = task.hindsight(seen, model.settings)
        coverage.append(found["coverage"].value)
        settings = {**model.settings, "parameters": {"width": width}}
        width = task.tune(found, settings).get("width", width)
    assert coverage[0] < 0.8
    assert 0.85 < coverage[-1] < 0.95


def test_served_windows_become_rows_again(made: Any, trained: Any) -> None:
    task, model = trained
    hourly, daily = served(made, model, task), served(made, model, task, every=24)
    found = task.rows(hourly, model.settings)
    assert len(found.of) == 48 + len(hourly["time"]) - 1
    truth = dict(zip(hourly["time"].tolist(), hourly["window"][:, -1, 2].tolist(), strict=True))
    for tensors in (hourly, daily):
        again = task.rows(tensors, model.settings)
        time = tensors["time"][again.of] - again.steps_back * HOUR
        for moment, value in zip(time.tolist(), again.columns["y0"].tolist(), strict=True):
            assert truth.get(moment, value) == value


def test_corrections_are_numbers() -> None:
    task = SensorForecast()
    assert task.label(" 12,5 ") == 12.5
    assert task.label("y1 = 1e3") == 1_000.0
    assert [task.label(word) for word in task.corrections()] == [12.5, 12.5]
    for nonsense in ("anomaly", "", "nan", "inf", "1,2,3", "y = z"):
        with pytest.raises(Problem) as refused:
            task.label(nonsense)
        assert refused.value.code == "G801"


def test_a_correction_changes_the_value_of_its_moment() -> None:
    task = SensorForecast()
    columns = {
        "time": START + np.arange(3) * HOUR,
        "label": np.full(3, np.nan),
        "y0": np.arange(3.0),
        "y1": np.arange(3.0),
        "prediction": np.array(["a", None, "c"], dtype=object),
    }
    lessons = [
        Lesson(value="7", label=7.0, prediction="c"),
        Lesson(value="y1 = 9", label=9.0, time_ms=START + HOUR),
    ]
    found = task.teach(columns, lessons)
    assert found["label"][2] == 7.0
    assert found["y1"].tolist() == [0, 9, 2]
    assert columns["y1"].tolist() == [0, 1, 2]
    assert task.outcome({}, 7.0, {}) == ""


def test_wide_intervals_are_unsure_and_alike_days_are_near(made: Any, trained: Any) -> None:
    task, model = trained
    answer = served(made, model, task)
    usual = task.uncertainty(answer, model.settings)
    wide = {**answer, "high": answer["high"] + 10.0}
    assert (task.uncertainty(wide, model.settings) > usual).all()
    assert ((usual > 0) & (usual < 1)).all()
    places = task.embed(answer, answer, model.settings)
    doubled = {**answer, "window": answer["window"] * 2 + 5}
    np.testing.assert_allclose(places, task.embed(doubled, answer, model.settings), atol=1e-5)
    assert np.linalg.norm(places[0] - places[24]) < np.linalg.norm(places[0] - places[12])
