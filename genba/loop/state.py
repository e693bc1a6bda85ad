"""What the controller knows of one line: the fold of the line's events, nothing else.

The state is a frozen value, built event by event, so a controller that restarts rebuilds exactly
the state it had, and the whole controller can be simulated without a disk or a clock.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from genba.core.line import Line
from genba.core.rollout import Placed, Rollout, fold
from genba.core.values import Event
from genba.loop.evidence import Evidence, Streak
from genba.loop.traffic import Batch, Traffic, batch_of

#: The kinds of events a state is folded from.
KINDS: Final = (
    "run.started",
    "stage.finished",
    "run.finished",
    "deploy",
    "approval",
    "capture.created",
    "watch",
    "trigger",
    "feedback.received",
    "action",
    "serve.load_failed",
)

_SEARCH: Final = "codesign"  # the reason of such a run

#: Notes on actions already recorded; older ones belong to deployments long gone.
_NOTED: Final = 64
#: Predictions in the newest window, whatever the line asks: enough to judge, bounded in memory.
_WINDOW: Final = (100, 5_000)
#: After so many failed attempts in a row the evidence is spent: somebody has to look.
MAX_FAILURES: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A run that has started and not finished."""

    run: str
    reason: str
    started_ms: int
    seen_ms: int  # newest sign of life
    requested: bool  # by the controller


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A run the controller has asked for and that has not started yet."""

    epoch: int  # where the evidence ended; part of the action's key
    attempt: int
    trigger: str
    reason: str
    dataset: str | None
    time_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A package that passed its gates and has not been in service."""

    package: str
    run: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cursor:
    """Where the watch of a package goes on: a capture event and a row inside its batch."""

    package: str
    seq: int
    row: int
    window: int  # number of the next window


@dataclass(frozen=True, kw_only=True, slots=True)
class LineState:
    """Everything `decide` may look at.

    Example:
        >>> LineState(line="pump").rollout.stable is None
        True
    """

    line: str
    window: int = 500  # predictions in the newest window
    seq: int = 0
    time_ms: int = 0
    line_id: str | None = None  # the line as of the newest run
    rollout: Rollout = field(default_factory=Rollout)
    stable: Traffic = field(default_factory=Traffic)  # since it became stable
    challenger: Traffic = field(default_factory=Traffic)  # canary or shadow, since it was placed
    beside: Traffic = field(default_factory=Traffic)  # the stable one since the same moment
    candidate: Candidate | None = None
    approvals: Mapping[str, bool] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)  # package -> why it cannot be loaded
    running: Mapping[str, Running] = field(default_factory=dict)
    request: Request | None = None
    epoch: int = 0  # seq of the newest request
    evidence: Evidence = field(default_factory=Evidence)
    held: Evidence | None = None  # what the requested run was asked for; returned if it fails
    refusals: int = 0  # challengers in a row that did not make it
    failures: int = 0  # requested runs in a row that broke down
    failed_ms: int = 0
    trained_ms: int = 0  # when a run last came to an answer, or was given up for good
    spent: tuple[float, float] = (0.0, 0.0)  # seconds, CPU seconds of the newest finished run
    dataset: str | None = None  # of the newest finished run
    noted: tuple[str, ...] = ()  # keys of recorded actions that change nothing by themselves
    cursor: Cursor | None = None

    @property
    def placed(self) -> Placed | None:
        """The challenger in service: the canary, or the shadow where there is no canary."""
        return self.rollout.canary or self.rollout.shadow

    @property
    def patience(self) -> int:
        """How many times the usual evidence is needed: it doubles with each refusal in a row.

        Example:
            >>> LineState(line="pump", refusals=2).patience
            4
        """
        return int(2 ** min(self.refusals, 6))


def initial(line: Line) -> LineState:
    """Return the state of a line before its first event."""
    low, high = _WINDOW
    return LineState(line=line.name, window=min(max(line.rollout.decide_after, low), high))


def advance(state: LineState, events: Iterable[Event]) -> LineState:
    """Fold new events, oldest first, into a state. Events already folded are skipped.

    Args:
        state: The state so far.
        events: Events of this line (others are skipped) in the order of `seq`.

    Returns:
        The state after them.
    """
    last: Event | None = None
    for event in events:
        if event.seq <= state.seq or event.line != state.line:
            continue
        step = _STEPS.get(event.kind)
        if step:
            state = step(state, event)
        last = event
    return replace(state, seq=last.seq, time_ms=last.time_ms) if last else state


