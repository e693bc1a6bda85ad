"""A sensor that is missing: what is answered without it, and that it is never silent."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from genba.core.line import Data, Join, Limit, Line, Train
from genba.core.protocols import Array
from genba.core.task import Model, Samples
from genba.learn.absent import absences, blanked, sources
from genba.learn.rows import RowsView
from genba.runs.effort import Effort
from genba.runs.progress import SilentProgress
from genba.stages import without
from genba.stages.gates import judge
from genba.tasks.sensor.anomaly import SensorAnomaly, absent, schema
from genba.tasks.sensor.remaining_life import absent as dropped
from genba.tasks.sensor.remaining_life import fit
from genba.tasks.sensor.remaining_life.bodies import Training

TASK = SensorAnomaly()
STEP = 600_000


def table(rows: int = 3_000) -> dict[str, Array]:
    """Wind and a second anemometer, temperature, and the power that follows from them."""
    rng = np.random.default_rng(0)
    speed = 10 + 3 * np.sin(np.arange(rows) / 40) + rng.normal(0, 1, rows)
    warm = 15 + 8 * np.sin(np.arange(rows) / 500) + rng.normal(0, 1, rows)
    power = 40 * np.maximum(0.0, speed - 4) * (1 - 0.004 * warm) + rng.normal(0, 6, rows)
    split = np.repeat(["train", "calibrate", "test"], [rows * 3 // 5, rows // 5, rows // 5])
    return {
        "entity": np.zeros(rows, dtype=np.int64),
        "time": np.arange(rows) * STEP,
        "label": np.full(rows, np.nan),
        "split": split,
        "speed": speed,
        "wind.speed": speed + rng.normal(0, 0.3, rows),
        "wind.warm": warm,
        "power": power,
    }


def line(output: str | None, candidate: str) -> Line:
    joined = {"wind": Join(source="files:b", within_s=5)}
    names = ("speed", "wind.speed", "wind.warm")
    data = Data(
        source="x:",
        time="t",
        inputs=names if output else (*names, "power"),
        output=output,
        join=joined,
    )
    return Line(
        name="a",
        task="sensor.anomaly",
        data=data,
        train=Train(candidates=(candidate,)),
        gates={"false_alarms_per_day": Limit(max=2)},
    )


CASES = [("power", "ridge"), ("power", "boosting"), (None, "ridge"), (None, "components")]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def fitted(request: pytest.FixtureRequest) -> tuple[RowsView, Model]:
    made = line(*request.param)
    view = RowsView(made, table(), ("a",))
    return view, TASK.fit(view, TASK.derive(made, view), Effort.simple(trials=1))


def windows(view: RowsView, model: Model) -> dict[str, Array]:
    return dict(schema.gather(list(schema.read(view, "test", model.settings))).tensors)


def test_the_graph_answers_as_the_reference_whatever_is_missing(
    fitted: tuple[RowsView, Model],
) -> None:
    view, model = fitted
    tensors = windows(view, model)
    session = ort.InferenceSession(TASK.export(model), providers=["CPUExecutionProvider"])
    sensors = list(model.settings["sensors"])
    some = [(), *((name,) for name in sensors), tuple(sensors[:2]), tuple(sensors)]
    for missing in some:
        blind = TASK.without(tensors, missing, model.settings)
        wanted, found = TASK.reference(model)(blind), session.run(None, dict(blind))
        parity = TASK.parity(wanted, dict(zip(("score", "alarm", "expected"), found, strict=True)))
        assert parity.passed, (missing, parity)


def test_with_every_sensor_nothing_changes(fitted: tuple[RowsView, Model]) -> None:
    view, model = fitted
    tensors = windows(view, model)
    plain = {n: a for n, a in model.arrays.items() if not n.startswith("guess.")}
    before, after = TASK.reference(replace(model, arrays=plain)), TASK.reference(model)
    for name, values in before(tensors).items():
        np.testing.assert_array_equal(values, after(tensors)[name])


def test_false_alarms_keep_their_budget_without_any_sensor(fitted: tuple[RowsView, Model]) -> None:
    view, model = fitted
    budget = float(model.settings["alarm_budget"]["value"])
    for missing in TASK.absences(model.settings).values():
        blind = TASK.without(windows(view, model), missing, model.settings)
        alarms = TASK.reference(model)(blind)["alarm"]
        days = len(alarms) * STEP / 86_400_000
        assert alarms.sum() / days <= 20 * budget, missing  # before: nearly every row


def test_a_missing_sensor_is_guessed_from_the_others(fitted: tuple[RowsView, Model]) -> None:
    # The second anemometer stands in for the first: nearly as good, and far better than nothing.
    view, model = fitted
    full = TASK.score(TASK.reference(model), view, "test", model.settings)
    found = without.measured(
        TASK, TASK.reference(model), view, full, model.settings, SilentProgress()
    )
    assert list(found["missing"])[-1] == "all of wind"
    assert set(model.settings["without"]) == {
        s for s in model.settings["sensors"] if s not in model.settings["outputs"]
    } | (set(model.settings["sensors"]) if model.settings["mode"] == "sensors" else set())
    if model.settings["mode"] == "regression":
        r2 = {name: one["measures"]["r2"]["value"] for name, one in found["missing"].items()}
        assert r2["speed"] > 0.8
        assert r2["speed"] < found["full"]["value"]
        (loss, *_) = found["missing"]["speed"]["differences"]
        assert loss["difference"]["low"] > 0.0  # paired: the interval says that it is worse
        assert without.worst(found)[without.WORST].value == min(
            r2[name] for name in r2 if not name.startswith("all")
        )
        assert without.sentences(found)[-1].startswith("without ")


def test_what_goes_missing_together_is_wider_than_each_alone() -> None:
    # Two that stand in for each other: alone nothing is lost, together much.
    added = absent.widths(1.0, np.array([1.0, 1.0, 3.0]), {(0, 1): 9.0})
    assert added.tolist() == [4.0, 4.0, 2.0]
    assert absent.widths(1.0, np.array([0.5, 1e9]), {}).tolist() == [0.0, 1e3]


def test_one_input_cannot_be_guessed() -> None:
    assert (
        absent.train(
            np.ones((5, 2)),
            np.ones(2),
            {"sensors": ["a", "b"], "outputs": ["b"], "mode": "regression"},
        )
        == {}
    )


def test_what_may_be_missing() -> None:
    made = line("power", "ridge")
    assert sources(made) == {"sources": {"wind": ["wind.speed", "wind.warm"]}}
    assert sources(replace(made, data=replace(made.data, join={}))) == {}
    assert list(absences(["speed", "wind.speed"], sources(made))) == ["speed", "wind.speed"]


def test_blanking_leaves_what_was_given_alone() -> None:
    given: dict[str, Array] = {
        "window": np.ones((2, 3, 2), dtype=np.float32),
        "entity": np.zeros(2),
    }
    made = blanked(given, ("b",), {"window": ("a", "b"), "future": ("b",)})
    assert np.isnan(made["window"][..., 1]).all()
    assert np.isfinite(given["window"]).all()
    assert made["entity"] is given["entity"]


def found(main: str, larger: bool, **values: float | None) -> Mapping[str, Any]:
    missing = {
        name: {"sensors": [name], "measures": {} if v is None else {main: {"value": v}}}
        for name, v in values.items()
    }
    return {"measure": main, "larger_is_better": larger, "full": {"value": 2.0}, "missing": missing}


def test_the_sentences_begin_with_what_is_missed_most() -> None:
    told = found("rmse", False, a=2.0, b=9.0, c=None)
    assert without.sentences(told) == [
        "without c there is no rmse",
        "without b rmse rises from 2 to 9",
        "without a rmse stays at 2",
    ]
    assert without.worst(told)[without.WORST].value == 9.0
    assert without.sentences({}) == []
    assert without.worst({}) == {}


def test_a_gate_can_name_the_worst() -> None:
    told = found("f1", True, a=0.9, b=0.1)
    verdict = judge({without.WORST: Limit(min=0.5)}, without.worst(told))
    assert verdict.reasons == ("worst_without_one_sensor is 0.1; at least 0.5 is asked for.",)


def lives(blind: Array | None) -> Training:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2)).astype(np.float32)
    target = 50.0 + 5.0 * x.sum(axis=1)
    unit = np.repeat(np.arange(10), 30)
    return Training(x=x, target=target, left=target, unit=unit, age=target, top=100.0, blind=blind)


def test_a_life_is_learnt_with_sensors_dropped_where_that_costs_nothing() -> None:
    trial = {"candidate": "ridge", "settings": {"knots": 0, "penalty": 0.01}}
    same, none = lives(None).x, np.zeros((300, 2), dtype=np.float32)
    kept = fit._hardened(trial, lives(same), 0)
    assert kept.blind is same  # the rows themselves once more: nothing is lost
    assert fit._hardened(trial, lives(none), 0).blind is None  # half the signal would be


def test_every_row_loses_one_sensor_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"sensors": ["a", "b", "c"], "used": ["a"], "regimes": {"conditions": ["c"]}}
    monkeypatch.setattr(dropped, "features", lambda t, *_: np.isnan(t["window"]).any(axis=1))
    count = np.arange(4)
    window = np.zeros((4, 2, 3), dtype=np.float32)
    samples = Samples(
        tensors={"window": window},
        entity=count.astype(np.int32),
        time=count,
        row=count,
        label=count.astype(np.float64),
        truth=np.zeros((4, 1)),
    )
    found = dropped.blind_features(samples, settings, {})
    assert found.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]  # never the unused b
    assert np.isfinite(window).all()
