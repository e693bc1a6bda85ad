"""Each broken engine fails the check of the contract kit that was made for it."""

import time
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.core.protocols import Layout
from genba.core.resolve import resolve
from genba.engines.onnxruntime import OnnxRuntime
from genba.testing import engines
from genba.testing.checks import CheckFailed

F32 = {"precision": "float32"}


class Doubles(OnnxRuntime):
    def run(self, tensors: Any) -> Any:
        return {
            n: v.astype(np.float64) if v.dtype.kind == "f" else v
            for n, v in super().run(tensors).items()
        }


class Wrong(OnnxRuntime):
    def run(self, tensors: Any) -> Any:
        found = super().run(tensors)
        return found | {"score": found["score"] * np.float32(1.01)}


class Flips(OnnxRuntime):
    def run(self, tensors: Any) -> Any:
        found = super().run(tensors)
        return found | {"alarm": ~found["alarm"]}


class Renames(OnnxRuntime):
    def run(self, tensors: Any) -> Any:
        return {f"{n}:0": v for n, v in super().run(tensors).items()}


class OneIsSpecial(OnnxRuntime):
    def run(self, tensors: Any) -> Any:
        found = super().run(tensors)
        return found | {"score": found["score"] + np.float32(len(found["score"]) == 1)}


class Restless(OnnxRuntime):
    loaded = 0

    def __init__(self, model: bytes, settings: Any) -> None:
        super().__init__(model, settings)
        Restless.loaded += 1
        self.shift = np.float32(Restless.loaded * 1e-6)

    def run(self, tensors: Any) -> Any:
        found = super().run(tensors)
        return found | {"score": found["score"] + self.shift}


class NanSpreads(OnnxRuntime):
    def run(self, tensors: Any) -> Any:
        found = super().run(tensors)
        broken = np.isnan(tensors["window"]).all(axis=(1, 2))
        return found | {"score": np.where(broken, np.float32(np.nan), found["score"])}


class NanLeaks(OnnxRuntime):
    def run(self, tensors: Any) -> Any:
        found = super().run(tensors)
        return found | {"score": found["score"] + np.float32(np.isnan(tensors["window"]).mean())}


class Short(OnnxRuntime):
    def run(self, tensors: Any) -> Any:
        return {n: v[:5000] for n, v in super().run(tensors).items()}


class Shares(OnnxRuntime):
    kept: Any = None

    def run(self, tensors: Any) -> Any:
        found = super().run(tensors)
        if self.kept is None or self.kept["score"].shape != found["score"].shape:
            self.kept = found
        for name, value in found.items():
            self.kept[name][...] = value
        time.sleep(1e-5)  # another thread may come in between
        return dict(self.kept)


class Lenient(OnnxRuntime):
    def __init__(self, model: bytes, settings: Any) -> None:
        super().__init__(
            model, {k: v for k, v in settings.items() if k in ("precision", "threads")}
        )


class Crude(OnnxRuntime):
    def run(self, tensors: Any) -> Any:
        try:
            return super().run(tensors)
        except Problem as problem:
            raise ValueError(problem.what) from problem


class Trusting(OnnxRuntime):
    def __init__(self, model: bytes, settings: Any) -> None:
        try:
            super().__init__(model, settings)
        except Problem as problem:
            if problem.code != "G608":
                raise


class Gullible(OnnxRuntime):
    """Takes any graph for one in integers."""

    def __init__(self, model: bytes, settings: Any) -> None:
        super().__init__(model, {**settings, "precision": "float32"})


class Shifts(OnnxRuntime):
    """Is wrong in integers only."""

    def run(self, tensors: Any) -> Any:
        found = super().run(tensors)
        wrong = self.settings["precision"] == "int8"
        return found | {"score": found["score"] + np.float32(wrong)}


class Crowded(OnnxRuntime):
    """Mixes up what several callers ask."""

    busy = 0

    def run(self, tensors: Any) -> Any:
        Crowded.busy += 1
        time.sleep(1e-3)  # others come in
        found = super().run(tensors)
        several = Crowded.busy > 1
        Crowded.busy -= 1
        return found | {"score": found["score"] + np.float32(several)}


class Coarsens(OnnxRuntime):
    @classmethod
    def layouts(cls, settings: Any, cores: int) -> Any:
        return [Layout(settings={"precision": "int8", "threads": cores}, runners=1)]


class Nameless(OnnxRuntime):
    name = ""

    @classmethod
    def version(cls) -> str:
        return " "


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        (Doubles, "every setting answers as numpy"),
        (Wrong, "every setting answers as numpy"),
        (Flips, "every setting answers as numpy"),
        (Renames, "every setting answers as numpy"),
        (OneIsSpecial, "a batch of one equals a batch of many"),
        (Restless, "the same numbers every time"),
        (NanSpreads, "missing values stay in their row"),
        (NanLeaks, "missing values stay in their row"),
        (Short, "long and empty batches"),
        (Shares, "leaves the caller's arrays alone"),
        (Shares, "threads get their own answers"),
        (Lenient, "refuses an unknown setting"),
        (Crude, "refuses tensors that do not fit"),
        (Trusting, "refuses what is no graph"),
        (Trusting, "refuses data outside the graph"),
        (Gullible, "refuses a graph that was not lowered"),
        (Shifts, "a lowered graph answers nearly the same"),
        (Crowded, "every layout answers alike, to as many callers"),
        (Coarsens, "every layout answers alike, to as many callers"),
        (Nameless, "offers settings"),
        (Nameless, "says its version"),
    ],
)
def test_a_broken_engine_fails(kind: Any, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "resolve", lambda k, n: kind if k == "engine" else resolve(k, n))
    with pytest.raises(CheckFailed):
        engines.engine_checks("broken", [F32])[title]()


def test_an_engine_that_changes_its_input_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Writes(OnnxRuntime):
        def run(self, tensors: Any) -> Any:
            for tensor in tensors.values():
                tensor.setflags(write=True)
            tensors["window"][...] = 0
            return super().run(tensors)

    monkeypatch.setattr(engines, "resolve", lambda _kind, _name: Writes)
    results = {r.name: r for r in engines.check_engine("broken", [F32])}
    assert not results["leaves the caller's arrays alone"].passed
    assert results["says its version"].passed


def test_an_engine_without_settings_is_only_asked_who_it_is() -> None:
    assert sorted(engines.engine_checks("faulty")) == ["offers settings", "says its version"]