def _run_started(state: LineState, event: Event) -> LineState:
    run, reason = str(event.body.get("run", event.subject)), str(event.body.get("reason", ""))
    requested = state.request is not None and reason == state.request.reason
    started = Running(
        run=run,
        reason=reason,
        started_ms=event.time_ms,
        seen_ms=event.time_ms,
        requested=requested,
    )
    return replace(
        state,
        running={**state.running, run: started},
        request=None if requested else state.request,
        line_id=event.body.get("line_digest") or state.line_id,
    )


def _stage_finished(state: LineState, event: Event) -> LineState:
    run = str(event.body.get("run", event.subject))
    if run not in state.running:
        return state
    alive = replace(state.running[run], seen_ms=event.time_ms)
    return replace(state, running={**state.running, run: alive})


def _run_finished(state: LineState, event: Event) -> LineState:
    body, run = event.body, str(event.body.get("run", event.subject))
    known = state.running.get(run)
    running = {k: v for k, v in state.running.items() if k != run}
    if body.get("reason") == _SEARCH:  # of settings: nothing that could be deployed was made
        return replace(state, running=running)
    state = replace(
        state,
        running=running,
        dataset=body.get("dataset") or state.dataset,
        spent=(float(body.get("seconds") or 0.0), float(body.get("cpu_seconds") or 0.0)),
    )
    requested = bool(known and known.requested)
    if body.get("outcome") in ("failed", "cancelled"):
        return _failed(state, event) if requested else state
    state = replace(state, trained_ms=event.time_ms)
    if requested:
        state = replace(state, held=None, failures=0)
    candidate = _candidate(state, body, run)
    if candidate:
        return replace(state, candidate=candidate)
    return replace(state, refusals=state.refusals + 1) if requested else state


def _candidate(state: LineState, body: Mapping[str, Any], run: str) -> Candidate | None:
    package, verdict = body.get("package"), body.get("verdict") or {}
    if body.get("outcome") != "done" or not package or verdict.get("passed") is not True:
        return None
    tried = (*state.rollout.packages, state.rollout.previous, *state.rollout.condemned)
    if package in tried:
        return None
    return Candidate(package=str(package), run=run)


def _failed(state: LineState, event: Event) -> LineState:
    """Give the evidence back for another attempt, unless that has failed often enough."""
    failures = state.failures + 1
    if failures >= MAX_FAILURES:
        return replace(_given_up(state, event), failures=0)
    back = (state.held or Evidence()).plus(state.evidence)
    return replace(state, held=None, evidence=back, failures=failures, failed_ms=event.time_ms)


def _given_up(state: LineState, event: Event) -> LineState:
    return replace(state, held=None, refusals=state.refusals + 1, trained_ms=event.time_ms)


def _deployed(state: LineState, event: Event) -> LineState:
    before, after = state.rollout, fold([event], state.rollout)
    action, package = str(event.body.get("action")), str(event.body.get("package"))
    state = replace(state, rollout=after)
    if _package(before.stable) != _package(after.stable):
        fresh = state.evidence.of_another_model()
        state = replace(state, stable=Traffic(), evidence=fresh)
    if _challenger(before) != _challenger(after):
        state = replace(state, challenger=Traffic(), beside=Traffic())
    if state.candidate and state.candidate.package == package:
        state = replace(state, candidate=None)
    if action == "promote":
        state = replace(state, refusals=0)
    elif action in ("roll_back", "withdraw"):
        state = replace(state, refusals=state.refusals + 1)
    here = set(after.packages)
    return replace(
        state,
        approvals={k: v for k, v in state.approvals.items() if k in here},
        broken={k: v for k, v in state.broken.items() if k in here},
    )


def _package(placed: Placed | None) -> str | None:
    return placed.package if placed else None


def _challenger(rollout: Rollout) -> tuple[str, int] | None:
    placed = rollout.canary or rollout.shadow
    return (placed.package, placed.since_seq) if placed else None


