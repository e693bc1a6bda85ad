"""The report says what the ledger says, and names what was not shown."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from genba.core.line import Data, Line
from genba.core.values import Event
from genba.stages.deploy import deploy
from genba.stages.pipeline import RunOutcome
from genba.store.home import Store
from genba.targets.cost import bill
from genba.testing.serving import small_package
from genba.ui.demo.drills import Drill
from genba.ui.demo.plan import Plan, wind_farm
from genba.ui.demo.play import Scene
from genba.ui.demo.report import not_shown, total_bill, write_report
from genba.ui.demo.story import Story

LINE = Line(name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv"))
NOTHING = RunOutcome(
    run="run-1",
    outcome="refused",
    package=None,
    model=None,
    stages=(),
    results={},
    stop=("r2 is 0.5.",),
    bill=bill(0, 0),
    deployed=False,
)
DRILL = Drill(
    name="latency",
    injected="delay_ms 100",
    package="p",
    rolled_back=True,
    bad_answers=3,
    seconds=0.5,
    reason="too slow",
)


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


@pytest.fixture
def scene(store: Store) -> Scene:
    plan = Plan(line=LINE, train_until="2026-02-01", live_until="2026-03-01", entities=("P-1",))
    story = Story(store, "pump", lambda _: None)
    return Scene(plan=plan, line=plan.early, store=store, story=story, first=NOTHING, survey={})


def last(scene: Scene) -> Event:
    return scene.story.read()[-1]


def test_what_was_not_shown_is_null_and_said(scene: Scene) -> None:
    report = write_report(scene)
    for name in ("gates", "promoted", "canary", "promotion", "poisoned", "trace", "status"):
        assert report[name] is None, name
    assert report["drills"] == report["drift"] == report["feedback"] == report["runs"] == []
    assert report["bill"]["joules"]["value"] == 0
    assert len(report["not_shown"]) == 4
    scene.drills.append(replace(DRILL, rolled_back=False))
    assert "latency" in not_shown(scene)[-1]


def test_a_loop_that_closed_has_nothing_missing(store: Store, scene: Scene) -> None:
    first, second = (small_package(store, "pump", seed=seed) for seed in (0, 1))
    scene.first = replace(NOTHING, package=first, model="model-0", deployed=True)
    deploy(store, "pump", "deploy", first, reason="the first", by="a test")
    for psi in (0.5, 0.9):
        drift = {"name": "wind", "kind": "input", "statistic": psi, "null_q": 0.2, "drifted": True}
        calm = {**drift, "name": "air", "drifted": False}
        missing = {**drift, "name": "speed", "kind": "quality"}
        body = {"package": first, "findings": [drift, calm, missing]}
        store.ledger.append("watch", body, line="pump")
    deploy(store, "pump", "canary", second, share=0.1, reason="it passed", by="a test")
    scene.canary = last(scene)
    deploy(store, "pump", "promote", second, reason="it is better", by="a test")
    scene.promoted = last(scene).subject
    poisoned = {
        "run": "run-2",
        "outcome": "refused",
        "reason": "labels: 30",
        "stop": ["too noisy"],
        "label_noise": {"value": 0.3},
    }
    store.ledger.append("run.finished", poisoned, line="pump", subject="run-2")
    scene.poisoned = last(scene)
    scene.drills.append(DRILL)

    report = write_report(scene)
    assert report["not_shown"] == []
    assert report["promoted"] == {"package": second, "model": "model-1"}
    assert report["promotion"]["reason"] == "it is better"
    assert report["canary"]["share"] == 0.1
    assert [(f["name"], f["statistic"]) for f in report["drift"]] == [("wind", 0.5)]
    assert report["poisoned"] == {
        "run": "run-2",
        "outcome": "refused",
        "reasons": ["too noisy"],
        "label_noise": {"value": 0.3},
    }
    assert report["drills"][0]["seconds"] == 0.5

    accepted = {**poisoned, "outcome": "done", "package": second}
    store.ledger.append("run.finished", accepted, line="pump", subject="run-2")
    scene.poisoned = last(scene)
    assert not_shown(scene) == ["The run on poisoned labels was not refused."]


def test_the_bill_is_of_all_runs_and_all_predictions(store: Store, scene: Scene) -> None:
    for run in ("run-1", "run-2"):
        body = {"run": run, "outcome": "refused", "seconds": 2.0, "cpu_seconds": 3.0}
        store.ledger.append("run.finished", body, line="pump", subject=run)
    store.ledger.append("run.finished", {"run": "run-3", "outcome": "failed"}, line="pump")
    packages = {"a": {"cpu_seconds": 0.5}, "b": {"cpu_seconds": 0.25}, "c": {}}
    store.ledger.append("capture.created", {"packages": packages}, line="pump")
    scene.story.read()
    assert total_bill(scene) == bill(4.75, 6.75)


def test_the_plan_of_the_wind_farm_trains_on_its_past_only() -> None:
    plan = wind_farm(LINE)
    assert plan.early.data.until == plan.train_until < plan.live_until
    assert plan.early.data.entities == plan.entities
    assert len(plan.entities) == 3, "the fourth turbine is a stranger"
    assert plan.line is LINE
