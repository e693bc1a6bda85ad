"""One pass of a line: every stage whose result is not there yet, once, and a record of it all."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from genba.core.codec import encode
from genba.core.digest import canonical_json, digest_json
from genba.core.ids import new_id
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.protocols import Executor
from genba.runs import effort as efforts
from genba.runs import keys, worker
from genba.runs.effort import Checkpoint, Effort, FileCheckpoint, MemoryCheckpoint
from genba.runs.lease import LEASE_S, Heartbeat, Lease
from genba.runs.meter import Meter
from genba.runs.progress import Progress, SilentProgress
from genba.runs.software import software
from genba.runs.stage import Result, Stage, StageContext
from genba.runs.stop import Cancelled, LeaseLost, StopSign
from genba.store.attempts import Claim
from genba.store.chain import Draft
from genba.store.home import Store
from genba.store.owner import new_owner, retire

Outcome = Literal["done", "refused", "failed", "cancelled"]
_POLL_S: Final = 0.2  # between looks at a stage that another process is doing

# What took less is done again sooner than it is synced. Until the next commit that waits for the
# disk, at the latest the one that ends the run, a power cut (not a kill) may cost this much.
_WORTH_A_SYNC_S: Final = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """What one stage of a run took; a reused one took nothing."""

    name: str
    key: str
    reused: bool
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What came of a run."""

    run: str
    outcome: Outcome
    results: Mapping[str, Result]
    stages: tuple[StageReport, ...]
    stop: tuple[str, ...] = ()  # why the line refused to go on
    problem: Problem | None = None  # what a failed run failed of
    bill_inputs: Mapping[str, float] = field(default_factory=dict)  # seconds, cpu_seconds


def execute(  # noqa: PLR0913  the contract of a run; all but the first are named
    stages: Sequence[Stage],
    *,
    line: Line,
    store: Store,
    reason: str = "asked",
    progress: Progress | None = None,
    executor: Executor | None = None,
    extra: Mapping[str, Any] | None = None,
    summary: Callable[[Mapping[str, Result]], Mapping[str, Any]] = dict,
) -> RunResult:
    """Run the stages in order; results that exist are reused, work that was cut off goes on.

    Args:
        stages: In order; each sees the results of those named in its `after`.
        line: The line.
        store: Where everything is kept.
        reason: Why this run, for the record.
        progress: Where to say what is being done.
        executor: Where stages run; in this process if not given.
        extra: Facts for the stages that are not in the line (champion, dataset).
        summary: What of the results the record of the run holds; all of them if not given.

    Returns:
        The outcome. A stage's Problem makes the run `failed` and is in `problem`; Ctrl-C makes it
        `cancelled`, and the same call later goes on from the last checkpoint.

    Raises:
        Exception: Whatever else a stage raises, after it is recorded.
    """
    going = _Going(
        line=line,
        store=store,
        reason=reason,
        progress=progress or SilentProgress(),
        executor=executor,
        extra=dict(extra or {}),
        summary=summary,
    )
    with going.stop.listening(lambda: store.database.busy), going.meter, going.heartbeat:
        return going.through(stages)


