"""Trips are counted always and written seldom: a stuck sensor fills no disk."""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from genba.edge.safety.answer import STATEMENT, Answer, Trip

_EVERY_MS: Final = 60_000  # one entry per cause and entity in so long, with how many there were
_MOST_CAUSES: Final = 1_000  # kept apart; a cause holds a sensor's name, never a reading
_RECENT: Final = 500  # p-values behind the mean that is reported
_HOUR_MS: Final = 3_600_000

Write = Callable[[Mapping[str, Any]], None]


class TripLog:
    """Counts of what an envelope did, and a log of its trips that is limited in rate.

    Args:
        write: Takes an entry: who, when, which layer, why, and how many like it were left out.
    """

    def __init__(self, write: Write | None = None) -> None:
        self._write = write
        self._last: dict[tuple[str, str], list[int]] = {}  # (time of the entry, left out since)
        self.layers: Counter[str] = Counter()
        self.causes: Counter[str] = Counter()
        self.actions: Counter[str] = Counter()
        self.trips = 0
        self.began_ms: int | None = None
        self.now_ms = 0
        self.recent: deque[float] = deque(maxlen=_RECENT)

    def note(self, answer: Answer, entity: str, now: int) -> None:
        """Count an answer, and write down its trips."""
        if self.began_ms is None:
            self.began_ms = now
        self.now_ms = now
        self.actions[answer.action] += 1
        if answer.trips:
            self.trips += 1
            for trip in answer.trips:
                self._trip(trip, entity, now)

    def _trip(self, trip: Trip, entity: str, now: int) -> None:
        self.layers[trip.layer] += 1
        key = (entity, trip.cause)
        known = self._last.get(key)
        if known is None and len(self._last) >= _MOST_CAUSES:
            key = ("", "others")
            known = self._last.get(key)
        self.causes[key[1]] += 1
        if known is not None and 0 <= now - known[0] < _EVERY_MS:
            known[1] += 1
            return
        left_out = known[1] if known else 0
        self._last[key] = [now, 0]
        if self._write is not None:
            self._write({**trip.to_json(), "entity": entity, "left_out": left_out})

    def indicators(self) -> dict[str, Any]:
        """Return the safety performance indicators since the start, for telemetry."""
        answered = sum(self.actions.values())
        began = self.began_ms if self.began_ms is not None else self.now_ms
        hours = max(self.now_ms - began, 0) / _HOUR_MS
        return {
            "statement": STATEMENT,
            "answered": answered,
            "hours": hours,
            "trips": self.trips,
            "trips_per_hour": self.trips / hours if hours else None,
            "trips_share": _share(self.trips, answered),
            "withheld_share": _share(answered - self.actions["model"], answered),
            "abstain_share": _share(self.actions["abstain"], answered),
            "ood_p_mean": sum(self.recent) / len(self.recent) if self.recent else None,
            "by_action": dict(self.actions),
            "by_layer": dict(self.layers),
            "by_cause": dict(self.causes.most_common(50)),
        }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
