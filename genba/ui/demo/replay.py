"""Recorded traffic sent to the server as if it happened now, faster than it did."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from genba.core.problem import Problem
from genba.serve.client import Answer, Client
from genba.ui.demo.traffic import Traffic

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """An alarm as the control room sees it, with what the books will say of that moment."""

    prediction: str
    entity: str
    time_ms: int
    loss: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """When an answer came, from which package, and whether it was any good."""

    at_ms: float  # wall clock, ms since 1970 UTC
    package: str
    latency_ms: float
    is_number: bool
    ok: bool


class Player:
    """Sends traffic and keeps what a control room would keep.

    Args:
        client: Connected to the server.
        line: Name of the line.
        traffic: What to send, oldest first.
        days_per_s: How many recorded days at most to send in a second.
        tell: Called after every day with how far the replay is.
    """

    def __init__(
        self,
        client: Client,
        line: str,
        traffic: Traffic,
        *,
        days_per_s: float,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._line = line
        self._traffic = traffic
        self._pause_s = 1.0 / days_per_s
        self._tell = tell
        self._at = 0
        self.predictions = 0
        self.failed = 0
        self.alarms: list[Alarm] = []
        self.answers: list[Answered] = []

    @property
    def finished(self) -> bool:
        """Whether all records have been sent."""
        return self._at >= len(self._traffic)

    @property
    def now_ms(self) -> int:
        """The recorded moment the replay has reached."""
        return int(self._traffic.time[min(self._at, len(self._traffic) - 1)])

    @property
    def date(self) -> str:
        """The same as a date."""
        return f"{datetime.fromtimestamp(self.now_ms / 1000, UTC):%Y-%m-%d}"

    def days(self) -> Iterator[str]:
        """Send day after day, no faster than the pace; yields the date after each."""
        while not self.finished:
            started = time.monotonic()
            self.play(DAY_MS)
            answered = f"{self.predictions:,} predictions, {len(self.alarms):,} alarms"
            self._tell(f"{self.date}  {answered}")
            yield self.date
            time.sleep(max(0.0, self._pause_s - (time.monotonic() - started)))

    def play(self, span_ms: int) -> None:
        """Send the records of the next span at once, a request for each moment."""
        end = int(np.searchsorted(self._traffic.time, self.now_ms + span_ms))
        while self._at < min(end, len(self._traffic)):
            self._send()

    def _send(self) -> None:
        """Send what all turbines reported at one moment."""
        traffic, first = self._traffic, self._at
        last = int(np.searchsorted(traffic.time, traffic.time[first], side="right"))
        self._at = last
        started = time.perf_counter()
        try:
            answer = self._client.infer(
                self._line,
                {"window": traffic.window[first:last]},
                entities=traffic.entity[first:last],
                times=traffic.time[first:last],
            )
        except Problem:
            self.failed += 1
            self._note("", started, is_number=False, ok=False)
            return
        self.predictions += last - first
        scores = np.asarray(answer.outputs["score"], dtype=float)
        self._note(answer.package, started, is_number=bool(np.isfinite(scores).all()), ok=True)
        self._keep_alarms(answer, first)

    def _note(self, package: str, started: float, *, is_number: bool, ok: bool) -> None:
        latency_ms = (time.perf_counter() - started) * 1000
        answered = Answered(
            at_ms=time.time() * 1000,
            package=package,
            latency_ms=latency_ms,
            is_number=is_number,
            ok=ok,
        )
        self.answers.append(answered)

    def _keep_alarms(self, answer: Answer, first: int) -> None:
        for offset in np.flatnonzero(np.asarray(answer.outputs["alarm"], dtype=bool)):
            at = first + int(offset)
            alarm = Alarm(
                prediction=answer.predictions[int(offset)],
                entity=self._traffic.entity[at],
                time_ms=int(self._traffic.time[at]),
                loss=bool(self._traffic.loss[at]),
            )
            self.alarms.append(alarm)