@dataclass(kw_only=True)
class _Going:
    """A run while it is going on."""

    line: Line
    store: Store
    reason: str
    progress: Progress
    executor: Executor | None
    extra: dict[str, Any]
    summary: Callable[[Mapping[str, Result]], Mapping[str, Any]]
    run: str = field(default_factory=lambda: new_id("run"))
    owner: str = field(default_factory=new_owner)
    stop: StopSign = field(default_factory=StopSign)
    meter: Meter = field(default_factory=Meter)
    results: dict[str, Result] = field(default_factory=dict)
    reports: list[StageReport] = field(default_factory=list)
    unwritten: list[Draft] = field(default_factory=list)  # go with the next commit
    heartbeat: Heartbeat = field(init=False)

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(self.store.attempts, self.stop)

    def through(self, stages: Sequence[Stage]) -> RunResult:
        self.begin()
        try:
            return self.finish(*self.each(stages))
        except Cancelled:
            return self.finish("cancelled")
        except Problem as problem:
            return self.finish("failed", problem=problem)
        except BaseException as error:
            with suppress(Problem):
                self.finish("failed", crash=_sentence(error))
            raise
        finally:
            retire(self.owner)

    def begin(self) -> None:
        plain = encode(self.line)
        line_id = digest_json(plain)
        body = {"run": self.run, "reason": self.reason, "line_digest": line_id}
        record = {**body, "code": software()}
        with self.store.transaction(durable=False):  # nobody has been promised anything yet
            ledger = self.store.ledger
            ledger.record("line", line_id, plain, line=self.line.name)
            ledger.record("run", self.run, record, line=self.line.name, inputs=[("line", line_id)])
            ledger.append("run.started", body, line=self.line.name, subject=self.run)

    def each(self, stages: Sequence[Stage]) -> tuple[Outcome, tuple[str, ...]]:
        for stage in stages:
            self.stop.check()
            result = self.one(stage)
            self.results[stage.alias or stage.name] = result
            if result.get("stop"):
                return "refused", tuple(result["stop"])
        return "done", ()

    def one(self, stage: Stage) -> Result:
        context = StageContext(
            line=stage.line or self.line,
            store=self.store,
            run=self.run,
            inputs={name: self.results[name] for name in stage.after},
            effort=self.effort(MemoryCheckpoint()),
            progress=self.progress,
            extra=self.extra,
        )
        key = keys.stage_key(
            stage.name,
            uses=(stage.module, *stage.uses),
            config=stage.config(context),
            inputs=context.inputs,
            seed=self.line.train.seed,
        )
        self.progress.stage(stage.name)
        known = self.store.attempts.result(key)
        if known is not None:
            return self.reuse(stage, key, known)
        while True:
            claim = self.claim(stage, key)
            if claim.result is not None:
                return self.reuse(stage, key, claim.result)
            lease = Lease(key=key, owner=self.owner, attempt=claim.attempt)
            result = self.do(stage, context, lease)
            if result is not None:
                return result

    def reuse(self, stage: Stage, key: str, result: Result) -> Result:
        report = StageReport(name=stage.name, key=key, reused=True, seconds=0.0, cpu_seconds=0.0)
        self.reports.append(report)
        self.unwritten.append(self.stage_finished(report))
        efforts.clear(self.work(key))  # whoever did it may have died before clearing up
        return result

    def claim(self, stage: Stage, key: str) -> Claim:
        while True:
            with self.store.transaction(durable=False):
                self.store.ledger.append_all(self.unwritten)
                claim = self.store.attempts.claim(
                    key, name=stage.name, run=self.run, owner=self.owner, lease_s=LEASE_S
                )
            self.unwritten.clear()
            if claim.state != "held":
                return claim
            self.progress.step("waiting: another process is doing this stage")
            self.stop.sleep(_POLL_S)

    def do(self, stage: Stage, context: StageContext, lease: Lease) -> Result | None:
        """Do a stage that is ours; None when it was lost to another process meanwhile."""
        self.stop.found()
        with Meter() as meter:
            try:
                with self.heartbeat.keeping(lease):
                    result = self.call(stage, context, lease)
            except LeaseLost:
                return None
            except BaseException as error:
                self.give_up(lease, error)
                raise
        report = StageReport(
            name=stage.name,
            key=lease.key,
            reused=False,
            seconds=meter.seconds,
            cpu_seconds=meter.cpu_seconds,
        )
        if not self.complete(lease, result, report):
            return None
        self.reports.append(report)
        efforts.clear(self.work(lease.key))
        return result

    def call(self, stage: Stage, context: StageContext, lease: Lease) -> Result:
        checkpoint = FileCheckpoint(self.work(lease.key), attempt=lease.attempt)
        context = replace(context, effort=self.effort(checkpoint))
        with self.stop.interruptible():
            if self.executor is None:
                result = stage.call(context)
            else:
                payload = worker.payload(stage, context, key=lease.key, attempt=lease.attempt)
                result = dict(self.executor.run(worker.RUN_STAGE, payload))
        return _plain(stage, result)

    def complete(self, lease: Lease, result: Result, report: StageReport) -> bool:
        finished = self.stage_finished(report)
        return self.store.attempts.complete(
            lease.key,
            lease.owner,
            lease.attempt,
            result,
            event=(finished.kind, finished.body, finished.line, finished.subject),
            durable=report.seconds >= _WORTH_A_SYNC_S,
        )

    def give_up(self, lease: Lease, error: BaseException) -> None:
        reason = error.to_json() if isinstance(error, Problem) else {"what": _sentence(error)}
        with suppress(Problem):  # on a full disk the lease ends by itself
            self.store.attempts.fail(
                lease.key,
                lease.owner,
                lease.attempt,
                reason,
                cancelled=isinstance(error, Cancelled),
            )

    def finish(
        self,
        outcome: Outcome,
        stop: tuple[str, ...] = (),
        *,
        problem: Problem | None = None,
        crash: str = "",
    ) -> RunResult:
        spent = {"seconds": self.meter.seconds, "cpu_seconds": self.meter.cpu_seconds}
        body = {
            **self.summary(self.results),
            "run": self.run,
            "outcome": outcome,
            "reason": self.reason,
            "stop": list(stop),
            **spent,
        }
        if problem is not None:
            body["problem"] = problem.to_json()
        if crash:
            body["crash"] = crash
        finished = Draft(kind="run.finished", body=body, line=self.line.name, subject=self.run)
        self.store.ledger.append_all([*self.unwritten, finished])
        return RunResult(
            run=self.run,
            outcome=outcome,
            results=self.results,
            stages=tuple(self.reports),
            stop=stop,
            problem=problem,
            bill_inputs=spent,
        )

    def stage_finished(self, report: StageReport) -> Draft:
        body = {
            "run": self.run,
            "stage": report.name,
            "key": report.key,
            "reused": report.reused,
            "seconds": report.seconds,
            "cpu_seconds": report.cpu_seconds,
        }
        return Draft(kind="stage.finished", body=body, line=self.line.name, subject=self.run)

    def effort(self, checkpoint: Checkpoint) -> Effort:
        train = self.line.train
        return Effort(
            seed=train.seed,
            budget=train.budget,
            checkpoint=checkpoint,
            progress=self.progress,
            stop=self.stop,
        )

    def work(self, key: str) -> Path:
        return self.store.path / "work" / key


def _plain(stage: Stage, result: Result) -> Result:
    """Return a result as it will be read back, so that a first run and a reused one agree."""
    try:
        plain: Result = json.loads(canonical_json(result))
    except (TypeError, ValueError) as error:
        raise Problem(
            "G404",
            f"The result of the stage {stage.name} is not JSON: {error}.",
            where=stage.name,
            why="A stage returns numbers, text, lists and tables; NaN and arrays go into blobs.",
            tries=["genba explain G404"],
        ) from error
    return plain


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
