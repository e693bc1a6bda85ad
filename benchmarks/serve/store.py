"""How the prediction store grows: writing an interval and finding one prediction by its id.

Stores of 1e5, 1e6 and 1e7 predictions of 64 float32 are written through the real `CaptureWriter`,
by two servers one after the other, so that half of the predictions are of a server that ended. Then
predictions are looked up by id: random ones, those of the server that ended, and ids that nobody
was given.

    python -m benchmarks.serve.store --predictions 100000 1000000 --json store.json
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from benchmarks.machine import stamp
from genba.store.captures import CapturedRows, CaptureWriter, Interval, find_prediction
from genba.store.home import Store

GOAL_MS: Final = 50.0  # at 1e7
_WIDTH: Final = 64
_INTERVAL: Final = 36_000  # predictions of 0.9 s at 40 thousand a second
_PACKAGE: Final = "p" * 64
_SERVERS: Final = ("server-0000000000first", "server-1111111111later")
_LOOKUPS: Final = 100
_MS: Final = 1_000.0


def main() -> None:
    """Build the stores one after the other, print a table, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--per-capture", type=int, default=_INTERVAL)
    parser.add_argument("--lookups", type=int, default=_LOOKUPS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = [measure(n, given.per_capture, given.lookups) for n in given.predictions]
    report = {**stamp(), "goal_ms": GOAL_MS, "stores": found}
    for store in found:
        print(json.dumps(store))
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")


def measure(predictions: int, per_capture: int, lookups: int = _LOOKUPS) -> dict[str, Any]:
    """Build one store in a temporary folder and measure it.

    Args:
        predictions: How many it shall hold.
        per_capture: How many are written at a time.
        lookups: How many ids are looked up, of each kind.
    """
    folder = Path(tempfile.mkdtemp(prefix="genba-store-"))
    try:
        with Store.open(folder / "home") as store:
            began = time.perf_counter()
            written = list(_fill(store, predictions, per_capture))
            took_s = time.perf_counter() - began
        with Store.open(folder / "home") as store:  # as whoever types `genba trace` opens it
            looked = _look_up(store, predictions, lookups)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    finally:
        shutil.rmtree(folder)
    return {
        "predictions": predictions,
        "captures": len(written),
        "built_s": round(took_s, 1),
        "bytes_per_prediction": round(size / predictions, 1),
        "size_mib": round(size / 2**20, 1),
        "write_ms": _quantiles(written),
        **looked,
    }


def _fill(store: Store, predictions: int, per_capture: int) -> Iterator[float]:
    """Write the store; yields the milliseconds of each interval."""
    rng = np.random.default_rng(0)
    sensors = np.cumsum(rng.normal(size=(2 * per_capture, _WIDTH)), axis=0)
    sensors = np.round(sensors / 10, 2).astype(np.float32)
    each = predictions // len(_SERVERS)
    for server in _SERVERS:
        writer = CaptureWriter(store, "pump", server)
        for start in range(0, each, per_capture):
            count = min(per_capture, each - start)
            at = int(rng.integers(per_capture + 1))
            interval = _interval(start, count, sensors[at : at + count])
            began = time.perf_counter()
            writer.write(interval)
            yield (time.perf_counter() - began) * _MS


def _interval(first: int, count: int, sensors: "np.ndarray[Any, Any]") -> Interval:
    n = np.arange(first, first + count)
    rows = CapturedRows(
        package=_PACKAGE,
        n=n,
        received_ms=1_800_000_000_000 + n // 40,
        role=pa.repeat("stable", count),
        entity=pa.nulls(count, pa.string()),
        time=pa.nulls(count, pa.int64()),
        latency_us=1_000 + n % 512,
        status=pa.repeat("ok", count),
        features={"x": sensors},
        outputs={"score": sensors[:, :2].copy()},
    )
    summary = {"role": "stable", "n": count, "errors": 0, "cpu_seconds": 0.1}
    return Interval(from_ms=first, to_ms=first + count, packages={_PACKAGE: summary}, rows=[rows])


def _look_up(store: Store, predictions: int, lookups: int) -> dict[str, Any]:
    each = predictions // len(_SERVERS)
    numbers = random.Random(0)  # which ids are asked for is no secret
    ended, later = _SERVERS
    newest = range(max(0, each - _INTERVAL), each)
    kinds: dict[str, tuple[Callable[[], str], bool]] = {
        "find_ms": (lambda: f"{later}-{numbers.randrange(each)}", True),
        "find_newest_ms": (lambda: f"{later}-{numbers.choice(newest)}", True),
        "find_ended_server_ms": (lambda: f"{ended}-{numbers.randrange(each)}", True),
        "unknown_number_ms": (lambda: f"{later}-{each + numbers.randrange(10**9)}", False),
        "unknown_server_ms": (lambda: f"server-{numbers.randrange(10**9):015d}-7", False),
    }
    return {
        name: _quantiles(list(_timed(store, [make() for _ in range(lookups)], known=known)))
        for name, (make, known) in kinds.items()
    }


def _timed(store: Store, ids: Sequence[str], *, known: bool) -> Iterator[float]:
    for id in ids:
        began = time.perf_counter()
        found = find_prediction(store, id)
        yield (time.perf_counter() - began) * _MS
        if (found is not None) is not known:
            raise AssertionError(f"{id} is {'not ' if known else ''}in the store")


def _quantiles(values_ms: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.quantile(values_ms, (0.5, 0.99))
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}


if __name__ == "__main__":
    main()
