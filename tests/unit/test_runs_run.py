"""Runs: reuse, resume, refusal, failure, cancellation and leases."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.line import Budget, Data, Line, Train
from genba.core.problem import Problem
from genba.runs import lease as leases
from genba.runs import run as runs
from genba.runs.lease import Heartbeat, Lease
from genba.runs.progress import SilentProgress
from genba.runs.run import execute
from genba.runs.stage import Stage, StageContext
from genba.runs.stop import StopSign
from genba.store import tables
from genba.store.home import Store

LINE = Line(
    name="pump",
    task="sensor.anomaly",
    data=Data(source="files:pump.csv"),
    train=Train(seed=3, budget=Budget(minutes=2, trials=5)),
)
calls: list[str] = []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    calls.clear()
    with Store.open(tmp_path / "home") as opened:
        yield opened


def rows(context: StageContext) -> dict[str, Any]:
    calls.append("rows")
    return {"rows": 10, "pair": (1, 2)}


def fit(context: StageContext) -> dict[str, Any]:
    calls.append("fit")
    assert context.effort.seed == 3
    assert context.effort.budget.trials == 5
    return {"r2": 0.9, "rows": context.inputs["rows"]["rows"], "extra": context.extra.get("x")}


PAIR = (Stage("rows", rows), Stage("fit", fit, after=("rows",)))


def events(store: Store, *kinds: str) -> list[Mapping[str, Any]]:
    return [event.body for event in store.ledger.events(kinds=kinds or None)]


def test_a_run_does_each_stage_once_and_records_it(store: Store) -> None:
    first = execute(PAIR, line=LINE, store=store, reason="drift")
    second = execute(PAIR, line=LINE, store=store)

    assert calls == ["rows", "fit"]
    assert first.outcome == second.outcome == "done"
    assert first.results == second.results
    assert first.results["rows"]["pair"] == [1, 2]  # JSON, also the first time
    assert [report.reused for report in first.stages] == [False, False]
    assert [report.reused for report in second.stages] == [True, True]
    assert [report.seconds for report in second.stages] == [0, 0]
    assert first.bill_inputs["seconds"] >= sum(report.seconds for report in first.stages)
    started, finished = events(store, "run.started"), events(store, "run.finished")
    assert [body["reason"] for body in started] == ["drift", "asked"]
    assert [body["outcome"] for body in finished] == ["done", "done"]
    assert finished[0]["fit"]["r2"] == 0.9
    assert [body["reused"] for body in events(store, "stage.finished")] == [False] * 2 + [True] * 2
    assert [record.id for record in store.ledger.find("run", line="pump")] == [
        second.run,
        first.run,
    ]
    (line_edge,) = store.ledger.parents(first.run)
    assert store.ledger.get("line", line_edge.src) is not None


def test_what_is_in_the_key_decides_what_is_done_again(store: Store) -> None:
    execute(PAIR, line=LINE, store=store)
    stages = (PAIR[0], Stage("fit", fit, after=("rows",), config=lambda c: dict(c.extra)))
    execute(stages, line=LINE, store=store)  # the same configuration: nothing
    changed = execute(stages, line=LINE, store=store, extra={"x": 1})

    assert calls == ["rows", "fit", "fit"]
    assert changed.results["fit"]["extra"] == 1
    assert [report.reused for report in changed.stages] == [True, False]


def test_the_record_of_a_run_holds_a_summary(store: Store) -> None:
    execute(PAIR, line=LINE, store=store, summary=lambda results: {"stages": sorted(results)})

    (body,) = events(store, "run.finished")
    assert body["stages"] == ["fit", "rows"]
    assert "fit" not in body


def test_a_stage_sees_only_what_it_names(store: Store) -> None:
    with pytest.raises(KeyError, match="rows"):
        execute((PAIR[0], Stage("fit", fit)), line=LINE, store=store)

    (body,) = events(store, "run.finished")
    assert body["outcome"] == "failed"
    assert "KeyError" in body["crash"]


def refuse(_context: StageContext) -> dict[str, Any]:
    calls.append("refuse")
    return {"stop": ["r2 is 0.5, at least 0.9 is asked."]}


def test_a_refusal_ends_the_run_and_is_reused(store: Store) -> None:
    stages = (Stage("gate", refuse), *PAIR)
    results = [execute(stages, line=LINE, store=store) for _ in range(2)]

    assert calls == ["refuse"]
    assert [result.outcome for result in results] == ["refused", "refused"]
    assert results[1].stop == ("r2 is 0.5, at least 0.9 is asked.",)
    assert events(store, "run.finished")[1]["stop"] == list(results[1].stop)


def missing(_context: StageContext) -> dict[str, Any]:
    raise Problem("G201", "There are no rows.", where="pump.csv", why="empty", tries=["cat it"])


def test_a_problem_makes_the_run_fail_and_the_stage_free(store: Store) -> None:
    stages = (Stage("rows", missing),)
    result = execute(stages, line=LINE, store=store)

    assert result.outcome == "failed"
    assert result.problem is not None
    assert result.problem.code == "G201"
    assert events(store, "run.finished")[0]["problem"]["code"] == "G201"
    assert [row.state for row in store.attempts.history()] == ["failed"]
    assert execute(stages, line=LINE, store=store).outcome == "failed"  # at once, not held


def not_json(_context: StageContext) -> dict[str, Any]:
    return {"r2": float("nan")}


def an_array(_context: StageContext) -> dict[str, Any]:
    return {"w": np.zeros(2)}


@pytest.mark.parametrize("function", [not_json, an_array])
def test_a_result_that_is_not_json(store: Store, function: Any) -> None:
    result = execute((Stage("fit", function),), line=LINE, store=store)

    assert result.problem is not None
    assert result.problem.code == "G404"


def search(context: StageContext) -> dict[str, Any]:
    """Three trials; the second asks for Ctrl-C once."""
    meta, arrays = context.effort.checkpoint.load() or ({"trial": 0}, {"sum": np.zeros(1)})
    for trial in range(meta["trial"], 3):
        calls.append(f"trial {trial}")
        context.effort.checkpoint.save({"trial": trial + 1}, {"sum": arrays["sum"] + trial})
        _, arrays = context.effort.checkpoint.load() or ({}, {})
        if trial == 1:
            os.kill(os.getpid(), signal.SIGINT)
        context.effort.check()
    return {"sum": float(arrays["sum"][0])}


def test_a_cancelled_run_goes_on_from_its_checkpoint(store: Store) -> None:
    stages = (Stage("search", search),)
    cancelled = execute(stages, line=LINE, store=store)
    assert cancelled.outcome == "cancelled"
    assert [row.state for row in store.attempts.history()] == ["cancelled"]

    result = execute(stages, line=LINE, store=store)

    assert result.outcome == "done"
    assert result.results["search"] == {"sum": 3.0}
    assert calls == ["trial 0", "trial 1", "trial 2"]
    assert list((store.path / "work").iterdir()) == []
    assert [body["outcome"] for body in events(store, "run.finished")] == ["cancelled", "done"]


def lose_the_stage(context: StageContext) -> dict[str, Any]:
    """The first attempt is taken over while it works; somebody else then has the result."""
    calls.append("lose")
    with context.store.transaction():
        row = context.store.attempts.history()[-1]
        context.store.attempts.fail(row.key, row.owner, row.attempt, {})
        other = context.store.attempts.claim(row.key, name="s", run="r", owner="o", lease_s=60)
        context.store.attempts.complete(row.key, "o", other.attempt, {"by": "the other"})
    if context.extra.get("looks"):
        time.sleep(0.3)
        context.effort.check()
    return {"by": "this one"}


@pytest.mark.parametrize("looks", [False, True])
def test_a_stage_taken_over_meanwhile_has_the_result_of_the_other(
    store: Store, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    monkeypatch.setattr(runs, "LEASE_S", 0.3)
    result = execute((Stage("s", lose_the_stage),), line=LINE, store=store, extra={"looks": looks})

    assert calls == ["lose"]
    assert result.results["s"] == {"by": "the other"}
    assert [report.reused for report in result.stages] == [True]


def test_a_stage_that_is_held_is_waited_for(store: Store) -> None:
    class Watched(SilentProgress):
        def step(self, text: str, done: float | None = None, total: float | None = None) -> None:
            calls.append(text)
            held.set()

    held = threading.Event()
    (report,) = execute((Stage("s", refuse),), line=LINE, store=store).stages
    key = report.key
    with store.transaction() as connection:
        connection.execute(tables.attempt.delete())
    calls.clear()
    claim = store.attempts.claim(key, name="s", run="r", owner="elsewhere", lease_s=60)

    def finish() -> None:
        held.wait(20)
        store.attempts.complete(key, "elsewhere", claim.attempt, {"by": "somebody else"})

    thread = threading.Thread(target=finish)
    thread.start()
    result = execute((Stage("s", refuse),), line=LINE, store=store, progress=Watched())
    thread.join()

    assert calls[0].startswith("waiting")
    assert result.results["s"] == {"by": "somebody else"}


def test_a_heartbeat_keeps_a_lease_and_notices_its_loss(store: Store) -> None:
    stop, key = StopSign(), "0" * 64
    claim = store.attempts.claim(key, name="s", run="r", owner="me", lease_s=0.2)
    lease = Lease(key=key, owner="me", attempt=claim.attempt)
    with Heartbeat(store.attempts, stop, seconds=0.2) as heartbeat, heartbeat.keeping(lease):
        time.sleep(0.5)
        other = store.attempts.claim(key, name="s", run="r", owner="you", lease_s=60)
        assert other.state == "held"
        stop.check()
        store.attempts.fail(key, "me", claim.attempt, {})
        for _ in range(200):
            if stop._lost.is_set():
                break
            time.sleep(0.01)

    assert stop._lost.is_set()


def test_a_heartbeat_that_cannot_reach_the_database_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = []

    def no_database(*_: object, **__: object) -> bool:
        beats.append(1)
        raise Problem("G308", "busy", tries=[])

    monkeypatch.setattr(store.attempts, "heartbeat", no_database)
    stop = StopSign()
    lease = Lease(key="k", owner="me", attempt=1)
    with Heartbeat(store.attempts, stop, seconds=0.03) as heartbeat, heartbeat.keeping(lease):
        while len(beats) < 3:
            time.sleep(0.005)

    stop.check()
    assert leases.LEASE_S > 3
