"""A release without an envelope: what cannot be read or asked is abstained from, never raised."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from genba.core.problem import Problem
from genba.edge.clocks import HandClock
from genba.edge.safety import Sample
from genba.edge.service_model import Guarded, ReleaseModel


class Engine:
    """Answers, or refuses."""

    def __init__(self) -> None:
        self.engine = self
        self.closed = False
        self.refuses = False

    def predict(self, tensors: Any) -> dict[str, Any]:
        if self.refuses:
            raise Problem("G602", "The tensors do not fit.", tries=["look"])
        return {"score": np.array([0.5])}

    def close(self) -> None:
        self.closed = True


def test_without_an_envelope() -> None:
    engine = Engine()
    release: Any = SimpleNamespace(
        interface=None,
        safety=None,
        predictor=lambda: engine,
        statement=SimpleNamespace(release=7),
        package=SimpleNamespace(id="p"),
    )
    guarded = Guarded(release, HandClock(5), lambda _: None)
    model = ReleaseModel(guarded)
    good = Sample(tensors={"window": np.zeros((1, 2, 1))}, time_ms=1)
    told = model.answer(good, "a")
    assert (told.release, told.package, told.role, told.answer.action) == (
        7,
        "p",
        "active",
        "model",
    )
    assert model.answer(Sample(tensors=None, time_ms=1, fault="G231 cut"), "a").answer.trips[
        0
    ].detail == ("G231 cut")
    engine.refuses = True
    refused = model.answer(good, "a").answer
    assert (refused.action, refused.outputs) == ("abstain", None)
    assert "G602" in refused.trips[0].detail
    assert refused.trips[0].time_ms == 5
    assert model.beside(good, told) is None  # type: ignore[func-returns-value]  # that it is None is the point
    model.watch(lambda _: None)
    assert (model.state(), model.restore({}), model.indicators()) == ({}, False, {})
    model.close()
    assert (engine.closed, guarded.closed) == (True, True)
