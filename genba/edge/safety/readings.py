"""Can a reading be read, is it in its range, is it fresh, and does every sensor still move?"""

from typing import Any, Final

import numpy as np

from genba.edge.safety.answer import Sample, Trip
from genba.edge.safety.plan import Channel, SafetyPlan
from genba.edge.safety.plausible import forget
from genba.edge.safety.track import Track

_TYPES: Final = {
    "FP32": frozenset("fiu"),
    "FP64": frozenset("fiu"),
    "INT64": frozenset("iuSUO"),  # an entity may be sent as a name
    "INT32": frozenset("iuSUO"),
    "UINT8": frozenset("u"),
    "BOOL": frozenset("b"),
    "BYTES": frozenset("SUO"),
}
LONGEST_TAINT: Final = 24  # readings; as long as the faults of the matrix last
_OPTIONAL: Final = frozenset({"parameter", "given"})


class Readings:
    """The first layers: schema, range, time, the sample's history, and stuck sensors."""

    def __init__(self, plan: SafetyPlan) -> None:
        self.plan = plan
        self._shapes = [
            (t.name, (1, *t.shape[1:]), _TYPES.get(t.datatype, frozenset("fiubSUO")))
            for t in plan.inputs
            if t.role not in _OPTIONAL
        ]
        self._channels = plan.channels
        self._bounds = [(i, c.low, c.high) for i, c in enumerate(plan.channels)]
        self._runs = [(c.longest, c.rest, c.longest_at_rest) for c in plan.channels]
        self._takes = _takes(plan.channels)
        self._stale, self._ahead = plan.timing.stale_ms, plan.timing.ahead_ms
        self._step = plan.timing.step_ms if plan.timing.ordered else None

    def look(self, sample: Sample, track: Track, now: int, trips: list[Trip]) -> list[float] | None:
        """Add what is wrong; return the newest readings, None where they cannot be read."""
        wrong = sample.fault or self._misshapen(sample)
        if wrong:
            trips.append(
                Trip(cause="schema", layer="schema", detail=wrong, time_ms=now, part="input")
            )
            return None
        values = self._values(sample)
        for i, low, high in self._bounds:
            if not low <= values[i] <= high:
                self._outside(i, values[i], track, now, trips)
        self._time(sample, track, now, trips)
        if self.plan.picture is not None:
            self._frame(sample, track, now, trips)
        self._repeats(values, track, now, trips)
        self._history(sample, track, now, trips)
        return values

    def _misshapen(self, sample: Sample) -> str:
        tensors = sample.tensors
        if tensors is None:
            return "there is nothing to read"
        for name, shape, kinds in self._shapes:
            found: Any = tensors.get(name)
            if found is None:
                return f"{name} is missing"
            if found.shape != shape:
                return f"{name} has the shape {list(found.shape)}, not {list(shape)}"
            if found.dtype.kind not in kinds:
                return f"{name} has the type {found.dtype}"
        return ""

    def _values(self, sample: Sample) -> list[float]:
        values: list[float] = []
        assert sample.tensors is not None
        for name, first, last, at in self._takes:
            flat: Any = np.asarray(sample.tensors[name]).ravel()
            values += flat[first:last].tolist() if at is None else flat[at].tolist()
        return values

    def _outside(self, i: int, value: float, track: Track, now: int, trips: list[Trip]) -> None:
        channel = self._channels[i]
        if value == value:
            cause, layer = f"range:{channel.name}", "range"
            detail = f"{value:.4g}{_unit(channel)} is not within {channel.low:.4g} to "
            detail += f"{channel.high:.4g}{_unit(channel)}"
        else:
            cause, layer = f"missing:{channel.name}", "range"
            detail = f"{channel.name} gives no reading"
        holds = not (channel.tolerated and value != value)
        # A sensor that says nothing is the one that failed; a strange number may be a wrong plug.
        part = "input" if value == value else f"sensor:{channel.name}"
        trips.append(
            Trip(cause=cause, layer=layer, detail=detail, time_ms=now, part=part, holds=holds)
        )
        if holds and value == value:  # a gap is counted among the holes of a sample instead
            taint(track, channel.name, self.plan, 1)

    def _time(self, sample: Sample, track: Track, now: int, trips: list[Trip]) -> None:
        at, before = sample.time_ms, track.time_ms
        wrong = ""
        if self._stale is not None:
            age = now - at
            if age > self._stale:
                wrong = "stale"
                detail = f"the reading is {age} ms old; at most {self._stale}"
            elif age < -self._ahead:
                wrong = "clock"
                detail = f"the reading is from {-age} ms in the future"
        if not wrong and before is not None and at <= before and self.plan.timing.ordered:
            wrong = "again"
            detail = f"the reading is no newer than the one before ({before - at} ms older)"
        if wrong:
            trips.append(Trip(cause=wrong, layer="time", detail=detail, time_ms=now, part="input"))
            return
        if before is not None and self._step and abs(at - before - self._step) * 2 > self._step:
            forget(track)
        track.time_ms = at
        track.seen += 1

    def _repeats(self, values: list[float], track: Track, now: int, trips: list[Trip]) -> None:
        runs, last = track.runs, track.last
        track.last = values
        if len(last) != len(values):
            track.runs = [1] * len(values)
            return
        for i, (moving, rest, at_rest) in enumerate(self._runs):
            value = values[i]
            runs[i] = run = runs[i] + 1 if value == last[i] else 1
            if run == 1:
                continue
            longest = at_rest if value == rest else moving
            if longest and run >= longest:
                name = self._channels[i].name
                detail = f"{run} equal readings in a row; at most {longest - 1} were seen"
                trips.append(
                    Trip(
                        cause=f"stuck:{name}", layer="stuck", detail=detail, time_ms=now,
                        part=f"sensor:{name}",
                    )
                )  # fmt: skip

    def _history(self, sample: Sample, track: Track, now: int, trips: list[Trip]) -> None:
        """A sample that looks back on a gap, or on a bad reading, is not what was trained on."""
        timing = self.plan.timing
        if timing.history:
            assert sample.tensors is not None
            window: Any = sample.tensors[self._channels[0].tensor]
            holes = 1.0 - np.count_nonzero(np.isfinite(window)) / window.size
            if holes > timing.holes:
                detail = f"{holes:.1%} of the sample is missing; at most {timing.holes:.1%}"
                trips.append(
                    Trip(cause="cold", layer="cold", detail=detail, time_ms=now, part="input")
                )
        if track.taint > 0:
            track.taint -= 1
            named = any(t.cause.endswith(f":{track.tainted}") for t in trips)
            if track.taint < track.tainted_for and not named:
                detail = f"the sample still holds a bad reading of {track.tainted}"
                cause = f"after:{track.tainted}"
                trips.append(
                    Trip(cause=cause, layer="cold", detail=detail, time_ms=now, part="input")
                )

    def _frame(self, sample: Sample, track: Track, now: int, trips: list[Trip]) -> None:
        picture = self.plan.picture
        assert picture is not None
        assert sample.tensors is not None
        if picture.sizes and sample.size and tuple(sample.size) not in picture.sizes:
            detail = f"{sample.size[0]} x {sample.size[1]} pixels, which no image had"
            trips.append(
                Trip(cause="size", layer="schema", detail=detail, time_ms=now, part="input")
            )
        frame = sample.tensors[picture.tensor].ravel()[:: picture.stride].tobytes()
        if frame == track.frame:
            detail = "the frame is the one before"
            trips.append(
                Trip(cause="frame", layer="stuck", detail=detail, time_ms=now, part="input")
            )
        track.frame = frame


def taint(track: Track, sensor: str, plan: SafetyPlan, more: int = 0) -> None:
    """Remember a bad reading for as long as samples hold it, but not for ever.

    Args:
        track: Of the entity.
        sensor: Whose reading.
        plan: Knows how far samples look back.
        more: One where this reading itself is still to be counted.
    """
    track.tainted = sensor
    track.tainted_for = min(plan.timing.history, LONGEST_TAINT)
    track.taint = track.tainted_for + more if track.tainted_for else 0


def _unit(channel: Channel) -> str:
    return f" {channel.unit}" if channel.unit else ""


def _takes(channels: tuple[Channel, ...]) -> list[tuple[str, int, int, Any]]:
    """Return how to cut the newest readings out of each tensor: a slice where they stand together.

    The channels of a tensor follow each other in a plan, in the order of `values`.
    """
    takes: list[tuple[str, int, int, Any]] = []
    names = list(dict.fromkeys(c.tensor for c in channels))
    for name in names:
        at = [c.index for c in channels if c.tensor == name]
        together = at == list(range(at[0], at[0] + len(at)))
        takes.append((name, at[0], at[-1] + 1, None if together else np.array(at)))
    return takes
