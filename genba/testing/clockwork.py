"""A line driven by hand: the clock, the event loop and the threads are the test's.

So every interleaving of requests, batches, failures, hung engines and placements can be replayed.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from genba.core.rollout import Rollout
from genba.serve.lanes.desk import Floor, Numbers
from genba.serve.lanes.jobs import Part
from genba.serve.lanes.lines import LineService
from genba.serve.lanes.placement import Placement
from genba.serve.lanes.pool import Pool
from genba.serve.limits import Limits
from genba.serve.watch.capture import Tally
from genba.serve.watch.metrics import Metrics
from genba.testing.lanes import NOT_A_NUMBER, Doubler, Heard

_WATTS = 5.0


class Loop:
    """An event loop that does one thing after another when it is told to."""

    def __init__(self) -> None:
        self.soon: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Take note of something to do."""
        self.soon.append((callback, arguments))

    call_soon_threadsafe = call_soon

    def run(self) -> None:
        """Do everything, and what comes of it."""
        while self.soon:
            callback, arguments = self.soon.popleft()
            callback(*arguments)


class Hands:
    """Threads whose work is done when the test says so; a work that is never done hangs."""

    def __init__(self) -> None:
        self.count = 0
        self.work: list[Callable[[], None]] = []

    def start(self) -> None:
        """Start one more thread."""
        self.count += 1

    def put(self, work: Callable[[], None]) -> None:
        """Take note of work."""
        self.work.append(work)
        if len(self.work) > self.count:
            raise AssertionError("more work than threads")

    def close(self) -> None:
        """End no thread, as there is none."""


class World:
    """A line in service, with everything around it in the hands of the test.

    Args:
        limits: Of the server.
        seconds: Of a batch, by package.
    """

    def __init__(self, limits: Limits, seconds: Mapping[str, float]) -> None:
        self.now = 100.0
        self.seconds = seconds
        self.loop = Loop()
        self.hands = Hands()
        self.metrics = Metrics(_WATTS)
        self.woken: list[str] = []
        self.wrong: list[str] = []  # what must never happen
        self.parts: list[Part] = []
        self.tallies: list[Tally] = []
        self.early: list[Part] = []  # finished before the last placement
        recorder: Any = SimpleNamespace(admit=lambda *_: True, hand_over=lambda _: None)
        loop: Any = self.loop
        self.pool = Pool(loop, limits, self.hands, lambda: self.now)
        floor = Floor(
            pool=self.pool,
            limits=limits,
            numbers=Numbers("server"),
            recorder=recorder,
            metrics=self.metrics,
            wake=lambda _, package: self.woken.append(package),
        )
        self.line = LineService("pump", floor)
        self.rollout = Rollout()
        self.models: dict[str, Doubler] = {}
        self.loaded: list[Doubler] = []

    def place(self, rollout: Rollout, asleep: frozenset[str]) -> None:
        """Carry out a rollout, as `Deployments` and the server would."""
        self.cut()
        self.early = list(self.line._desk._buffer._parts)
        previous = (rollout.previous,) if rollout.previous else ()
        needed = {*rollout.packages, *previous}
        for package in needed - asleep - self.models.keys():
            self.models[package] = Doubler(package, self.seconds[package], batch_rows=4)
            self.loaded.append(self.models[package])
        self.models = {p: m for p, m in self.models.items() if p in needed - asleep}
        self.rollout = rollout
        models: Any = dict(self.models)
        self.line.place(
            Placement(line="pump", rollout=rollout, models=models, asleep=asleep & needed)
        )

    def cut(self) -> None:
        """Take what was kept since the last cut, as the server does from time to time."""
        batch = self.line.cut(1.0)
        if batch is None:
            return
        self.parts += batch.parts
        self.tallies += [tally for tally, _ in batch.tallies.values()]
        for part in batch.parts:
            if part.model.package in self.banned and part not in self.early:
                self.wrong.append(f"{part.model.package} was rolled back and is kept")

    @property
    def answering(self) -> set[str]:
        """The packages in a role that answers."""
        placed = (self.rollout.stable, self.rollout.canary)
        return {one.package for one in placed if one}

    @property
    def banned(self) -> frozenset[str]:
        """The packages that were rolled back and have not come again."""
        return self.rollout.condemned.difference(self.rollout.packages)


class Asked(Heard):
    """A call that knows who may answer it."""

    def __init__(
        self, world: World, values: Sequence[float], deadline_s: float, urgent: bool
    ) -> None:
        super().__init__(deadline_s, urgent=urgent, now=world.now, size=4 * len(values))
        self.world = world
        self.values = values
        self.may = set(world.answering)  # who was in a role that answers since it was asked
        self.first = ""
        self.lost = False  # the client is gone
        self.broke = False  # and that was seen when it was answered

    def write(self, *arguments: Any, **more: Any) -> Any:
        """Take what was computed, and the number of the first prediction."""
        return *super().write(*arguments, **more), more["parameters"]["prediction"]

    def answer(self, written: Any) -> None:
        """Take an answer and look whether it is right."""
        package, doubled, self.first = written
        expected = [float("nan") if v == NOT_A_NUMBER else 2 * v for v in self.values]
        # Remembered, not asserted: who calls this goes on whatever it raises.
        if package not in self.may:
            self.world.wrong.append(f"{package} was never in a role that answers")
        if package in self.world.banned:
            self.world.wrong.append(f"{package} was rolled back")
        if str(doubled) != str(expected):
            self.world.wrong.append(f"{doubled} for {expected}")
        super().answer((package, doubled))
        if self.lost:
            self.broke = True
            raise ConnectionResetError("the client is gone")
