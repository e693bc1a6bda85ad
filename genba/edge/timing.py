"""Measuring one engine on real samples: latency, processor time, rows per second.

Runs on any device that has the engine: here in a child process, there next to the product.
"""

import gc
import os
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from genba.core.protocols import Array, Engine, Tensors
from genba.core.values import Measure
from genba.edge.counters import metered

# The smallest and largest of six repeats bound their median with 97 % confidence (sign test:
# 1 - 2 * 0.5**6), with no assumption about how noisy the machine is.
REPEATS: Final = 6
BATCH_ROWS: Final = 64
_FEWEST_ROWS: Final = 4
_BATCH_S: Final = 0.1  # a batch that takes longer is made smaller: images come by the few
_WARM_UP_CALLS: Final = 30
_WARM_UP_S: Final = 0.25
_FEWEST_WARM_UP_CALLS: Final = 3
_CALLS: Final = (10, 4000)  # fewest and most in one repeat
_FEWEST_SLOW: Final = 3  # in one repeat, of calls that take longer than all repeats should
_NS_PER_MS: Final = 1e6
_NS_PER_S: Final = 1e9
_ROWS_IN_TURN: Final = 256  # different rows, so that no answer comes out of a cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """How an engine is used while it is measured."""

    batch: int = 1  # rows of a call
    callers: int = 1  # calls at the same time
    seconds: float = 0.2  # about how long to measure


@dataclass(frozen=True, kw_only=True, slots=True)
class _Round:
    """One repeat: the wall time of each call, and what all of it took."""

    waits_ns: Array
    cpu_ns: int
    wall_ns: int


def load_average() -> float:
    """Return how many processes wanted a core, on average over the last minute."""
    return os.getloadavg()[0]


def timings(engine: Engine, tensors: Tensors, use: Use) -> dict[str, Measure]:
    """Measure latency and processor time of a prediction, and rows per second.

    Args:
        engine: A loaded engine.
        tensors: Real samples; they are used in turn.
        use: How many rows a call has and how many calls there are at a time.

    Returns:
        `latency_ms_p50` and `latency_ms_p99` of a call, `cpu_ms` per row (of all threads),
        `rows_per_s`, and `load`, the number of processes that wanted a core meanwhile; `energy_mj`
        per row where the processor has a counter that may be read. One row by
        one caller is how requests come; how many rows go through is then measured in batches of
        64, or in smaller ones where those take more than a tenth of a second.
    """
    batches = _batches(tensors, use.batch)
    calls = _calls(engine, batches, use.seconds / REPEATS)
    gc.collect()
    rounds = [_round(engine, batches, calls, use.callers) for _ in range(REPEATS)]
    waits = [np.percentile(r.waits_ns, (50, 99)) / _NS_PER_MS for r in rounds]
    rows = calls * use.callers * use.batch  # of a round
    total = calls * use.callers * REPEATS
    found = {
        "latency_ms_p50": _median([float(w[0]) for w in waits], "ms", total),
        "latency_ms_p99": _median([float(w[1]) for w in waits], "ms", total),
        "cpu_ms": _median([r.cpu_ns / rows / _NS_PER_MS for r in rounds], "ms", total),
    }
    if use.batch == use.callers == 1:
        found["rows_per_s"] = throughput(engine, tensors, seconds=use.seconds / 3)
    else:
        rates = [rows * _NS_PER_S / r.wall_ns for r in rounds]
        found["rows_per_s"] = _median(rates, "rows/s", total)
    found["load"] = Measure(value=load_average(), unit="processes")
    # Where a counter can be read, energy is measured too; an engine on an accelerator says `place`.
    meter = metered(getattr(engine, "place", "cpu"))
    energy = meter and meter.per_row(lambda: engine.run(batches[0]), use.batch)
    return {**found, "energy_mj": energy} if energy else found


def throughput(engine: Engine, tensors: Tensors, *, seconds: float = 0.1) -> Measure:
    """Measure rows per second in batches of 64, one caller; in smaller ones where rows are slow."""
    rows = _batch_rows(engine, tensors)
    batch = _batch(tensors, rows)
    calls = _calls(engine, [batch], seconds / REPEATS, fewest=2)
    found = [_round(engine, [batch], calls, 1) for _ in range(REPEATS)]
    rates = [rows * _NS_PER_S / float(np.mean(r.waits_ns)) for r in found]
    return _median(rates, "rows/s", calls * REPEATS)


def _batches(tensors: Tensors, rows: int) -> list[dict[str, Array]]:
    """Return different batches of a size, of rows in turn."""
    count = min(_ROWS_IN_TURN, _count(tensors))
    starts = range(0, max(count - rows, 0) + 1, rows)
    if rows > count:
        return [_batch(tensors, rows)]
    return [{name: tensor[at : at + rows] for name, tensor in tensors.items()} for at in starts]


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
    each = spent / done
    if each * _FEWEST_SLOW > seconds * REPEATS:
        fewest = min(fewest, _FEWEST_SLOW)
    return int(min(max(seconds / max(each, 1e-9), fewest), _CALLS[1]))


def _round(engine: Engine, batches: Sequence[Tensors], calls: int, callers: int) -> _Round:
    """Let every caller make its calls."""
    waits = np.empty((callers, calls), dtype=np.int64)
    failed: list[BaseException] = []

    def call(number: int) -> None:
        try:
            _call(engine, batches, waits[number], number)
        except BaseException as error:  # noqa: BLE001  # raised again where it can be seen
            failed.append(error)

    others = [threading.Thread(target=call, args=(number,)) for number in range(1, callers)]
    began, cpu = time.perf_counter_ns(), time.process_time_ns()
    for other in others:
        other.start()
    call(0)
    for other in others:
        other.join()
    if failed:
        raise failed[0]
    return _Round(
        waits_ns=waits.reshape(-1),
        cpu_ns=time.process_time_ns() - cpu,
        wall_ns=time.perf_counter_ns() - began,
    )


def _call(engine: Engine, batches: Sequence[Tensors], waits: Array, first: int) -> None:
    clock, run, count = time.perf_counter_ns, engine.run, len(batches)
    for i in range(len(waits)):
        batch = batches[(first + i) % count]
        started = clock()
        run(batch)
        waits[i] = clock() - started


def _median(values: Sequence[float], unit: str, n: int) -> Measure:
    return Measure(
        value=statistics.median(values), unit=unit, low=min(values), high=max(values), n=n
    )


def _count(tensors: Tensors) -> int:
    return len(next(iter(tensors.values())))
