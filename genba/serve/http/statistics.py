"""What the protocol calls statistics of models, from the counts that there are."""

from typing import Any, Final

from genba.serve.http.responses import Refusal
from genba.serve.watch.metrics import Histogram, Metrics, PackageMetrics

_NANO: Final = 1e9


def of_models(metrics: Metrics, line: str = "", version: str = "") -> dict[str, Any]:
    """Return the statistics of packages since they were loaded.

    What the server does besides computing and writing answers is counted with the queue. Nothing
    is answered from a cache, so that hits and misses stay 0.

    Args:
        metrics: Of the server.
        line: Only of this one; all of them if empty.
        version: Only of this package; all of them if empty.

    Raises:
        Refusal: 404 for a version that was never in service here.
    """
    chosen = [
        _of_model(*key, counts)
        for key, counts in sorted(metrics.packages().items())
        if line in ("", key[0]) and version in ("", key[1])
    ]
    if version and not chosen:
        raise Refusal(404, "G703", f"Version {version[:80]!r} of line {line} was not in service.")
    return {"model_stats": chosen}


def _of_model(line: str, package: str, counts: PackageMetrics) -> dict[str, Any]:
    failed, latency = counts.failures, counts.latency
    return {
        "name": line,
        "version": package,
        "last_inference": counts.last_ms,
        "inference_count": counts.counts()["predictions"],
        "execution_count": counts.batch.count,
        "inference_stats": {
            "success": _duration(latency.count - failed.count, latency.total - failed.total),
            "fail": _spent(failed),
            "queue": _spent(counts.queue),
            "compute_input": _duration(0, 0.0),
            "compute_infer": _spent(counts.compute),
            "compute_output": _spent(counts.write),
            "cache_hit": _duration(0, 0.0),
            "cache_miss": _duration(0, 0.0),
        },
        "batch_stats": [],
        "memory_usage": [],
        "response_stats": {},
    }


def _spent(histogram: Histogram) -> dict[str, int]:
    return _duration(histogram.count, histogram.total)


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": max(0, round(seconds * _NANO))}
