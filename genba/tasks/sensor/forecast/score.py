"""How good forecasts are: rolling origins over a split, with intervals of every measure.

Origins follow one another over the whole split; everything that is forecast lies in it. Errors are
in units of the training rows' standard deviation (the convention of the ETT benchmarks) unless a
name ends in `_raw`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Predict, Tensors, View
from genba.core.task import Scores
from genba.core.values import Measure
from genba.learn.adaptive import Widths, followed
from genba.learn.bootstrap import block_of, measure, ratio
from genba.learn.bootstrap import sums_by_block as by_block
from genba.tasks.sensor.forecast import naive, series
from genba.tasks.sensor.forecast.bodies import odd
from genba.tasks.sensor.forecast.series import Ints, Series
from genba.tasks.sensor.forecast.steps import DAY_MS

Floats = npt.NDArray[np.float64]
Evidence = dict[str, Array]

_ORIGINS: Final = 4_000  # of a split
_VALUES: Final = 20_000_000  # forecast in all
_BYTES: Final = 64 << 20  # of windows and forecasts in memory at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Forecasts of one series and what became of them, [N, H, O]."""

    expected: Floats
    low: Floats
    high: Floats
    truth: Floats
    naive: Floats


def score(predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
    """Measure any form of the model on a split, with intervals.

    Evidence per origin: row, entity, time, block (of the bootstrap), loss (mean absolute error in
    standard deviations), and sums over steps and outputs that the measures are made of. Of the
    whole: horizon and stride.
    """
    every = list(series.read(view, settings))
    origins = [series.origins(one, settings, split) for one in every]
    stride = stride_of(sum(len(at) for at in origins), settings)
    parts = [
        _evidence(predict, one, at[::stride], settings)
        for one, at in zip(every, origins, strict=True)
        if len(at)
    ]
    if not parts:
        return Scores(measures={})
    evidence = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    evidence["block"] = block_of(evidence["time"], _block_lengths(settings))
    evidence["horizon"] = np.array([int(settings["ahead"])])
    evidence["stride"] = np.array([stride])
    return Scores(measures=measures(evidence, settings), evidence=evidence)


def stride_of(origins: int, settings: JsonObject) -> int:
    """Return every how many steps a forecast is judged: 1 unless that would be too many."""
    each = int(settings["ahead"]) * len(settings["outputs"])
    return odd(max(1, -(-origins // max(1, min(_ORIGINS, _VALUES // each)))))


def measures(evidence: Mapping[str, Array], settings: JsonObject) -> dict[str, Measure]:
    """Compute every measure that the evidence allows."""
    block, n = evidence["block"], len(evidence["row"])

    def mean(top: str, bottom: str, unit: str = "") -> Measure | None:
        return measure(
            ratio(0, 1), by_block(block, evidence[top], evidence[bottom]), unit=unit, n=n
        )

    found: dict[str, Measure | None] = {}
    for steps_ahead in settings["horizons"]:
        whole = steps_ahead == settings["ahead"]
        for name in ("mse", "mae"):
            value = mean(f"{name}_h{steps_ahead}", f"n_h{steps_ahead}")
            found[f"{name}_h{steps_ahead}"] = value
            found |= {name: value} if whole else {}
    found["mase"] = mean("scaled", "count")
    sums = by_block(block, evidence["absolute"], evidence["repeated"])
    found["skill"] = measure(lambda s: 1.0 - s[..., 0] / s[..., 1], sums, n=n)
    if "inside" in evidence:
        found["coverage"] = mean("inside", "count")
        found["coverage_adaptive"] = mean("followed", "count")
        found["interval_width"] = mean("wide", "count")
        found["pinball"] = mean("pinball", "count")
    if len(settings["outputs"]) == 1:
        found["mae_raw"] = mean("absolute_raw", "count")
        squares = by_block(block, evidence["squared_raw"], evidence["count"])
        found["rmse_raw"] = measure(lambda s: np.sqrt(s[..., 0] / s[..., 1]), squares, n=n)
    unit = f"one every {int(evidence['stride'][0])} steps"
    found["forecasts"] = Measure(value=float(n), unit=unit, n=n)
    return {name: value for name, value in found.items() if value is not None}


def judged(
    predict: Predict, one: Series, at: Ints, settings: JsonObject
) -> Iterator[tuple[slice, Judged]]:
    """Yield forecasts from origins and what became of them, a bounded number at a time."""
    length = int(settings["lags"]) * len(settings["sensors"])
    each = 4 * length + 64 * int(settings["ahead"]) * len(settings["outputs"])
    rows = max(8, _BYTES // each)
    repeat = naive.Repeat(settings, int(settings["season"]))
    for start in range(0, len(at), rows):
        part = at[start : start + rows]
        inputs: Tensors = {
            **series.tensors(one, part, settings),
            "width": np.ones(len(part), dtype=np.float32),
        }
        made = predict(inputs)
        expected = np.asarray(made["expected"], dtype=np.float64)
        yield (
            slice(start, start + len(part)),
            Judged(
                expected=expected,
                low=np.asarray(made.get("low", expected), dtype=np.float64),
                high=np.asarray(made.get("high", expected), dtype=np.float64),
                truth=series.truth(one, part, settings).astype(np.float64),
                naive=repeat(inputs)["expected"],
            ),
        )


def _evidence(predict: Predict, one: Series, at: Ints, settings: JsonObject) -> Evidence:
    ahead, outputs = int(settings["ahead"]), len(settings["outputs"])
    ratios = np.full((len(at), ahead * outputs), np.nan, dtype=np.float32)
    parts: list[Evidence] = []
    bounded = False
    for rows, found in judged(predict, one, at, settings):
        parts.append(_sums(found, one.entity, settings))
        half = (found.high - found.low) / 2.0
        bounded = bounded or bool((half > 0).any())
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_of = np.abs(found.truth - found.expected) / half
        ratios[rows] = ratio_of.reshape(-1, ahead * outputs)
    evidence = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    if bounded:
        table = Widths.from_json(settings["widths"])
        promised = 1.0 - float(settings["coverage"])
        held = followed(ratios, arrivals(at, ahead, outputs), table, promised)
        evidence["followed"] = (held & np.isfinite(ratios)).sum(axis=1).astype(np.float64)
    else:
        for name in ("inside", "wide", "pinball", "pinball_by"):
            del evidence[name]
    return {
        **evidence,
        "row": one.row[at],
        "entity": np.full(len(at), one.entity, dtype=np.int64),
        "time": one.time[at],
    }


def arrivals(at: Ints, ahead: int, outputs: int) -> Iterator[Ints]:
    """Yield for each origin which forecasts became known since the origin before.

    Args:
        at: Steps of the origins, ascending.
        ahead: Steps of a forecast.
        outputs: Values of a step.

    Yields:
        Flat indices into an array [origins, ahead, outputs].

    Example:
        >>> [a.tolist() for a in arrivals(np.array([0, 1, 2]), 2, 1)]
        [[], [0], [1, 2]]
    """
    for turn, now in enumerate(at):
        before = at[turn - 1] if turn else now
        first = int(np.searchsorted(at, before - ahead, side="right"))
        made = np.arange(first, turn)
        step = before - at[made][:, None] + np.arange(now - before)
        good = (step >= 0) & (step < ahead)
        flat = (made[:, None] * ahead + step)[good]
        yield (flat[:, None] * outputs + np.arange(outputs)).ravel()


def _sums(found: Judged, entity: int, settings: JsonObject) -> Evidence:
    """Return sums over steps and outputs of each origin; what was not read counts for nothing."""
    scales, naive = np.asarray(settings["scales"]), np.asarray(settings["naive"])
    place = min(entity, len(scales) - 1)  # the last is for an entity that was not trained on
    scale, unit = scales[place], naive[place]
    known = np.isfinite(found.truth)
    raw = np.where(known, found.truth - found.expected, 0.0)
    error = np.abs(raw) / scale
    other = np.abs(np.where(known, found.truth - found.naive, 0.0)) / scale
    inside = known & (found.truth >= found.low) & (found.truth <= found.high)

    def total(x: Array) -> Floats:
        return np.asarray(np.sum(x, axis=(1, 2), dtype=np.float64))

    made = {
        "count": total(known),
        "absolute": total(error),
        "repeated": total(other),
        "scaled": total(np.abs(raw) / unit),
        "inside": total(inside),
        "wide": total(np.where(known, found.high - found.low, 0.0) / scale),
        "pinball": total(_pinball(found, known, float(settings["coverage"])) / scale),
        "absolute_raw": total(np.abs(raw)),
        "squared_raw": total(raw**2),
        # By output and in its own unit, so that two models can be compared in one scale.
        "absolute_by": np.abs(raw).sum(axis=1),
        "pinball_by": _pinball(found, known, float(settings["coverage"])).sum(axis=1),
        "scale_by": np.broadcast_to(scale, (len(raw), raw.shape[2])).astype(np.float64),
    }
    for steps_ahead in settings["horizons"]:
        made[f"mae_h{steps_ahead}"] = total(error[:, :steps_ahead])
        made[f"mse_h{steps_ahead}"] = total(error[:, :steps_ahead] ** 2)
        made[f"n_h{steps_ahead}"] = total(known[:, :steps_ahead])
    made["loss"] = np.divide(
        made["absolute"], made["count"], out=np.full(len(raw), np.nan), where=made["count"] > 0
    )
    return made


def _pinball(found: Judged, known: Array, coverage: float) -> Floats:
    """Return the mean pinball loss of the quantiles that are answered: low, middle and high."""
    tail = (1.0 - coverage) / 2.0
    losses = []
    for level, quantile in ((tail, found.low), (0.5, found.expected), (1 - tail, found.high)):
        away = np.where(known, found.truth - quantile, 0.0)
        losses.append(np.maximum(level * away, (level - 1.0) * away))
    return np.asarray(np.mean(losses, axis=0), dtype=np.float64)


def _block_lengths(settings: JsonObject) -> list[int]:
    """Return block lengths worth trying in ms, longest first: forecasts overlap by a horizon."""
    span = int(settings["merge"])
    week = 7 * DAY_MS
    return sorted({max(week, 2 * span), max(DAY_MS, span), span, max(1, span // 4)}, reverse=True)
