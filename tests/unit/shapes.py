"""Generated shapes as a dataset in memory, and a small classifier trained on them."""

from functools import lru_cache
from typing import Any

import numpy as np

from genba.core.line import Budget, Data, Line, Train
from genba.core.task import Model
from genba.runs.effort import Effort
from genba.tasks.vision.classify import VisionClassify
from genba.tasks.vision.classify.example import CLASSES, draw
from tests.unit.image_view import ImageView

TASK = VisionClassify()


def line(**options: Any) -> Line:
    chosen = {"backbones": ["filters"], "size": 64, **options}
    return Line(
        name="shapes",
        task="vision.classify",
        data=Data(source="files:shapes"),
        options=chosen,
        train=Train(budget=Budget(minutes=1, trials=3)),
    )


def shapes(each: int = 50, seed: int = 0, **options: Any) -> ImageView:
    """Return generated images of three classes in turn."""
    chance = np.random.default_rng(seed)
    label = np.arange(each * len(CLASSES)) % len(CLASSES)
    return ImageView(line(**options), [draw(CLASSES[k], chance) for k in label], label, CLASSES)


def fitted(view: ImageView, trials: int = 3, seed: int = 0) -> Model:
    settings = TASK.derive(view.line, view)
    return TASK.fit(view, settings, Effort.simple(seed=seed, minutes=5, trials=trials))


@lru_cache(maxsize=1)
def trained() -> tuple[ImageView, Model]:
    """Return a view and a model that was trained on it, made once."""
    view = shapes()
    return view, fitted(view)
