"""What a sample is: one image of working size, and the settings that a line leaves open."""

from typing import Any, Final

import numpy as np

from genba.core.codec import nearest
from genba.core.line import Line
from genba.core.options import read_options
from genba.core.problem import Problem
from genba.core.protocols import Columns, JsonObject, Tensors, View
from genba.core.task import Option, Recovered, Samples
from genba.core.values import Signature, Tensor
from genba.edge.images import decode, encode_png, inspect
from genba.learn.backbone import FILTERS, backbones

CANDIDATES: Final = ("linear", "prototype", "head")
LOOKS: Final = ("brightness", "contrast", "sharpness", "saturation")
EMBEDDING: Final = 32

_STEP: Final = 32  # a network halves its images five times
_SMALLEST, _LARGEST, _USUAL = 32, 512, 224
_SMALL: Final = 96  # nothing smaller was better, not even for images of 28 pixels
#: Times the size of the images. Fashion-MNIST (28 pixels), 6,000 images, linear on "parts": .903
#: at 64 pixels, .906 at 96, .903 at 128, .902 at 160; the last takes three times as long as 96.
_ENLARGED: Final = 3
_LOOKED_AT: Final = 64  # images that are opened to learn how large they are
#: Of the budget, for looking at images: pixels of the working size per minute. One core of the
#: machine this was written on reads 580 million in a minute with the first backbone.
_PIXELS_PER_MINUTE: Final = 240e6
_FEWEST_IMAGES: Final = 500

OPTIONS: Final = {
    "abstain": Option(
        about="share of wrong answers among those given that is allowed; beyond it the model "
        "abstains; 0: it always answers",
        default=0.05,
        low=0.0,
        high=0.5,
    ),
    "backbones": Option(
        about="networks whose features are tried; filters needs no weights",
        default=[backbones()[0]],
        choices=backbones(),
    ),
    "balance": Option(
        about="train and choose as if every class were equally frequent", default=False
    ),
    "shots": Option(
        about="labelled images per class that may be used, from the training and from the "
        "calibration part each; 0: all",
        default=0,
        low=0,
    ),
    "size": Option(
        about="working size in pixels, a multiple of 32; 0: three times the size of the images, "
        "from 96 to 224",
        default=0,
        low=0,
        high=_LARGEST,
    ),
}


def variants(line: Line) -> dict[str, dict[str, Any]]:
    """Return other sizes of the model, the cheapest to train first.

    Example:
        >>> from genba.core.line import Data
        >>> line = Line(name="a", task="vision.classify", data=Data(source="files:a"))
        >>> list(variants(line))
        ['filters', 'efficientnet-lite1']
    """
    chosen = [str(name) for name in read_options(OPTIONS, line.options)["backbones"]]
    networks = [name for name in backbones() if name != FILTERS]
    known = [networks.index(name) for name in chosen if name in networks]
    wanted = [] if FILTERS in chosen else [FILTERS]
    wanted += networks[max(known, default=-1) + 1 :][:1]  # the next larger one
    return {name: {"backbones": [name]} for name in wanted}


def derive(line: Line, view: View) -> dict[str, Any]:
    """Derive every setting the line leaves open, as JSON that is printed and recorded."""
    options = read_options(OPTIONS, line.options)
    size = _size(int(options["size"]), view)
    return {
        "size": size,
        "classes": list(view.classes),
        "candidates": _candidates(line),
        "backbones": [str(name) for name in options["backbones"]],
        "allowed_error": float(options["abstain"]),
        "balance": bool(options["balance"]),
        "shots": int(options["shots"]),
        "images": images(float(line.train.budget.minutes), size),
        "sensors": [],
        "merge": 1,
    }


def images(minutes: float, size: int) -> dict[str, Any]:
    """Derive how many images the budget has time to look at.

    Example:
        >>> images(2.0, 224)["most"]
        9566
    """
    most = max(_FEWEST_IMAGES, int(minutes * _PIXELS_PER_MINUTE / size**2))
    return {
        "most": most,
        "because": f"so many of {size} x {size} pixels are read in less than half of "
        f"{minutes:g} minutes; each class keeps its share",
    }


