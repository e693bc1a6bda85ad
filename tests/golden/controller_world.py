"""The simulated world that `test_controller_histories.py` lets the controller live in."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

from genba.core import rollout
from genba.core.codec import encode
from genba.core.line import Budget, Data, Line, Retrain, RollBackOn, Rollout, Train
from genba.core.problem import Problem
from genba.core.values import Event
from genba.loop.decide import Action
from genba.loop.runner import Runner
from genba.loop.state import advance, initial
from genba.stages.deploy import approve, deploy
from genba.store.home import Store
from tests.golden.memory_store import Attempts, Crash, MemoryLedger

Nature = Literal["good", "errors", "nan", "slow", "alarms", "unloadable"]
MINUTE_MS = 60_000
#: Faults that the counts of a stable package show by themselves.
SHOWN = ("errors", "nan", "slow")


@dataclass(kw_only=True)
class Run:
    """A run on its way: when it starts and ends, and as what; None for never."""

    name: str
    reason: str
    starts_ms: int | None
    ends_ms: int | None
    requested: bool
    started: bool = False


class Blind(Runner):
    """A runner whose watch events come from the world, as does the decoded line (for speed)."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.store, launch=world.launch, extend_with=lambda *_: "d2")
        self._world = world

    def _line(self, name: str, line_id: str | None) -> Line:
        return self._world.line

    def _watch(self, line: Line) -> int:
        return 0


