"""What needs no training: the base model as it comes, and the answer to a similar question."""

from collections.abc import Mapping

import numpy as np

from genba.core.protocols import JsonObject, View
from genba.core.task import Scores
from genba.core.values import Measure
from genba.learn.proportion import proportion
from genba.tasks.language.chat.looks import embed, similarity
from genba.tasks.language.chat.quality import exact, fuzzy
from genba.tasks.language.chat.score import Written, answered, mean, score, write
from genba.tasks.language.chat.yardstick import base_predict

_KEPT = ("loss", "perplexity", "exact_match", "fuzzy_match", "similarity")


def baselines(view: View, settings: JsonObject) -> Mapping[str, Scores]:
    """Measure the base model, and known answers to similar questions, on the test split."""
    quiet = {**settings, "judge": ""}
    base = score(base_predict(quiet), view, "test", quiet)
    said = write(base_predict(quiet), view, "test", quiet)
    return {
        "the base model": Scores(measures={n: m for n, m in base.measures.items() if n in _KEPT}),
        "answer to the nearest question": Scores(measures=_nearest(view, said, quiet)),
    }


def _nearest(view: View, said: Written, settings: JsonObject) -> dict[str, Measure]:
    asked: list[str] = []
    answers: list[str] = []
    for chunk in answered(view, "train"):
        asked += [str(text) for text in chunk["text"]]
        answers += [str(text) for text in chunk["answer"]]
    if not asked:
        return {}
    near = np.argmax(embed(said.questions, settings) @ embed(asked, settings).T, axis=1)
    found = [answers[at] for at in near]
    pairs = list(zip(found, said.right, strict=True))
    return {
        "exact_match": proportion(sum(exact(a, b) for a, b in pairs), len(pairs)),
        "fuzzy_match": mean([fuzzy(a, b) for a, b in pairs]),
        "similarity": mean(similarity(found, said.right, settings)),
    }
