"""Readings rounded to a digit: many rows share a value, and a tree's threshold may lie on it."""

from dataclasses import replace
from typing import Any

import numpy as np

from genba.core.line import Train
from genba.core.resolve import resolve
from genba.core.task import Model
from genba.learn.rows import RowsView
from genba.runs.effort import Effort
from genba.tasks.sensor.remaining_life import SensorRemainingLife, schema
from genba.tasks.sensor.remaining_life.features import features
from tests.unit.lives import life_view

TASK = SensorRemainingLife()


def rounded() -> RowsView:
    """Return units whose temperature is read in large numbers, to one digit."""
    view = life_view(conditions=["none"])
    line = replace(view.line, train=Train(candidates=("boosting",)))
    columns: dict[str, Any] = {n: c for n, c in view._columns.items() if n != "row"}
    columns["heat"] = 9_000 + np.round(columns["heat"], 1)
    columns["noise"] = np.round(columns["noise"], 1)
    return RowsView(line, columns, view.entities, has_clock=False)


def with_thresholds_on_values(model: Model, values: Any) -> Model:
    """Return the model with every decision of its trees moved onto a value that rows have."""
    arrays = {**model.arrays, "tree.threshold": model.arrays["tree.threshold"].copy()}
    for node, feature in enumerate(arrays["tree.feature"]):
        if arrays["tree.left"][node] != node:
            known = np.unique(values[:, feature])
            at = np.searchsorted(known, arrays["tree.threshold"][node], "right") - 1
            arrays["tree.threshold"][node] = known[max(at, 0)]
    return replace(model, arrays=arrays)


def test_a_threshold_on_a_value_that_rows_share_decides_as_the_reference_does() -> None:
    view = rounded()
    model = TASK.fit(view, TASK.derive(view.line, view), Effort.simple(minutes=1, trials=1))
    parts = [p.tensors for p in schema.read(view, "test", model.settings)]
    tensors = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
    values = features(tensors, model.settings, model.arrays).astype(np.float32)
    hard = with_thresholds_on_values(model, values)
    runtime = resolve("engine", "onnxruntime")(TASK.export(hard), {"precision": "float32"})
    found = TASK.parity(TASK.reference(hard)(tensors), runtime.run(tensors))
    assert found.passed
    assert found.max_error < 1e-3
