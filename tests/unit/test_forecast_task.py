"""Forecasts from the line to the exported graph."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from genba.core.codec import encode
from genba.core.digest import canonical_json
from genba.core.problem import Problem
from genba.engines.graph import read_graph
from genba.engines.integers import computes_with_wide_integers
from genba.tasks.sensor.forecast import SensorForecast, fit, series
from tests.unit.forecast_data import HOUR, fitted, view

KINDS = ("ridge", "blend", "boosting", "seasonal")


def exported(task: SensorForecast, model: Any, tensors: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(task.export(model))
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(tensors)), strict=True))


def batch(made: Any, model: Any, rows: int = 60) -> dict[str, Any]:
    (one, *_) = series.read(made, model.settings)
    at = series.origins(one, model.settings, "test")[:rows]
    tensors = dict(series.tensors(one, at, model.settings))
    return {**tensors, "width": np.linspace(0.5, 2.0, len(at)).astype(np.float32)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_answers_as_the_reference(kind: str) -> None:
    made = view(rows=700, entities=2, beside=True, missing=0.02, candidates=(kind,))
    task, model = fitted(made)
    tensors = batch(made, model)
    chance = np.random.default_rng(0)
    for gaps in (0.0, 0.2, 1.0):
        given = {n: t.copy() for n, t in tensors.items()}
        for name in ("window", "future"):
            given[name][chance.random(given[name].shape) < gaps] = np.nan
        given["entity"][::3] = -1
        given["entity"][1::3] = 99
        wanted = task.reference(model)(given)
        found = exported(task, model, given)
        assert task.parity(wanted, found).passed
        assert all(np.isfinite(values).all() for values in found.values())


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (HOUR, {"timezone": "Europe/Paris"}),
        # Its clocks change four times a year, so twice within such a window.
        (24 * HOUR, {"timezone": "Africa/Casablanca", "window": 60, "horizon": 7}),
        (24 * HOUR, {"window": 28, "horizon": 7}),
        (7 * 24 * HOUR, {"window": 60, "horizon": 4}),
    ],
)
def test_calendars_are_the_same_in_the_graph(step: int, options: dict[str, Any]) -> None:
    made = view(rows=700, candidates=("blend",), options=options)
    made._columns["time"] = made._columns["time"][0] + np.arange(700) * step
    task, model = fitted(made)
    tensors = batch(made, model)
    assert task.parity(task.reference(model)(tensors), exported(task, model, tensors)).passed


def test_without_an_output_every_column_is_forecast() -> None:
    made = view(rows=700, outputs=3, known=False, candidates=("ridge", "boosting"))
    task, model = fitted(made, trials=2)
    assert model.settings["outputs"] == ["y0", "y1", "y2"]
    tensors = batch(made, model)
    assert "future" not in tensors
    found = task.reference(model)(tensors)
    assert found["expected"].shape == (60, 6, 3)
    assert task.parity(found, exported(task, model, tensors)).passed
    scores = task.score(task.reference(model), made, "test", model.settings)
    assert scores.measures["skill"].value > 0.2


def test_the_choice_beats_repeating_and_keeps_its_promise() -> None:
    made = view(rows=1_500, missing=0.02)
    task, model = fitted(made, trials=7)
    measures = task.score(task.reference(model), made, "test", model.settings).measures
    assert {t["candidate"] for t in model.trials} == set(KINDS)
    assert measures["skill"].value > 0.3
    fixed, adaptive = (measures[n].value - 0.9 for n in ("coverage", "coverage_adaptive"))
    assert abs(adaptive) < max(0.02, abs(fixed))
    assert measures["mae_h6"] == measures["mae"]
    naive = task.baselines(made, model.settings)
    assert all(scores.measures["mae"].value > measures["mae"].value for scores in naive.values())


def test_the_same_seed_gives_the_same_model() -> None:
    made = view(rows=600, candidates=("blend",))
    (_, first), (_, second) = fitted(made), fitted(made)
    assert first.settings == second.settings
    canonical_json(first.settings)
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])


def test_repeating_a_season_repeats_it() -> None:
    made = view(rows=600, known=False, options={"season": 24}, candidates=("seasonal",))
    task, model = fitted(made)
    tensors = batch(made, model)
    found = task.reference(model)(tensors)["expected"][:, :, 0]
    np.testing.assert_allclose(found, tensors["window"][:, 24:30, 0], rtol=1e-5)


def test_width_scales_the_interval_and_nothing_else() -> None:
    made = view(rows=600, candidates=("ridge",))
    task, model = fitted(made)
    tensors = {n: t[:1] for n, t in batch(made, model).items()}
    predict = task.reference(model)
    narrow = predict({**tensors, "width": np.array([1.0], dtype=np.float32)})
    wide = predict({**tensors, "width": np.array([3.0], dtype=np.float32)})
    np.testing.assert_array_equal(narrow["expected"], wide["expected"])
    np.testing.assert_allclose(wide["high"] - wide["low"], 3 * (narrow["high"] - narrow["low"]))


def test_long_horizons_leave_trees_out() -> None:
    made = view(rows=2_000, known=False, outputs=9, options={"horizon": 240})
    task = SensorForecast()
    settings = task.derive(made.line, made)
    assert set(fit.space(settings)) == {"ridge", "seasonal"}


def test_runtimes_that_cut_integers_short_are_told_of() -> None:
    made = view(rows=600, candidates=("seasonal",))
    task, model = fitted(made)
    assert computes_with_wide_integers(read_graph(task.export(model))) == "time"


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("G541", {"label": "fault"}),
        ("G544", {"known": ("warm", "work", "y0")}),
    ],
)
def test_lines_that_say_nothing_are_refused(code: str, change: dict[str, Any]) -> None:
    made = view()
    line = replace(made.line, data=replace(made.line.data, **change))
    with pytest.raises(Problem) as refused:
        SensorForecast().derive(line, made)
    assert refused.value.code == code
    assert refused.value.tries


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("G542", {"report": [12]}),
        ("G102", {"horizont": 12}),
        ("G103", {"coverage": 1.5}),
        ("G543", {"timezone": "Nowhere"}),
    ],
)
def test_options_are_checked(code: str, options: dict[str, Any]) -> None:
    made = view(options=options)
    with pytest.raises(Problem) as refused:
        SensorForecast().derive(made.line, made)
    assert refused.value.code == code


def test_rows_without_a_clock_are_refused() -> None:
    made = view()
    made.has_clock = False
    with pytest.raises(Problem) as refused:
        SensorForecast().derive(made.line, made)
    assert refused.value.code == "G540"


def test_an_unknown_candidate_is_refused() -> None:
    made = view(candidates=("rigde",))
    with pytest.raises(Problem, match="did you mean ridge") as refused:
        SensorForecast().derive(made.line, made)
    assert refused.value.code == "G105"


def test_too_little_data_is_refused_with_what_would_fit() -> None:
    made = view(rows=60)
    with pytest.raises(Problem) as refused:
        fitted(made)
    assert refused.value.code == "G542"
    assert any("options.window" in line for line in refused.value.tries)


def test_settings_do_not_depend_on_the_values() -> None:
    first, second = view(seed=1), view(seed=2, missing=0.3)
    task = SensorForecast()
    left, right = (task.signature(task.derive(v.line, v)) for v in (first, second))
    assert encode(left) == encode(right)


def test_the_example_is_generated_and_small(tmp_path: Path) -> None:
    line = SensorForecast.example(tmp_path)
    text = Path(line.data.source.removeprefix("files:")).read_text()
    assert line.name.startswith("generated")
    assert 2_000 < text.count("\n") < 5_000
    tensors: dict[str, Any] = {"window": np.ones((1, 2, 2), dtype=np.float32)}
    changed = SensorForecast.disturbed(tensors)
    assert (changed["window"] > tensors["window"]).all()
