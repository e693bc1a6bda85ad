"""What is known afterwards: measured per entity over two windows, gated, tuned, resumed."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core import tuning
from genba.core.line import Data, Limit, Line
from genba.core.task import Task
from genba.core.values import EngineChoice, Manifest, Measure, Signature, Tensor, Verdict
from genba.learn.drift import reference
from genba.stages import hindsight
from genba.stages.watch import OpenWindow, start, watch
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store
from genba.tasks.sensor.anomaly import SensorAnomaly

LINE = Line(
    name="load",
    task="x",
    data=Data(source="files:x.csv"),
    gates={"coverage": Limit(min=0.8), "width": Limit(max=5.0)},
)
WINDOW = 20
AHEAD = 3


class Forecaster(SensorAnomaly):
    """Promises a value between low and high, three rows ahead; the truth comes with later rows."""

    seen: list[Mapping[str, Any]] = []

    def hindsight(self, seen: Any, settings: Any) -> Mapping[str, Measure]:
        self.seen.append(seen)
        truth = seen["history"][AHEAD:, -1, 0]
        low, high = seen["low"][:-AHEAD, 0], seen["high"][:-AHEAD, 0]
        inside = (truth >= low) & (truth <= high)
        if not len(inside):
            return {}
        value = float(inside.mean())
        return {
            "coverage": Measure(
                value=value, low=max(0, value - 0.05), high=min(1, value + 0.05), n=len(inside)
            )
        }

    def tune(self, measures: Any, settings: Any) -> Mapping[str, float]:
        missing = 0.9 - measures["coverage"].value
        return {"stretch": settings["parameters"]["stretch"] + missing, "unknown": 1.0}


MANIFEST = Manifest(
    format=1,
    line="load",
    task="x",
    model="m",
    run="r",
    dataset="d",
    engine=EngineChoice(name="onnxruntime"),
    signature=Signature(
        inputs=(
            Tensor(name="history", datatype="FP32", shape=(-1, 4, 1)),
            Tensor(name="entity", datatype="INT64", shape=(-1,), role="entity"),
            Tensor(name="stretch", datatype="FP32", shape=(-1,), role="parameter", default=1.0),
        ),
        outputs=(
            Tensor(name="low", datatype="FP32", shape=(-1, 2), role="low"),
            Tensor(name="high", datatype="FP32", shape=(-1, 2), role="high"),
            Tensor(name="map", datatype="FP32", shape=(-1, 9, 9), role="map"),
        ),
    ),
    settings={
        "ahead": AHEAD,
        "drift": {
            "window": WINDOW,
            "hindsight": True,
            "columns": {
                "level": {
                    **reference(np.arange(100.0)),
                    "tensor": "history",
                    "index": -1,
                    "kind": "input",
                },
                "upper, second step": {
                    **reference(np.arange(100.0)),
                    "tensor": "high",
                    "index": 1,
                    "kind": "output",
                },
            },
        },
    },
    entities=("A", "B"),
    files={},
    verdict=Verdict(passed=True),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture(autouse=True)
def forecaster(monkeypatch: pytest.MonkeyPatch) -> type[Forecaster]:
    monkeypatch.setattr(hindsight, "resolve", lambda *_: Forecaster)
    monkeypatch.setattr("genba.stages.watch.FEWEST", 1)
    monkeypatch.setattr(Forecaster, "seen", [])
    return Forecaster


def capture(
    store: Store, first: int, count: int, *, miss: float = 0.0, status: str = "ok", seed: int = 0
) -> None:
    """Two entities in turn, whose value is the number of the row; `miss` of promises are wrong."""
    at = np.arange(first, first + count)
    wrong = np.random.default_rng(seed).random(count) < miss
    truth = np.where(at % 2 == 0, at, -at) + AHEAD * 2 * np.where(at % 2 == 0, 1, -1)
    history = np.repeat(np.where(at % 2 == 0, at, -at)[:, None], 4, axis=1)[:, :, None]
    low = np.where(wrong, truth + 1, truth - 1)[:, None].repeat(2, axis=1)
    rows = CapturedRows(
        package="p",
        n=at,
        received_ms=1_000 + at,
        role=["stable"] * count,
        entity=["A" if n % 2 == 0 else "B" for n in at],
        time=[int(n) * 60_000 for n in at],
        latency_us=np.full(count, 900),
        status=[status] * count,
        features={
            "history": history.astype(np.float32),
            "stretch": np.ones(count, dtype=np.float32),
        },
        outputs={"low": low.astype(np.float32), "high": (low + 2).astype(np.float32)},
    )
    body = {"role": "stable", "n": count}
    made = Interval(from_ms=first, to_ms=first + count, packages={"p": body}, rows=(rows,))
    CaptureWriter(store, "load", "s1").write(made)


def coverage(window: Mapping[str, Any]) -> dict[str, Any]:
    return next(f for f in window["findings"] if f["kind"] == "hindsight")


def test_every_entity_is_shown_its_rows_in_order_and_in_shape(store: Store) -> None:
    capture(store, 0, WINDOW)
    report = watch(store, LINE, MANIFEST, start("p", 0))
    first, second = Forecaster.seen
    assert (first["entity"] == 0).all()
    assert (second["entity"] == 1).all()
    assert first["history"].shape == (10, 4, 1)
    assert first["high"].shape == (10, 2)
    assert (np.diff(first["time"]) > 0).all()
    assert "stretch" in first
    assert "map" not in first
    found = coverage(report.windows[0])
    assert (found["statistic"], found["limit"], found["drifted"]) == (1.0, 0.8, False)
    assert found["n"] == 2 * (10 - AHEAD)


def test_the_window_before_counts_so_promises_across_the_border_are_judged(store: Store) -> None:
    capture(store, 0, 2 * WINDOW)
    report = watch(store, LINE, MANIFEST, start("p", 0))
    assert coverage(report.windows[0])["n"] == 2 * (10 - AHEAD)
    assert coverage(report.windows[1])["n"] == 2 * 10  # each promise once


def test_without_a_stated_distance_the_whole_window_before_counts(store: Store) -> None:
    plain = {n: v for n, v in MANIFEST.settings.items() if n != "ahead"}
    capture(store, 0, 2 * WINDOW)
    report = watch(store, LINE, replace(MANIFEST, settings=plain), start("p", 0))
    assert coverage(report.windows[1])["n"] == 2 * (20 - AHEAD)


def test_a_gate_that_is_missed_beyond_doubt_is_drift(store: Store) -> None:
    capture(store, 0, WINDOW, miss=0.6)
    found = coverage(watch(store, LINE, MANIFEST, start("p", 0)).windows[0])
    assert found["drifted"]
    assert found["statistic"] < 0.7
    assert found["limit"] == 0.8
    assert found["low"] < found["statistic"] < found["high"]


def test_an_interrupted_watch_measures_what_it_would_have_measured(
    store: Store, tmp_path: Path
) -> None:
    def fill(where: Store) -> None:
        for first in range(0, 80, 8):
            capture(where, first, 8, miss=0.3, seed=first)

    fill(store)
    whole = watch(store, LINE, MANIFEST, start("p", 0)).windows
    with Store.open(tmp_path / "other") as other:
        for first in range(0, 80, 8):
            capture(other, first, 8, miss=0.3, seed=first)
            # The counts are lost each time; the ledger knows where the open window began.
            closed = other.ledger.events(kinds=("watch",))
            cursor = closed[-1].body["cursor"] if closed else {"seq": 0, "row": 0}
            watch(
                other,
                LINE,
                MANIFEST,
                OpenWindow(package="p", seq=cursor["seq"], row=cursor["row"], number=len(closed)),
            )
        again = [e.body for e in other.ledger.events(kinds=("watch",))]
        assert [e.body["value"] for e in other.ledger.events(kinds=(tuning.KIND,))] == [
            e.body["value"] for e in store.ledger.events(kinds=(tuning.KIND,))
        ]
    assert len(whole) == len(again) == 4
    assert [coverage(w) for w in whole] == [coverage(w) for w in again]


def test_parameters_are_set_with_the_evidence_and_once(store: Store) -> None:
    capture(store, 0, WINDOW, miss=0.6)
    watch(store, LINE, MANIFEST, start("p", 0))
    watch(store, LINE, MANIFEST, start("p", 0))
    (event,) = store.ledger.events(kinds=(tuning.KIND,))
    assert event.subject == "p"
    assert event.body["parameter"] == "stretch"
    assert event.body["by"] == "watch"
    assert event.body["evidence"]["coverage"]["n"] == 14
    assert "coverage was" in event.body["reason"]
    value = event.body["evidence"]["coverage"]["value"]
    assert event.body["value"] == pytest.approx(1.0 + 0.9 - value)
    capture(store, WINDOW, WINDOW)
    watch(store, LINE, MANIFEST, start("p", 0))
    first, second = store.ledger.events(kinds=(tuning.KIND,))
    assert second.body["value"] != first.body["value"]  # from where it stood


def test_what_a_person_has_set_is_left_alone(store: Store) -> None:
    body = {"parameter": "stretch", "value": 2.0, "reason": "I know", "by": "ana", "evidence": {}}
    store.ledger.append(tuning.KIND, body, line="load", subject="p")
    capture(store, 0, WINDOW, miss=0.6)
    watch(store, LINE, MANIFEST, start("p", 0))
    assert len(store.ledger.events(kinds=(tuning.KIND,))) == 1


def test_columns_are_watched_where_the_package_says_they_are(store: Store) -> None:
    capture(store, 0, WINDOW)
    findings = watch(store, LINE, MANIFEST, start("p", 0)).windows[0]["findings"]
    kinds = {f["name"]: f["kind"] for f in findings}
    assert kinds["level"] == "input"
    assert kinds["upper, second step"] == "output"


def test_failed_predictions_and_other_packages_are_not_judged(store: Store) -> None:
    capture(store, 0, WINDOW, status="nan")
    report = watch(store, LINE, MANIFEST, start("p", 0))
    assert all(f["kind"] != "hindsight" for f in report.windows[0]["findings"])
    drift = {**MANIFEST.settings["drift"], "hindsight": False}
    blind = replace(MANIFEST, settings={"drift": drift})
    assert hindsight.rows_kept(blind) == 0
    capture(store, WINDOW, WINDOW)
    assert not Forecaster.seen


def test_only_the_newest_rows_are_kept(store: Store) -> None:
    capture(store, 0, 10)
    (record,) = store.ledger.find("capture")
    from genba.store.captures import read_capture

    table = read_capture(store, record)
    parts = hindsight.kept([], table, MANIFEST, 25)
    parts = hindsight.kept(parts, table, MANIFEST, 25)
    parts = hindsight.kept(parts, table, MANIFEST, 25)
    assert [p.num_rows for p in parts] == [5, 10, 10]
    assert [p.num_rows for p in hindsight.kept(parts, table, MANIFEST, 4)] == [4]


def test_a_task_that_looks_back_is_known_by_its_method() -> None:
    assert hindsight.looks_back(Forecaster())
    assert not hindsight.looks_back(SensorAnomaly())
    assert Task.hindsight is SensorAnomaly.hindsight


def test_intervals_of_entities_are_put_together() -> None:
    one = Measure(value=0.9, low=0.8, high=1.0, n=100)
    found = hindsight.pooled([one, one, one, one])
    assert found.value == pytest.approx(0.9)
    assert found.n == 400
    assert found.low == pytest.approx(0.85)
    assert hindsight.pooled([one, replace(one, low=None)]).low is None


def test_a_measure_that_should_be_small_drifts_above_its_gate() -> None:
    wide = {"width": Measure(value=9.0, low=8.0, high=10.0, n=5), "other": Measure(value=1.0)}
    found = {f["name"]: f for f in hindsight.findings(wide, LINE)}
    assert (found["width"]["drifted"], found["width"]["limit"]) == (True, 5.0)
    assert (found["other"]["drifted"], found["other"]["limit"]) == (False, None)
