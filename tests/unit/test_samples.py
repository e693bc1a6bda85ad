"""Samples are the same wherever chunks end; a few of them show the whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from genba.core.line import Data, Line
from genba.core.resolve import resolve
from genba.core.task import Samples
from genba.core.values import Signature, Tensor
from genba.data.view import DatasetView
from genba.learn.rows import RowsView
from genba.runs.effort import Effort
from genba.stages import samples as stage
from genba.stages.samples import affordable, by_label, chosen, in_chunks, spread
from genba.testing.generated import generated_view

LINE = Line(name="l", task="x", data=Data(source="x:", inputs=("a",)))


@dataclass(frozen=True)
class Made:
    view: DatasetView
    settings: dict[str, Any]


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    with generated_view("sensor.anomaly", rows=600) as (_, view):
        task = resolve("task", "sensor.anomaly")()
        model = task.fit(view, task.derive(view.line, view), Effort.simple(trials=1))
        yield Made(view, dict(model.settings))


def joined(parts: Any) -> dict[str, Any]:
    found = list(parts)
    order = np.argsort(np.concatenate([p.row for p in found]))
    return {
        "row": np.concatenate([p.row for p in found])[order],
        "window": np.concatenate([p.tensors["window"] for p in found])[order],
    }


def test_a_sample_is_the_same_wherever_chunks_end(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = resolve("task", "sensor.anomaly")()
    whole = joined(in_chunks(task, made.view, "test", made.settings))
    for rows in (7, 50):
        monkeypatch.setattr(stage, "_ROWS", rows)
        for ahead in (0, 3, 60):
            parts = joined(in_chunks(task, made.view, "test", {**made.settings, "ahead": ahead}))
            np.testing.assert_array_equal(parts["row"], whole["row"])
            np.testing.assert_array_equal(parts["window"], whole["window"])
    alone = joined(in_chunks(task, made.view, "test", {**made.settings, "context": 0}))
    assert not np.array_equal(alone["window"], whole["window"], equal_nan=True)


class Sums:
    """A task whose sample is the sum of a row, the one before and the one after; images alike."""

    modality: ClassVar[str] = "table"

    def __init__(self) -> None:
        self.read: list[int] = []

    def samples(self, columns: Any, settings: Any) -> Samples:
        value = columns["a"]
        self.read += columns["row"].tolist()
        before = np.concatenate([[np.nan], value[:-1]])
        after = np.concatenate([value[1:], [np.nan]])
        total = value.copy()
        if settings.get("context"):
            total = value + before + after
        return Samples(
            tensors={"x": total},
            entity=columns["entity"],
            time=columns["time"],
            row=columns["row"],
            label=columns["label"],
            truth=after[:, None],
        )


def rows_view(count: int = 30, entities: int = 2) -> RowsView:
    at = np.arange(count)
    return RowsView(
        LINE,
        {
            "entity": at % entities,
            "time": at,
            "label": np.where(at < count // 2, 0.0, np.where(at % 5 == 0, 1.0, np.nan)),
            "split": np.full(count, "test"),
            "a": at.astype(np.float64),
        },
        tuple("abcdef"[:entities]),
    )


def test_rows_before_and_behind_are_there_except_at_the_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "_ROWS", 4)
    task: Any = Sums()
    parts = list(in_chunks(task, rows_view(), "test", {"context": 1, "ahead": 1}))
    row = np.concatenate([p.row for p in parts])
    assert sorted(row.tolist()) == list(range(30))
    total = np.concatenate([p.tensors["x"] for p in parts])[np.argsort(row)]
    np.testing.assert_array_equal(total[2:-2], 3.0 * np.arange(2, 28))
    assert np.isnan(total[[0, 1, 28, 29]]).all()
    truth = np.concatenate([p.truth[:, 0] for p in parts])[np.argsort(row)]
    np.testing.assert_array_equal(truth[:-2], np.arange(2, 30))


def test_what_is_not_wanted_is_not_made_into_a_sample() -> None:
    task: Any = Sums()
    wanted = np.array([0, 3, 17])
    found = list(chosen(task, rows_view(), "test", {}, wanted))
    assert np.concatenate([s.row for s in found]).tolist() == [0, 6, 5]  # by entity, then time
    assert sorted(task.read) == [0, 5, 6]
    assert list(spread(task, rows_view(), "test", {}, 3)["x"]) == [0.0, 28.0, 29.0]
    assert spread(task, rows_view(), "train", {}, 3) == {}


def test_chosen_samples_have_their_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_ROWS", 4)
    task: Any = Sums()
    settings = {"context": 1, "ahead": 1}
    found = list(chosen(task, rows_view(entities=1), "test", settings, np.array([4, 20])))
    assert [float(s.tensors["x"][0]) for s in found] == [12.0, 60.0]


def test_every_label_is_shown_as_evenly_as_there_are_rows() -> None:
    view = rows_view(60, entities=1)  # 30 zeros, 6 ones, 24 without a label
    found = by_label(view, ("test", "train"), 30)
    label = next(view.chunks("test"))["label"][found["test"]]
    assert ((label == 0).sum(), (label == 1).sum(), np.isnan(label).sum()) == (12, 6, 12)
    assert len(found["train"]) == 0
    assert len(by_label(view, ("test",), 1_000)["test"]) == 60


def test_labels_that_are_plain_numbers_are_no_classes() -> None:
    count = 500
    columns = {
        "entity": np.zeros(count, dtype=np.int64),
        "time": np.arange(count),
        "label": np.linspace(0, 1, count),
        "split": np.full(count, "train"),
        "a": np.zeros(count),
    }
    found = by_label(RowsView(LINE, columns), ("train",), 50)["train"]
    assert len(found) == 50
    assert (found[0], found[-1]) == (0, count - 1)


def test_how_many_samples_fit() -> None:
    table = Tensor(name="x", datatype="FP32", shape=(-1, 3, 4))
    text = Tensor(name="t", datatype="BYTES", shape=(-1,))
    assert affordable(Signature(inputs=(table,), outputs=(text,)), 10**6, 512) == 512
    assert affordable(Signature(inputs=(table,), outputs=(text,)), 1_000, 512) == 8
    assert affordable(Signature(inputs=(table,), outputs=()), 1, 512) == 1
