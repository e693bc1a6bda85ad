"""What answers in a service: a release with its safety envelope, or without where it has none."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from genba.core.problem import Problem
from genba.edge.clocks import Clock
from genba.edge.interface import Interface
from genba.edge.predict import Predictor
from genba.edge.release import Release
from genba.edge.safety import Answer, Beside, Envelope, Sample, Trip, Watchdog, read_plan

_WATCH_MS: Final = 200

Publish = Callable[[Answer], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """An answer and who gave it."""

    answer: Answer
    role: str  # "active" or "canary"
    release: int
    package: str


class Answers(Protocol):
    """Whoever answers the samples of a service."""

    def answer(self, sample: Sample, key: str) -> Any:
        """Answer a sample; never raises because of it. Returns what `Told` has."""
        ...

    def beside(self, sample: Sample, told: Any) -> Any:
        """Return what a release on trial would have said, or None; after the answer was given."""
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


class Guarded:
    """One release with its safety envelope.

    Args:
        release: Verified.
        clock: Where the time comes from.
        log: Takes entries about trips.

    Raises:
        Problem: As `Release.predictor`; G599 when its safety plan is not for it.
    """

    def __init__(
        self, release: Release, clock: Clock, log: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.release = release
        self.interface: Interface = release.interface
        self.closed = False
        self._clock = clock
        self._predictor: Predictor = release.predictor()
        self._envelope: Envelope | None = None
        self._watchdog: Watchdog | None = None
        if release.safety is not None:
            self._envelope = Envelope(
                read_plan(release.safety),
                self._predictor,
                release.interface,
                clock,
                beside=Beside(log=log),
            )

    def answer(self, sample: Sample) -> Answer:
        """Answer a sample; never raises because of it."""
        if self._envelope is not None:
            return self._envelope.answer(sample)
        now_ms = self._clock.now_ms()
        if sample.tensors is None:
            return _abstained("schema", "schema", sample.fault, now_ms)
        try:
            return Answer(self._predictor.predict(sample.tensors), "model")
        except Problem as problem:
            return _abstained("model", "model", f"{problem.code} {problem.what}", now_ms)

    def watch(self, publish: Publish) -> None:
        """Answer where nothing comes, or the model hangs."""
        if self._envelope is not None:
            self._watchdog = Watchdog(self._envelope, publish, _WATCH_MS, self._clock)
            self._watchdog.start()

    def state(self) -> Mapping[str, Any]:
        """Return what a restart needs; nothing where nothing is remembered."""
        return self._envelope.state() if self._envelope is not None else {}

    def restore(self, body: Mapping[str, Any]) -> bool:
        """Remember what `state` told; say whether it was of use."""
        return self._envelope is not None and self._envelope.restore(body)

    def indicators(self) -> Mapping[str, Any]:
        """Return the safety performance indicators since the start."""
        return self._envelope.spis() if self._envelope is not None else {}

    def close(self) -> None:
        """Free the runtime."""
        self.closed = True
        if self._watchdog is not None:
            self._watchdog.stop()
        with suppress(Exception):
            self._predictor.engine.close()


class ReleaseModel:
    """One release that answers, and nobody else; for a device without an agent.

    Args:
        guarded: The release.
    """

    def __init__(self, guarded: Guarded) -> None:
        self._guarded = guarded
        self.watch = guarded.watch
        self.state = guarded.state
        self.restore = guarded.restore
        self.indicators = guarded.indicators
        self.close = guarded.close

    def answer(self, sample: Sample, key: str) -> Told:
        """Answer a sample."""
        del key  # there is one release only
        release = self._guarded.release
        return Told(
            answer=self._guarded.answer(sample),
            role="active",
            release=release.statement.release,
            package=release.package.id,
        )

    def beside(self, sample: Sample, told: Told) -> None:
        """Return nothing: no other release is on trial."""


def _abstained(cause: str, layer: str, detail: str, now_ms: int) -> Answer:
    trip = Trip(cause=cause, layer=layer, detail=detail, time_ms=now_ms)
    return Answer(None, "abstain", (trip,))


def micros(begun_ns: int) -> int:
    """Return the microseconds since a moment of `time.perf_counter_ns`."""
    return (time.perf_counter_ns() - begun_ns) // 1_000
