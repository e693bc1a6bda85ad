"""Fitting a whole plan from rows: what the model can do without, rules, images and classes."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genba.core.protocols import Tensors
from genba.core.values import Signature, Tensor
from genba.edge.safety.plan import Fallback
from genba.learn.safety.series import Series
from genba.stages.assurance_clean import Clean
from genba.stages.assurance_manifest import Evidence, bare_manifest, manifest_of
from genba.stages.assurance_plan import Found, Ground, Made, fit_plan, with_deadline
from genba.stages.assurance_rows import Decision, Gathered, Sensors, decision_of
from genba.stages.assurance_without import look
from tests.unit.test_safety_assure import line_with

STEP = 1_000
NAMES = ("flow", "power", "noise")
SENSORS = Sensors(names=NAMES, tensor="window", first=3)


def tensor(name: str, shape: tuple[int, ...], role: str) -> Tensor:
    return Tensor(name=name, datatype="FP32", shape=shape, role=role)


def says(tensors: Tensors) -> dict[str, Any]:
    """A model that alarms where power is not twice flow; it reads nothing else."""
    window = np.asarray(tensors["window"], dtype=np.float64)
    score = np.abs(window[:, -1, 1] - 2 * window[:, -1, 0]) / 5
    score = np.where(np.isfinite(score), score, 0.0).astype(np.float32)
    expected = np.nan_to_num(2 * window[:, -1, :1])
    return {"score": score, "alarm": score > 1, "expected": expected}


def looking_back(tensors: Tensors) -> dict[str, Any]:
    """The same, on the mean of the newest two readings."""
    window = np.nan_to_num(np.asarray(tensors["window"], dtype=np.float64))
    return says({"window": window.mean(axis=1, keepdims=True)})


def gathered(seed: int, rows: int = 3_000) -> tuple[Gathered, Tensors]:
    chance = np.random.default_rng(seed)
    flow = 50 + 20 * np.sin(np.arange(rows) / 40) + chance.normal(0, 1, rows)
    power = 2 * flow + chance.normal(0, 1, rows)
    power[::25] += 30.0  # what the model alarms on
    values = np.stack([flow, power, chance.normal(0, 1, rows)], axis=1)
    window = np.stack([np.concatenate([values[:1], values[:-1]]), values], axis=1)
    tensors: Any = {"window": window.astype(np.float32)}
    entity = (np.arange(rows) >= rows // 2).astype(np.int64)
    series = Series(
        values=values,
        entity=entity,
        time=np.arange(rows, dtype=np.int64) * STEP,
        normal=np.ones(rows, dtype=np.bool_),
        step=STEP,
    )
    row = np.arange(rows, dtype=np.int64)
    outputs = says(tensors)
    return Gathered(series=series, outputs=outputs, row=row, label=np.full(rows, np.nan)), tensors


def ground(modality: str = "table", **more: Any) -> Ground:
    signature = Signature(
        inputs=(tensor("window", (-1, 2, 3), "feature"),),
        outputs=tuple(
            tensor(r, (-1, 1) if r == "expected" else (-1,), r)
            for r in ("alarm", "score", "expected")
        ),
    )
    manifest: Any = SimpleNamespace(signature=signature, entities=("north", "south"), settings={})
    view: Any = SimpleNamespace(modality=modality, has_clock=True)
    calibrate, tensors = gathered(2)
    given: dict[str, Any] = {
        "line": line_with(),
        "view": view,
        "manifest": manifest,
        "package": "ab",
        "sensors": SENSORS,
        "decision": decision_of(signature),
        "train": gathered(1)[0],
        "calibrate": calibrate,
        "tensors": tensors,
    }
    return Ground(**{**given, **more})


def test_what_the_model_can_do_without_is_found_by_trying() -> None:
    found = look(ground(), says)
    assert found.tolerated.tolist() == [False, False, True]
    assert found.looks_back == 0
    assert look(ground(), looking_back).looks_back == 1


def test_with_too_few_alarms_nothing_is_taken_to_be_dispensable() -> None:
    few = {"window": np.asarray(ground().tensors["window"])[1:20]}
    found = look(ground(tensors=few), says)
    assert not found.tolerated.any()
    assert found.looks_back == 1


def test_a_rule_is_offered_only_where_it_decides_as_the_model_does() -> None:
    """No threshold on two sensors alone is a ratio, but the tree comes near enough."""
    chain = look(ground(), says).fallback
    assert "power" not in chain.rules  # flow and noise say nothing about power
    assert "flow" not in chain.rules
    for name, rule in chain.rules.items():
        assert name not in rule.inputs
        assert rule.agreement >= 0.89
    assert chain.chain[-1] == "abstain"
    numbers = look(ground(decision=Decision(by="expected", name="expected")), says)
    assert numbers.fallback.rules == {}


@pytest.fixture(scope="module")
def made() -> Made:
    return fit_plan(ground(), look(ground(), says))


def test_a_plan_of_sensors_watches_each_by_what_explains_it(made: Made) -> None:
    plan = made.plan
    assert [c.name for c in plan.channels] == list(NAMES)
    assert [c.index for c in plan.channels] == [3, 4, 5]
    assert plan.channels[0].low < 25 < 75 < plan.channels[0].high
    assert plan.timing.stale_ms == 2_500
    assert plan.unusual[0].by == "entity"
    assert set(plan.unusual[0].categories) == {"north", "south"}
    assert plan.plausible is not None
    assert plan.plausible.cross[0] > 0
    assert plan.plausible.cross[2] == 0
    assert (plan.answers.alarm, plan.answers.check_every) == ("alarm", 6)
    assert plan.answers.most_step > 0


def test_limits_of_the_line_win_over_what_is_derived() -> None:
    line = line_with(limits={"abstain": 0.1, "stale_ms": 700, "react": 3, "deadline_ms": 40})
    found = Found(tolerated=np.zeros(3, np.bool_), looks_back=1, fallback=Fallback())
    plan = with_deadline(fit_plan(ground(line=line), found).plan, line, 1.0)
    assert (plan.timing.stale_ms, plan.timing.react) == (700, 3)
    assert plan.timing.deadline_ms == 40
    assert plan.answers.check_every == 3
    score = np.asarray(ground().calibrate.outputs["score"], dtype=np.float64)
    near = np.abs(np.log(score[score > 0])) < plan.answers.margin
    assert float(near.mean()) == pytest.approx(0.1, abs=0.01)
    assert plan.timing.history == 1
    assert 0 <= plan.timing.holes < 0.01
    assert with_deadline(plan, line_with(), 2.0).timing.deadline_ms == 20.0


def test_a_model_that_always_alarms_is_watched_for_no_flood() -> None:
    rows, _ = gathered(2)
    every = np.ones(len(rows), dtype=np.bool_)
    loud = Gathered(
        series=rows.series, outputs={**rows.outputs, "alarm": every}, row=rows.row, label=rows.label
    )
    found = Found(tolerated=np.zeros(3, np.bool_), looks_back=0, fallback=Fallback())
    assert fit_plan(ground(calibrate=loud), found).plan.answers.flood == 0


def pictures(rows: int, seed: int) -> Gathered:
    chance = np.random.default_rng(seed)
    chosen = np.arange(rows) % 2
    series = Series(
        values=np.zeros((rows, 0)),
        entity=np.zeros(rows, dtype=np.int64),
        time=np.arange(rows, dtype=np.int64),
        normal=np.ones(rows, dtype=np.bool_),
        step=0,
    )
    outputs = {
        "look": chance.normal(chosen[:, None] * 5, 1, (rows, 3)),
        "class": chosen,
        "probability": np.stack([1 - chosen * 0.9, chosen * 0.9], axis=1),
    }
    return Gathered(series=series, outputs=outputs, row=chosen, label=chosen.astype(np.float64))


def test_a_plan_of_images_looks_at_what_they_look_like_within_their_class() -> None:
    image = Tensor(name="image", datatype="UINT8", shape=(-1, 8, 8, 3), role="image")
    outputs = tuple(tensor(r, (-1,), r) for r in ("look", "class", "probability"))
    signature = Signature(inputs=(image,), outputs=outputs)
    manifest: Any = SimpleNamespace(signature=signature, entities=(), settings={})
    view: Any = SimpleNamespace(modality="image", has_clock=False)
    line = line_with(limits={"abstain": 0.1}, accept=("black",))
    on = ground(
        line=line, view=view, manifest=manifest, sensors=Sensors(), train=pictures(400, 1),
        calibrate=pictures(400, 2), tensors={}, decision=decision_of(signature),
        sizes=((64, 48), (64, 64)),
    )  # fmt: skip
    found = look(on, says)
    plan = fit_plan(on, found).plan
    assert [u.on for u in plan.unusual] == ["look"]
    assert set(plan.unusual[0].categories) == {"0", "1"}
    assert plan.answers.floor > 0
    assert plan.picture is not None
    assert plan.picture.sizes == ((64, 48), (64, 64))
    assert plan.fallback.chain == ("last_good_model", "abstain")
    nothing = Evidence(
        ground=on,
        made=Made(plan=plan, fitted=None),
        clean=Clean(),
        matrix=[],
        timing={},
        curve=None,
    )
    manifest_ = manifest_of(nothing)
    assert manifest_["failing"] == ["false_trips"]  # nothing was shown to be clean
    assert manifest_["odd"]["image_sizes"] == [[64, 48], [64, 64]]
    assert {m["layer"] for m in manifest_["monitors"]} >= {"abstain", "unusual"}
    assert any(risk["risk"] == "time" for risk in manifest_["residual"])
    bare = bare_manifest(line, plan)
    assert (bare["matrix"], bare["failing"]) == ([], [])
    assert bare["statement"] == "not a safety-rated function"
