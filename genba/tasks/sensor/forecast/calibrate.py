"""Half widths of intervals from calibration rows, for every step ahead (split conformal).

The score of a value is |truth - expected| in units of how hard its time of day is. For each step
and output the half width is the quantile that (n + 1) values need for the promised coverage
(Vovk et al.; Lei et al., 2018). Forecasts from neighbouring origins err together, so n counts
stretches as long as the step is ahead (a season at least), not origins: the correction is for what
is really known.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.task import Model
from genba.learn.adaptive import widths
from genba.tasks.sensor.forecast import series
from genba.tasks.sensor.forecast.bodies import odd
from genba.tasks.sensor.forecast.model import Forecaster
from genba.tasks.sensor.forecast.series import Series

Floats = npt.NDArray[np.float64]

_ORIGINS: Final = 4_000
_FEWEST_UNITS: Final = 10  # below it the correction would ask for the largest error ever seen
_LEAST: Final = 1e-6  # of an entity's spread: an interval of nothing cannot be widened


def calibrate(draft: Model, every: Sequence[Series]) -> Model:
    """Return the model with its half widths.

    Settings gain `widths` (how width goes with level), `units` (independent stretches of the last
    step), `guaranteed` (steps whose stretches are enough for the correction; the others get the
    plain quantile, and adapting in service has to do the rest) and `typical` (mean width, in units
    of an entity).
    """
    settings, ahead = draft.settings, int(draft.settings["ahead"])
    scored, span = _scores(draft, every)
    coverage = float(settings["coverage"])
    units = [1 + span // max(step, int(settings["season"])) for step in range(1, ahead + 1)]
    ranks = [(n + 1) * coverage / n if n >= _FEWEST_UNITS else coverage for n in units]
    half = np.stack([_quantile(scored[:, h], min(1.0, ranks[h])) for h in range(ahead)])
    half = np.maximum(half, _LEAST)
    arrays = {**draft.arrays, "half": half}
    made = {
        **settings,
        "widths": widths(scored / half, 1.0 - coverage).to_json(),
        "units": units[-1],
        "guaranteed": sum(
            n >= _FEWEST_UNITS and r <= 1.0 for n, r in zip(units, ranks, strict=True)
        ),
        "typical": float(2.0 * half.mean()),
        "parameters": {"width": 1.0},
    }
    return Model(candidate=draft.candidate, settings=made, arrays=arrays, trials=draft.trials)


def _scores(draft: Model, every: Sequence[Series]) -> tuple[Floats, int]:
    """Return scores [N, H, O] of calibration origins and how many steps they cover."""
    settings, predict = draft.settings, Forecaster(draft)
    found, span = [], 0
    origins = [series.origins(one, settings, "calibrate") for one in every]
    stride = odd(-(-sum(len(at) for at in origins) // _ORIGINS))
    for one, at in zip(every, origins, strict=True):
        if not len(at):
            continue
        span += int(at[-1] - at[0])
        at = at[::stride]
        tensors = {**series.tensors(one, at, settings), "width": np.ones(len(at), np.float32)}
        answer = predict(tensors)
        unit = answer["high"] - answer["expected"]  # half width where `half` is 1
        truth = series.truth(one, at, settings).astype(np.float64)
        found.append(np.abs(truth - answer["expected"]) / unit)
    return np.concatenate(found), span


def _quantile(scores: Floats, rank: float) -> Floats:
    """Return the quantile of each output, of what is known."""
    columns = []
    for o in range(scores.shape[1]):
        known = scores[:, o][np.isfinite(scores[:, o])]
        columns.append(float(np.quantile(known, rank, method="higher")) if len(known) else 1.0)
    return np.array(columns)
