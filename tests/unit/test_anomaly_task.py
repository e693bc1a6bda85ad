"""A whole model on generated machines: fit, export, score, compare, drift."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from genba.core.line import Check, Data, Limit, Line, Train
from genba.core.problem import Problem
from genba.core.task import Model, Scores
from genba.learn.rows import RowsView
from genba.runs.effort import Effort
from genba.tasks.sensor.anomaly import SensorAnomaly, baselines, drift, schema
from genba.tasks.sensor.anomaly.compare import compare

STEP = 600_000
TASK = SensorAnomaly()


def machines(
    seed: int = 0, rows: int = 5_000, stops: int = 6, *, labels: bool = False
) -> dict[str, Any]:
    """Two machines whose power follows speed and temperature; some stops last three hours."""
    rng = np.random.default_rng(seed)
    parts = []
    for entity in range(2):
        speed = 10 + 3 * np.sin(np.arange(rows) / 40 + entity) + rng.normal(0, 1, rows)
        warm = 15 + 8 * np.sin(np.arange(rows) / 500) + rng.normal(0, 1, rows)
        power = 40 * np.maximum(0.0, speed - 4) * (1 - 0.004 * warm) + rng.normal(0, 6, rows)
        stopped = np.zeros(rows, dtype=bool)
        for start in rng.integers(0, rows - 18, stops):
            stopped[start : start + 18] = True
        table = {
            "entity": np.full(rows, entity),
            "time": np.arange(rows) * STEP,
            "label": stopped.astype(np.float64) if labels else np.full(rows, np.nan),
            "split": np.repeat(
                ["train", "calibrate", "test"], [rows * 3 // 5, rows // 5, rows // 5]
            ),
            "speed": np.where(rng.random(rows) < 0.01, np.nan, speed),
            "warm": warm,
            "power": np.where(stopped, 0.0, power),
            "stopped": stopped,
        }
        parts.append(table)
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def turbine_line(**data: Any) -> Line:
    return Line(
        name="turbine",
        task="sensor.anomaly",
        data=Data(
            **{
                "source": "x:",
                "inputs": ("speed", "warm"),
                "output": "power",
                "checks": {"warm": Check(min=-30, max=60)},
                **data,
            }
        ),
        gates={"false_alarms_per_day": Limit(max=2)},
    )


def view_of(columns: dict[str, Any], line: Line | None = None, **more: Any) -> RowsView:
    chosen = {n: c for n, c in columns.items() if n != "stopped"}
    return RowsView(line or turbine_line(), chosen, ("east", "west"), **more)


def fitted(view: RowsView, candidates: tuple[str, ...], trials: int = 2, seed: int = 0) -> Model:
    line = replace(view.line, train=Train(candidates=candidates))
    return TASK.fit(view, TASK.derive(line, view), Effort.simple(seed=seed, trials=trials))


@pytest.fixture(scope="module")
def turbines() -> RowsView:
    return view_of(machines())


@pytest.fixture(scope="module", params=["ridge", "boosting"])
def model(request: Any, turbines: RowsView) -> Model:
    return fitted(turbines, (request.param,))


@pytest.fixture(scope="module")
def ridge(turbines: RowsView) -> Model:
    return fitted(turbines, ("ridge",))


@pytest.fixture(scope="module")
def scores(turbines: RowsView, ridge: Model) -> Scores:
    return TASK.score(TASK.reference(ridge), turbines, "test", ridge.settings)


def run_onnx(graph: bytes, tensors: Any) -> dict[str, Any]:
    session = ort.InferenceSession(graph)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(tensors)), strict=True))


def agree(view: RowsView, model: Model, samples: Any) -> None:
    assert len(samples.row) > 100
    reference = TASK.reference(model)(samples.tensors)
    found = run_onnx(TASK.export(model), samples.tensors)
    parity = TASK.parity(reference, found)
    assert parity.passed, parity
    assert parity.decision_agreement == 1.0
    assert found["alarm"].dtype == np.bool_
    assert np.isfinite(found["score"]).all()


def test_a_fault_in_the_data_is_found_and_learned_around(turbines: RowsView, model: Model) -> None:
    found = TASK.score(TASK.reference(model), turbines, "test", model.settings)
    columns = machines()
    stopped = columns["stopped"][found.evidence["row"]]
    working = columns["speed"][found.evidence["row"]] > 7
    assert stopped.sum() > 20
    assert found.evidence["alarm"][stopped & working].mean() > 0.95
    normal = ~stopped & np.isfinite(found.evidence["loss"])
    assert found.evidence["loss"][normal].mean() < 10.0  # the noise alone is 4.8
    assert found.measures["r2"].value > 0.8
    assert found.measures["injected_missed_rate"].method == "modelled"
    assert found.measures["injected_missed_rate_half"].value < 0.1
    assert found.measures["false_alarms_per_day"].method == "estimated"
    for measure in found.measures.values():
        assert measure.low is not None
        assert measure.low <= measure.value


def test_the_graph_decides_as_the_reference(turbines: RowsView, model: Model) -> None:
    samples = schema.gather(list(schema.read(turbines, "test", model.settings)))
    agree(turbines, model, samples)
    rng = np.random.default_rng(0)
    window = samples.tensors["window"].copy()
    window[rng.random(window.shape) < 0.2] = np.nan
    window[rng.random(window.shape) < 0.05] = 1e30
    window[rng.random(window.shape) < 0.05] = -np.inf
    entity = rng.integers(-1, 2, len(window))
    agree(turbines, model, replace(samples, tensors={"window": window, "entity": entity}))


def test_what_cannot_be_judged_does_not_alarm(turbines: RowsView, model: Model) -> None:
    samples = schema.gather(list(schema.read(turbines, "test", model.settings)))
    for blank in ([2], [0, 1]):  # the output, or every input; without one input it is judged
        window = samples.tensors["window"].copy()
        window[:, -1, blank] = np.nan
        found = TASK.reference(model)({**samples.tensors, "window": window})
        assert not found["score"].any()


def test_the_same_seed_gives_the_same_model_also_after_a_kill(turbines: RowsView) -> None:
    settings = TASK.derive(turbines.line, turbines)
    whole = TASK.fit(turbines, settings, Effort.simple(seed=3, trials=6))
    effort = Effort.simple(seed=3, trials=6)
    saves, save = [], effort.checkpoint.save

    def dies(meta: Any, arrays: Any = None) -> None:
        save(meta, arrays)
        saves.append(meta)
        if len(saves) == 3:
            raise KeyboardInterrupt

    effort.checkpoint.save = dies  # type: ignore[method-assign]  # a kill between two trials
    with pytest.raises(KeyboardInterrupt):
        TASK.fit(turbines, settings, effort)
    again = TASK.fit(turbines, settings, effort)
    assert (again.candidate, again.settings, again.trials) == (
        whole.candidate,
        whole.settings,
        whole.trials,
    )
    for name, array in whole.arrays.items():
        assert array.tobytes() == again.arrays[name].tobytes()


def test_thresholds_are_each_entitys_own_only_with_enough_days(turbines: RowsView) -> None:
    few = fitted(turbines, ("ridge",), trials=1).settings["thresholds"]
    assert [(t["entity"], t["source"]) for t in few] == [
        ("east", "pooled"),
        ("west", "pooled"),
        ("*", "pooled"),
    ]
    generous = replace(turbines.line, gates={"false_alarms_per_day": Limit(max=16)})
    settings = TASK.derive(generous, turbines)
    own = TASK.fit(turbines, settings, Effort.simple(trials=1)).settings["thresholds"]
    assert [t["source"] for t in own] == ["own", "own", "pooled"]
    assert own[0]["value"] < few[0]["value"]


def test_labelled_rows_teach(turbines: RowsView) -> None:
    labelled = view_of(machines(labels=True))
    model = fitted(labelled, ("ridge",), trials=1)
    found = TASK.score(TASK.reference(model), labelled, "test", model.settings)
    for name in ("f1", "precision", "false_alarm_rate", "missed_alarm_rate", "detection_delay"):
        assert name in found.measures, name
    assert found.measures["f1"].value > 0.6
    assert found.measures["missed_alarm_rate"].value < 0.3
    assert found.measures["detection_delay"].value < 1.0
    assert found.measures["false_alarms_per_day"].method == "measured"
    assert found.measures["r2"].value > 0.97  # stops are not asked of the regression


def test_confirmed_alarms_are_not_false(turbines: RowsView, ridge: Model, scores: Scores) -> None:
    columns = machines()
    some = columns["stopped"] & (np.arange(len(columns["label"])) % 2 == 0)
    columns["label"] = np.where(some, 1.0, np.nan)
    found = TASK.score(TASK.reference(ridge), view_of(columns), "test", ridge.settings)
    before, after = (m.measures["false_alarms_per_day"].value for m in (scores, found))
    assert after < before
    assert "precision" in found.measures
    assert "f1" not in found.measures  # only alarms were labelled


def test_labels_keep_rows_in_and_out_of_training() -> None:
    """Rows a person calls normal are trained on even where they look strange, and the reverse."""
    columns = machines(stops=0)
    odd = np.flatnonzero((columns["split"] == "train") & (columns["speed"] > 13))[::2]
    columns["power"][odd] *= 0.5

    def expected_at_speed(label: float) -> float:
        columns["label"] = np.full(len(columns["label"]), np.nan)
        columns["label"][odd] = label
        model = fitted(view_of(columns), ("boosting",), trials=1)
        window = np.full((1, 3, 3), [13.5, 15.0, 300.0], dtype=np.float32)
        made = TASK.reference(model)({"window": window, "entity": np.array([0])})
        return float(made["expected"][0, 0])

    assert expected_at_speed(1.0) > expected_at_speed(0.0) + 50


def test_too_few_rows_are_refused(turbines: RowsView) -> None:
    columns = machines(rows=100)
    settings = TASK.derive(turbines.line, turbines)
    for broken in ("train", "calibrate"):
        bad = {n: c.copy() for n, c in columns.items()}
        bad["power"][bad["split"] == broken] = np.nan
        with pytest.raises(Problem) as caught:
            TASK.fit(view_of(bad), settings, Effort.simple(trials=1))
        assert caught.value.code == "G503"
    columns["split"] = np.full(len(columns["time"]), "test")
    with pytest.raises(Problem) as caught:
        TASK.fit(view_of(columns), settings, Effort.simple(trials=1))
    assert caught.value.code == "G503"


def sensors_view(*, has_clock: bool, labels: bool) -> RowsView:
    columns = machines(labels=labels)
    if not has_clock:
        columns["time"] = np.arange(len(columns["time"]))
    line = turbine_line(inputs=("speed", "warm", "power"), output=None)
    return view_of(columns, replace(line, gates={}), has_clock=has_clock)


@pytest.mark.parametrize("candidate", ["components", "ridge", "boosting"])
@pytest.mark.parametrize(("has_clock", "labels"), [(True, False), (False, True)])
def test_sensors_explain_each_other(candidate: str, has_clock: bool, labels: bool) -> None:
    view = sensors_view(has_clock=has_clock, labels=labels)
    model = fitted(view, (candidate,), trials=3)
    found = TASK.score(TASK.reference(model), view, "test", model.settings)
    stopped = machines()["stopped"][found.evidence["row"]]
    strange, usual = (found.evidence["score"][rows].mean() for rows in (stopped, ~stopped))
    assert strange > 1.5 * usual
    assert ("f1" in found.measures) == labels
    assert ("false_alarms_per_day" in found.measures) == has_clock
    assert "false_alarm_rate" in found.measures or has_clock
    agree(view, model, schema.gather(list(schema.read(view, "test", model.settings))))
    shares = TASK.explain(
        TASK.reference(model),
        {
            "window": np.full((1, model.settings["lags"], 3), 500, dtype=np.float32),
            "entity": np.zeros(1, dtype=np.int64),
        },
        model.settings,
    ).attributions
    assert sum(a.share for a in shares) == pytest.approx(1.0)


def test_a_sensor_that_never_moves_does_no_harm() -> None:
    columns = {**machines(), "warm": np.full(10_000, 5.0)}
    line = replace(turbine_line(inputs=("speed", "warm", "power"), output=None), gates={})
    view = view_of(columns, line)
    for candidate in ("components", "ridge"):
        model = fitted(view, (candidate,), trials=2)
        made = TASK.score(TASK.reference(model), view, "test", model.settings)
        assert np.isfinite(made.evidence["score"]).all()


def test_the_baseline_is_judged_by_the_same_rule(turbines: RowsView, ridge: Model) -> None:
    found = baselines.baselines(turbines, ridge.settings)["isolation forest"].measures
    assert set(found) == {"false_alarms_per_day", "injected_missed_rate"}
    labelled = sensors_view(has_clock=False, labels=True)
    settings = TASK.derive(labelled.line, labelled)
    found = TASK.baselines(labelled, settings)["isolation forest"].measures
    assert 0.0 <= found["f1"].value <= 1.0


def changed(scores: Scores, **evidence: Any) -> Scores:
    return replace(scores, evidence={**scores.evidence, **evidence})


def verdicts(champion: Scores, challenger: Scores) -> dict[str, str]:
    return {
        c.name: "worse" if c.worse else "better" if c.better else "equal"
        for c in compare(champion, challenger, "newest window")
    }


def test_comparisons_are_paired(scores: Scores) -> None:
    evidence = scores.evidence
    assert set(verdicts(scores, scores).values()) == {"equal"}
    assert len(verdicts(scores, scores)) == 3
    wrong = changed(scores, loss=evidence["loss"] * 1.1)
    assert verdicts(scores, wrong)["loss"] == "worse"
    assert verdicts(wrong, scores)["loss"] == "better"
    slightly = changed(scores, loss=evidence["loss"] * 1.01)
    assert verdicts(scores, slightly)["loss"] == "equal"  # within the margin
    blind = changed(scores, injected_missed=np.ones_like(evidence["injected_missed"]))
    assert verdicts(scores, blind)["injected_missed_rate"] == "worse"
    rng = np.random.default_rng(0)
    nervous = changed(scores, false_start=rng.random(len(evidence["row"])) < 0.02)
    assert verdicts(scores, nervous)["false_alarms_per_day"] == "worse"


def test_who_always_alarms_misses_nothing_and_gets_no_credit(
    turbines: RowsView, ridge: Model, scores: Scores
) -> None:
    arrays = {**ridge.arrays, "thresholds": ridge.arrays["thresholds"] * 0.25}
    nervous = TASK.score(
        TASK.reference(replace(ridge, arrays=arrays)), turbines, "test", ridge.settings
    )
    assert nervous.measures["injected_missed_rate"].value < 0.3
    assert nervous.measures["false_alarms_per_day"].value > 2.0
    found = verdicts(nervous, scores)
    assert found["injected_missed_rate"] != "worse"
    assert found["false_alarms_per_day"] == "better"


def test_only_rows_that_both_have_seen_are_compared(scores: Scores) -> None:
    evidence = scores.evidence
    elsewhere = changed(
        scores, row=evidence["row"] + 10**6, injected_row=evidence["injected_row"] + 10**6
    )
    assert compare(scores, elsewhere, "x") == ()
    assert compare(Scores(measures={}), scores, "x") == ()
    no_clock = changed(scores, days=np.full(len(evidence["row"]), np.nan))
    assert set(verdicts(no_clock, no_clock)) == {"loss", "injected_missed_rate"}
    unjudged = changed(scores, loss=np.full(len(evidence["row"]), np.nan))
    assert "loss" not in verdicts(unjudged, scores)


def test_an_empty_split_measures_nothing(turbines: RowsView, ridge: Model) -> None:
    assert not TASK.score(TASK.reference(ridge), turbines, "none", ridge.settings).measures


def test_the_drift_reference_holds_what_watching_needs(turbines: RowsView, ridge: Model) -> None:
    found = TASK.drift_reference(TASK.reference(ridge), turbines, ridge.settings)
    assert list(found["columns"]) == ["speed", "warm", "power", "score"]
    assert 0 < found["window"] <= turbines.count("train")
    for column in found["columns"].values():
        assert len(column["edges"]) == 9
        assert sum(column["p"]) == pytest.approx(1.0)
        assert column["null_q"] > 0.0
    assert found["columns"]["speed"]["missing"] == pytest.approx(0.01, abs=0.005)
    view = sensors_view(has_clock=False, labels=True)
    model = fitted(view, ("components",), trials=1)
    found = TASK.drift_reference(TASK.reference(model), view, model.settings)
    assert found["false_alarm_rate"] == 0.001


def test_leaving_out_rows_of_sensors_does_not_dull_the_watch_on_the_score(
    turbines: RowsView, ridge: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TASK.drift_reference(TASK.reference(ridge), turbines, ridge.settings)
    rows = turbines.count("train") + turbines.count("calibrate")
    monkeypatch.setattr(drift, "_MOST_ROWS", rows // 4)
    thinned = TASK.drift_reference(TASK.reference(ridge), turbines, ridge.settings)
    assert thinned["window"] == pytest.approx(whole["window"], rel=0.01)
    nulls = [made["columns"]["score"]["null_q"] for made in (whole, thinned)]
    assert nulls[1] == pytest.approx(nulls[0], rel=0.2)
