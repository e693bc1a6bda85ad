"""A store with captured predictions, for the tests of feedback."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genba.core.codec import encode
from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.core.task import Task
from genba.data.feedback import FeedbackReport, effective_labels, receive
from genba.data.feedback.labels import Meaning
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store

STEP_MS = 600_000
T0 = 1_700_000_000_000
NOW = T0 + 50 * STEP_MS


def label(word: str) -> float:
    known = {"normal": 0.0, "ok": 0.0, "anomaly": 1.0, "fault": 1.0}
    if word in known:
        return known[word]
    raise Problem("G801", f"{word!r} says neither anomaly nor normal.", tries=["normal"])


def judge(outputs: Mapping[str, Any], said: float, settings: Mapping[str, Any]) -> str:
    return Task.outcome(None, outputs, said, settings)  # type: ignore[arg-type]  # it needs no self


MEANING = Meaning(label=label, judge=judge, marks=False)


def capture(
    store: Store,
    *,
    rows: int = 10,
    first: int = 0,
    entity: str | None = "R1",
    role: str = "stable",
    package: str = "p",
    server: str = "s1",
    score: Any = None,
    clock: bool = True,
    received_ms: int | None = None,
    now: Any = None,
) -> None:
    """Rows n = first, first + 1, ... at T0 + n steps; every other one is an alarm."""
    n = np.arange(first, first + rows)
    alarm = n % 2 == 1
    window = np.zeros((rows, 2, 2), dtype=np.float32)
    if now is not None:
        window[:, -1, :] = now
    part = CapturedRows(
        package=package,
        n=n,
        received_ms=n * STEP_MS + T0 if received_ms is None else np.full(rows, received_ms),
        role=[role] * rows,
        entity=[entity] * rows,
        time=[int(T0 + i * STEP_MS) if clock else None for i in n],
        latency_us=np.full(rows, 100),
        status=["ok"] * rows,
        features={"window": window},
        outputs={
            "score": np.where(alarm, 3.0, 0.2) if score is None else np.asarray(score, float),
            "alarm": alarm if score is None else np.asarray(score) > 1,
        },
    )
    summary = {package: {"role": role, "n": rows}}
    CaptureWriter(store, "farm", server).write(
        Interval(from_ms=T0, to_ms=NOW, packages=summary, rows=(part,))
    )


def say(store: Store, *rows: dict[str, Any], now_ms: int = NOW) -> FeedbackReport:
    return receive(store, "farm", rows, source="api", meaning=MEANING, now_ms=now_ms)


def about(n: int, value: str = "normal", author: str = "ada", **more: Any) -> dict[str, Any]:
    return {"prediction": f"s1-{n}", "value": value, "author": author, **more}


def outcomes(report: FeedbackReport) -> dict[str, int]:
    names = ("accepted", "duplicate", "contradictory", "unknown", "late")
    made = {name: getattr(report, name) for name in names} | {"rejected": len(report.rejected)}
    assert report.rows == sum(made.values())
    return {name: count for name, count in made.items() if count}


def last_event(store: Store) -> dict[str, Any]:
    return dict(store.ledger.events(kinds=("feedback.received",))[-1].body)


def usable(store: Store) -> dict[tuple[str | None, int | None], float]:
    rows = effective_labels(store, "farm", label=label)
    return {(r.entity, r.time_ms): r.label for r in rows}


def prepare(store: Store) -> None:
    """A line and a package that states its sampling step."""
    line = Line(name="farm", task="sensor.anomaly", data=Data(source="files:x.csv"))
    store.ledger.record("line", "l1", encode(line), line="farm")
    store.ledger.record("package", "p", manifest(), line="farm")


def manifest(**settings: Any) -> dict[str, Any]:
    """What the queue and the intake read of a package."""
    inputs = [
        {"name": "window", "datatype": "FP32", "shape": [-1, 2, 2], "role": "feature"},
        {"name": "entity", "datatype": "INT64", "shape": [-1], "role": "entity"},
    ]
    outputs = [
        {"name": "score", "datatype": "FP32", "shape": [-1], "role": "score"},
        {"name": "alarm", "datatype": "BOOL", "shape": [-1], "role": "alarm"},
    ]
    known = {
        "step_ms": STEP_MS,
        "sensors": ["wind", "power"],
        "low": [None, None],
        "high": [None, None],
        **settings,
    }
    signature = {"inputs": inputs, "outputs": outputs}
    return {"line": "farm", "settings": known, "signature": signature}
