"""A real store with a line in production, for the tests of the runner."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from genba.core.codec import encode
from genba.core.line import Budget, Data, Line, Retrain, Rollout, Train
from genba.core.values import EngineChoice, Manifest, Signature, Tensor, Verdict
from genba.data.feedback import receive
from genba.learn.drift import reference
from genba.loop.runner import Runner, Tick
from genba.stages.deploy import deploy
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store

LINE = Line(
    name="pump",
    task="sensor.anomaly",
    data=Data(source="files:x.csv"),
    train=Train(budget=Budget(minutes=1)),
    rollout=Rollout(decide="auto", decide_after=100),
    retrain=Retrain(when={"labels": 3.0, "drift": 0.2}),
)
NOW = 1_800_000_000_000


def manifest(package: str, *, passed: bool = True) -> Manifest:
    drift = {
        "window": 50,
        "columns": {"flow": {**reference(np.arange(1_000.0)), "null_q": 0.5}},
        "false_alarm_rate": 0.01,
    }
    return Manifest(
        format=1,
        line="pump",
        task="sensor.anomaly",
        model=f"model of {package}",
        run="r",
        dataset="d1",
        engine=EngineChoice(name="onnxruntime"),
        signature=Signature(
            inputs=(Tensor(name="window", datatype="FP32", shape=(-1, 1, 1)),), outputs=()
        ),
        settings={"sensors": ["flow"], "drift": drift},
        entities=(),
        files={},
        verdict=Verdict(passed=passed),
    )


def prepare(store: Store) -> None:
    """A line with a stable package a; b and c have passed their gates, bad has not."""
    store.ledger.record("line", "l1", encode(LINE), line="pump")
    for package in ("a", "b", "c"):
        store.ledger.record("package", package, encode(manifest(package)), line="pump")
    bad = encode(manifest("bad", passed=False))
    store.ledger.record("package", "bad", bad, line="pump")
    deploy(store, "pump", "deploy", "a", reason="first", by="test", key="first:pump:a")


def serve(store: Store, first: int = 0, flow: float = 500.0, **packages: dict[str, Any]) -> None:
    rows = []
    for package, summary in packages.items():
        n = int(summary["n"])
        part = CapturedRows(
            package=package,
            n=np.arange(first, first + n),
            received_ms=np.full(n, NOW),
            role=["stable"] * n,
            entity=[None] * n,
            time=list(range(first, first + n)),
            latency_us=np.full(n, 500),
            status=["ok"] * n,
            features={"window": np.full((n, 1, 1), flow, dtype=np.float32)},
            outputs={"score": np.full(n, 3.0), "alarm": np.full(n, True)},
        )
        rows.append(part)
        first += n
    CaptureWriter(store, "pump", "s1").write(
        Interval(from_ms=NOW, to_ms=NOW + 1_000, packages=packages, rows=rows)
    )


def finish(store: Store, package: str | None, outcome: str = "done", run: str = "r1") -> None:
    body = {"run": run, "outcome": outcome, "package": package, "verdict": {"passed": True}}
    store.ledger.append("run.finished", body, line="pump", subject=run)


class Launched:
    """Remembers commands instead of starting them."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> None:
        self.commands.append(list(command))


def runner(store: Store, launched: Launched | None = None, **more: Any) -> Runner:
    return Runner(store, launch=launched or Launched(), extend_with=lambda *_: "d2", **more)


def only(ticks: Sequence[Tick]) -> Tick:
    (tick,) = ticks
    assert tick.problems == ()
    return tick


def kinds(tick: Tick) -> list[str]:
    return [a.kind for a in tick.actions]


def told(store: Store, *wanted: str) -> list[dict[str, Any]]:
    return [dict(e.body) for e in store.ledger.events(line="pump", kinds=wanted)]


def label(store: Store, count: int, first: int = 0) -> None:
    rows = [{"prediction": f"s1-{first + i}", "value": "normal"} for i in range(count)]
    receive(store, "pump", rows, source="api", now_ms=NOW)
