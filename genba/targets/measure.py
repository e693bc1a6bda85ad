"""Measuring one engine: latency, CPU time and throughput here, memory in a fresh process."""

import gc
import statistics
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from genba.core.protocols import Array, Engine, Tensors
from genba.core.values import Measure
from genba.targets.probe import load_average

# The smallest and largest of six repeats bound their median with 97 % confidence (sign test:
# 1 - 2 * 0.5**6), with no assumption about how noisy the machine is.
REPEATS: Final = 6
BATCH_ROWS: Final = 64
#: What is known of a package only once an engine was measured on the target; may be gates too.
MEASURED_LATER: Final = frozenset(
    {
        *("latency_ms_p50", "latency_ms_p99", "cpu_ms", "energy_mj", "memory_mib", "rows_per_s"),
        *("first_token_ms", "tokens_per_s", "tokens_per_s_together"),
        *("joules_per_1k_tokens", "cost_usd_per_1k_tokens"),
    }
)
_FEWEST_ROWS: Final = 4
_BATCH_S: Final = 0.1  # a batch that takes longer is made smaller: images come by the few
_WARM_UP_CALLS: Final = 30
_WARM_UP_S: Final = 0.25
_FEWEST_WARM_UP_CALLS: Final = 3
_CALLS: Final = (10, 4000)  # fewest and most in one repeat
_BATCH_CALLS: Final = 2  # fewest of batches, each of which is many predictions already
_NS_PER_MS: Final = 1e6
_ROWS_IN_TURN: Final = 256  # different rows, so that no answer comes out of a cache


def timings(engine: Engine, tensors: Tensors, *, seconds: float = 0.3) -> dict[str, Measure]:
    """Measure latency and CPU time of one prediction at a time, and rows per second in batches.

    Args:
        engine: A loaded engine.
        tensors: Real samples; they are used in turn.
        seconds: About how long to measure one prediction at a time.

    Returns:
        `latency_ms_p50`, `latency_ms_p99`, `cpu_ms` per prediction, `rows_per_s` in batches of 64
        (smaller ones where that takes more than a tenth of a second) and `load`, the number of
        processes that wanted a core meanwhile.
    """
    singles = [_rows(tensors, i, i + 1) for i in range(min(_ROWS_IN_TURN, _count(tensors)))]
    calls = _calls(engine, singles, seconds / REPEATS)
    gc.collect()
    repeats = [_repeat(engine, singles, calls) for _ in range(REPEATS)]
    waits = [np.percentile(ns, (50, 99)) / _NS_PER_MS for ns, _ in repeats]
    total = calls * REPEATS
    return {
        "latency_ms_p50": _median([float(w[0]) for w in waits], "ms", total),
        "latency_ms_p99": _median([float(w[1]) for w in waits], "ms", total),
        "cpu_ms": _median([cpu / _NS_PER_MS for _, cpu in repeats], "ms", total),
        "rows_per_s": throughput(engine, tensors, seconds=seconds / 3),
        "load": Measure(value=load_average(), unit="processes"),
    }


def throughput(engine: Engine, tensors: Tensors, *, seconds: float = 0.1) -> Measure:
    """Measure rows per second in batches of 64, one caller; in smaller ones where rows are slow."""
    rows = _batch_rows(engine, tensors)
    batch = _batch(tensors, rows)
    calls = _calls(engine, [batch], seconds / REPEATS, fewest=_BATCH_CALLS)
    rates = []
    for _ in range(REPEATS):
        waits, _cpu = _repeat(engine, [batch], calls)
        rates.append(rows * 1e9 / float(np.mean(waits)))
    return _median(rates, "rows/s", calls * REPEATS)


def _batch_rows(engine: Engine, tensors: Tensors) -> int:
    one = _batch(tensors, 1)
    engine.run(one)
    started = time.perf_counter()
    engine.run(one)
    spent = time.perf_counter() - started
    return int(min(max(_BATCH_S / max(spent, 1e-9), _FEWEST_ROWS), BATCH_ROWS))


def _batch(tensors: Tensors, rows: int) -> dict[str, Array]:
    at = np.arange(rows) % _count(tensors)
    return {name: np.ascontiguousarray(tensor[at]) for name, tensor in tensors.items()}


def _calls(
    engine: Engine, batches: Sequence[Tensors], seconds: float, *, fewest: int = _CALLS[0]
) -> int:
    """Warm up, and return how many calls fill the time."""
    started = time.perf_counter()
    spent, done = 0.0, 0
    while done < _FEWEST_WARM_UP_CALLS or (done < _WARM_UP_CALLS and spent < _WARM_UP_S):
        engine.run(batches[done % len(batches)])
        done += 1
        spent = time.perf_counter() - started
    return int(min(max(seconds * done / max(spent, 1e-7), fewest), _CALLS[1]))


def _repeat(engine: Engine, batches: Sequence[Tensors], calls: int) -> tuple[Array, float]:
    """Return the wall time of each call and the mean CPU time of all threads, in nanoseconds."""
    clock, run, count = time.perf_counter_ns, engine.run, len(batches)
    waits = np.empty(calls, dtype=np.int64)
    cpu = time.process_time_ns()
    for i in range(calls):
        batch = batches[i % count]
        started = clock()
        run(batch)
        waits[i] = clock() - started
    return waits, (time.process_time_ns() - cpu) / calls


def _median(values: Sequence[float], unit: str, n: int) -> Measure:
    return Measure(
        value=statistics.median(values), unit=unit, low=min(values), high=max(values), n=n
    )


def _count(tensors: Tensors) -> int:
    return len(next(iter(tensors.values())))


def _rows(tensors: Tensors, start: int, stop: int) -> dict[str, Array]:
    return {name: tensor[start:stop] for name, tensor in tensors.items()}
