from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy as safetensors

from genba.core.codec import decode, encode
from genba.core.line import Limit, Retrain
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.core.task import Comparison
from genba.core.values import (
    EngineChoice,
    Manifest,
    Measure,
    PackageFile,
    Signature,
    Tensor,
    Verdict,
)
from genba.data.view import DatasetView
from genba.learn.models import load_model
from genba.learn.noise import LabelNoise
from genba.learn.rows import RowsView
from genba.runs.effort import Effort
from genba.runs.progress import SilentProgress
from genba.runs.stage import StageContext
from genba.stages import evaluate as stage
from genba.stages import rival
from genba.stages.evaluate import evaluate, worse
from genba.stages.label_noise import label_noise
from genba.stages.rival import FROZEN, NEWEST, translated
from genba.stages.train import train
from genba.testing.generated import generated_view


@dataclass(frozen=True)
class Made:
    context: StageContext
    view: DatasetView

    def with_(self, **changes: Any) -> StageContext:
        return replace(self.context, **changes)


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    with generated_view("sensor.anomaly", rows=600) as (store, view):
        context = StageContext(
            line=view.line,
            store=store,
            run="run-1",
            inputs={"prepare": {"dataset": view.digest}},
            effort=Effort.simple(trials=2),
            progress=SilentProgress(),
        )
        yield Made(replace(context, inputs={**context.inputs, "train": train(context)}), view)


def package(made: Made, name: str = "champion", **changes: Any) -> str:
    """Record the model of the fixture as a package, as another model version."""
    store, result = made.context.store, made.context.inputs["train"]
    task = resolve("task", "sensor.anomaly")()
    model = load_model(store, result)
    graph = task.export(model)
    manifest = Manifest(
        **{
            "format": 1,
            "line": made.context.line.name,
            "task": "sensor.anomaly",
            "model": "another",
            "run": "run-0",
            "dataset": made.view.digest,
            "engine": EngineChoice(
                name="onnxruntime", settings={"precision": "float32", "threads": 1}
            ),
            "signature": task.signature(model.settings),
            "settings": model.settings,
            "entities": made.view.entities,
            "files": {"model.onnx": PackageFile(digest=store.blobs.put(graph), size=len(graph))},
            "verdict": Verdict(passed=True),
            **changes,
        }
    )
    store.ledger.record("package", name, encode(manifest), line=manifest.line)
    return name


def test_a_good_model_goes_on_with_its_evidence(made: Made) -> None:
    result = evaluate(made.context)
    assert "stop" not in result
    assert decode(Verdict, result["verdict"]).passed
    assert decode(Measure, result["measures"]["r2"]).value > 0.9
    assert "isolation forest" in result["baselines"]
    assert result["not_compared"] == "nothing is in production yet"
    assert result["label_noise"] is None
    evidence = safetensors.load(made.context.store.blobs.read(result["scores"]))
    assert len(evidence["row"]) == made.view.count("test") == len(evidence["alarm"])


def test_a_missed_gate_stops_the_run_hardest_first(made: Made) -> None:
    gates = {
        "r2": Limit(min=0.999999),
        "mae": Limit(max=0.001),
        "injected_missed_rate": Limit(max=1.0),
    }
    line = replace(made.context.line, gates=gates)
    stop = evaluate(made.with_(line=line))["stop"]
    assert len(stop) == 2
    assert stop[0].startswith("mae is ")
    assert "at most 0.001 is asked for" in stop[0]
    assert stop[1].startswith("r2 is ")


def test_a_misspelt_gate_is_refused_with_the_nearest_measure(made: Made) -> None:
    line = replace(made.context.line, gates={"false_alarm_per_day": Limit(max=1)})
    with pytest.raises(Problem) as caught:
        evaluate(made.with_(line=line))
    assert caught.value.code == "G504"
    assert "did you mean false_alarms_per_day?" in caught.value.what


def test_a_model_is_not_worse_than_itself_in_production(made: Made) -> None:
    result = evaluate(made.with_(extra={"champion": package(made)}))
    found = [decode(Comparison, c) for c in result["comparisons"]]
    assert {c.where for c in found} == {FROZEN}
    assert {c.name for c in found} == {"loss", "false_alarms_per_day", "injected_missed_rate"}
    assert not any(c.worse or c.better for c in found)
    assert "stop" not in result


def test_what_cannot_be_compared_says_why(made: Made) -> None:
    same = package(made, "same", model=made.context.inputs["train"]["model"])
    result = evaluate(made.with_(extra={"champion": same}))
    assert result["not_compared"] == "this very model is in production"
    settings = {**made.context.inputs["train"]["settings"], "sensors": ["other"]}
    other = package(made, "other", settings=settings)
    result = evaluate(made.with_(extra={"champion": other}))
    assert "other sensors" in result["not_compared"]


def test_a_worse_challenger_is_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The champion is the same model; the challenger's predictions are spoilt."""
    task = resolve("task", "sensor.anomaly")

    def spoilt(self: Any, model: Any) -> Any:
        predict = reference(self, model)

        def run(tensors: Any) -> Any:
            found = predict(tensors)
            return {**found, "expected": found["expected"] * 1.05}

        return run

    reference = task.reference
    monkeypatch.setattr(task, "reference", spoilt)
    result = evaluate(made.with_(extra={"champion": package(made, "better")}))
    assert len(result["stop"]) == 1
    assert result["stop"][0].startswith(f"On the {FROZEN} the challenger is worse in loss")


def comparison(name: str, where: str, *, worse: bool = False, better: bool = False) -> Comparison:
    return Comparison(
        name=name,
        where=where,
        difference=Measure(value=0.0),
        worse=worse,
        better=better,
        reason=f"{name} {where}",
    )


