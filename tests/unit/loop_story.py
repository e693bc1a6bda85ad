"""A line told event by event, and what the controller decides."""

from collections.abc import Mapping
from typing import Any

from genba.core.line import Budget, Data, Line, Retrain, Rollout, Train
from genba.core.values import Event
from genba.loop.decide import Action, decide
from genba.loop.state import advance, initial

SECOND = 1_000


def line(decide_how: str = "auto", canary: float = 0.1, **when: float) -> Line:
    return Line(
        name="pump",
        task="sensor.anomaly",
        data=Data(source="files:pump.csv"),
        train=Train(budget=Budget(minutes=1)),
        rollout=Rollout(decide=decide_how, canary=canary, decide_after=500),  # type: ignore[arg-type]  # parametrised
        retrain=Retrain(when=when or {"labels": 10.0}),
    )


class Story:
    """A line, its events so far, and what the controller makes of them."""

    def __init__(self, made: Line) -> None:
        self.line = made
        self.state = initial(made)
        self.events: list[Event] = []
        self.now_ms = 1_000_000

    def tell(self, kind: str, **body: Any) -> "Story":
        self.now_ms += SECOND
        event = Event(
            seq=len(self.events) + 1,
            time_ms=self.now_ms,
            kind=kind,
            line="pump",
            subject=str(body.get("package", body.get("run", ""))),
            body=body,
            previous="",
            digest="",
        )
        self.events.append(event)
        self.state = advance(self.state, [event])
        return self

    def served(self, times: int = 1, **packages: Mapping[str, float] | int) -> "Story":
        for _ in range(times):
            summaries = {
                name: {"n": what} if isinstance(what, int) else dict(what)
                for name, what in packages.items()
            }
            self.tell("capture.created", packages=summaries, from_ms=self.now_ms, to_ms=self.now_ms)
        return self

    def with_stable(self, package: str = "a") -> "Story":
        return self.tell("deploy", action="deploy", package=package)

    def finished(self, package: str | None = "b", outcome: str = "done", **more: Any) -> "Story":
        verdict = {"passed": outcome == "done"}
        body = {"run": "r1", "outcome": outcome, "package": package, "verdict": verdict, **more}
        return self.tell("run.finished", **body)

    def with_canary(self) -> "Story":
        self.with_stable().finished("b")
        return self.tell("deploy", action="canary", package="b", share=0.1)

    def decided(self) -> tuple[Action, ...]:
        return decide(self.line, self.state, self.now_ms)

    def only(self) -> Action:
        (action,) = self.decided()
        return action

    def note(self, action: Action) -> "Story":
        return self.tell("action", action=action.kind, key=action.key, would=action.would)
