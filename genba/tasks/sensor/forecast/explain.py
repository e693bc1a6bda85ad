"""What drove a forecast: parts of the window are taken away and the forecast watched."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, Predict, Tensors
from genba.core.task import Attribution, Explanation
from genba.tasks.sensor.forecast.arrays import mean_known
from genba.tasks.sensor.forecast.baselines import duration
from genba.tasks.sensor.forecast.batch import look_span, recent_spans

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Some rows of one column of an input."""

    name: str
    tensor: str
    rows: slice
    column: int


def explain(predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
    """Say which sensors, and from when, caused one forecast (a batch of one).

    Each piece is made missing in turn, so the package fills it from what it still knows; the share
    of a piece is its part of the changes of the forecast, over all steps and outputs. `value` is
    the mean of the piece, `usual` that of the rest of its column.
    """
    cut = pieces(settings)
    one = {name: np.asarray(tensor)[:1] for name, tensor in tensors.items()}
    changed = {name: np.repeat(t, len(cut) + 1, axis=0) for name, t in one.items()}
    for place, piece in enumerate(cut, start=1):
        changed[piece.tensor][place, piece.rows, piece.column] = np.nan
    made = np.asarray(predict(changed)["expected"], dtype=np.float64)
    scale = np.asarray(settings["scales"], dtype=np.float64)[-1]
    effect = (np.abs(made[1:] - made[:1]) / scale).mean(axis=(1, 2))
    shares = effect / effect.sum() if effect.sum() > 0 else np.full(len(cut), 1.0 / len(cut))
    found = [_attribution(p, float(s), one) for p, s in zip(cut, shares, strict=True)]
    return Explanation(attributions=tuple(sorted(found, key=lambda a: -a.share)))


def pieces(settings: JsonObject) -> list[Piece]:
    """Return what is taken away: of every sensor now, today, yesterday, before; then the future."""
    lags, ahead = int(settings["lags"]), int(settings["ahead"])
    step = int(settings["step_ms"])
    day = look_span(settings)
    edges = sorted({0, *recent_spans(settings), day, min(2 * day, lags), lags})
    found = []
    for column, sensor in enumerate(settings["sensors"]):
        for newer, older in zip(edges, edges[1:], strict=False):
            since = f"{duration(newer * step)} to " if newer else "up to "
            name = f"{sensor}, {since}{duration(older * step)} before"
            rows = slice(lags - older, lags - newer)
            found.append(Piece(name=name, tensor="window", rows=rows, column=column))
    for column, sensor in enumerate(settings["known"]):
        name = f"{sensor}, next {duration(ahead * step)}"
        found.append(Piece(name=name, tensor="future", rows=slice(0, ahead), column=column))
    return found


def _attribution(piece: Piece, share: float, one: Tensors) -> Attribution:
    column = np.asarray(one[piece.tensor], dtype=np.float64)[0, :, piece.column]
    rest = np.delete(column, np.arange(len(column))[piece.rows])
    value, usual = mean_known(column[piece.rows], 0), mean_known(rest, 0)
    return Attribution(
        name=piece.name,
        share=share,
        value=float(np.nan_to_num(value)),
        usual=float(np.nan_to_num(usual)),
    )
