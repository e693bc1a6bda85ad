"""Graphs in other forms, such as 8-bit integers, among the candidates of the stage."""

from collections.abc import Iterator
from typing import Any

import onnx
import pytest

from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.engines.onnxruntime import OnnxRuntime
from genba.stages import optimize as stage
from genba.stages import optimize_forms as forms
from genba.stages import samples
from tests.unit.optimize_world import F32, Made, One, Two, numbers, script_engines, trained


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    with trained() as found:
        yield found


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    return script_engines(monkeypatch)


class Halves:
    """A lowering that changes nothing and counts the samples it was given."""

    asked: list[int] = []

    @staticmethod
    def lower(model: bytes, samples: Any) -> bytes | None:
        Halves.asked.append(sum(len(next(iter(batch.values()))) for batch in samples))
        return model


class TestLoweredGraphs:
    """A graph in another form is one more candidate, held against the same reference."""

    @pytest.fixture
    def lowering(self, monkeypatch: pytest.MonkeyPatch) -> type[Halves]:
        monkeypatch.setattr(One, "lowered", lambda: {"halves": {**F32, "threads": 2}})
        monkeypatch.setattr(Two, "lowered", dict)
        monkeypatch.setattr(
            forms, "resolve", lambda kind, name: Halves if name == "halves" else resolve(kind, name)
        )
        Halves.asked.clear()
        return Halves

    def test_it_is_calibrated_once_and_never_on_the_test_set(
        self, made: Made, scripted: Any, lowering: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        splits: list[str] = []
        real = samples.chosen

        def chosen(task: Any, view: Any, split: str, *rest: Any) -> Any:
            splits.append(split)
            return real(task, view, split, *rest)

        monkeypatch.setattr("genba.stages.optimize_forms.chosen", chosen)
        scripted |= {"one": [numbers(9.0), numbers(1.0)], "two": [numbers(5.0)]}
        result = stage.optimize(made.context(made.line(engines=("one", "two"))))
        assert splits == ["calibrate"]
        assert lowering.asked == [64]
        assert [c["settings"]["threads"] for c in result["candidates"]] == [1, 1, 2]
        assert result["engine"] == {"name": "one", "settings": {**F32, "threads": 2}}

    def test_the_package_carries_the_form_that_was_chosen(
        self, made: Made, scripted: Any, lowering: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def commented(model: bytes, _samples: Any) -> bytes:
            proto = onnx.load_from_string(model)
            proto.doc_string = "another form"
            data: bytes = proto.SerializeToString()
            return data

        monkeypatch.setattr(lowering, "lower", commented)
        scripted |= {"one": [numbers(9.0), numbers(1.0)], "two": [numbers(5.0)]}
        result = stage.optimize(made.context(made.line(engines=("one", "two"))))
        graph = onnx.load_from_string(made.store.blobs.read(result["onnx"]))
        assert graph.doc_string == "another form"

    def test_one_that_decides_another_way_is_refused_and_says_so(
        self, made: Made, scripted: Any, lowering: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def run(self: One, tensors: Any) -> Any:
            found = OnnxRuntime.run(self, tensors)
            flips = self.settings["threads"] == 2
            return found | {"alarm": ~found["alarm"]} if flips else found

        monkeypatch.setattr(One, "run", run)
        scripted |= {"one": [numbers(9.0)]}
        result = stage.optimize(made.context(made.line(engines=("one",))))
        kept, refused = result["candidates"]
        assert result["engine"]["settings"] == F32 == kept["settings"]
        assert "decide the same in" in refused["refused"][0]
        assert not refused["chosen"]
        assert not refused["front"]

    def test_one_that_gains_nothing_is_left_out_unmeasured(
        self, made: Made, scripted: Any, lowering: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lowering, "lower", lambda *_: None)
        scripted |= {"one": [numbers(1.0)]}
        result = stage.optimize(made.context(made.line(engines=("one",))))
        kept, left_out = result["candidates"]
        assert kept["chosen"]
        assert left_out["stand"] == "ruled out"
        assert left_out["measures"] == {}

    def test_one_that_cannot_be_made_says_why(
        self, made: Made, scripted: Any, lowering: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: Any) -> None:
            raise Problem("G611", "It cannot be done.", why="No layer.", tries=["x"])

        monkeypatch.setattr(lowering, "lower", fails)
        scripted |= {"one": [numbers(1.0)]}
        result = stage.optimize(made.context(made.line(engines=("one",))))
        assert result["engine"]["name"] == "one"
        assert result["candidates"][1]["refused"] == ["It cannot be done."]
        assert result["candidates"][1]["why"] == "No layer."

    def test_without_a_split_to_calibrate_on_it_is_what_was_learned_from(self, made: Made) -> None:
        class Without:
            def __getattr__(self, name: str) -> Any:
                return getattr(made.view, name)

            def count(self, split: str) -> int:
                return 0 if split == "calibrate" else made.view.count(split)

        task = resolve("task", "sensor.anomaly")()
        view: Any = Without()
        found = forms.calibration(task, view, made.model.settings)
        assert [len(next(iter(batch.values()))) for batch in found.batches] == [4] * 16
        assert found.split == "train"
        assert found.sentence.startswith("64 samples of the split train")
