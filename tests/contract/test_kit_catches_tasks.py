"""Each broken task fails the check of the contract kit that was made for it."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from genba.core.values import Measure
from genba.tasks.sensor.anomaly import SensorAnomaly
from genba.testing.checks import CheckFailed
from genba.testing.subject import Subject, prepared
from genba.testing.tasks import task_checks


class Task(SensorAnomaly):
    """Broken in one method, as the test says."""

    def __init__(self, method: str, broken: Callable[..., Any]) -> None:
        self.__dict__[method] = broken


@pytest.fixture(scope="module")
def good() -> Iterator[Subject]:
    with prepared("sensor.anomaly") as made:
        yield made


def _broken(good: Subject, method: str, change: Callable[[Any], Any]) -> Subject:
    real = getattr(good.task, method)
    task = Task(method, lambda *a, **k: change(real(*a, **k)))
    return dataclasses.replace(good, task=task)


def _shifting(predict: Any) -> Any:
    def run(tensors: Any) -> Any:
        found = predict(tensors)
        return found | {"score": found["score"] + len(found["score"]) / 100}

    return run


def _counting() -> Callable[[Any], Any]:
    calls = iter(range(1, 100))
    return lambda settings: {**settings, "calls": next(calls)}


def _drifting() -> Callable[[Any], Any]:
    calls = iter(range(1, 100))

    def change(model: Any) -> Any:
        arrays = {n: a + next(calls) if a.dtype.kind == "f" else a for n, a in model.arrays.items()}
        return dataclasses.replace(model, arrays=arrays)

    return change


@pytest.mark.parametrize(
    ("title", "method", "change"),
    [
        ("settings are JSON", "derive", _counting()),
        ("the same seed gives the same model", "fit", _drifting()),
        (
            "the same seed gives the same model",
            "fit",
            lambda m: dataclasses.replace(m, candidate="another"),
        ),
        (
            "samples are as the signature says",
            "samples",
            lambda s: dataclasses.replace(s, label=s.label[:-1]),
        ),
        (
            "samples are as the signature says",
            "samples",
            lambda s: dataclasses.replace(s, tensors={"window": s.tensors["window"]}),
        ),
        (
            "samples are as the signature says",
            "samples",
            lambda s: dataclasses.replace(
                s, tensors={n: t.astype(np.float64) for n, t in s.tensors.items()}
            ),
        ),
        ("a batch of one equals a batch of many", "reference", _shifting),
        ("every engine decides as the reference", "reference", _shifting),
        (
            "every engine decides as the reference",
            "parity",
            lambda p: dataclasses.replace(p, passed=True),
        ),
        ("scores have intervals", "score", lambda s: dataclasses.replace(s, measures={})),
        (
            "scores have intervals",
            "score",
            lambda s: dataclasses.replace(
                s, measures={"r2": Measure(value=float("nan"), low=0, high=1)}
            ),
        ),
        (
            "scores have intervals",
            "score",
            lambda s: dataclasses.replace(s, measures={"r2": Measure(value=2.0, low=0, high=1)}),
        ),
        (
            "a model is neither better nor worse than itself",
            "compare",
            lambda cs: tuple(dataclasses.replace(c, worse=True) for c in cs),
        ),
        ("the drift reference is JSON", "drift_reference", lambda _: {}),
        (
            "an explanation adds up",
            "explain",
            lambda e: dataclasses.replace(
                e,
                attributions=tuple(
                    dataclasses.replace(a, share=a.share / 2) for a in e.attributions
                ),
            ),
        ),
        (
            "an explanation adds up",
            "explain",
            lambda e: dataclasses.replace(e, attributions=e.attributions[::-1]),
        ),
        (
            "an explanation adds up",
            "explain",
            lambda e: dataclasses.replace(e, heat=np.zeros(3)),
        ),
    ],
    ids=[
        "settings count calls",
        "arrays move",
        "candidate differs",
        "label too short",
        "a tensor is missing",
        "doubles",
        "score depends on the batch",
        "engines disagree",
        "parity accepts all",
        "no measures",
        "measure is NaN",
        "outside its interval",
        "worse than itself",
        "no drift reference",
        "shares missing",
        "smallest share first",
        "a heat map that is a line",
    ],
)
def test_a_broken_task_fails(
    good: Subject, title: str, method: str, change: Callable[[Any], Any]
) -> None:
    with pytest.raises(CheckFailed):
        task_checks(_broken(good, method, change))[title]()


def test_a_task_that_takes_any_word_for_a_label_fails(good: Subject) -> None:
    subject = dataclasses.replace(good, task=Task("label", lambda _word, _classes=(): 1.0))
    with pytest.raises(CheckFailed, match="was accepted"):
        task_checks(subject)["nonsense is no label"]()
