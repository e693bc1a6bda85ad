"""One package in service: its lane, its counts, and what becomes of what the lane computes."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from genba.core.rollout import Placed, Rollout
from genba.core.values import Role
from genba.serve.http.responses import Refusal
from genba.serve.lanes import admission
from genba.serve.lanes.batch import Lane
from genba.serve.lanes.calls import Call
from genba.serve.lanes.compute import reason
from genba.serve.lanes.desk import Desk
from genba.serve.lanes.jobs import Job, Part
from genba.serve.lanes.models import LoadedModel
from genba.serve.lanes.talk import TalkLane
from genba.serve.watch.capture import Tally

_log = logging.getLogger("genba.serve")


class Service:
    """A package in memory.

    Args:
        model: The package.
        desk: Of its line.
    """

    __slots__ = (
        "_desk", "_owed_cpu_s", "interval", "lane", "metrics", "model", "retired", "used_s",
    )  # fmt: skip

    awake: ClassVar = True

    def __init__(self, model: LoadedModel, desk: Desk) -> None:
        floor = desk.floor
        self.model = model
        self.interval = Tally()
        self.retired = False
        self.used_s = 0.0  # when it was last asked, by the monotonic clock; 0 for never
        self._owed_cpu_s = 0.0  # of answers that are being written
        self.lane: Lane | TalkLane
        if model.talks is None:
            self.lane = Lane(model, floor.pool, floor.limits, desk.line, self)
        else:
            self.lane = TalkLane(model, floor.pool, floor.limits, desk.line, self)
        self.metrics = floor.metrics.package(
            desk.line, model.package, lambda: self.lane.waiting_rows
        )
        self._desk = desk

    @property
    def package(self) -> str:
        """Its id."""
        return self.model.package

    @property
    def parameters(self) -> Mapping[str, float]:
        """The values that hold for requests that set none."""
        return self.lane.parameters

    def tune(self, values: Mapping[str, float]) -> None:
        """Take the values that were set in service; names the package does not have are nothing."""
        packaged = self.model.schema.parameters
        known = {name: value for name, value in values.items() if name in packaged}
        self.lane.parameters = {**packaged, **known}

    def refusal(
        self, rows: int, size: int, deadline: float, role: Role, *, urgent: bool, tokens: int = 0
    ) -> Refusal | None:
        """Return why a request is refused now, and count it; None when it is taken.

        What a package that is stuck cannot take is an error of the package: so it is rolled back.
        """
        if isinstance(self.lane, TalkLane):
            found = self.lane.refusal(rows, size, deadline, urgent=urgent, tokens=tokens)
        else:
            found = self.lane.refusal(rows, size, deadline, urgent=urgent)
        if found is None:
            return None
        why, refusal = found
        self._desk.shed(why)
        if self.lane.stuck:
            self.interval.role = role
            self.interval.n += rows
            self.interval.errors += rows
            self.metrics.predictions[role, "error"] += rows
        return refusal

    # The lane calls these.

    def write(self, part: Part) -> None:
        """Write the answers of a part. May be called on a thread, and reads only what stays."""
        model, jobs, outputs = part.model, part.jobs, part.outputs
        line = self._desk.line
        alone = len(jobs) == 1
        start = 0
        for job in jobs:
            stop = start + job.rows
            call = job.call
            if call is not None:
                own = outputs
                if not alone:
                    own = {name: array[start:stop] for name, array in outputs.items()}
                job.answer = call.write(
                    model.schema,
                    job.wanted,
                    own,
                    line=line,
                    parameters=self.parameters_of(job),
                )
            start = stop

    def finished(self, part: Part) -> None:
        """Answer the jobs of a part, then count and capture it."""
        self._answer(part)
        part.finished = time.perf_counter()
        if part.refusal is not None:
            return  # nothing was predicted, and the package is not to blame
        try:
            self.used_s = time.monotonic()
            latencies = [part.finished - job.received for job in part.jobs]
            self.metrics.add(part, latencies)
            if part.kept or part.error is not None:
                self.interval.add(part, latencies)
                self._desk.keep(part)
        except Exception:  # noqa: BLE001  # the next part wants its answers too
            _log.exception("a part of line %s was not counted", self._desk.line)

    def expired(self, job: Job, *, at_fault: bool) -> None:
        """Tell a job that its deadline has passed, or that its package is stuck."""
        call, job.call = job.call, None
        if call is not None and call.gone:
            self._desk.shed("gone")
            self._desk.refuse(call, admission.expired(self._desk.line))
            return
        if at_fault:
            latency_s = time.perf_counter() - job.received
            self.interval.give_up(job, latency_s)
            self.metrics.give_up(job, latency_s)
        self._desk.shed("deadline" if call is not None or at_fault else "shadow")
        if call is not None:
            why = admission.stuck if self.lane.stuck else admission.expired
            self._desk.refuse(call, why(self._desk.line))

    def parameters_of(self, job: Job) -> Mapping[str, str]:
        """Return prediction, package and role of a request."""
        return {
            "prediction": f"{self._desk.server}-{job.first}",
            "package": self.model.package,
            "role": job.role,
        }

    def worked(self, seconds: float) -> None:
        """Take down that the package was at work for so long."""
        self.interval.compute_s += seconds

    # The line calls these.

    def settle(self) -> float:
        """Return the seconds of computing since the last `cut`."""
        if isinstance(self.lane, TalkLane):
            self.worked(self.lane.settle())
        return self.interval.compute_s

    def cut(self, cpu_per_compute_s: float) -> tuple[Tally, float] | None:
        """Return what was answered since the last cut and its CPU seconds; None for nothing.

        Work for answers that are not written yet is charged with them.
        """
        tally = self.interval
        cpu_s = tally.compute_s * cpu_per_compute_s
        self.metrics.cpu_seconds += cpu_s
        self._owed_cpu_s += cpu_s
        if not tally.n:
            tally.compute_s = 0.0
            return None
        cpu_s, self._owed_cpu_s = self._owed_cpu_s, 0.0
        self.interval = Tally()
        return tally, cpu_s

    def close(self) -> None:
        """End a language model, which has threads of its own, before the process ends."""
        if self.model.talks is not None:
            self.model.close()

    # Helpers.

    def _answer(self, part: Part) -> None:
        refusal = part.refusal
        if part.error is not None:
            what = f"The model of line {self._desk.line} failed: {reason(part.error)}"
            refusal = Refusal(500, "G707", what)
        answered = 0
        for job in part.jobs:
            call = job.call
            if call is None:
                continue
            job.call = None
            if refusal is not None:
                self._desk.refuse(call, refusal)
            else:
                answered += self._desk.answer(call, job.answer)
        if answered:
            self._desk.answered(answered)

    def describe(self) -> dict[str, Any]:
        """Return what the package is and did, as JSON."""
        manifest = self.model.manifest
        told: dict[str, Any] = {
            "model": manifest.model,
            "engine": manifest.engine.name,
            "inline": self.lane.inline,
            "stuck": self.lane.stuck,
            "waiting": self.lane.waiting_rows,
            **self.metrics.counts(),
            "energy": self.metrics.energy(),
            "runs": self.model.describe(),
        }
        if isinstance(self.lane, TalkLane):
            told["language"] = {**self.lane.describe(), **self.metrics.words()}
        return {**told, "parameters": self.parameters} if self.parameters else told


class Sleeper:
    """A package that is not in memory, and the calls that wait until it is.

    Args:
        package: Its id.
        desk: Of its line.
    """

    __slots__ = ("_desk", "_held", "_size", "package")

    awake: ClassVar = False

    def __init__(self, package: str, desk: Desk) -> None:
        self.package = package
        self._desk = desk
        self._held: list[tuple[Call, Callable[[], None]]] = []
        self._size = 0  # bytes

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._held)

    def wake(self) -> None:
        """Have the package loaded."""
        self._desk.floor.wake(self._desk.line, self.package)

    def refusal(
        self,
        rows: int,  # noqa: ARG002  # as of a service; nobody can tell before it is awake
        size: int,
        deadline: float,  # noqa: ARG002  # the same
        role: Role,  # noqa: ARG002  # the same
        *,
        urgent: bool,  # noqa: ARG002  # the same
        tokens: int = 0,  # noqa: ARG002  # the same
    ) -> Refusal | None:
        """Return why a call may not wait here; None when it may."""
        limits = self._desk.floor.limits
        if len(self._held) < limits.queue_rows and self._size + size <= limits.queue_bytes:
            return None
        self._desk.shed("asleep")
        return admission.asleep(self._desk.line)

    def hold(self, call: Call, again: Callable[[], None]) -> None:
        """Keep a call until the package is awake; `again` starts it anew then. Wakes the package.

        Ask `refusal` first.
        """
        self._held.append((call, again))
        self._size += call.size
        self.wake()

    def expire(self, now: float) -> None:
        """Tell the calls that are past their deadline."""
        late = [call for call, _ in self._held if call.deadline <= now]
        if not late:
            return
        self._held = [(call, again) for call, again in self._held if call.deadline > now]
        self._size = sum(call.size for call, _ in self._held)
        for call in late:
            self._desk.shed("asleep")
            self._desk.refuse(call, admission.asleep(self._desk.line))

    def release(self) -> None:
        """Start everything anew that was held; the line has another placement."""
        held, self._held, self._size = self._held, [], 0
        for call, again in held:
            self._desk.attempt(call, again)


def together(before: tuple[Tally, float] | None, tally: Tally, cpu_s: float) -> tuple[Tally, float]:
    """Add up what one package did in two lanes: it was taken out and came back meanwhile.

    Args:
        before: Counts and CPU seconds of the other lane, if there is one.
        tally: Counts of this one.
        cpu_s: CPU seconds of this one.
    """
    if before is None:
        return tally, cpu_s
    other, other_cpu_s = before
    total = Tally(
        role=other.role,
        n=other.n + tally.n,
        errors=other.errors + tally.errors,
        not_a_number=other.not_a_number + tally.not_a_number,
        alarms=other.alarms + tally.alarms,
        compute_s=other.compute_s + tally.compute_s,
        latencies_s=[*other.latencies_s, *tally.latencies_s],
        rows=[*other.rows, *tally.rows],
    )
    return total, other_cpu_s + cpu_s


def describe_rollout(rollout: Rollout) -> dict[str, Any]:
    """Return who has which role, as JSON."""
    return {
        "stable": _placed(rollout.stable),
        "canary": _placed(rollout.canary),
        "shadow": _placed(rollout.shadow),
        "previous": rollout.previous,
        "condemned": sorted(rollout.condemned),
    }


def _placed(placed: Placed | None) -> dict[str, Any] | None:
    if placed is None:
        return None
    return {"package": placed.package, "share": placed.share, "since_ms": placed.since_ms}
