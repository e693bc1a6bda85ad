"""Each task that is broken in service fails the check that was made for it."""

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
    return dataclasses.replace(good, task=Task(method, lambda *a, **k: change(real(*a, **k))))


def _moved(found: Any) -> Any:
    columns = {name: column + 1 for name, column in found.columns.items()}
    return dataclasses.replace(found, columns=columns)


def _everywhere(taught: Any) -> Any:
    return {**taught, "label": np.ones(len(taught["label"]))}


def _counting() -> Callable[[Any], Any]:
    said = iter(range(1, 100))

    def change(taught: Any) -> Any:
        label = np.array(taught["label"])
        label[1] = next(said)
        return {**taught, "label": label}

    return change


def _deaf(drift: Any) -> Any:
    beyond = {"edges": [-1e9] * 9, "p": [0.0] * 9 + [1.0]}
    return {**drift, "columns": {n: {**c, **beyond} for n, c in drift["columns"].items()}}


def _restless(signature: Any) -> Any:
    extra = dataclasses.replace(signature.inputs[0], name="window", role="parameter", default=None)
    return dataclasses.replace(signature, inputs=(extra, *signature.inputs[1:]))


CASES: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "rows come back changed": ("served rows are found again", "rows", _moved),
    "rows get lost": (
        "served rows are found again",
        "rows",
        lambda f: dataclasses.replace(
            f,
            columns={n: c[1:] for n, c in f.columns.items()},
            of=f.of[1:],
            steps_back=f.steps_back[1:],
        ),
    ),
    "no words": ("every word of its own is a label", "corrections", lambda _: ()),
    "a word that is no label": (
        "every word of its own is a label",
        "label",
        lambda _: float("nan"),
    ),
    "a lesson for every row": ("a lesson changes its row and no other", "teach", _everywhere),
    "a lesson that adds up": ("a lesson changes its row and no other", "teach", _counting()),
    "a column lost in teaching": (
        "a lesson changes its row and no other",
        "teach",
        lambda taught: {n: c for n, c in taught.items() if n != "row"},
    ),
    "rows lost in teaching": (
        "a lesson changes its row and no other",
        "teach",
        lambda taught: {n: c[1:] for n, c in taught.items()},
    ),
    "an outcome of its own": ("a label judges an answer", "outcome", lambda _: "maybe"),
    "uncertain beyond measure": ("uncertainty is a share", "uncertainty", lambda u: u + 2),
    "uncertainty of too few": ("uncertainty is a share", "uncertainty", lambda u: u[1:]),
    "all alike": ("samples that are alike lie together", "embed", np.zeros_like),
    "flat": ("samples that are alike lie together", "embed", lambda e: e[:, 0]),
    "nowhere": ("samples that are alike lie together", "embed", lambda e: e * np.nan),
    "by company": ("samples that are alike lie together", "embed", lambda e: e + len(e)),
    "a parameter without a default": (
        "parameters have defaults that change nothing",
        "signature",
        _restless,
    ),
    "hindsight of nothing": (
        "hindsight is measured",
        "hindsight",
        lambda _: {"coverage": Measure(value=float("nan"))},
    ),
    "tunes without a reason": ("hindsight is measured", "tune", lambda _: {"width": 2.0}),
    "disturbed into another shape": (
        "a changed world is noticed",
        "disturbed",
        lambda t: {**t, "window": t["window"][:, :1]},
    ),
    "a world that does not change": (
        "a changed world is noticed",
        "drift_reference",
        _deaf,
    ),
    "nothing to watch": ("a changed world is noticed", "drift_reference", lambda _: {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_task_fails(good: Subject, case: str) -> None:
    title, method, change = CASES[case]
    with pytest.raises(CheckFailed):
        task_checks(_broken(good, method, change))[title]()


def test_a_task_that_ignores_options_fails(good: Subject) -> None:
    subject = dataclasses.replace(good, task=Task("derive", lambda _line, _view: {}))
    with pytest.raises(CheckFailed, match="was accepted"):
        task_checks(subject)["an unknown option is refused"]()