def test_adapting_to_a_changed_world_is_forgiven_measure_by_measure() -> None:
    lost = comparison("loss", FROZEN, worse=True)
    assert worse([lost]) == [f"loss {FROZEN}"]
    assert worse([lost, comparison("loss", NEWEST, better=True)]) == []
    assert worse([lost, comparison("missed", NEWEST, better=True)]) == [f"loss {FROZEN}"]
    newest = comparison("loss", NEWEST, worse=True)
    assert worse([newest, comparison("loss", FROZEN, better=True)]) == [f"loss {NEWEST}"]


def test_entities_are_known_by_name_not_by_number(made: Made) -> None:
    manifest = decode(Manifest, made.context.store.ledger.get("package", package(made)))
    seen = []

    def predict(tensors: Any) -> Any:
        seen.append(tensors["entity"].tolist())
        return {}

    run = translated(predict, manifest, ("new", "south", "north"))
    run({"entity": np.array([0, 1, 2, -1]), "window": np.zeros(1)})
    assert seen == [[-1, 1, 0, -1]]


def live_rows(wrong: float) -> tuple[RowsView, Any, dict[str, Any]]:
    """Alarms of an entity that last an hour; half of them are real faults, and look it."""
    rng = np.random.default_rng(0)
    rows, step = 600, 600_000
    fault = np.repeat(rng.random(rows // 6) < 0.5, 6)
    time = (np.arange(rows) + 12 * (np.arange(rows) // 6)) * step
    flips = rng.random(rows) < wrong
    with generated_view("sensor.anomaly", rows=200) as (_, view):
        task = resolve("task", "sensor.anomaly")()
        settings = task.derive(view.line, view)
        columns = {
            "entity": np.zeros(rows, dtype=np.int64),
            "time": time,
            "label": np.where(fault ^ flips, 1.0, 0.0),
            "split": np.full(rows, "train"),
            **{n: rng.normal(0, 0.1, rows) + 3 * fault for n in settings["sensors"]},
        }
        columns["label"][::7] = np.nan  # nobody answered
        return RowsView(view.line, columns), task, settings


def scored(tensors: Any) -> Any:
    return {"score": np.ones(len(tensors["window"]))}


def test_noisy_feedback_is_measured() -> None:
    for wrong, refused in ((0.0, False), (0.05, False), (0.3, True)):
        view, task, settings = live_rows(wrong)
        found = label_noise(task, scored, view, settings)
        assert isinstance(found, LabelNoise)
        assert found.exceeds(0.1) == refused
        assert found.rate.value == pytest.approx(wrong, abs=0.1)


def test_noisy_feedback_stops_the_run(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = LabelNoise(
        rate=Measure(value=0.3, low=0.2, high=0.4, method="estimated"), labels=200, pairs=90
    )
    monkeypatch.setattr(stage, "label_noise", lambda *_: noise)
    result = evaluate(made.context)
    assert "0.3 [0.2 to 0.4] (estimated) of 200 labels" in result["stop"][0]
    lenient = replace(made.context.line, retrain=Retrain(label_noise=0.25))
    assert "stop" not in evaluate(made.with_(line=lenient))


def test_labels_that_are_plain_numbers_say_nothing_about_noise() -> None:
    view, task, settings = live_rows(0.3)
    columns = {n: c for n, c in view._columns.items() if n != "row"}
    columns["label"] = columns["label"] * 12.5
    assert label_noise(task, scored, RowsView(view.line, columns), settings) is None


def test_a_rival_answers_with_the_parameters_it_serves_with(made: Made) -> None:
    store = made.context.store
    manifest = decode(Manifest, store.ledger.get("package", package(made)))
    bar = Tensor(name="bar", datatype="FP32", shape=(-1,), role="parameter", default=1.0)
    inputs = (manifest.signature.inputs[0], bar)
    manifest = replace(manifest, signature=replace(manifest.signature, inputs=inputs))
    seen: list[Any] = []

    def predict(tensors: Any) -> Any:
        seen.append(tensors)
        return {}

    samples = {"window": np.zeros((2, 3)), "bar": np.ones(2), "new": np.zeros(2)}
    translated(predict, manifest, ())(samples)
    translated(predict, manifest, (), {"bar": 2.5})(samples)
    assert [t["bar"].tolist() for t in seen] == [[1.0, 1.0], [2.5, 2.5]]
    assert all(set(t) == {"window", "bar"} for t in seen)  # what it does not know, it is not given


def test_a_tuned_champion_is_judged_as_it_was_tuned(made: Made) -> None:
    store, name = made.context.store, package(made, "tuned")
    body = {"parameter": "bar", "value": 3.0, "reason": "drill", "by": "test", "evidence": {}}
    store.ledger.append("tune", body, line=made.context.line.name, subject=name)
    manifest = decode(Manifest, store.ledger.get("package", name))
    found = rival._rival(store, name, manifest, made.view.entities)
    samples = made.context.inputs["train"]["settings"]
    window = np.zeros((1, samples["lags"], len(samples["sensors"])), dtype=np.float32)
    try:
        answer = found.predict({"window": window, "entity": np.zeros(1, dtype=np.int64)})
    finally:
        found.engine.close()
    assert set(answer) == {"score", "alarm", "expected"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"task": "sensor.other"}, "another task"),
        ({"signature": Signature(inputs=(), outputs=())}, "takes other inputs"),
        ({"classes": ("good", "scratch")}, "knows classes"),
    ],
)
def test_a_package_of_another_kind_is_no_rival(made: Made, changes: Any, why: str) -> None:
    name = package(made, f"apart-{why}", **changes)
    result = evaluate(made.with_(extra={"champion": name}))
    assert why in result["not_compared"]
    assert result["comparisons"] == []
