from collections.abc import Iterator
from typing import Any

import pytest

from genba.learn.models import load_model
from genba.runs.effort import Effort
from genba.runs.progress import SilentProgress
from genba.runs.stage import StageContext
from genba.stages.train import train
from genba.testing.generated import generated_view


@pytest.fixture(scope="module")
def context() -> Iterator[StageContext]:
    with generated_view("sensor.anomaly", rows=500) as (store, view):
        yield StageContext(
            line=view.line,
            store=store,
            run="run-1",
            inputs={"prepare": {"dataset": view.digest}},
            effort=Effort.simple(trials=2),
            progress=SilentProgress(),
        )


def test_a_model_is_trained_and_recorded_with_its_dataset(context: StageContext) -> None:
    result: dict[str, Any] = train(context)
    ledger = context.store.ledger
    recorded = ledger.get("model", result["model"])
    assert recorded == {n: v for n, v in result.items() if n not in ("derived", "budget_spent")}
    assert result["budget_spent"] is False
    edges = ledger.parents(result["model"])
    assert [(e.role, e.src) for e in edges] == [("dataset", context.inputs["prepare"]["dataset"])]
    assert result["derived"]["lags"] == 3
    assert set(result["derived"]) <= set(result["settings"])
    assert load_model(context.store, result).candidate == result["candidate"]


def test_training_again_gives_the_same_model(context: StageContext) -> None:
    assert train(context) == train(context)
