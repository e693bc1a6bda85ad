"""A crash at every durable effect, as a process kill and as a power cut: nothing promised is lost.

Each point forks, crashes, and starts again on what survived. Skipped effects are planted to see
that the check can fail.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.digest import digest_json
from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.runs.run import execute
from genba.runs.stage import Stage, StageContext
from genba.store.chain import Draft
from genba.store.feedback import FeedbackRow
from genba.store.home import Store
from genba.testing.crash import Acknowledge, Check, CrashReport, Model, Work, crash_everywhere

MODELS: tuple[Model, ...] = ("kill", "power loss")
LINE = Line(name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv"))
KEY = digest_json("a stage")


def store_work(home: Path, promise: Acknowledge) -> None:
    """Blobs by three ways, records that name them, events, feedback, a stage by hand."""
    with Store.open(home / "home") as store:
        for n in range(2):
            blob = store.blobs.put(b"row" * (n + 1))
            store.ledger.record("dataset", f"d{n}", {"blob": blob}, line="pump")
            promise(json.dumps(["record", f"d{n}"]))
        with store.blobs.writer() as writer:
            writer.write(b"many ")
            writer.write(b"pieces")
        promise(json.dumps(["blob", writer.digest]))
        event = store.ledger.append("note", {"n": 1}, key="once")
        promise(json.dumps(["event", event.seq, event.kind]))
        row = FeedbackRow(
            id="f1", line="pump", kind="label", received_ms=1, status="accepted", batch="b"
        )
        store.feedback.add([row], Draft(kind="feedback", body={}, line="pump", key="batch-b"))
        promise(json.dumps(["feedback", "f1"]))
        claim = store.attempts.claim(KEY, name="s", run="r", owner=f"{home.name}", lease_s=0.0)
        if claim.state == "mine":
            result = {"blob": store.blobs.put(b"result")}
            store.attempts.complete(
                KEY, home.name, claim.attempt, result, event=("stage.finished", {}, "pump", "r")
            )
        promise(json.dumps(["result", KEY]))


def first(context: StageContext) -> dict[str, Any]:
    return {"blob": context.store.blobs.put(b"the rows of the first stage")}


def second(context: StageContext) -> dict[str, Any]:
    """Two trials with a checkpoint after each."""
    meta, arrays = context.effort.checkpoint.load() or ({"trials": 0}, {"w": np.zeros(2)})
    total = arrays["w"]
    for trial in range(meta["trials"], 2):
        total = total + trial
        context.effort.checkpoint.save({"trials": trial + 1}, {"w": total})
    return {"total": total.tolist(), "from": context.inputs["first"]["blob"]}


def third(context: StageContext) -> dict[str, Any]:
    with context.store.blobs.writer() as writer:
        writer.write(json.dumps(context.inputs["second"]).encode())
    context.store.ledger.record("model", writer.digest, {"blob": writer.digest}, line="pump")
    return {"model": writer.digest}


STAGES = (
    Stage("first", first),
    Stage("second", second, after=("first",)),
    Stage("third", third, after=("second",)),
)


def run_work(home: Path, promise: Acknowledge) -> None:
    with Store.open(home / "home") as store:
        result = execute(STAGES, line=LINE, store=store)
        assert result.outcome == "done", result
        for report in result.stages:
            promise(json.dumps(["result", report.key]))
        promise(json.dumps(["record", result.results["third"]["model"]]))
        promise(json.dumps(["record", result.run]))


def broken(store: Store, promises: Iterable[str]) -> Iterable[str]:
    """Say what is wrong with a store, given what it promised."""
    report = store.ledger.verify()
    if not report.ok:
        yield f"chain: {report.reason}"
    for digest in store.blobs.digests():
        yield from _unreadable(store, digest, "blob")
    for kind in ("dataset", "model"):
        for record in store.ledger.find(kind):
            yield from _unreadable(store, record.body["blob"], f"{kind} {record.id}")
    for promise in map(json.loads, promises):
        if not _kept(store, *promise):
            yield f"lost: {promise}"


def _unreadable(store: Store, digest: str, what: str) -> Iterable[str]:
    try:
        store.blobs.read(digest)
    except Problem as problem:
        yield f"{what}: {problem}"


def _kept(store: Store, kind: str, *what: Any) -> bool:
    if kind == "blob":
        return store.blobs.has(what[0])
    if kind == "record":
        return store.ledger.lookup(what[0]) is not None
    if kind == "event":
        return [e.kind for e in store.ledger.events(after=what[0] - 1, limit=1)] == [what[1]]
    if kind == "feedback":
        return [row.id for row in store.feedback.all("pump")] == [what[0]]
    result = store.attempts.result(what[0])
    return result is not None and all(store.blobs.has(v) for k, v in result.items() if k == "blob")


def check_with(work: Work) -> Check:
    """Check what survived, do the work again to its end, and check that."""

    def check(home: Path, promises: tuple[str, ...]) -> Iterable[str]:
        again: list[str] = []
        with Store.open(home / "home") as store:
            yield from broken(store, promises)
        try:
            work(home, again.append)
        except Problem as problem:
            yield f"cannot go on: {problem}"
            return
        with Store.open(home / "home", create=False) as store:
            yield from broken(store, again)

    return check


def crash(
    work: Work, root: Path, model: Model, skip: Collection[str] = (), step: int = 1
) -> CrashReport:
    return crash_everywhere(work, check_with(work), root, model=model, skip=skip, step=step)


#: One crash in four each time, all of them when there is time.
STEPS = [4, pytest.param(1, marks=pytest.mark.slow)]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("model", MODELS)
def test_the_store_keeps_its_promises(tmp_path: Path, model: Model, step: int) -> None:
    report = crash(store_work, tmp_path, model, step=step)

    assert report.violations == ()
    assert report.points > 45


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("model", MODELS)
def test_a_run_goes_on_from_every_point(tmp_path: Path, model: Model, step: int) -> None:
    report = crash(run_work, tmp_path, model, step=step)

    assert report.violations == ()
    assert report.points > 45


def blob_work(home: Path, promise: Acknowledge) -> None:
    with Store.open(home / "home") as store:
        blob = store.blobs.put(b"rows")
        store.ledger.record("dataset", "d", {"blob": blob}, line="pump")
        promise(json.dumps(["record", "d"]))


@pytest.mark.parametrize("forgotten", ["sync", "sync_directory"])
def test_a_forgotten_sync_shows_when_the_power_goes(tmp_path: Path, forgotten: str) -> None:
    assert crash(blob_work, tmp_path, "power loss", skip=[forgotten]).violations


def test_a_forgotten_sync_does_not_show_when_a_process_is_killed(tmp_path: Path) -> None:
    assert crash(blob_work, tmp_path, "kill", skip=["sync", "sync_directory"]).violations == ()


def row_before_blob(home: Path, promise: Acknowledge) -> None:
    with Store.open(home / "home") as store:
        blob = digest_json("content")
        store.ledger.record("dataset", "d", {"blob": blob}, line="pump")
        store.blobs.put(b'"content"')
        promise(json.dumps(["record", "d"]))


@pytest.mark.parametrize("model", MODELS)
def test_a_row_written_before_its_blob_shows_in_both_models(tmp_path: Path, model: Model) -> None:
    assert crash(row_before_blob, tmp_path, model).violations


def test_work_that_fails_by_itself_is_no_crash(tmp_path: Path) -> None:
    def work(_home: Path, _promise: Acknowledge) -> None:
        raise ValueError("a bug")

    with pytest.raises(RuntimeError, match="exit code 70"):
        crash(work, tmp_path, "kill")
