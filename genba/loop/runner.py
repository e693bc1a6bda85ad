"""The thin runner: watch, fold, decide, carry out, and nothing twice.

Every effect has a key made from what caused it, so a controller that dies anywhere and starts
again, or two that run at once, leave the ledger as one that never died would have left it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import time, time_ns
from typing import Any, Final

from genba.core.codec import decode
from genba.core.digest import digest_json
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.values import Manifest
from genba.loop.decide import Action, decide
from genba.loop.state import KINDS, LineState, advance, initial
from genba.loop.training import Launch, ProcessLauncher, command, extended_dataset
from genba.runs.lines import newest_line
from genba.stages.deploy import deploy
from genba.stages.watch import OpenWindow, watch
from genba.store.home import Store
from genba.store.owner import new_owner

#: Decisions carried out for one line in one tick; a line that still changes goes on in the next.
MAX_STEPS: Final = 16
#: A controller that is silent for so long has lost its line to the next one.
LEASE_S: Final = 30.0
#: A lease younger than this is ours without asking; every tick would be a write otherwise.
BEAT_S: Final = 10.0
_PLACEMENTS: Final = ("deploy", "canary", "shadow", "promote", "roll_back", "withdraw")
_BY: Final = "genba up"

Extend = Callable[[Store, Line, LineState], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """What one look at a line came to."""

    line: str
    actions: tuple[Action, ...] = ()
    windows: int = 0  # watch windows completed
    held_by: str = ""  # another controller has the line
    problems: tuple[Problem, ...] = ()


class Runner:
    """Controls the lines of a store, or some of them.

    Args:
        store: Where everything is recorded.
        lines: Names of the lines to control; all of them when None.
        launch: Starts a command; a child process by default.
        extend_with: Makes the dataset a challenger is trained on and returns its id.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with Store.open(Path(tempfile.mkdtemp())) as store:
        ...     Runner(store).tick()
        ()
    """

    def __init__(
        self,
        store: Store,
        *,
        lines: Iterable[str] | None = None,
        launch: Launch | None = None,
        extend_with: Extend | None = None,
    ) -> None:
        self._store = store
        self._only = None if lines is None else frozenset(lines)
        self._processes = ProcessLauncher()
        self._launch = launch or self._processes
        self._extend = extend_with or extended_dataset
        self._owner = new_owner()
        self._leases: dict[str, tuple[int, float]] = {}  # line -> attempt, when extended
        self._lines: dict[str | None, Line] = {}  # by record id; what an id names never changes
        self._manifests: dict[str, Manifest] = {}  # of what is or was stable
        self._states: dict[str, LineState] = {}
        self._open: dict[str, OpenWindow] = {}

    def tick(self, now_ms: int | None = None) -> tuple[Tick, ...]:
        """Look at every line once and do what is due.

        A line with a problem does not keep the others from being looked after.

        Args:
            now_ms: The time, ms since 1970 UTC; the machine's clock if not given.
        """
        now = time_ns() // 1_000_000 if now_ms is None else now_ms
        return tuple(self._tick(name, now) for name in self._names())

    def state(self, name: str) -> LineState:
        """Return the folded state of a line as of now; takes no lease.

        Raises:
            Problem: G810 when the store knows no such line.
        """
        return self._catch_up(name)

    def close(self) -> None:
        """Interrupt runs of its own and hand the lines back, so that another can take them."""
        self._processes.stop()
        for name, (attempt, _) in self._leases.items():
            why = {"reason": "the controller was stopped"}
            self._store.attempts.fail(_lease(name), self._owner, attempt, why, cancelled=True)
        self._leases.clear()

    def __enter__(self) -> "Runner":
        """Return the runner itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Hand the lines back."""
        self.close()

    def _names(self) -> list[str]:
        names = {record.line for record in self._store.ledger.find("line")}
        return sorted(names if self._only is None else names & self._only)

    def _tick(self, name: str, now_ms: int) -> Tick:
        problems: list[Problem] = []
        done: list[Action] = []
        windows = 0
        try:
            holder = self._claim(name)
            if holder:
                return Tick(line=name, held_by=holder)
            line = self._line(name, self._catch_up(name).line_id)
            try:
                windows = self._watch(line)
            except Problem as problem:  # a damaged capture must not keep a bad model in service
                problems.append(problem)
            self._act(line, now_ms, done)
        except Problem as problem:
            problems.append(problem)
        return Tick(line=name, actions=tuple(done), windows=windows, problems=tuple(problems))

    def _claim(self, name: str) -> str:
        """Take or keep the lease of a line; return who has it when that is somebody else."""
        attempts, key, now = self._store.attempts, _lease(name), time()
        attempt, extended = self._leases.get(name, (0, 0.0))
        if attempt and abs(now - extended) < BEAT_S:
            return ""
        if attempt and attempts.heartbeat(key, self._owner, attempt, lease_s=LEASE_S):
            self._leases[name] = (attempt, now)
            return ""
        claim = attempts.claim(
            key, name="loop", run=f"loop/{name}"[:64], owner=self._owner, lease_s=LEASE_S
        )
        if claim.state != "mine":
            self._leases.pop(name, None)
            return claim.holder
        self._leases[name] = (claim.attempt, now)
        return ""

    def _line(self, name: str, line_id: str | None) -> Line:
        if line_id not in self._lines:
            line_id, body = current_line(self._store, name, line_id)
            if line_id not in self._lines:
                self._lines[line_id] = decode(Line, body)
        return self._lines[line_id]

    def _catch_up(self, name: str) -> LineState:
        state = self._states.get(name) or initial(self._line(name, None))
        news = self._store.ledger.events(after=state.seq, line=name, kinds=KINDS)
        self._states[name] = advance(state, news)
        return self._states[name]

    def _watch(self, line: Line) -> int:
        state = self._states[line.name]
        stable = state.rollout.stable
        if not stable:
            return 0
        opened = self._open.get(line.name)
        if opened is None or opened.package != stable.package:
            opened = _resume(state, stable.package, stable.since_seq)
        report = watch(self._store, line, self._manifest(stable.package), opened)
        self._open[line.name] = report.open
        self._catch_up(line.name)
        return len(report.windows)

    def _manifest(self, package: str) -> Manifest:
        if package not in self._manifests:
            body = self._store.ledger.get("package", package)
            self._manifests[package] = decode(Manifest, body)
        return self._manifests[package]

    def _act(self, line: Line, now_ms: int, done: list[Action]) -> None:
        for _ in range(MAX_STEPS):
            state = self._catch_up(line.name)
            actions = decide(line, state, now_ms)
            for action in actions:
                self._carry_out(line, state, action, now_ms)
                done.append(action)
            if not actions or self._catch_up(line.name).seq == state.seq:
                return

    def _carry_out(self, line: Line, state: LineState, action: Action, now_ms: int) -> None:
        if action.kind == "start_run":
            self._start_run(line, state, action, now_ms)
        elif action.would or action.kind in ("ask", "alert"):
            self._note(line, action, now_ms)
        elif action.kind == "give_up" and action.run:
            body = {"run": action.run, "outcome": "failed", "reason": action.reason}
            self._store.ledger.append(
                "run.finished",
                body,
                line=line.name,
                subject=action.run,
                key=action.key,
                now_ms=now_ms,
            )
        elif action.kind in _PLACEMENTS:
            self._place(line, action, now_ms)
        else:
            self._note(line, action, now_ms)

    def _place(self, line: Line, action: Action, now_ms: int) -> None:
        assert action.kind in _PLACEMENTS
        try:
            deploy(
                self._store,
                line.name,
                action.kind,
                action.package,
                share=action.share,
                reason=action.reason,
                by=_BY,
                key=action.key,
            )
        except Problem as problem:
            if not problem.code.startswith("G52"):
                raise
            # The guard knows better than the event that led here: write it down, once.
            body = {"action": "refused", "code": problem.code, "reason": problem.what}
            self._append(line, {**_body(action), **body}, action, now_ms)

    def _note(self, line: Line, action: Action, now_ms: int) -> None:
        self._append(line, _body(action), action, now_ms)

    def _append(self, line: Line, body: dict[str, Any], action: Action, now_ms: int) -> int:
        event = self._store.ledger.append(
            "action",
            body,
            line=line.name,
            subject=action.package or action.run,
            key=f"{action.key}/{body['action']}",
            now_ms=now_ms,
        )
        return event.seq

    def _start_run(self, line: Line, state: LineState, action: Action, now_ms: int) -> None:
        """Say why, prepare the data, ask for the run, start it; in that order.

        A crash before the request repeats the steps, which changes nothing. A crash between the
        request and the start leaves a request that nobody takes; it is repeated after a while.
        """
        if action.attempt == 1:
            self._store.ledger.append(
                "trigger",
                {"trigger": action.trigger, "reason": action.reason, "would": action.would},
                line=line.name,
                key=f"{action.key}/trigger",
                now_ms=now_ms,
            )
        if action.would:
            self._note(line, action, now_ms)
            return
        dataset = action.dataset or self._extend(self._store, line, state)
        seq = self._append(line, {**_body(action), "dataset": dataset}, action, now_ms)
        if seq > state.seq:
            self._launch(command(self._store, line.name, action.reason, dataset))


def current_line(store: Store, name: str, line_id: str | None) -> tuple[str, Mapping[str, Any]]:
    """Return the id and body of a line: the version named, else the one that was run last.

    Raises:
        Problem: G810 when the store knows no such line.
    """
    body = store.ledger.get("line", line_id) if line_id else None
    if line_id and body is not None:
        return line_id, body
    record = newest_line(store, name)
    if record is None:
        raise Problem(
            "G810",
            f"There is no line {name} in this store.",
            where=str(store.path),
            tries=[f"genba run {name}.toml", "genba status"],
        )
    return record.id, record.body


def _resume(state: LineState, package: str, since: int) -> OpenWindow:
    cursor = state.cursor
    if cursor and cursor.package == package:
        return OpenWindow(package=package, seq=cursor.seq, row=cursor.row, number=cursor.window)
    return OpenWindow(package=package, seq=since, row=0, number=0)


def _body(action: Action) -> dict[str, Any]:
    body: dict[str, Any] = {"action": action.kind, "key": action.key, "reason": action.reason}
    for name in ("package", "run", "share", "trigger", "attempt", "epoch", "dataset", "would"):
        value = getattr(action, name)
        if value:
            body[name] = value
    return body


def _lease(name: str) -> str:
    return digest_json(["loop", name])
