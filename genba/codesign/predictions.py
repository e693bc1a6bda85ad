"""What a point not yet measured will probably cost, given the points that were.

A model of the target says what to expect of every point; where there is none, a few ratios do that
were seen again and again. Both are wrong by a factor, but mostly by the same factor for points that
have something in common: the same runtime and precision, the same batch, the same threads. Those
factors are estimated from what was measured (ridge regression on logarithms) and applied to the
rest. The numbers serve to decide what to measure next and are shown to nobody.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from genba.codesign.values import Point, Trial
from genba.core.values import Measure

#: CPU time of one row beside float32; seen on convolutional networks and transformers alike.
_PRECISIONS: Final = {"bfloat16": 0.6, "float16": 1.5, "int8": 0.6}
_THREAD: Final = 0.08  # more CPU time per additional thread: they wait for each other
_SHARED: Final = 0.75  # of the perfect speed-up, as an exponent of threads
_BATCHED: Final = 0.95  # CPU time of a row in a batch
_RIDGE: Final = 0.3  # pulls factors that few points speak for towards one
_TREND: Final = 0.1  # pulls trends less: they are few, and every point speaks for them
_USUAL_BATCH: Final = 8
_SIZE: Final = {"int8": 0.3}
_WITH_WORK: Final = frozenset(
    {"cpu_ms", "energy_mj", "latency_ms_p50", "latency_ms_p99", "cost_usd_per_1k"}
)
_FLOOR: Final = 1e-9


def guess(point: Point) -> dict[str, float]:
    """Return what a point costs beside float32 on one thread in batches of one, from experience.

    Example:
        >>> guess(Point(engine="a", settings={"precision": "float32"}))["cpu_ms"]
        1.0
    """
    precision = "int8" if point.form.startswith("int8") else point.precision
    cpu = _PRECISIONS.get(precision, 1.0) * (1 + _THREAD * (point.threads - 1))
    cpu *= _BATCHED if point.batch > 1 else 1.0
    latency = cpu * point.batch / point.threads**_SHARED
    rows = point.streams * point.batch / latency
    return {
        "cpu_ms": cpu,
        "energy_mj": cpu,
        "latency_ms_p50": latency,
        "latency_ms_p99": latency,
        "cost_usd_per_1k": 1.0 / rows,
        "size_mib": _SIZE.get(precision, 1.0),
        "disagreement": 0.0 if precision in ("", "float32") else 0.01,
        "memory_mib": 1.0 + 0.02 * point.batch + 0.1 * point.streams,
    }


class Predictions:
    """Predicts one measure of trials from their expectations and from those that were measured.

    Args:
        trials: All that may be asked about.
        name: Of the measure, such as "cpu_ms".
    """

    def __init__(self, trials: Sequence[Trial], name: str) -> None:
        self._name = name
        self._expected = _expected(trials, name)
        shared = {key for t in trials for key in _shared(t.point)}
        self._place = {key: at for at, key in enumerate(sorted(shared))}
        self._ridge = np.array(
            [_TREND if key.startswith("trend") else _RIDGE for key in self._place]
        )
        self._factors = np.zeros(len(self._place) + 1)

    def learn(self, trials: Sequence[Trial]) -> None:
        """Estimate the factors from the trials that have the measure."""
        self._expected |= _expected(trials, self._name)
        known = [t for t in trials if _positive(t.measures.get(self._name))]
        if not known:
            return
        rows = np.stack([self._row(t.point) for t in known])
        ratio = [
            math.log(t.measures[self._name].value) - math.log(self._expected[t.point.id])
            for t in known
        ]
        # The last is the unit, or a model that is wrong everywhere: it is not shrunk.
        rows = np.c_[rows, np.ones(len(rows))]
        square = rows.T @ rows + np.diag(np.append(self._ridge, _FLOOR))
        self._factors = np.linalg.solve(square, rows.T @ np.array(ratio))

    def of(self, trial: Trial) -> float:
        """Return the measure that is expected of a trial."""
        factors = self._row(trial.point) @ self._factors[:-1] + self._factors[-1]
        return float(self._expected[trial.point.id] * math.exp(float(factors)))

    def _row(self, point: Point) -> np.ndarray:
        row = np.zeros(len(self._place))
        for key, amount in _shared(point).items():
            row[self._place[key]] = amount
        return row


def _shared(point: Point) -> dict[str, float]:
    """Return what a point shares with others that are wrong by the same factor, and how much.

    Trends carry what was seen of one batch to a larger one that nobody has measured: where a call
    costs more than a row, the batch decides.
    """
    batch = math.log(point.batch) / math.log(_USUAL_BATCH)
    return {
        f"engine {point.engine}": 1.0,
        f"family {'/'.join(point.family)}": 1.0,
        f"batch {point.engine} {point.batch}": 1.0,
        f"spread {point.engine} {point.threads}x{point.streams}": 1.0,
        "trend batch": batch,
        f"trend batch {point.engine}": batch,
        "trend threads": math.log2(point.threads),
        "trend streams": math.log2(point.streams),
    }


def _expected(trials: Sequence[Trial], name: str) -> dict[str, float]:
    """Return what is expected of each trial; experience in the unit of the model, if it spoke."""
    guessed = {t.point.id: max(_guess(t, name), _FLOOR) for t in trials}
    known = {t.point.id: m.value for t in trials if (m := t.expected.get(name)) and _positive(m)}
    unit = float(np.median([v / guessed[i] for i, v in known.items()])) if known else 1.0
    return {i: known.get(i, value * unit) for i, value in guessed.items()}


def _guess(trial: Trial, name: str) -> float:
    value = guess(trial.point).get(name, 1.0)
    return value * trial.work if name in _WITH_WORK else value


def _positive(measure: Measure | None) -> bool:
    return measure is not None and math.isfinite(measure.value) and measure.value > 0
