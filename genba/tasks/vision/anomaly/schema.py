"""What a sample is: one image of working size, and the settings that a line leaves open."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.codec import nearest
from genba.core.line import Limit, Line
from genba.core.options import read_options
from genba.core.problem import Problem
from genba.core.protocols import Array, Columns, JsonObject, Tensors, View
from genba.core.task import Option, Recovered, Samples
from genba.core.values import Signature, Tensor
from genba.edge.images import decode, encode_png, inspect

CANDIDATES: Final = ("gaussian", "nearest", "filters-gaussian")
FLOOR: Final = "filters"
BACKBONES: Final = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", FLOOR)
LOOKS: Final = ("brightness", "contrast", "sharpness", "saturation", "warmth", "unevenness")
EMBEDDING: Final = 64
CELL: Final = 4  # pixels of the working size behind one cell of the map, each way

_ROOM: Final = 0.1  # suggested gate on overkill
_LEAST_AUROC: Final = 0.75  # suggested gate; 0.5 is chance
_SHARE_OF_GATE: Final = 0.5  # the threshold is set for so much of what the gate allows
_SMALL, _LARGE = 224, 320  # working sizes
_SMALLER: Final = 160  # of a variant: half the work of the usual size
_LARGE_FROM: Final = 640  # pixels of the median image, each way, from which the larger one pays
_LOOKED_AT: Final = 50  # images that are opened to learn how large they are

_DEFECT: Final = frozenset(
    {"defect", "defective", "bad", "anomaly", "anomalous", "abnormal", "faulty", "fault", "nok"}
    | {"ng", "reject", "rejected", "fail", "failed", "true", "yes", "1", "alarm"}
)
_GOOD: Final = frozenset(
    {"good", "ok", "okay", "normal", "pass", "passed", "fine", "false", "no", "0", "false alarm"}
    | {"accept", "accepted", "healthy"}
)
_NEW: Final = "new:"

OPTIONS: Final = {
    "overkill": Option(
        about="share of good parts that may be rejected, for which the threshold is set",
        default=0.02,
        low=0.0001,
        high=0.5,
    ),
    "size": Option(
        about="working size in pixels, a multiple of 32; 0: 224, or 320 where images are large",
        default=0,
        low=0,
        high=1024,
    ),
    "backbone": Option(
        about="network whose features are used; filters needs no weights",
        default=BACKBONES[0],
        choices=BACKBONES,
    ),
    "head_mb": Option(
        about="largest head in megabytes (10^6 bytes), the backbone not counted",
        default=100.0,
        low=1.0,
        high=2000.0,
    ),
}


def suggest(line: Line, classes: Sequence[str] = ()) -> Line:
    """State the overkill to aim at, and add gates that a useful model passes.

    The gate on overkill leaves room above the aim: with 20 good images in the test, one of them is
    5 %. Defects are asked for only where there are classes of them to be measured on.

    Example:
        >>> from genba.core.line import Data
        >>> line = Line(name="a", task="vision.anomaly", data=Data(source="files:a"))
        >>> sorted(suggest(line, ["good", "scratch"]).gates), sorted(suggest(line, ["good"]).gates)
        (['auroc', 'overkill'], ['overkill'])
    """
    gates = {"overkill": Limit(max=_ROOM)}
    if len(classes) > 1:
        gates["auroc"] = Limit(min=_LEAST_AUROC)
    options = {"overkill": OPTIONS["overkill"].default, **line.options}
    return replace(line, options=options, gates={**gates, **line.gates})


def derive(line: Line, view: View) -> dict[str, Any]:
    """Derive every setting the line leaves open, as JSON that is printed and recorded."""
    options = read_options(OPTIONS, line.options)
    return {
        "size": _size(int(options["size"]), view),
        "overkill": overkill(line, float(options["overkill"])),
        "backbone": str(options["backbone"]),
        "head_limit_mb": float(options["head_mb"]),
        "candidates": _candidates(line, str(options["backbone"])),
        "classes": list(view.classes),
        "sensors": [],
        "merge": 1,
    }


def variants(line: Line) -> dict[str, dict[str, Any]]:
    """Return other sizes of the model, the cheapest to train first.

    Example:
        >>> from genba.core.line import Data
        >>> line = Line(name="a", task="vision.anomaly", data=Data(source="files:a"))
        >>> list(variants(line))
        ['filters', 'size-160', 'efficientnet-lite1']
    """
    options = read_options(OPTIONS, line.options)
    found: dict[str, dict[str, Any]] = {}
    if options["backbone"] != FLOOR:
        found[FLOOR] = {"backbone": FLOOR}
    if int(options["size"]) != _SMALLER:
        found[f"size-{_SMALLER}"] = {"size": _SMALLER}
    networks = [name for name in BACKBONES if name != FLOOR]
    place = networks.index(options["backbone"]) if options["backbone"] in networks else -1
    for name in networks[place + 1 : place + 2]:  # the next larger one
        found[name] = {"backbone": name}
    return found


def overkill(line: Line, default: float) -> dict[str, Any]:
    """Derive the share of good parts that may be rejected, from the option or the gate.

    Example:
        >>> from genba.core.line import Data, Limit, Line
        >>> line = Line(name="a", task="vision.anomaly", data=Data(source="files:a"),
        ...             gates={"overkill": Limit(max=0.05)})
        >>> overkill(line, 0.02)["value"]
        0.025
    """
    gate = line.gates.get("overkill")
    if "overkill" in line.options:
        return {"value": default, "because": "stated in options.overkill"}
    if gate is None or gate.max is None or not gate.max > 0:
        return {"value": default, "because": "the default"}
    value = _SHARE_OF_GATE * gate.max
    return {"value": value, "because": f"{_SHARE_OF_GATE:g} of the gate overkill"}


def signature(settings: JsonObject) -> Signature:
    """Return the inputs and outputs of a package with these settings."""
    size = int(settings["size"])
    grid = (-1, size // CELL, size // CELL)
    return Signature(
        inputs=(
            Tensor(name="image", datatype="UINT8", shape=(-1, size, size, 3), role="image"),
            Tensor(name="threshold", datatype="FP32", shape=(-1,), role="parameter", default=1.0),
        ),
        outputs=(
            Tensor(name="score", datatype="FP32", shape=(-1,), role="score"),
            Tensor(name="alarm", datatype="BOOL", shape=(-1,), role="alarm"),
            Tensor(name="map", datatype="FP32", shape=grid, role="map"),
            Tensor(name="mask", datatype="BOOL", shape=grid, role="mask"),
            Tensor(name="embedding", datatype="FP32", shape=(-1, EMBEDDING), role="embedding"),
            Tensor(name="look", datatype="FP32", shape=(-1, len(LOOKS)), role="look"),
        ),
    )


def samples(columns: Columns, settings: JsonObject) -> Samples:
    """Decode images to the working size."""
    size = int(settings["size"])
    images = [decode(data, size) for data in columns["image"]]
    count = len(images)
    label = np.asarray(columns["label"], dtype=np.float64)
    return Samples(
        tensors={
            "image": np.stack(images) if images else np.zeros((0, size, size, 3), dtype=np.uint8),
            "threshold": np.ones(count, dtype=np.float32),
        },
        entity=np.asarray(columns["entity"]).astype(np.int32),
        time=np.asarray(columns["time"], dtype=np.int64),
        row=np.asarray(columns["row"], dtype=np.int64),
        label=label,
        truth=label[:, None],
    )


def is_good(label: Array, *, labelled: bool) -> npt.NDArray[np.bool_]:
    """Say which images a model may take for good parts.

    Where nothing is labelled, every image is taken for good, as a folder of good parts is. Where
    something is, an image without a label has been looked at by nobody, and is left out.
    """
    known = np.asarray(label, dtype=np.float64)
    return np.asarray(known == 0.0) if labelled else np.isnan(known)


def chosen(view: View, split: str, wanted: Array, most: int) -> Iterator[Columns]:
    """Yield at most `most` of some rows of a split, evenly spread over them, chunk by chunk.

    Args:
        view: The dataset.
        split: "train", "calibrate" or "test".
        wanted: Row numbers, in the order of the split.
        most: How many of them.
    """
    take = np.unique(np.linspace(0, max(len(wanted) - 1, 0), min(most, len(wanted))).astype(int))
    rows = np.asarray(wanted)[take] if len(wanted) else np.zeros(0, dtype=np.int64)
    for chunk in view.chunks(split):
        keep = np.flatnonzero(np.isin(chunk["row"], rows))
        if len(keep):
            yield {name: column[keep] for name, column in chunk.items()}


def label(correction: str, classes: Sequence[str] = ()) -> float:
    """Turn what a person said into the label of an image.

    A defect of no known kind, or of one that is new, gets the number behind the last class: a
    defect like the others, except that no recall per kind counts it until the data names it.

    Raises:
        Problem: G801 when the word is not known.

    Example:
        >>> classes = ("good", "scratch", "blob")
        >>> label("OK", classes), label("scratch", classes), label("defect", classes)
        (0.0, 1.0, 3.0)
        >>> label("new:dent", classes)
        3.0
    """
    word = _word(correction)
    names = [_word(name) for name in classes]
    if word in names:
        return float(names.index(word))
    if word in _GOOD:
        return 0.0
    if word in _DEFECT or (word.startswith(_NEW) and len(word) > len(_NEW)):
        return float(max(1, len(classes)))
    known = [*names, "good", "defect"]
    near = nearest(word, known)
    tries = [near] if near else ["good", "defect"]
    if word.replace(" ", "").replace("-", "").isalnum():
        tries.append(f"new:{word}")
    raise Problem(
        "G801",
        f"{correction!r} is no kind of defect of this line"
        + (f"; did you mean {near}?" if near else "."),
        why=f"Known: {', '.join(dict.fromkeys(known))}. A new kind begins with new:.",
        tries=tries,
    )


def rows(tensors: Tensors) -> Recovered:
    """Return the images a package was given: bytes as they came, pixels as PNG."""
    given = np.asarray(tensors["image"])
    images = np.empty(len(given), dtype=object)
    for i, image in enumerate(given):
        images[i] = image if isinstance(image, bytes) else encode_png(np.asarray(image, np.uint8))
    return Recovered(
        columns={"image": images},
        of=np.arange(len(given), dtype=np.int64),
        steps_back=np.zeros(len(given), dtype=np.int64),
    )


def class_name(number: float, classes: Sequence[str]) -> str:
    """Return the name of a label; "" for a defect whose kind nobody has named."""
    place = int(number)
    return classes[place] if 0 <= place < len(classes) else ""


def kind_word(name: str) -> str:
    """Return a class name as the end of the name of a measure.

    Example:
        >>> kind_word("Broken Edge-2")
        'broken_edge_2'
    """
    return "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _word(text: str) -> str:
    return " ".join(text.strip().lower().replace("_", " ").split())


def _candidates(line: Line, backbone: str) -> list[str]:
    for name in line.train.candidates:
        if name not in CANDIDATES:
            near = nearest(name, CANDIDATES)
            raise Problem(
                "G105",
                f"There is no candidate {name!r}" + (f"; did you mean {near}?" if near else "."),
                where="train.candidates",
                why=f"This task has: {', '.join(CANDIDATES)}.",
                tries=[f'candidates = ["{near or CANDIDATES[0]}"]'],
            )
    wanted = line.train.candidates or CANDIDATES
    if backbone == FLOOR and not line.train.candidates:
        return [name for name in wanted if name != "filters-gaussian"]  # it would be tried twice
    return list(wanted)


def _size(asked: int, view: View) -> int:
    if asked:
        if asked < 64 or asked % 32:
            raise Problem(
                "G103",
                f"options.size must be a multiple of 32 from 64 on, not {asked}.",
                where="options.size",
                why="The network halves the image five times.",
                tries=[
                    f"--set options.size={max(64, round(asked / 32) * 32)}",
                    "genba explain G103",
                ],
            )
        return asked
    sides: list[float] = []
    for chunk in view.chunks("train"):
        for data in chunk["image"][: _LOOKED_AT - len(sides)]:
            facts = inspect(data)
            sides.append(float(np.sqrt(facts.width * facts.height)))
        if len(sides) >= _LOOKED_AT:
            break
    return _LARGE if sides and float(np.median(sides)) >= _LARGE_FROM else _SMALL


def concatenated(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return outputs of several batches as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
