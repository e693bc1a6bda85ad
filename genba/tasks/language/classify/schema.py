"""What a sample is: one text, and the settings that a line leaves open."""

from typing import Any, Final

import numpy as np

from genba.core.codec import nearest
from genba.core.line import Line
from genba.core.options import read_options
from genba.core.problem import Problem
from genba.core.protocols import Array, Columns, JsonObject, Tensors, View
from genba.core.task import Option, Recovered, Samples
from genba.core.values import Signature, Tensor
from genba.edge.texts import as_bytes, as_text, messages_of, question_of, written
from genba.learn.encoder import encoders

CANDIDATES: Final = ("prototype", "linear", "head")
LOOKS: Final = ("pieces", "nearness")
EMBEDDING: Final = 32

#: Names of a class that holds what belongs to none, as data sets call it.
_OUTSIDE: Final = ("oos", "ood", "out_of_scope", "out-of-scope", "out of scope", "none_of_these")
#: Of the budget, for reading texts. One core of the machine this was written on embeds 37,000
#: questions in a minute.
_TEXTS_PER_MINUTE: Final = 15_000
_FEWEST_TEXTS: Final = 2_000

OPTIONS: Final = {
    "abstain": Option(
        about="share of wrong answers among those given that is allowed; beyond it the model "
        "abstains; 0: it always answers",
        default=0.05,
        low=0.0,
        high=0.5,
    ),
    "balance": Option(
        about="train and choose as if every class were equally frequent", default=False
    ),
    "encoder": Option(
        about="what turns a text into numbers; letters needs no download and knows no meaning",
        default=encoders()[0],
        choices=encoders(),
    ),
    "out_of_scope": Option(
        about="the class that holds what belongs to none; empty: one named oos or out_of_scope, "
        "where there is one",
        default="",
    ),
    "outside": Option(
        about="share of what will be asked that is expected to belong to no class",
        default=0.1,
        low=0.0,
        high=0.9,
    ),
    "shots": Option(
        about="labelled texts per class that may be used, from the training and from the "
        "calibration part each; 0: all",
        default=0,
        low=0,
    ),
}


def derive(line: Line, view: View) -> dict[str, Any]:
    """Derive every setting the line leaves open, as JSON that is printed and recorded."""
    options = read_options(OPTIONS, line.options)
    return {
        "classes": list(view.classes),
        "outside_class": _outside(str(options["out_of_scope"]), view),
        "outside": float(options["outside"]),
        "encoder": str(options["encoder"]),
        "candidates": _candidates(line),
        "allowed_error": float(options["abstain"]),
        "balance": bool(options["balance"]),
        "shots": int(options["shots"]),
        "texts": texts(float(line.train.budget.minutes)),
        "sensors": [],
        "merge": 1,
    }


def texts(minutes: float) -> dict[str, Any]:
    """Derive how many texts the budget has time to read.

    Example:
        >>> texts(2.0)["most"]
        30000
    """
    return {
        "most": max(_FEWEST_TEXTS, int(minutes * _TEXTS_PER_MINUTE)),
        "because": f"so many are read in less than half of {minutes:g} minutes; each class keeps "
        "its share",
    }


def signature(settings: JsonObject) -> Signature:
    """Return the inputs and outputs of a package with these settings."""
    bar = float(settings.get("abstain_below", 0.0))
    classes, one = len(settings["classes"]), (-1,)
    return Signature(
        inputs=(
            Tensor(name="text", datatype="BYTES", shape=one, role="text"),
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
    """Take the last thing the user said, or the whole of a plain text."""
    label = np.asarray(columns["label"], dtype=np.float64)
    bar = np.float32(settings.get("abstain_below", 0.0))
    return Samples(
        tensors={
            "text": as_bytes(said(columns)),
            "abstain_below": np.full(len(label), bar, dtype=np.float32),
        },
        entity=np.asarray(columns["entity"]).astype(np.int32),
        time=np.asarray(columns["time"], dtype=np.int64),
        row=np.asarray(columns["row"], dtype=np.int64),
        label=label,
        truth=label[:, None],
    )


def said(columns: Columns) -> Array:
    """Return what is classified of each row (object: str)."""
    text = np.array(columns["text"], dtype=object)
    plain = columns.get("answer")
    if plain is not None:
        empty = np.flatnonzero(text == "")
        text[empty] = np.asarray(plain, dtype=object)[empty]
    return text


def rows(tensors: Tensors) -> Recovered:
    """Return the texts a package was given, and as messages of a user."""
    given = [as_text(value) for value in np.asarray(tensors["text"]).tolist()]
    text, messages = np.empty(len(given), dtype=object), np.empty(len(given), dtype=object)
    for i, value in enumerate(given):
        said = messages_of(value)
        text[i], messages[i] = question_of(said), written(said).decode()
    return Recovered(
        columns={"text": text, "messages": messages},
        of=np.arange(len(given), dtype=np.int64),
        steps_back=np.zeros(len(given), dtype=np.int64),
    )


def _outside(asked: str, view: View) -> int:
    """Return the number of the class that holds what belongs to none, -1 where there is none."""
    if asked and asked not in view.classes:
        near = nearest(asked, view.classes)
        raise Problem(
            "G103",
            f"options.out_of_scope names the class {asked!r}, which the data do not have"
            + (f"; did you mean {near}?" if near else "."),
            where="options.out_of_scope",
            why=f"Classes: {', '.join(view.classes[:20]) or 'none'}.",
            tries=[f"--set options.out_of_scope={near or view.classes[0]}" if view.classes else ""],
        )
    names = [asked] if asked else [n for n in view.classes if n.lower() in _OUTSIDE]
    return view.classes.index(names[0]) if names else -1


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
