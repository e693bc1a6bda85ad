"""Training one choice of settings: from origins to the arrays of a body."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject
from genba.learn import trees
from genba.learn.normal import NormalEquations
from genba.tasks.sensor.forecast import explained, features
from genba.tasks.sensor.forecast.batch import Arrays, Batch, Ready
from genba.tasks.sensor.forecast.model import Body, repeated
from genba.tasks.sensor.forecast.series import Ints

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PENALTIES: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_HELD: Final = 0.2  # of the origins, the newest: for what one choice of settings leaves open
_CHUNK_BYTES: Final = 32 << 20
_MOST_WORK: Final = 4e11  # multiplications for the sums of a ridge; beyond it origins are skipped
_JUDGED: Final = 400  # origins that decide on a penalty or a share
_STEPS: Final = 8  # ahead that trees see of one window at most: they are much alike
_FLOOR: Final = 0.05  # added to the spread of a window before dividing by it
_AWAY: Final = 4e-6  # by which thresholds are moved off the values they were found at
_SMOOTH: Final = 8  # shares of a mixture are averaged over an eighth of the horizon


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Origins of one series."""

    ready: Ready
    at: Ints

    def some(self, chosen: Bools | Ints | slice) -> "Part":
        """Return some of the origins."""
        return Part(ready=self.ready, at=self.at[chosen])


Parts = Sequence[Part]


def build(
    trial: Mapping[str, Any], parts: Parts, settings: JsonObject, seed: int
) -> tuple[dict[str, Any], Arrays]:
    """Train one choice of settings.

    Args:
        trial: {"candidate": name, "settings": choices}.
        parts: Origins to train on.
        settings: Of the task.
        seed: Of what is drawn at random.

    Returns:
        Settings of the body and its arrays; `groups` and `half` are still 1.
    """
    chosen = dict(trial["settings"])
    made = {**settings, "explained": False, "annual": False, "base": "level", "chosen": chosen}
    arrays = dict(parts[0].ready.arrays)
    ahead, outputs = int(settings["ahead"]), len(settings["outputs"])
    arrays["half"] = np.ones((ahead, outputs))
    arrays["groups"] = np.ones((int(settings["calendar"]["groups"]), outputs))
    if trial["candidate"] == "seasonal":
        made["body"] = "linear"
        arrays["weights"] = repeated(settings, int(chosen["season"]), int(chosen["averaged"]))
        return made, arrays
    made["body"] = {"ridge": "linear", "boosting": "trees", "blend": "both"}[trial["candidate"]]
    made["annual"] = bool(chosen.get("annual", False))
    made["base"] = str(chosen.get("base", "level"))
    if made["body"] == "both":
        arrays["share"] = _share(trial, parts, made, arrays, seed)
    if made["body"] in ("linear", "both"):
        _train_linear(arrays, made, parts, chosen)
    if made["body"] in ("trees", "both"):
        _train_trees(arrays, made, parts, chosen, seed)
    return made, arrays


def held_out(parts: Parts, share: float = _HELD) -> tuple[list[Part], list[Part]]:
    """Divide origins by time: what can be trained on, and the newest, which it does not touch.

    Between the two a whole horizon is left out, so that no value that is forecast for the newest
    was a target of the others.
    """
    older, newest = [], []
    for part in parts:
        if not len(part.at):
            continue
        cut = part.at[min(len(part.at) - 1, int((1.0 - share) * len(part.at)))]
        ahead = int(part.ready.settings["ahead"])
        older.append(part.some(part.at + ahead <= cut))
        newest.append(part.some(part.at >= cut))
    older = [p for p in older if len(p.at)]
    return (older, newest) if older else (list(parts), list(parts))


