"""The images a search works on, and their features: a bounded number, whatever the set's size."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, View
from genba.learn.backbone import Backbone
from genba.tasks.vision.anomaly import schema, simulate

Images = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Taps = Mapping[str, Array]

FEWEST: Final = 10  # good images, below which nothing can be said
BATCH: Final = 32  # images whose features are in memory in full precision
_MOST_GOOD: Final = 240
_MOST_DEFECTS: Final = 120
_ONE_FOLD: Final = 120  # good images from which one part held out is enough
_FOLDS: Final = 3
_DRAWN: Final = 60  # simulated defects at least, as far as four on each image go
_MOST_COPIES: Final = 4
_PIXELS: Final = 240 * 224 * 224  # in memory; of larger images there are fewer


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Which rows of a dataset are what."""

    good: Ints  # rows of train
    calibration: Ints  # rows of good parts in calibrate
    defects: Mapping[str, Ints]  # split -> rows of labelled defects


def survey(view: View) -> Survey:
    """Look at the labels of train and calibrate.

    Raises:
        Problem: G530 when there are too few good images.
    """
    rows, labels = {}, {}
    for split in ("train", "calibrate"):
        parts = [(c["row"], c["label"]) for c in view.chunks(split)]
        rows[split] = np.concatenate([np.zeros(0, dtype=np.int64), *(p[0] for p in parts)])
        labels[split] = np.concatenate([np.zeros(0), *(p[1] for p in parts)])
    labelled = any(bool((label == 0.0).any()) for label in labels.values())
    good = {s: rows[s][schema.is_good(labels[s], labelled=labelled)] for s in rows}
    if len(good["train"]) < FEWEST:
        raise Problem(
            "G530",
            f"There are {len(good['train'])} images of good parts to learn from; at least "
            f"{FEWEST} are needed.",
            where="data.source",
            why="The model learns from good parts only; images labelled as defects do not count.",
            tries=["add images of good parts", "genba check LINE", "genba explain G530"],
        )
    return Survey(
        good=good["train"],
        calibration=good["calibrate"],
        defects={s: rows[s][labels[s] > 0.0] for s in rows},
    )


def read(view: View, split: str, rows: Ints, most: int, settings: JsonObject) -> Iterator[Images]:
    """Yield at most `most` of some rows as images of working size, some at a time."""
    for columns in schema.chosen(view, split, rows, most):
        images = schema.samples(columns, settings).tensors["image"]
        for start in range(0, len(images), BATCH):
            yield images[start : start + BATCH]


@dataclass(kw_only=True, slots=True)
class Gallery:
    """Images to search with. `source` says on which good image each defect is drawn."""

    good: Images
    drawn: Images
    source: Ints
    defects: Images
    folds: int
    _features: dict[tuple[str, str], dict[str, Array]] = field(default_factory=dict)

    def held(self, fold: int) -> npt.NDArray[np.bool_]:
        """Say which good images a fold holds out."""
        return np.asarray(np.arange(len(self.good)) % _FOLDS == fold)

    def features(self, backbone: Backbone, group: str, taps: Sequence[str]) -> dict[str, Array]:
        """Return feature maps in half precision, computed once per backbone.

        Args:
            backbone: Whose features.
            group: "good", "drawn" or "defects".
            taps: All that any trial wants; the same in every call.
        """
        key = (backbone.name, group)
        if key not in self._features:
            images = getattr(self, group)
            made = [
                {n: v.astype(np.float16) for n, v in backbone.features(part, taps).items()}
                for part in (images[i : i + BATCH] for i in range(0, len(images), BATCH))
            ]
            self._features[key] = schema.concatenated(made) if made else {}
        return self._features[key]


def collect(view: View, found: Survey, settings: JsonObject, seed: int) -> Gallery:
    """Read the images that a search needs, and draw defects on those it will hold out."""
    size = int(settings["size"])
    room = min(1.0, _PIXELS / (_MOST_GOOD * size * size))
    good = _joined(read(view, "train", found.good, int(_MOST_GOOD * room), settings), size)
    good = good[np.random.default_rng(seed).permutation(len(good))]  # neighbours are alike
    folds = 1 if len(good) >= _ONE_FOLD else _FOLDS
    held = np.flatnonzero(np.arange(len(good)) % _FOLDS < folds)
    source = np.tile(held, min(_MOST_COPIES, -(-_DRAWN // len(held))))
    rows = {s: r for s, r in found.defects.items() if len(r)}
    share = int(_MOST_DEFECTS * room) // max(1, len(rows))
    parts = [images for s, r in rows.items() for images in read(view, s, r, share, settings)]
    return Gallery(
        good=good,
        drawn=simulate.draw(good[source], seed).images,
        source=source,
        defects=_joined(parts, size),
        folds=folds,
    )


def batches(features: Mapping[str, Array], rows: Array) -> Iterator[dict[str, Array]]:
    """Yield some rows of feature maps in full precision, some at a time."""
    for start in range(0, len(rows), BATCH):
        at = rows[start : start + BATCH]
        yield {name: values[at].astype(np.float32) for name, values in features.items()}


def _joined(parts: Any, size: int) -> Images:
    empty = np.zeros((0, size, size, 3), dtype=np.uint8)
    return np.concatenate([empty, *parts])
