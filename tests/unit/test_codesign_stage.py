"""The wide search as a stage: what it finds is recorded, and tried first by the next run."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from genba.codesign.values import Point
from genba.core.line import Limit, Limits
from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.resolve import resolve
from genba.core.task import Model
from genba.engines.onnxruntime import OnnxRuntime
from genba.stages import codesign as stage
from genba.stages import optimize, reuse
from genba.stages.optimize_forms import Forms, calibration
from genba.stages.optimize_known import known_points, newest_choice
from genba.stages.optimize_yard import Yard, too_many
from tests.unit.optimize_world import F32, Made, One, Two, numbers, script_engines, trained


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    with trained() as found:
        yield found


@pytest.fixture
def fresh() -> Iterator[Made]:
    """One that no search was made of yet."""
    with trained() as found:
        yield found


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    for kind in (One, Two):  # what ONNX Runtime offers in a wide search is too much for a script
        monkeypatch.setattr(kind, "space", lambda cores: [F32], raising=False)
        monkeypatch.setattr(kind, "forms", dict, raising=False)
    return script_engines(monkeypatch)


def search(made: Made, **target: Any) -> dict[str, Any]:
    gates = target.pop("gates", None)
    line = made.line(gates=gates, engines=("one", "two"), **target)
    return stage.codesign(made.context(line))


def test_it_chooses_by_preference_says_how_sure_and_records_it(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {"one": [numbers(2.0, p99=1.0)], "two": [numbers(1.0, p99=4.0)]}
    cheap = search(made, limits=Limits(latency_ms_p99=9))
    fast = search(made, limits=Limits(latency_ms_p99=9), prefer="latency")
    assert (cheap["choice"]["engine"], fast["choice"]["engine"]) == ("two", "one")
    assert [c["name"] for c in cheap["constraints"]] == ["latency_ms_p99"]
    assert cheap["constraints"][0]["holds"]
    assert cheap["search"]["measurements"] <= 15
    record = made.store.ledger.get("codesign", cheap["record"])
    assert record is not None
    assert record["choice"]["engine"] == "two"
    assert {p["id"] for p in cheap["candidates"] if p["front"]}


def test_batches_are_part_of_the_search_and_can_be_left_out(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {"one": [numbers(2.0)], "two": [numbers(1.0)]}
    result = search(made)
    assert {p["batch"] for p in result["candidates"]} == {1, 64}
    line = made.line(engines=("one", "two"))
    alone = stage.codesign(replace(made.context(line), extra={"batches": [1]}))
    assert {p["batch"] for p in alone["candidates"]} == {1}


def test_what_was_found_is_offered_first_by_the_next_run_and_changes_its_key(
    made: Made, scripted: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = {**F32, "threads": 2}
    monkeypatch.setattr(Two, "space", lambda cores: [F32, rare])
    scripted |= {"one": [numbers(9.0)], "two": [numbers(5.0), numbers(1.0)]}
    line = made.line(engines=("one", "two"), prefer="energy")
    context = made.context(line)
    before = reuse._searched(context)
    result = stage.codesign(context)
    assert reuse._searched(context) == {"searched": result["record"]} != before
    (known,) = known_points(made.store, line)
    assert known == Point(engine=result["choice"]["engine"], settings=result["choice"]["settings"])
    ran = optimize.optimize(context)
    assert ran["candidates"][0]["settings"] == dict(known.settings)
    assert known_points(made.store, made.line(device="elsewhere")) == ()
    assert newest_choice(made.store, replace(line, name="another")) is None


def test_impossible_limits_name_the_nearest_and_what_to_type(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {"one": [numbers(1.0, p99=30.0)], "two": [numbers(1.0, p99=4.0)]}
    result = search(made, limits=Limits(latency_ms_p99=0.1))
    assert "choice" not in result
    assert result["nearest"]["label"].startswith("two")
    assert result["nearest"]["relax"] == ["--set target.limits.latency_ms_p99=4.4"]
    assert result["stop"][-1].startswith("To accept it: genba codesign ")
    assert not result["constraints"][0]["holds"]


def test_a_gate_that_nothing_reaches_is_a_constraint_too(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {"one": [numbers(1.0)], "two": [numbers(2.0)]}
    result = search(made, gates={"r2": Limit(min=0.999999)})
    assert result["nearest"]["misses"][0].startswith("r2 is 0.9")
    assert result["nearest"]["relax"][0].startswith("--set gates.r2.min=0.9")
    assert result["stop"][0].startswith("The exported model: r2 is")


def test_a_gate_of_a_whole_run_is_left_to_it_and_says_so(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {"one": [numbers(1.0)], "two": [numbers(2.0)]}
    result = search(made, gates={"better_than_before": Limit(min=0.1)})
    assert "stop" not in result
    assert result["judged_later"] == ["better_than_before"]


def test_limits_below_the_weights_alone_still_name_a_nearest_point(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {"one": [numbers(1.0)], "two": [numbers(1.0)]}
    result = search(made, limits=Limits(size_mib=1e-6))
    assert result["nearest"]["relax"][0].startswith("--set target.limits.size_mib=")


def test_when_nothing_can_be_tried_each_reason_is_told_once(
    fresh: Made, scripted: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [{**F32, "threads": threads} for threads in (64, 128)]
    for kind in (One, Two):
        monkeypatch.setattr(kind, "candidates", lambda cores: many)
        monkeypatch.setattr(kind, "space", lambda cores: many, raising=False)
    result = search(fresh)
    first, *reasons = result["stop"]
    assert first == "Nothing could be tried on this-machine."
    assert any(" more: It asks for 64 cores" in reason for reason in reasons)


def test_a_graph_that_nothing_is_known_of_on_a_device_of_the_catalogue_is_left_out(
    made: Made, scripted: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba.stages.optimize_design.Expectations.fill", lambda *_: 0)
    scripted |= {"one": [numbers(1.0)], "two": [numbers(1.0)]}
    result = search(made, device="raspberry-pi-5")
    assert "models no such graph" in " ".join(result["stop"])


@pytest.mark.parametrize("code", ["G625", "G626", "G627"])
def test_a_candidate_that_crashes_hangs_or_eats_memory_is_one_refused_point(
    made: Made, scripted: dict[str, list[Any]], code: str
) -> None:
    ended = Problem(code, "It was ended.", why="SIGKILL", tries=["x"])
    scripted |= {"one": [ended], "two": [numbers(2.0)]}
    result = search(made)
    assert result["choice"]["engine"] == "two"
    refused = next(p for p in result["candidates"] if p["why"])
    assert (refused["engine"], refused["refused"], refused["why"]) == (
        "one",
        ["It was ended."],
        "SIGKILL",
    )


def test_a_target_that_goes_away_ends_the_search_and_says_so(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    gone = Problem("G628", "The target went away.", tries=["x"])
    scripted |= {"one": [numbers(1.0), gone], "two": [gone]}
    with pytest.raises(Problem) as ended:
        search(made)
    assert ended.value.code == "G628"


def test_a_target_of_the_catalogue_is_modelled_and_says_so(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    here = {**numbers(1.0, p50=1.0, p99=1.5), "load": numbers(1.0)["cpu_ms"]}
    scripted |= {"one": [here], "two": [here]}
    monkeyed = search(made, device="raspberry-pi-5")
    chosen = next(p for p in monkeyed["candidates"] if p["chosen"])
    assert chosen["stand"] == "modelled"
    assert "not measured there" in " ".join(chosen["notes"])
    assert not monkeyed["search"]["measured_there"]


class TestThreshold:
    """A form in fewer bits gets a threshold of its own before it is judged."""

    @pytest.fixture
    def rough(self, monkeypatch: pytest.MonkeyPatch) -> list[Model]:
        """Let "one" say that it computes in bfloat16, and the task fit its threshold again."""
        task = resolve("task", "sensor.anomaly")
        settings = {**F32, "precision": "bfloat16"}
        monkeypatch.setattr(One, "candidates", lambda cores: [settings])
        monkeypatch.setattr(One, "__init__", _in_bfloat16)
        refitted: list[Model] = []

        def refit(self: Any, model: Model, predict: Any, view: Any) -> Model:
            refitted.append(model)
            known = {**model.settings, "calibration": {"refitted": 1.1}}
            return replace(model, settings=known)

        monkeypatch.setattr(task, "refit", refit, raising=False)
        return refitted

    def test_it_is_fitted_once_and_the_package_gets_the_model(
        self, fresh: Made, scripted: dict[str, list[Any]], rough: list[Model]
    ) -> None:
        scripted |= {"one": [numbers(1.0)]}
        result = optimize.optimize(fresh.context(fresh.line(engines=("one",))))
        assert len(rough) == 1
        assert result["engine"]["settings"]["precision"] == "bfloat16"
        assert result["model"]["settings"]["calibration"] == {"refitted": 1.1}
        assert "+10.00 %" in result["threshold"]

    def test_a_form_that_decides_otherwise_gets_a_second_chance_with_its_own_threshold(
        self,
        fresh: Made,
        scripted: dict[str, list[Any]],
        rough: list[Model],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        task = resolve("task", "sensor.anomaly")
        export = task.export

        def marked(self: Any, model: Model) -> bytes:
            proto = onnx.load_from_string(export(self, model))
            proto.doc_string = "fitted" if "calibration" in model.settings else ""
            data: bytes = proto.SerializeToString()
            return data

        def run(self: Any, tensors: Any) -> Any:
            found = OnnxRuntime.run(self, tensors)
            return found if b"fitted" in self.model else found | {"alarm": ~found["alarm"]}

        monkeypatch.setattr(task, "export", marked)
        monkeypatch.setattr(One, "run", run)
        scripted |= {"one": [numbers(1.0)]}
        result = optimize.optimize(fresh.context(fresh.line(engines=("one",))))
        assert len(rough) == 1
        (chosen,) = [c for c in result["candidates"] if c["chosen"]]
        assert chosen["parity"]["decision_agreement"] == 1.0
        assert b"fitted" in fresh.store.blobs.read(result["onnx"])

    def test_in_float32_it_stays_as_it_was_calibrated(
        self, made: Made, scripted: dict[str, list[Any]]
    ) -> None:
        scripted |= {"two": [numbers(1.0)]}
        result = optimize.optimize(made.context(made.line(engines=("two",))))
        assert "model" not in result
        assert "threshold" not in result


_BEFORE = OnnxRuntime.__init__


def _in_bfloat16(self: Any, model: bytes, settings: Any) -> None:
    _BEFORE(self, model, {**settings, "precision": "float32"})
    self.settings = dict(settings)


class TestClasses:
    """Misses are counted class by class, beside those of the reference."""

    def yard(self, made: Made) -> tuple[Yard, dict[str, Array]]:
        task = resolve("task", "sensor.anomaly")()
        view: Any = Labelled(made)
        reference = task.reference(made.model)
        yard = Yard(task, view, made.model.settings, reference, 1 << 20)
        return yard, dict(reference(yard.tensors))

    def test_the_reference_itself_misses_no_more(self, made: Made) -> None:
        yard, answers = self.yard(made)
        judged = yard.judge(answers)
        assert judged.fine
        assert set(judged.classes) == {"normal", "anomaly"}
        assert all(c["lost"] == c["won"] == 0 for c in judged.classes.values())
        assert judged.right is not None
        assert judged.right.n == sum(c["samples"] for c in judged.classes.values())

    def test_a_form_that_flips_every_decision_is_refused_by_class(self, made: Made) -> None:
        yard, answers = self.yard(made)
        judged = yard.judge({**answers, "alarm": ~np.asarray(answers["alarm"], dtype=bool)})
        assert not judged.fine
        assert any("more of" in sentence for sentence in judged.misses)

    def test_one_sample_more_is_forgiven(self) -> None:
        one = {"samples": 50, "missed_by_reference": 2, "missed": 3, "lost": 1, "won": 0}
        assert too_many({"crack": one}) == ()
        assert too_many({"crack": {**one, "missed": 4}}) != ()


class Labelled:
    """The generated view, every seventh row of which is labelled an anomaly."""

    def __init__(self, made: Made) -> None:
        self._view = made.view

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

    def chunks(self, split: str, rows: int = 10_000) -> Any:
        for chunk in self._view.chunks(split, rows=rows):
            yield {**chunk, "label": (np.asarray(chunk["row"]) % 7 == 0).astype(np.float64)}


class TestCalibration:
    def test_one_class_of_several_is_refused(self, made: Made) -> None:
        task: Any = resolve("task", "sensor.anomaly")()
        signature = task.signature(made.model.settings)
        telling = replace(signature.outputs[0], role="class")

        class Telling:
            def __getattr__(self, name: str) -> Any:
                return getattr(task, name)

            def signature(self, settings: Any) -> Any:
                return replace(signature, outputs=(telling,))

        view: Any = Labelled(made)
        view.classes = ("good", "crack")
        fake: Any = Telling()
        both = calibration(fake, view, made.model.settings)
        assert set(both.labels) == {"good", "crack"}
        one: Any = OneClass(made)
        with pytest.raises(Problem) as refused:
            Forms(b"graph", lambda: calibration(fake, one, made.model.settings)).of("int8")
        assert refused.value.code == "G621"

    def test_a_model_of_good_parts_is_calibrated_on_them_and_says_so(self, made: Made) -> None:
        task = resolve("task", "sensor.anomaly")()
        one: Any = OneClass(made)
        found = calibration(task, one, made.model.settings)
        assert found.sentence.endswith("all of them good")


class OneClass(Labelled):
    classes = ("good", "crack")

    def chunks(self, split: str, rows: int = 10_000) -> Any:
        for chunk in self._view.chunks(split, rows=rows):
            yield {**chunk, "label": np.zeros(len(chunk["row"]))}