def signature(settings: JsonObject) -> Signature:
    """Return the inputs and outputs of a package with these settings."""
    size, classes = int(settings["size"]), len(settings["classes"])
    bar = float(settings.get("abstain_below", 0.0))
    one = (-1,)
    return Signature(
        inputs=(
            Tensor(name="image", datatype="UINT8", shape=(-1, size, size, 3), role="image"),
            Tensor(name="abstain_below", datatype="FP32", shape=one, role="parameter", default=bar),
        ),
        outputs=(
            Tensor(name="class", datatype="INT64", shape=one, role="class"),
            Tensor(name="probability", datatype="FP32", shape=(-1, classes), role="probability"),
            Tensor(name="score", datatype="FP32", shape=one, role="score"),
            Tensor(name="alarm", datatype="BOOL", shape=one, role="alarm"),
            Tensor(name="embedding", datatype="FP32", shape=(-1, EMBEDDING), role="embedding"),
            Tensor(name="look", datatype="FP32", shape=(-1, len(LOOKS)), role="look"),
        ),
    )


def samples(columns: Columns, settings: JsonObject) -> Samples:
    """Decode images to the working size."""
    size = int(settings["size"])
    images = [decode(data, size) for data in columns["image"]]
    label = np.asarray(columns["label"], dtype=np.float64)
    bar = np.float32(settings.get("abstain_below", 0.0))
    return Samples(
        tensors={
            "image": np.stack(images) if images else np.zeros((0, size, size, 3), dtype=np.uint8),
            "abstain_below": np.full(len(images), bar, dtype=np.float32),
        },
        entity=np.asarray(columns["entity"]).astype(np.int32),
        time=np.asarray(columns["time"], dtype=np.int64),
        row=np.asarray(columns["row"], dtype=np.int64),
        label=label,
        truth=label[:, None],
    )


def rows(tensors: Tensors) -> Recovered:
    """Return the images a package was given: bytes as they came, pixels as PNG."""
    given = np.asarray(tensors["image"])
    found = np.empty(len(given), dtype=object)
    for i, image in enumerate(given):
        found[i] = image if isinstance(image, bytes) else encode_png(np.asarray(image, np.uint8))
    return Recovered(
        columns={"image": found},
        of=np.arange(len(given), dtype=np.int64),
        steps_back=np.zeros(len(given), dtype=np.int64),
    )


def _candidates(line: Line) -> list[str]:
    for name in line.train.candidates:
        if name not in CANDIDATES:
            near = nearest(name, CANDIDATES)
            raise Problem(
                "G105",
                f"There is no candidate {name!r}" + (f"; did you mean {near}?" if near else "."),
                where="train.candidates",
                why=f"This task has: {', '.join(CANDIDATES)}.",
                tries=[f'candidates = ["{near or CANDIDATES[0]}"]', "genba explain G105"],
            )
    return list(line.train.candidates or CANDIDATES)


def _size(asked: int, view: View) -> int:
    if asked:
        if asked % _STEP:
            better = min(_LARGEST, max(_SMALLEST, round(asked / _STEP) * _STEP))
            raise Problem(
                "G103",
                f"options.size must be a multiple of {_STEP}, not {asked}.",
                where="options.size",
                why="The network halves the image five times.",
                tries=[f"--set options.size={better}", "genba explain G103"],
            )
        return asked
    sides: list[float] = []
    for chunk in view.chunks("train"):
        for data in chunk["image"][: _LOOKED_AT - len(sides)]:
            facts = inspect(data)
            sides.append(float(np.sqrt(facts.width * facts.height)))
        if len(sides) >= _LOOKED_AT:
            break
    usual = float(np.median(sides)) if sides else float(_USUAL)
    enlarged = int(np.ceil(_ENLARGED * usual / _STEP)) * _STEP
    return int(np.clip(enlarged, _SMALL, _USUAL))


def taps(backbone: str) -> dict[str, tuple[str, ...]]:
    """Return the sets of features of a backbone, the default first.

    "parts" says where in the image something is, which suits products that always lie alike;
    "whole" does not, which needs fewer examples; "deep" is what the network was trained for.

    Example:
        >>> list(taps("efficientnet-lite0")), list(taps("filters"))
        (['parts', 'whole', 'deep'], ['parts', 'whole'])
    """
    if backbone == FILTERS:
        return {"parts": ("head",), "whole": ("4@1", "8@1", "16@1")}
    return {
        "parts": ("8@2", "16@2", "32@1"),
        "whole": ("8@1", "16@1", "32@1"),
        "deep": ("16@1", "head"),
    }