def thinned(parts: Parts, most: int) -> list[Part]:
    """Return at most so many origins, evenly spaced, with every time of day among them."""
    total = sum(len(p.at) for p in parts)
    stride = odd(-(-total // max(1, most)))
    return [p.some(slice(None, None, stride)) for p in parts] if stride > 1 else list(parts)


def drawn(parts: Parts, share: float) -> list[Part]:
    """Return a share of the origins, drawn at random but always the same ones."""
    if share >= 1.0:
        return list(parts)
    rng = np.random.default_rng(0)
    return [p.some(np.flatnonzero(rng.random(len(p.at)) < share)) for p in parts]


def odd(stride: int) -> int:
    """Return a stride at least as long that no usual season is a multiple of.

    Example:
        >>> odd(1), odd(2), odd(6), odd(24)
        (1, 5, 11, 25)
    """
    while stride > 1 and any(stride % prime == 0 for prime in (2, 3, 7)):
        stride += 1
    return max(1, stride)


def chunks(parts: Parts) -> Iterator[tuple[Batch, Floats, Bools]]:
    """Yield windows and what came after them, a bounded number at a time."""
    for part in parts:
        settings = part.ready.settings
        length = int(settings["lags"]) + int(settings["ahead"])
        one = 8 * length * (3 * len(settings["outputs"]) + 3 * len(settings["sensors"]) + 4)
        rows = max(16, _CHUNK_BYTES // one)
        for start in range(0, len(part.at), rows):
            at = part.at[start : start + rows]
            yield part.ready.batch(at), *part.ready.after(at)


def predictions(
    predict: Callable[[Batch], Floats], parts: Parts
) -> tuple[Floats, Floats, Bools, list[Batch]]:
    """Return forecasts, truth and what of it was read, all [N, H, O], and the batches."""
    made, truth, there, batches = [], [], [], []
    for batch, after, known in chunks(parts):
        made.append(predict(batch))
        truth.append(after)
        there.append(known)
        batches.append(batch)
    return np.concatenate(made), np.concatenate(truth), np.concatenate(there), batches


def judged(body: Body, parts: Parts) -> tuple[Floats, Floats, Bools, list[Batch]]:
    """Return what `predictions` does, also of series that the body was not trained on."""
    for part in parts:
        part.ready.explain(body.explained)
    return predictions(body.predict, parts)


def _share(
    trial: Mapping[str, Any], parts: Parts, made: JsonObject, arrays: Arrays, seed: int
) -> Floats:
    """Return how much the linear map counts at each step, by least squares on the newest origins.

    Stacking (Wolpert, 1992) with one share in 0..1 per step, smoothed over neighbouring steps.
    """
    older, newest = held_out(parts)
    newest = thinned(newest, _JUDGED)
    chosen = dict(trial["settings"])
    drafts = []
    for body in ("linear", "trees"):
        own = {**made, "body": body}
        kept = dict(arrays)
        if body == "linear":
            _train_linear(kept, own, older, chosen)
        else:
            _train_trees(kept, own, older, chosen, seed)
        drafts.append(predictions(Body(own, kept).predict, newest))
    (left, truth, there, _), (right, *_) = drafts
    both, wanted = left - right, truth - right
    top = np.where(there, both * wanted, 0.0).sum(axis=0)
    bottom = np.where(there, both * both, 0.0).sum(axis=0)
    reach = max(1, len(top) // _SMOOTH)
    top, bottom = _smoothed(top, reach), _smoothed(bottom, reach)
    return np.clip(top / np.maximum(bottom, 1e-12), 0.0, 1.0)


def _smoothed(x: Floats, reach: int) -> Floats:
    """Return sums over neighbouring steps."""
    total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, axis=0)])
    at = np.arange(len(x))
    return np.asarray(total[np.minimum(at + reach + 1, len(x))] - total[np.maximum(at - reach, 0)])


def _train_linear(
    arrays: Arrays, made: dict[str, Any], parts: Parts, chosen: Mapping[str, Any]
) -> None:
    """Fit the explanation, if asked for, and the linear map of every output.

    The penalty is the one that does best on the newest origins, which the others do not overlap;
    then all of them are used.
    """
    made["explained"] = chosen["explained"] in explained.DETAIL
    fitted = _explain(parts, made, chosen) if made["explained"] else None
    for part in parts:
        part.ready.explain(fitted)
    if fitted is not None:
        arrays.update(fitted.to_arrays())
    older, newest = held_out(_affordable(parts, made))
    first = _sums(older, made, weighted=bool(chosen["weighted"]))
    judges = thinned(newest, _JUDGED)
    losses = [_loss(np.stack([s.solve(p) for s in first]), arrays, made, judges) for p in PENALTIES]
    best = [PENALTIES[int(i)] for i in np.argmin(np.stack(losses), axis=0)]
    made["penalties"] = best
    if older[0].at is parts[0].at:  # too few to hold any out
        joined = first
    else:
        rest = _sums(newest, made, weighted=bool(chosen["weighted"]))
        joined = [a.joined(b) for a, b in zip(first, rest, strict=True)]
    arrays["weights"] = np.stack([s.solve(p) for s, p in zip(joined, best, strict=True)])


def _explain(parts: Parts, made: JsonObject, chosen: Mapping[str, Any]) -> explained.Explained:
    """Fit on the rows up to the last target of these origins, and no later."""
    z, known, local = [], [], []
    for part in parts:
        if not len(part.at):
            continue
        ready = part.ready
        rows = slice(0, int(part.at[-1]) + int(made["ahead"]) + 1)
        z.append(np.where(ready.there[rows], ready.z[rows], np.nan))
        known.append(ready.known[rows])
        local.append(ready.local[rows])
    return explained.fit(
        np.concatenate(z),
        np.concatenate(known),
        np.concatenate(local),
        made,
        detail=str(chosen["explained"]),
    )


def _affordable(parts: Parts, made: JsonObject) -> list[Part]:
    width = int(made["lags"])
    if made["explained"]:
        width += features.explained_span(made) + int(made["ahead"])
    one = float(width * (width + int(made["ahead"])) * len(made["outputs"]))
    return thinned(parts, max(1, int(_MOST_WORK / one)))


def _sums(parts: Parts, made: JsonObject, *, weighted: bool) -> list[NormalEquations]:
    """Add up the normal equations of every output."""
    found: list[NormalEquations] = []
    span = features.explained_span(made)
    for batch, after, _ in chunks(parts):
        level = features.levels(batch)
        for o, x in enumerate(features.linear(batch, span)):
            y = after[:, :, o] - level[:, o, None]
            if len(found) <= o:
                found.append(NormalEquations.empty(x.shape[1], y.shape[1]))
            found[o].add(x, y, _weight(batch, o) if weighted else None)
    return found


def _weight(batch: Batch, o: int) -> Floats:
    """Return weights that make every window count alike, whatever its spread."""
    spread = batch.z[:, :, o].std(axis=1) + _FLOOR
    return np.asarray(1.0 / spread**2, dtype=np.float64)


def _loss(weights: Floats, arrays: Arrays, made: JsonObject, parts: Parts) -> Floats:
    """Return the mean absolute error of each output."""
    body = Body({**made, "body": "linear"}, {**arrays, "weights": weights})
    predicted, truth, there, _ = predictions(body.predict, parts)
    error = np.where(there, np.abs(predicted - truth), 0.0).sum(axis=(0, 1))
    return np.asarray(error / np.maximum(there.sum(axis=(0, 1)), 1))


def _train_trees(
    arrays: Arrays, made: JsonObject, parts: Parts, chosen: Mapping[str, Any], seed: int
) -> None:
    """Grow trees on windows drawn evenly, each with steps ahead drawn at random."""
    layout = features.Layout.of(made, annual=bool(made["annual"]))
    outputs, ahead = len(made["outputs"]), int(made["ahead"])
    total = sum(len(p.at) for p in parts)
    drawn = max(1, min(ahead, _STEPS, round(int(chosen["rows"]) / max(1, total * outputs))))
    used = thinned(parts, max(1, int(chosen["rows"]) // (drawn * outputs)))
    rng = np.random.default_rng(seed)
    x, y = [], []
    for batch, after, there in chunks(used):
        rows, level = features.for_trees(batch, layout)
        wanted = (after - level[:, None]).transpose(0, 2, 1)
        if made["base"] == "season":
            wanted = wanted - rows[:, :, :, layout.base]
        order = rng.permuted(np.tile(np.arange(ahead), (len(batch), 1)), axis=1)[:, :drawn]
        every = (np.arange(len(batch))[:, None, None], np.arange(outputs)[None, :, None])
        pick = (*every, order[:, None, :])
        good = there.transpose(0, 2, 1)[pick].ravel()
        x.append(rows[pick].reshape(-1, rows.shape[3])[good])
        y.append(wanted[pick].ravel()[good])
    columns = [np.arange(x[0].shape[1], dtype=np.int64)]
    grown = trees.grow(np.concatenate(x), np.concatenate(y)[:, None], chosen, columns)
    # A threshold may be the very value of many rows, which float32 may miss by a last digit.
    away = _AWAY * np.maximum(1.0, np.abs(grown.threshold))
    arrays.update(replace(grown, threshold=(grown.threshold + away).astype(np.float32)).to_arrays())
