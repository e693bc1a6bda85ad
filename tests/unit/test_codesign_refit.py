"""Inspection in fewer bits: its threshold follows what the exported form answers to good parts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genba.core.task import Model
from genba.runs.effort import Effort
from genba.tasks.vision.anomaly import VisionAnomaly, calibrate, refit
from tests.unit.vision_anomaly_parts import ImageView, plate_view

TASK = VisionAnomaly()


@pytest.fixture(scope="module")
def view() -> ImageView:
    return plate_view()


@pytest.fixture(scope="module")
def model(view: ImageView) -> Model:
    return TASK.fit(view, TASK.derive(view.line, view), Effort.simple(trials=1))


def higher(model: Model, by: float) -> Any:
    """Return the model as a form that scores everything higher would answer."""
    exact = TASK.reference(model)

    def answer(tensors: Any) -> Any:
        found = exact(tensors)
        score = found["score"] * np.float32(by)
        return {**found, "score": score, "alarm": score > tensors["threshold"]}

    return answer


def test_a_form_that_scores_everything_higher_gets_a_threshold_as_much_higher(
    view: ImageView, model: Model
) -> None:
    fitted = TASK.refit(model, higher(model, 1.2), view)
    assert fitted is not None
    assert fitted.settings["limit"] == pytest.approx(1.2 * model.settings["limit"], rel=0.1)
    assert fitted.settings["calibration"]["refitted"] == pytest.approx(1.2, rel=0.1)
    assert fitted.arrays is model.arrays


def test_the_form_itself_keeps_its_threshold(view: ImageView, model: Model) -> None:
    fitted = TASK.refit(model, TASK.reference(model), view)
    assert fitted is not None
    assert fitted.settings["limit"] == pytest.approx(model.settings["limit"], rel=0.1)


def test_with_enough_parts_it_is_the_conformal_quantile_again(
    view: ImageView, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refit, "needed", lambda _rate: 1)
    monkeypatch.setattr(calibrate, "needed", lambda _rate: 1)
    fitted = TASK.refit(model, higher(model, 2.0), view)
    assert fitted is not None
    told = fitted.settings["calibration"]
    assert told["units"] == len(told["quantiles"])
    assert fitted.settings["limit"] > model.settings["limit"]


def test_with_too_few_parts_there_is_nothing_to_fit(
    view: ImageView, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refit, "_FEWEST", 10_000)
    assert TASK.refit(model, TASK.reference(model), view) is None


def test_the_variants_of_a_line_leave_out_what_it_is_already(view: ImageView) -> None:
    line = replace(view.line, options={"backbone": "efficientnet-lite2", "size": 160})
    assert TASK.variants(line) == {"filters": {"backbone": "filters"}}
    plain = replace(view.line, options={"backbone": "filters", "size": 96})
    assert list(TASK.variants(plain)) == ["size-160", "efficientnet-lite0"]