@dataclass
class World:
    """One history."""

    seed: int
    now_ms: int = 1_800_000_000_000
    natures: dict[str, Nature] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    launched: list[str] = field(default_factory=list)
    jumped: bool = False
    still: bool = False  # nothing new happens any more
    windows: int = 0
    checked: int = 0
    folded: int = 0
    now: rollout.Rollout = field(default_factory=rollout.Rollout)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.ledger = MemoryLedger(lambda: self.now_ms)
        self.store = cast(
            Store,
            SimpleNamespace(
                ledger=self.ledger,
                attempts=Attempts(),
                path=Path("home"),
                database=SimpleNamespace(lock=lambda _: None),
                transaction=lambda: nullcontext(),
            ),
        )
        self.line = self._line()
        self.ledger.record("line", "l1", encode(self.line), line="pump")
        self.controllers = [Blind(self), Blind(self)]
        package = self._package("good", passed=True)
        self._tell("run.started", run="first", reason="asked")
        self._finish("first", package)
        deploy(
            self.store, "pump", "deploy", package, reason="first", by="run", key=f"first:{package}"
        )

    def _line(self) -> Line:
        pick, chance = self.random.choice, self.random.random
        when = {"labels": 20.0, "drift": 0.2, "days": 1.0, "quality": 0.8, "cost_usd": 1e-9}
        kept = {name: at for name, at in when.items() if chance() < 0.6}
        return Line(
            name="pump",
            task="sensor.anomaly",
            data=Data(source="files:x.csv"),
            train=Train(budget=Budget(minutes=1)),
            rollout=Rollout(
                decide=pick(["auto", "auto", "auto", "ask", "ask", "observe"]),
                canary=pick([0.0, 0.1, 0.5]),
                decide_after=pick([50, 200, 600]),
                roll_back_on=RollBackOn(error_rate=0.02, latency_ms_p99=20.0),
            ),
            retrain=Retrain(when=kept),
        )

    def launch(self, command: Sequence[str]) -> None:
        reason, chance = command[command.index("--reason") + 1], self.random.random()
        self.launched.append(self.ledger.all[-1].body["key"])
        start = None if chance < 0.1 else self.now_ms + self.random.randrange(0, 90_000)
        end = None if chance > 0.9 else self.now_ms + self.random.randrange(90_000, 10 * MINUTE_MS)
        name = f"run-{len(self.runs)}"
        self.runs.append(
            Run(name=name, reason=reason, starts_ms=start, ends_ms=end, requested=True)
        )
        if not self.still and self.random.random() < 0.05:
            raise Crash  # between the start of the run and everything after it

    def _package(self, nature: Nature, *, passed: bool) -> str:
        name = f"package-{len(self.natures)}"
        self.natures[name] = nature
        body = {"line": "pump", "verdict": {"passed": passed, "gates": []}, "dataset": "d1"}
        self.ledger.record("package", name, body, line="pump")
        return name

    def _tell(self, kind: str, **body: Any) -> None:
        subject = str(body.get("package", body.get("run", "")))
        self.ledger.append(kind, body, line="pump", subject=subject)

    def _finish(self, run: str, package: str | None, outcome: str = "done", **more: Any) -> None:
        verdict = {"passed": outcome == "done", **more}
        facts = {"dataset": "d1", "seconds": 5.0, "cpu_seconds": 9.0, "verdict": verdict}
        self._tell("run.finished", run=run, outcome=outcome, package=package, **facts)

    # --- one step of the world ---------------------------------------------------------------

    def step(self) -> None:
        """Let time pass and things happen; in a still world only what is under way goes on."""
        self.now_ms += 5 * MINUTE_MS if self.still else self.random.randrange(1_000, 3 * MINUTE_MS)
        self._runs()
        if self.still:
            return
        if self.random.random() < 0.02:
            self._jump(self.random.choice([-2, 2]) * 86_400_000)
        happen = self.random.choices(
            [self._serve, self._feedback, self._watch, self._answer, self._stranger, self._loads],
            [10, 2, 2, 2, 0.3, 2],
            k=4,
        )
        for one in happen:
            one()

    def _jump(self, by_ms: int) -> None:
        """Set the clock; runs take as long as before."""
        self.now_ms += by_ms
        self.jumped = True
        for run in self.runs:
            run.starts_ms = None if run.starts_ms is None else run.starts_ms + by_ms
            run.ends_ms = None if run.ends_ms is None else run.ends_ms + by_ms

    def _runs(self) -> None:
        for run in self.runs:
            if not run.started and run.starts_ms is not None and run.starts_ms <= self.now_ms:
                run.started = True
                self._tell("run.started", run=run.name, reason=run.reason)
            if run.started and run.ends_ms is not None and run.ends_ms <= self.now_ms:
                run.ends_ms = None
                self._end(run)

    def _end(self, run: Run) -> None:
        chance = self.random.random()
        if chance < 0.2:
            self._finish(run.name, None, self.random.choice(["refused", "failed", "cancelled"]))
        elif chance < 0.3:  # the run says yes, the manifest says no
            self._finish(run.name, self._package("errors", passed=False))
        elif chance < 0.35:  # the run itself says no, by mistake with a package
            self._finish(run.name, self._package("errors", passed=False), passed=False)
        elif chance < 0.45:  # nothing new came of it
            self._finish(run.name, self.random.choice(list(self.natures)))
        else:
            natures: list[Nature] = ["good", "errors", "nan", "slow", "alarms", "unloadable"]
            nature = self.random.choices(natures, [6, 1, 1, 1, 1, 1])[0]
            self._finish(run.name, self._package(nature, passed=True))

    def production(self) -> rollout.Rollout:
        news = self.ledger.all[self.folded :]
        self.folded, self.now = len(self.ledger.all), rollout.fold(news, self.now)
        return self.now

    def _serve(self) -> None:
        now, served = self.production(), {}
        for placed in (now.stable, now.canary, now.shadow):
            if placed:
                n = self.random.randrange(1, 400)
                served[placed.package] = self._summary(placed.package, n)
        self._tell("capture.created", packages=served, from_ms=self.now_ms, to_ms=self.now_ms + 900)

    def _summary(self, package: str, n: int) -> dict[str, Any]:
        nature = self.natures[package]
        alarms = 0.5 if nature == "alarms" else 0.02
        slow = 50.0 if nature == "slow" else 1.0
        return {
            "n": n,
            "errors": n // 2 if nature == "errors" else int(self.random.random() < 0.01),
            "not_a_number": n // 3 if nature == "nan" else 0,
            "alarms": int(n * alarms * (0.5 + self.random.random())),
            "latency_ms_p50": slow,
            "latency_ms_p99": slow * 2,
            "cpu_seconds": n * 0.01,
        }

    def _feedback(self) -> None:
        labels = self.random.choice([0, 1, 5, 500])  # the last is a flood
        false = self.random.randrange(0, labels + 1)
        self._tell("feedback.received", labels=labels, false_alarms=false, confirmed=labels - false)

    def _watch(self) -> None:
        stable = self.production().stable
        package = stable.package if stable and self.random.random() < 0.9 else "ghost"
        drifted = self.random.random() < 0.7
        finding = {"name": "x", "kind": "input", "statistic": 0.5, "null_q": 0.1}
        self.windows += 1
        self._tell(
            "watch",
            package=package,
            window=self.windows,
            findings=[{**finding, "drifted": drifted}],
            cursor={"seq": len(self.ledger.all), "row": 0},
        )

    def _answer(self) -> None:
        package = self.random.choice(list(self.natures))
        with suppress(Problem):
            approve(self.store, "pump", package, approved=self.random.random() < 0.6, by="ada")

    def _stranger(self) -> None:
        """Somebody starts a run by hand."""
        end = self.now_ms + 5 * MINUTE_MS
        name = f"run-{len(self.runs)}"
        self.runs.append(
            Run(name=name, reason="asked", starts_ms=self.now_ms, ends_ms=end, requested=False)
        )

    def _loads(self) -> None:
        for package in self.production().packages:
            if self.natures[package] == "unloadable":
                self._tell("serve.load_failed", package=package, code="G604", what="It is damaged.")

    # --- the controllers ---------------------------------------------------------------------

    def tick(self) -> None:
        """Zero to three ticks by one of two controllers, some cut off at an effect."""
        for _ in range(self.random.choice([0, 1, 1, 1, 2, 3])):
            which = self.random.randrange(2)
            crash = self.random.randrange(8) if self.random.random() < 0.15 else None
            with self._crashing(which, crash):
                self.whole_tick(which)

    def whole_tick(self, which: int = 0) -> tuple[Action, ...]:
        (tick,) = self.controllers[which].tick(self.now_ms)
        assert not tick.problems, tick.problems
        self._bad_stable_is_gone()
        return tick.actions

    @contextmanager
    def _crashing(self, which: int, after: int | None) -> Iterator[None]:
        self.ledger.crash_in = after
        try:
            yield
        except Crash:
            self.controllers[which] = Blind(self)
        finally:
            self.ledger.crash_in = None
            self.check()

    # --- what must hold ----------------------------------------------------------------------

    def check(self) -> None:
        """Check every deployment made since the last check, in the light of those before it."""
        deploys = [e for e in self.ledger.all if e.kind == "deploy"]
        now = rollout.fold(deploys[: self.checked])
        for event in deploys[self.checked :]:
            before, now = now, rollout.fold([event], now)
            for package in now.packages:
                verdict = self.ledger.records["package", package].body["verdict"]
                assert verdict["passed"], f"{package} missed a gate and is in service"
            assert not set(now.packages) & before.condemned, "a condemned package came back"
            assert now.stable, "the line has lost its model"
            if event.body["by"] == "genba up":
                self._allowed(event)
        self.checked = len(deploys)
        assert len(self.launched) == len(set(self.launched)), "a request was launched twice"

    def _allowed(self, event: Event) -> None:
        how, package = self.line.rollout.decide, event.body["package"]
        assert how != "observe", "a line that only observes was changed"
        if how == "ask" and event.body["action"] == "promote":
            answers = [
                e.body["approved"]
                for e in self.ledger.all[: event.seq]
                if e.kind == "approval" and e.body["package"] == package
            ]
            assert answers, "promoted without an answer"
            assert answers[-1] is True, "promoted against the newest answer"

    def _bad_stable_is_gone(self) -> None:
        now = self.production()
        if self.line.rollout.decide == "observe" or not now.stable or not now.previous:
            return
        package, nature = now.stable.package, self.natures[now.stable.package]
        served = [
            e.body["packages"][package]["n"]
            for e in self.ledger.all[now.stable.since_seq :]
            if e.kind == "capture.created" and package in e.body["packages"]
        ]
        needed = max(100, self.line.rollout.decide_after)
        shown = nature in SHOWN and len(served) > 3 and sum(served) >= 2 * needed
        failed = nature == "unloadable" and any(
            e.kind == "serve.load_failed" and e.body["package"] == package
            for e in self.ledger.all[now.stable.since_seq :]
        )
        assert not shown, f"{package} ({nature}) is still stable after {sum(served)} predictions"
        assert not failed, f"{package} cannot be loaded and is still stable"

    def one_run_at_a_time(self) -> None:
        """Requested runs overlap only when the earlier one was given up as lost."""
        alive: set[str] = set()
        requested = {r.name for r in self.runs if r.requested}
        for event in self.ledger.all:
            run = event.body.get("run")
            if event.kind == "run.started" and run in requested:
                alive.add(run)
                assert len(alive) == 1 or self.jumped, f"{alive} at once"
            if event.kind == "run.finished":
                alive.discard(run)

    def comes_to_rest(self) -> None:
        """With the world standing still there is soon nothing left to do."""
        self.still, quiet = True, 0
        for _ in range(200):
            before = len(self.ledger.all)
            self.step()
            self.whole_tick()
            under_way = any(r.started and r.ends_ms for r in self.runs)
            quiet = quiet + 1 if len(self.ledger.all) == before and not under_way else 0
            if quiet == 6:  # half an hour, longer than it takes to give up a run or a request
                return
        raise AssertionError("the controller does not come to rest")

    def nothing_is_stuck(self) -> None:
        """At rest no run or request is waited for, and no package waits for nobody."""
        known = self.controllers[0].state("pump")
        assert not known.running, "a run that is gone is waited for"
        assert known.request is None, "a request nobody takes is waited for"
        waits = known.candidate and not known.placed and self.line.rollout.decide != "observe"
        assert not waits, "a package was neither offered nor dropped"

    def state_is_the_fold(self) -> None:
        known = self.controllers[0].state("pump")
        assert known == advance(initial(self.line), self.ledger.all)
