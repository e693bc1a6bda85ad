"""Which readings people should label: where a label teaches most, each once, so many a day.

Near the threshold (uncertainty sampling: Lewis and Gale, "A sequential algorithm for training text
classifiers", SIGIR 1994), where the envelope found them unlike what the model knows, and a share by
chance, without which the other two would hide what the model is wrongly sure of.
"""

import hashlib
import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array
from genba.edge.clocks import Clock
from genba.edge.interface import Interface
from genba.edge.links.settings import SampleSettings

NEAR, UNUSUAL, CHANCE = "near the threshold", "unlike what is known", "by chance"
_RECENT: Final = 64  # kept readings that a new one is compared with
_SIDE: Final = 8  # an image is compared by the mean brightness of 8 x 8 parts
_DAY_MS: Final = 86_400_000
_BURST: Final = 0.25  # of a day's number may be kept at once


class Choice:
    """Chooses; gives the same answer for the same reading.

    Args:
        settings: Of the link file.
        interface: Of the release, for the usual range of each number.
        clock: Where the time comes from.
    """

    def __init__(self, settings: SampleSettings, interface: Interface, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._roles = {port.name: port.role for port in interface.outputs}
        self._images = [port.name for port in interface.inputs if port.role == "image"]
        self._spans = {one.name: _span(one.usual.min, one.usual.max) for one in interface.fields}
        self._recent: deque[Array] = deque(maxlen=_RECENT)
        self._most = max(1.0, settings.per_day * _BURST)
        self._left = self._most
        self._seen_ms = clock.elapsed_ms()

    def why(
        self,
        key: str,
        outputs: Mapping[str, Array] | None,
        seen: tuple[Mapping[str, float | None], Mapping[str, Array] | None],
        unusual: bool,
    ) -> str:
        """Say why a reading is worth a person's time, "" if it is not.

        Args:
            key: Of the reading; decides what is taken by chance.
            outputs: What the model said, a batch of one.
            seen: The numbers of the reading, and its tensors.
            unusual: Whether the envelope found it out of distribution.
        """
        reason = self._reason(key, outputs, unusual)
        if not reason or not self._settings.per_day:
            return ""
        self._refill()
        look = self._look(*seen)
        if self._left < 1 or any(_alike(look, old, self._settings.alike) for old in self._recent):
            return ""
        self._left -= 1
        self._recent.append(look)
        return reason

    def state(self) -> bytes:
        """Return what a restart needs."""
        recent = [[round(float(v), 4) for v in look] for look in self._recent]
        return json.dumps({"left": self._left, "recent": recent}, allow_nan=False).encode()

    def restore(self, data: bytes) -> None:
        """Remember what `state` told; what cannot be read is forgotten."""
        try:
            body = json.loads(data)
            self._left = min(float(body["left"]), self._most)
            self._recent.extend(np.array(look, dtype=np.float64) for look in body["recent"])
        except (ValueError, KeyError, TypeError):
            self._recent.clear()

    def _reason(self, key: str, outputs: Mapping[str, Array] | None, unusual: bool) -> str:
        if unusual:
            return UNUSUAL
        if outputs is not None and uncertainty(outputs, self._roles) >= self._settings.near:
            return NEAR
        drawn = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        return CHANCE if drawn < self._settings.share else ""

    def _refill(self) -> None:
        now_ms = self._clock.elapsed_ms()
        more = (now_ms - self._seen_ms) * self._settings.per_day / _DAY_MS
        self._left, self._seen_ms = min(self._left + more, self._most), now_ms

    def _look(
        self, values: Mapping[str, float | None], tensors: Mapping[str, Array] | None
    ) -> Array:
        """Return what a reading looks like: shares of each number's usual range, or brightness."""
        for name in self._images if tensors else ():
            grey = np.asarray(tensors[name][0] if tensors else 0, dtype=np.float64).mean(axis=-1)
            rows = np.array_split(grey, _SIDE, axis=0)
            cells = [c.mean() for row in rows for c in np.array_split(row, _SIDE, axis=1)]
            return np.array(cells, dtype=np.float64) / 255
        shares = []
        for name, value in sorted(values.items()):
            low, width = self._spans.get(name, (0.0, 1.0))
            shares.append(-1.0 if value is None else (value - low) / width)
        return np.array(shares, dtype=np.float64)


def uncertainty(outputs: Mapping[str, Array], roles: Mapping[str, str]) -> float:
    """Return how unsure an answer is, 0 to 1: how near the threshold, or the two best classes.

    Example:
        >>> uncertainty({"score": np.array([0.8])}, {"score": "score"})
        0.8
        >>> p = np.array([[0.5, 0.4, 0.1]])
        >>> round(uncertainty({"probability": p}, {"probability": "probability"}), 3)
        0.9
    """
    most = 0.0
    for name, role in roles.items():
        values: Any = np.asarray(outputs.get(name, ()), dtype=np.float64).ravel()
        if role == "score" and len(values) and values[0] > 0 and np.isfinite(values[0]):
            most = max(most, float(min(values[0], 1 / values[0])))
        if role == "probability" and len(values) > 1:
            best = np.sort(values)[-2:]
            most = max(most, float(1 - (best[1] - best[0])))
    return most


def _alike(one: Array, other: Array, most: float) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max(initial=0.0) < most)


def _span(low: float | None, high: float | None) -> tuple[float, float]:
    if low is None or high is None or not high > low:
        return 0.0, 1.0
    return low, high - low
