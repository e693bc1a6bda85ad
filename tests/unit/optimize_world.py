"""A trained model, engines that measure what a test says, and a machine that believes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from genba.core.line import Line, Target
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.core.values import Measure
from genba.data.view import DatasetView
from genba.engines.onnxruntime import OnnxRuntime
from genba.learn.models import save_model
from genba.runs.effort import Effort
from genba.runs.progress import SilentProgress
from genba.runs.stage import StageContext
from genba.stages import optimize_bench as bench
from genba.stages import optimize_design as design
from genba.store.home import Store
from genba.testing.generated import generated_view

F32 = {"precision": "float32", "threads": 1}


@dataclass(frozen=True)
class Made:
    store: Store
    view: DatasetView
    trained: dict[str, Any]
    model: Any

    def context(self, line: Line | None = None) -> StageContext:
        return StageContext(
            line=line or self.view.line,
            store=self.store,
            run="run-1",
            inputs={"prepare": {"dataset": self.view.digest}, "train": self.trained},
            effort=Effort.simple(),
            progress=SilentProgress(),
        )

    def line(self, *, gates: Any = None, **target: Any) -> Line:
        line = self.view.line
        return replace(line, target=Target(**target), gates=line.gates if gates is None else gates)


@contextmanager
def trained() -> Iterator[Made]:
    """Train a small model on generated rows."""
    with generated_view("sensor.anomaly", rows=600) as (store, view):
        task = resolve("task", "sensor.anomaly")()
        model = task.fit(view, task.derive(view.line, view), Effort.simple(trials=2))
        yield Made(store, view, save_model(store, model), model)


def numbers(cpu: float, p50: float = 1.0, p99: float = 1.0, memory: float = 10.0) -> Any:
    return {
        "cpu_ms": Measure(value=cpu, unit="ms", low=cpu * 0.9, high=cpu * 1.1),
        "latency_ms_p50": Measure(value=p50, unit="ms", low=p50 * 0.9, high=p50 * 1.1),
        "latency_ms_p99": Measure(value=p99, unit="ms"),
        "memory_mib": Measure(value=memory, unit="MiB"),
        "energy_mj": Measure(value=cpu * 5, unit="mJ", method="modelled"),
    }


class Scripted:
    """An engine that is measured as a test says, measurement by measurement."""

    script: dict[str, list[Any]] = {}  # set by each test

    def __init__(self, order: Any, kinds: Any) -> None:
        assert len(next(iter(order.samples.values()))) > 100
        kind = kinds.get(order.engine) or resolve("engine", order.engine)
        self._name, self._engine = order.engine, kind(order.graph, order.settings)

    def __enter__(self) -> "Scripted":
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def measure(self) -> Any:
        script = self.script[self._name]
        found = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(found, Problem):
            raise found
        return dict(found)

    def run(self, tensors: Any) -> Any:
        return self._engine.run(tensors)


class One(OnnxRuntime):
    name = "one"

    @classmethod
    def candidates(cls, cores: int) -> Any:
        return [F32]

    @classmethod
    def lowered(cls) -> Any:
        return {}


class Two(One):
    name = "two"


class Three(One):
    name = "three"


class Wrong(One):
    name = "wrong"

    def run(self, tensors: Any) -> Any:
        found = super().run(tensors)
        return found | {"alarm": ~found["alarm"], "score": found["score"] + np.float32(3)}


class Unable(One):
    name = "unable"

    def __init__(self, model: bytes, settings: Any) -> None:
        raise Problem("G601", "It cannot run this graph.", why="No trees.", tries=["x"])


class Broken(One):
    name = "broken"

    def __init__(self, model: bytes, settings: Any) -> None:
        raise Problem("G608", "The graph is not whole.", tries=["x"])


def script_engines(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Let the stage find the engines above, and return what they will measure, to be filled."""
    kinds = {k.name: k for k in (One, Two, Three, Wrong, Unable, Broken)}

    def resolved(kind: str, name: str) -> Any:
        return kinds[name] if kind == "engine" and name in kinds else resolve(kind, name)

    monkeypatch.setattr(design, "resolve", resolved)
    monkeypatch.setattr(bench, "resolve", resolved)
    monkeypatch.setattr(bench, "open_engine", lambda order, *_: Scripted(order, kinds))
    monkeypatch.setattr(bench, "wait_for_quiet", lambda _: None)
    script: dict[str, list[Any]] = {}
    monkeypatch.setattr(Scripted, "script", script)
    return script
