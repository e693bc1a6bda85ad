"""What has been measured so far, kept so that an interrupted run goes on; and medians of it."""

import json
import statistics
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_STALE_S: Final = 6 * 3_600.0  # an interrupted run that is older starts anew
_MEDIANS: Final = ("requests_per_s", "p50_ms", "p99_ms", "cpu_us")
_SUMS: Final = ("requests", "refused", "broken", "late")


class Results:
    """Values by key, each with the version it belongs to; written to disk at once.

    Args:
        path: Of the file.
        again: Servers and parts that are measured anew; None means all, unless the last run was
            interrupted.
    """

    def __init__(self, path: Path, again: frozenset[str] | None) -> None:
        self._path = path
        held: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self._values: dict[str, dict[str, Any]] = held.get("values", {})
        if again is not None:
            self._values = {k: v for k, v in self._values.items() if k.split("|")[0] not in again}
        elif held.get("finished", True) or time.time() - held["began"] > _STALE_S:
            self._values = {}
        self._began = held.get("began", 0.0) if self._values else time.time()
        self._save(finished=False)

    def get(self, key: str, version: str) -> Any:
        """Return what is known, None when it was not measured or is of another version."""
        held = self._values.get(key)
        return held["value"] if held and held["version"] == version else None

    def put(self, key: str, version: str, value: Any) -> None:
        """Keep a value."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._values[key] = {"version": version, "at": at, "value": value}
        self._save(finished=False)

    def finish(self) -> None:
        """Say that the run is whole: the next one starts anew."""
        self._save(finished=True)

    def items(self, first: str, version: str) -> Iterable[tuple[tuple[str, ...], Any]]:
        """Return the keys, in their parts, that begin with a name, with their values."""
        for key, held in self._values.items():
            parts = tuple(key.split("|"))
            if parts[0] == first and held["version"] == version:
                yield parts, held["value"]

    def _save(self, *, finished: bool) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"began": self._began, "finished": finished, "values": self._values})
        beside = self._path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._path)


def middle(cells: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the median of repeats, with their range.

    Example:
        >>> cell = dict.fromkeys((*_MEDIANS, *_SUMS, "foreign_cores", "stolen_cores"), 1)
        >>> found = middle([cell, {**cell, "requests_per_s": 3}, {**cell, "requests_per_s": 2}])
        >>> found["requests_per_s"], found["requests_per_s_range"], found["repeats"]
        (2, [1, 3], 3)
    """
    found: dict[str, Any] = {
        name: statistics.median(cell[name] for cell in cells) for name in _MEDIANS
    }
    rates = [cell["requests_per_s"] for cell in cells]
    found["requests_per_s_range"] = [min(rates), max(rates)]
    found |= {name: sum(cell[name] for cell in cells) for name in _SUMS}
    for name in ("foreign_cores", "stolen_cores"):
        found[name] = max(cell[name] for cell in cells)
    return {**found, "repeats": len(cells)}
