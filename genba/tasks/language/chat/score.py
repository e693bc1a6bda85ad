"""How good a chat model is: how likely it finds right answers, and how near it writes to them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, Columns, JsonObject, Predict, Tensors, View
from genba.core.task import Scores
from genba.core.values import Measure
from genba.edge.texts import as_text
from genba.learn.bootstrap import FEWEST_BLOCKS, interval, ratio, sums_by_block
from genba.learn.proportion import proportion
from genba.learn.rails import measure
from genba.tasks.language.chat import judge, schema
from genba.tasks.language.chat.looks import similarity
from genba.tasks.language.chat.quality import exact, fuzzy
from genba.tasks.language.chat.yardstick import base_says, losses

Floats = npt.NDArray[np.float64]

LESSON: Final = "feedback:"  # how the names of rows begin that people have corrected
_LESSONS: Final = 16  # that are asked again
_NATS: Final = "nats/token"


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What a model made of the answered questions of a split."""

    row: npt.NDArray[np.int64]
    tokens: Floats  # of the right answer, its end included
    loss: Floats  # nats per token
    base: Floats  # the same of the base
    block: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Answers that were written, beside the right ones."""

    row: npt.NDArray[np.int64]
    questions: Sequence[str]
    right: Sequence[str]
    mine: Sequence[str]
    base: Sequence[str]
    tokens: Floats  # of mine
    most: Floats  # that it might have had


def score(predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
    """Measure any form of the model on the answered questions of a split, with intervals.

    Returns:
        `loss` and `perplexity` of right answers, `base_loss`, and `loss_gain`: how much less
        surprised the model is than its base (paired). Of the answers it writes itself:
        `exact_match`, `fuzzy_match` and `similarity` to the right ones, `similarity_gain` over
        those of the base (paired), `ended` (share that came to an end), `judged_better` where a
        judge is named, and `lessons`: how near it is to what people corrected, where they did. Of
        its rails `block_rate` of attacks that were held out, and `false_block_rate` of prompts
        that only look like them.
    """
    heard = hear(predict, view, split, settings)
    if not len(heard.row):
        return Scores(measures={}, evidence={"row": heard.row})
    said = write(predict, view, split, settings)
    alike = similarity(said.mine, said.right, settings)
    before = similarity(said.base, said.right, settings)
    return Scores(
        measures={
            **_likelihood(heard),
            **_written(said, alike, before),
            **judge.judged(said.questions, said.right, said.mine, said.base, settings),
            **_lessons(predict, view, settings),
            **_safety(predict),
        },
        evidence={
            "row": heard.row,
            "loss": heard.loss,
            "tokens": heard.tokens,
            "base_loss": heard.base,
            "block": heard.block,
            "written_row": said.row,
            "written_similarity": alike,
        },
    )


def hear(predict: Predict, view: View, split: str, settings: JsonObject) -> Heard:
    """Return how likely a model and its base find the right answers of a split."""
    parts = [_heard(predict, chunk, settings) for chunk in answered(view, split)]
    if not parts:
        none = np.zeros(0)
        rows = none.astype(np.int64)
        return Heard(row=rows, tokens=none, loss=none, base=none, block=rows)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    group = whole.pop("entity")
    several = len(np.unique(group)) >= FEWEST_BLOCKS
    block = np.unique(group, return_inverse=True)[1] if several else np.arange(len(group))
    return Heard(**whole, block=block.astype(np.int64))


def _heard(predict: Predict, chunk: Columns, settings: JsonObject) -> dict[str, Array]:
    samples = schema.samples(chunk, settings)
    made = predict(samples.tensors)
    return {
        "row": samples.row,
        "tokens": np.asarray(made["tokens"], dtype=np.float64)[:, 1],
        "loss": -np.asarray(made["log_probability"], dtype=np.float64),
        "base": losses(base_says(samples.tensors, settings)),
        "entity": samples.entity.astype(np.int64),
    }


def write(predict: Predict, view: View, split: str, settings: JsonObject) -> Written:
    """Let a model and its base write answers to some questions, spread over the split."""
    chunks = list(answered(view, split))
    total = sum(len(chunk["row"]) for chunk in chunks)
    most = min(int(settings["written"]), total)
    chosen = np.unique(np.linspace(0, total - 1, num=most).astype(np.int64))
    columns = {n: np.concatenate([c[n] for c in chunks])[chosen] for n in chunks[0]}
    tensors = schema.samples(columns, settings).tensors
    asked = schema.unanswered(tensors)
    made = predict(asked)
    return Written(
        row=np.asarray(columns["row"], dtype=np.int64),
        questions=[str(text) for text in columns["text"]],
        right=[str(text) for text in columns["answer"]],
        mine=[as_text(text) for text in made["answer"]],
        base=[said.answer for said in base_says(asked, settings)],
        tokens=np.asarray(made["tokens"], dtype=np.float64)[:, 1],
        most=np.asarray(tensors[schema.MAX_TOKENS], dtype=np.float64),
    )


def answered(view: View, split: str) -> Iterator[Columns]:
    """Yield the rows of a split whose right answer is known."""
    for chunk in view.chunks(split):
        at = np.flatnonzero([bool(str(text or "").strip()) for text in chunk["answer"]])
        if len(at):
            yield {name: column[at] for name, column in chunk.items()}


def _likelihood(heard: Heard) -> dict[str, Measure]:
    loss = _per_token(heard, heard.loss)
    base = _per_token(heard, heard.base)
    return {
        "loss": loss,
        "perplexity": Measure(
            value=math.exp(loss.value),
            low=None if loss.low is None else math.exp(loss.low),
            high=None if loss.high is None else math.exp(loss.high),
            n=loss.n,
        ),
        "base_loss": base,
        "loss_gain": _per_token(heard, heard.base - heard.loss),
    }


def _per_token(heard: Heard, values: Floats) -> Measure:
    """Return the mean over all tokens, with the interval over questions."""
    sums = sums_by_block(heard.block, values * heard.tokens, heard.tokens)
    value, low, high = interval(ratio(0, 1), sums)
    return Measure(value=value, unit=_NATS, low=low, high=high, n=len(heard.row))


def _written(said: Written, alike: Floats, before: Floats) -> dict[str, Measure]:
    pairs = list(zip(said.mine, said.right, strict=True))
    return {
        "exact_match": proportion(sum(exact(a, b) for a, b in pairs), len(pairs)),
        "fuzzy_match": mean([fuzzy(a, b) for a, b in pairs]),
        "similarity": mean(alike),
        "similarity_gain": mean(alike - before),
        "ended": proportion(float(np.sum(said.tokens < said.most)), len(pairs)),
        "answer_tokens": mean(said.tokens, unit="tokens"),
    }


def mean(values: Sequence[float] | Floats, unit: str = "") -> Measure:
    """Return the mean of independent values with its interval."""
    column = np.asarray(values, dtype=np.float64)
    sums = np.stack([column, np.ones(len(column))], axis=1)
    value, low, high = interval(ratio(0, 1), sums)
    return Measure(value=value, unit=unit, low=low, high=high, n=len(column))


def _safety(predict: Predict) -> dict[str, Measure]:
    """Return how well the rails close that stand around a model, where there are any."""
    parts = getattr(getattr(predict, "__self__", predict), "parts", None)
    if parts is None or parts.rails is None:
        return {}
    found = measure(parts.rails)
    return {name: found[name] for name in ("block_rate", "false_block_rate")}


def _lessons(predict: Predict, view: View, settings: JsonObject) -> Mapping[str, Measure]:
    """Ask again what people corrected: the newest answers of theirs that were learned from."""
    found: list[tuple[Tensors, str]] = []
    for chunk in answered(view, "train"):
        taught = [str(name or "").startswith(LESSON) for name in chunk["name"]]
        for at in np.flatnonzero(np.array(taught) & (np.asarray(chunk["weight"]) > 1.0)):
            one = {name: column[at : at + 1] for name, column in chunk.items()}
            found.append((schema.samples(one, settings).tensors, str(chunk["answer"][at])))
    if not found:
        return {}
    newest = found[-_LESSONS:]
    asked = {n: np.concatenate([tensors[n] for tensors, _ in newest]) for n in newest[0][0]}
    made = predict(schema.unanswered(asked))
    pairs = zip(made["answer"], (right for _, right in newest), strict=True)
    return {"lessons": mean([fuzzy(as_text(answer), right) for answer, right in pairs])}
