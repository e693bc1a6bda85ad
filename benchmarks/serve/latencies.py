"""From the records of an open loop to numbers: by phase, and by short windows of time."""

from typing import Any, Final

import numpy as np

from genba.core.protocols import Array

_OK: Final = 200
_UNSENT: Final = 1
_NO_ANSWER: Final = 100  # less than that is no status: lost, or never sent
_NORMAL: Final = 2.0  # times the quiet p99: more than that is not back to normal
_ENOUGH: Final = 0.95  # of the requests of a window


def summary(found: dict[str, Any], specification: dict[str, Any]) -> dict[str, Any]:
    """Return every phase and window of a flood.

    Args:
        found: What `Flood.run` returned.
        specification: What was asked for.
    """
    records = found["records"]
    order = np.argsort(np.asarray(records.due), kind="stable")
    due = np.asarray(records.due)[order] - found["began"]
    latency = np.asarray(records.latency)[order] * 1e3
    status = np.asarray(records.status)[order]
    deadline_ms = float(specification["deadline_ms"])
    phases = []
    for (rate, _), (start, end) in zip(specification["parts"], found["phases"], strict=True):
        inside = (due >= start) & (due < end)
        phases.append(
            {
                "asked_per_s": rate,
                "seconds": end - start,
                **phase(latency[inside], status[inside], end - start, deadline_ms),
            }
        )
    return {
        "began_unix": found["began_unix"],
        "generator": {key: found[key] for key in ("lag_ms", "cores", "reopened")},
        "phases": phases,
        "windows": windows(due, latency, status, float(specification["window_s"])),
    }


def phase(latency: Array, status: Array, seconds: float, deadline_ms: float) -> dict[str, Any]:
    """Return counts and quantiles of the requests that were due in one phase.

    Args:
        latency: In ms, from when the request was due.
        status: Of the answer; 0 when there was none, 1 when it was never sent.
        seconds: How long the phase was.
        deadline_ms: After which an answer is worth nothing.
    """
    good = status == _OK
    refused = ~good & (status >= _NO_ANSWER)
    in_time = good & (latency <= deadline_ms)
    codes, counts = np.unique(status, return_counts=True)
    return {
        "requests": len(status),
        "sent_per_s": float((status != _UNSENT).sum()) / seconds,
        "good_per_s": float(in_time.sum()) / seconds,
        "answered_per_s": float(good.sum()) / seconds,
        "statuses": {str(code): int(n) for code, n in zip(codes, counts, strict=True)},
        "accepted_p50_ms": quantile(latency[good], 0.5),
        "accepted_p99_ms": quantile(latency[good], 0.99),
        "refused_p50_ms": quantile(latency[refused], 0.5),
        "refused_p99_ms": quantile(latency[refused], 0.99),
    }


def windows(due: Array, latency: Array, status: Array, width_s: float) -> list[dict[str, Any]]:
    """Return p99, the slowest and the failures of each short window.

    Args:
        due: When each request was due, in seconds since the beginning, sorted.
        latency: In ms.
        status: Of each answer.
        width_s: Of a window.
    """
    if not len(due):
        return []
    edges = np.arange(0.0, float(due[-1]) + width_s, width_s)
    cuts = np.searchsorted(due, edges)
    found = []
    for number, (low, high) in enumerate(zip(cuts, cuts[1:], strict=False)):
        if high > low:
            found.append(
                {
                    "at_s": round(number * width_s, 3),
                    "requests": int(high - low),
                    "failed": int((status[low:high] != _OK).sum()),
                    "p50_ms": quantile(latency[low:high], 0.5),
                    "p95_ms": quantile(latency[low:high], _ENOUGH),
                    "p99_ms": quantile(latency[low:high], 0.99),
                }
            )
    return found


def quantile(values: Array, share: float) -> float | None:
    """Return a quantile; None where there is nothing."""
    return float(np.quantile(values, share)) if len(values) else None


def recovery_s(found: list[dict[str, Any]], ended_s: float, normal_ms: float) -> float | None:
    """Return how long after an overload requests were answered as before it.

    That is from the end of the overload to the first window that has no refusal and 95 % of its
    requests within twice the normal p99, and is followed by another such window.

    Args:
        found: Windows, in order.
        ended_s: When the overload ended.
        normal_ms: The p99 before it.

    Returns:
        None when that did not happen.

    Example:
        >>> bad = {"failed": 9, "p95_ms": 50.0}
        >>> good = {"failed": 0, "p95_ms": 3.0}
        >>> found = [{"at_s": 0.5 * n, **w} for n, w in enumerate([bad, bad, good, good])]
        >>> recovery_s(found, 0.5, 2)
        0.5
    """
    after = [w for w in found if w["at_s"] >= ended_s - 1e-9]
    normal = [not w["failed"] and w["p95_ms"] <= _NORMAL * normal_ms for w in after]
    for number, window in enumerate(after[:-1]):
        if normal[number] and normal[number + 1]:
            return float(window["at_s"]) - ended_s
    return None


def disturbed_s(
    found: list[dict[str, Any]], start_s: float, end_s: float, normal_ms: float, width_s: float
) -> float:
    """Return the longest stretch of windows whose p99 is more than twice the normal one.

    Args:
        found: Windows, in order.
        start_s: From when.
        end_s: Until when.
        normal_ms: The p99 that is normal.
        width_s: Of a window.
    """
    longest = run = 0
    for window in found:
        if start_s <= window["at_s"] < end_s:
            run = run + 1 if window["p99_ms"] > _NORMAL * normal_ms else 0
            longest = max(longest, run)
    return longest * width_s