def _approved(state: LineState, event: Event) -> LineState:
    package = str(event.body.get("package", event.subject))
    waiting = state.candidate.package if state.candidate else None
    if package not in (*state.rollout.packages, waiting):
        return state
    given = event.body.get("approved") is True
    return replace(state, approvals={**state.approvals, package: given})


def _captured(state: LineState, event: Event) -> LineState:
    packages: Mapping[str, Any] = event.body.get("packages") or {}
    span = (int(event.body.get("from_ms") or 0), int(event.body.get("to_ms") or 0))
    placed, stable = state.placed, _package(state.rollout.stable)
    if placed and placed.package in packages:
        batch = batch_of(packages[placed.package])
        if batch.n > 0:
            state = replace(state, challenger=state.challenger.add(batch, *span, state.window))
    batch = batch_of(packages.get(stable) or {}) if stable else Batch(n=0)
    if batch.n <= 0:
        return state
    return replace(
        state,
        stable=state.stable.add(batch, *span, state.window),
        beside=state.beside.add(batch, *span, 1) if placed else state.beside,
        evidence=state.evidence.served(batch.n, batch.cpu_seconds),
    )


def _watched(state: LineState, event: Event) -> LineState:
    package, cursor = str(event.body.get("package", event.subject)), event.body.get("cursor") or {}
    if package != _package(state.rollout.stable):
        return state
    at = Cursor(
        package=package,
        seq=int(cursor.get("seq") or 0),
        row=int(cursor.get("row") or 0),
        window=int(event.body.get("window") or 0) + 1,
    )
    streaks = {}
    for finding in event.body.get("findings") or ():
        if finding.get("drifted") and finding.get("kind") in ("input", "output"):
            name = str(finding["name"])
            before = state.evidence.drift.get(name)
            streaks[name] = Streak(
                windows=before.windows + 1 if before else 1,
                statistic=float(finding["statistic"]),
                null_q=float(finding.get("null_q") or 0.0),
            )
    return replace(state, cursor=at, evidence=replace(state.evidence, drift=streaks))


def _feedback(state: LineState, event: Event) -> LineState:
    def count(name: str) -> int:
        return int(event.body.get(name) or 0)

    seen = state.evidence
    more = replace(
        seen,
        labels=seen.labels + count("labels"),
        confirmed=seen.confirmed + count("confirmed"),
        false_alarms=seen.false_alarms + count("false_alarms"),
        missed=seen.missed + count("missed"),
        wrong=seen.wrong + count("wrong"),
    )
    return replace(state, evidence=more)


def _acted(state: LineState, event: Event) -> LineState:
    body = event.body
    kind, key = str(body.get("action")), str(body.get("key", ""))
    if kind == "start_run":
        return _requested(state, event)
    if kind == "give_up" and state.request:
        return replace(_given_up(state, event), request=None)
    if kind == "refused" and state.candidate and state.candidate.package == body.get("package"):
        return replace(state, candidate=None, refusals=state.refusals + 1)
    return replace(state, noted=(*state.noted, key)[-_NOTED:])


def _requested(state: LineState, event: Event) -> LineState:
    body = event.body
    attempt = int(body.get("attempt") or 1)
    if attempt == 1:
        held = None if body.get("would") else state.evidence
        state = replace(state, evidence=Evidence(), held=held, epoch=event.seq)
    if body.get("would"):
        return replace(state, trained_ms=event.time_ms)
    asked = Request(
        epoch=int(body.get("epoch") or 0),
        attempt=attempt,
        trigger=str(body.get("trigger", "")),
        reason=str(body.get("reason", "")),
        dataset=body.get("dataset"),
        time_ms=event.time_ms,
    )
    return replace(state, request=asked)


def _load_failed(state: LineState, event: Event) -> LineState:
    package = str(event.body.get("package", event.subject))
    if package not in state.rollout.packages:
        return state
    why = f"{event.body['code']} {event.body['what']}"
    return replace(state, broken={**state.broken, package: why})


_STEPS: Final[Mapping[str, Callable[[LineState, Event], LineState]]] = {
    "run.started": _run_started,
    "stage.finished": _stage_finished,
    "run.finished": _run_finished,
    "deploy": _deployed,
    "approval": _approved,
    "capture.created": _captured,
    "watch": _watched,
    "feedback.received": _feedback,
    "action": _acted,
    "serve.load_failed": _load_failed,
}
