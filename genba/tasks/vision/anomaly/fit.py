"""Search, train on every good image, calibrate."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, View
from genba.core.task import Model
from genba.learn.backbone import Backbone, load
from genba.learn.ranking import auroc
from genba.learn.search import Trial, plan, search
from genba.learn.threads import one_thread
from genba.runs.effort import Effort
from genba.tasks.vision.anomaly import gallery, heads, patches, schema
from genba.tasks.vision.anomaly.calibrate import calibrate
from genba.tasks.vision.anomaly.gallery import Gallery, Survey
from genba.tasks.vision.anomaly.model import distances, levelled, pooled, smoothed

Floats = npt.NDArray[np.float64]
Kit = Mapping[str, Backbone]

MOST_IMAGES: Final = 4_000  # good images a model learns from; more changed nothing
_TRUSTED: Final = 10.0  # labelled defects that count as much as all simulated ones
#: What a trial must gain, per setting that is not the default, and per place of its candidate:
#: on some hundred images, smaller differences are luck.
_PRIOR: Final = 0.003
_CROSS_FOLDS: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Workshop:
    """Everything a trial needs."""

    pictures: Gallery
    kit: Kit  # candidate -> backbone
    settings: JsonObject
    seed: int

    def taps(self, candidate: str) -> list[str]:
        """Return every tap that any trial on the same backbone may want."""
        name = self.kit[candidate].name
        same = [c for c in self.kit if self.kit[c].name == name]
        texts = [text for c in same for text in heads.SPACE[c]["taps"]]
        return sorted({tap for text in texts for tap in str(text).split()}, key=int)

    def features(self, candidate: str, group: str) -> dict[str, Array]:
        """Return the features of a group of images."""
        return self.pictures.features(self.kit[candidate], group, self.taps(candidate))


def fit(view: View, settings: JsonObject, effort: Effort) -> Model:
    """Search within the budget, train the best on all good images, calibrate the threshold.

    Raises:
        Problem: G530 when there are too few good images; as `backbone.load` when no candidate
            can be had.
    """
    with one_thread():  # one order of additions, so the same bits on every run
        kit = _kit(settings, effort)
        found = gallery.survey(view)
        effort.progress.note(_sentence(found))
        effort.progress.step("reading images")
        pictures = gallery.collect(view, found, settings, effort.seed)
        shop = Workshop(pictures=pictures, kit=kit, settings=settings, seed=effort.seed)
        space = {name: heads.SPACE[name] for name in kit}
        trials = plan(space, effort.budget.trials, effort.seed)
        best, tried = search(trials, lambda t, share: _loss(t, share, shop, effort), effort)
        effort.progress.step("scoring training parts by cross-validation")
        unseen = _crossed(best, shop)
        effort.progress.step(f"training {best['candidate']} on every good image")
        draft = _train(best, tried, view, found, shop, effort)
        draft = replace(draft, arrays={**draft.arrays, **heads.levels(unseen)})
        effort.progress.step("calibrating the threshold")
        charts = levelled(unseen, draft.arrays)
        crossed = (pooled(charts, draft.settings).astype(np.float64), charts)
        return calibrate(draft, view, found.calibration, crossed, effort)


def _kit(settings: JsonObject, effort: Effort) -> dict[str, Backbone]:
    """Load the backbone of every candidate; one whose weights cannot be had is left out."""
    found: dict[str, Backbone] = {}
    last: Problem | None = None
    for name in settings["candidates"]:
        wanted = schema.FLOOR if name.startswith(schema.FLOOR) else str(settings["backbone"])
        try:
            found[name] = load(wanted, effort.progress)
        except Problem as problem:
            effort.progress.note(f"{name} is left out: {problem.what}")
            last = problem
    if not found:
        assert last is not None
        raise last
    return found


def _loss(trial: Trial, share: float, shop: Workshop, effort: Effort) -> float:
    """Return 1 - AUROC of defects against good images that were held out, plus the prior.

    Labelled defects and simulated ones share the weight: a handful of labelled ones says less
    about the next kind of defect than many simulated ones, a hundred say more.
    """
    losses = []
    for fold in range(shop.pictures.folds):
        effort.check()
        losses.append(_held_out(trial, share, fold, shop))
    return float(np.mean(losses)) + _prior(trial, list(shop.kit))


def _held_out(trial: Trial, share: float, fold: int, shop: Workshop) -> float:
    pictures, candidate = shop.pictures, trial["candidate"]
    held = pictures.held(fold)
    rows = np.flatnonzero(~held)
    rows = rows[:: max(1, min(round(1 / share), len(rows) // gallery.FEWEST))]
    made, arrays = _made(trial, rows, shop)

    def charts(group: str, chosen: Array) -> Array:
        return _smoothed(shop.features(candidate, group), chosen, made, arrays)

    unseen = charts("good", np.flatnonzero(held))
    level = heads.levels(unseen)

    def scores(chart: Array) -> Floats:
        return pooled(levelled(chart, level), made).astype(np.float64)

    good = scores(unseen)
    drawn = np.flatnonzero(held[pictures.source])
    loss = 1.0 - float(auroc(good, scores(charts("drawn", drawn))))
    count = len(pictures.defects)
    if not count:
        return loss
    found = scores(charts("defects", np.arange(count)))
    weight = count / (count + _TRUSTED)
    return (1.0 - weight) * loss + weight * (1.0 - float(auroc(good, found)))


def _made(trial: Trial, rows: Array, shop: Workshop) -> tuple[dict[str, Any], dict[str, Array]]:
    features = shop.features(trial["candidate"], "good")
    scales = heads.scales_of({n: v[rows] for n, v in features.items()}, heads.taps_of(trial))
    stream = gallery.batches(features, rows)
    return heads.build(trial, stream, scales, shop.settings, shop.seed)


def _smoothed(
    features: Mapping[str, Array], rows: Array, settings: JsonObject, arrays: Mapping[str, Array]
) -> Array:
    """Return the maps of some images, not levelled."""
    found = []
    for part in gallery.batches(features, rows):
        vectors = patches.vectors(part, arrays, settings["taps"])
        found.append(smoothed(distances(vectors, settings, arrays), arrays))
    return np.concatenate(found)


def _train(
    best: Trial,
    tried: Sequence[Trial],
    view: View,
    found: Survey,
    shop: Workshop,
    effort: Effort,
) -> Model:
    """Train on every good image, one pass over the data."""
    backbone, taps = shop.kit[best["candidate"]], heads.taps_of(best)
    scales = heads.scales_of(shop.features(best["candidate"], "good"), taps)
    total = min(MOST_IMAGES, len(found.good))

    def stream() -> Iterator[dict[str, Array]]:
        done = 0
        for images in gallery.read(view, "train", found.good, MOST_IMAGES, shop.settings):
            effort.check()
            yield backbone.features(images, taps)
            done += len(images)
            effort.progress.step("learning good parts", done, total)

    made, arrays = heads.build(best, stream(), scales, shop.settings, shop.seed)
    made |= {
        "backbone": backbone.name,
        "backbone_version": backbone.version,
        "defects_seen": sum(len(rows) for rows in found.defects.values()),
    }
    return Model(candidate=best["candidate"], settings=made, arrays=arrays, trials=tried)


def _crossed(best: Trial, shop: Workshop) -> Array:
    """Return maps of training images by heads that have not seen them (cross-validation)."""
    place = np.arange(len(shop.pictures.good)) % _CROSS_FOLDS
    found = []
    for fold in range(_CROSS_FOLDS):
        made, arrays = _made(best, np.flatnonzero(place != fold), shop)
        features = shop.features(best["candidate"], "good")
        found.append(_smoothed(features, np.flatnonzero(place == fold), made, arrays))
    return np.concatenate(found)


def _prior(trial: Trial, candidates: Sequence[str]) -> float:
    space = heads.SPACE[trial["candidate"]]
    changed = sum(value != space[name][0] for name, value in trial["settings"].items())
    place = candidates.index(trial["candidate"])
    return _PRIOR * float(changed + 2 * place)


def _sentence(found: Survey) -> str:
    defects = sum(len(rows) for rows in found.defects.values())
    return (
        f"{len(found.good):,} good images to learn from, {len(found.calibration):,} to calibrate "
        f"with, {defects:,} labelled defects to choose by"
    )
