from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.line import Data, Line
from genba.core.task import Model
from genba.learn.models import load_model, save_model
from genba.learn.rows import RowsView
from genba.learn.search import Space, first_rung, plan, rungs, search
from genba.runs.effort import Effort
from genba.store.home import Store

SPACE: Space = {"a": {"x": tuple(range(10))}, "b": {"y": (0.5, 1.5)}}


def loss(trial: dict[str, Any], share: float) -> float:
    value = trial["settings"].get("x", 20.0)
    return abs(float(value) - 7.0) + 0.1 / share


@given(st.integers(1, 200))
def test_all_rungs_stay_within_the_trials(trials: int) -> None:
    assert sum(rungs(first_rung(trials))) <= max(1, trials)


def test_the_plan_begins_with_defaults_and_repeats_nothing() -> None:
    planned = plan(SPACE, 40, 3)
    assert planned[:2] == [
        {"candidate": "a", "settings": {"x": 0}},
        {"candidate": "b", "settings": {"y": 0.5}},
    ]
    assert len({str(t) for t in planned}) == len(planned) == 12  # there are no more
    assert plan(SPACE, 40, 3) == planned
    assert plan({"b": SPACE["b"]}, 1, 0) == [{"candidate": "b", "settings": {"y": 0.5}}]


def test_the_best_of_the_last_rung_wins() -> None:
    best, tried = search(plan(SPACE, 40, 3), loss, Effort.simple(trials=40))
    assert best["settings"] == {"x": 7}
    assert best["rung"] == 2
    assert [t["rung"] for t in tried] == sorted(t["rung"] for t in tried)
    alone, tried = search(plan({"b": SPACE["b"]}, 1, 0), loss, Effort.simple(trials=1))
    assert (alone["rung"], len(tried)) == (2, 1)


def test_a_killed_search_goes_on_and_ends_alike() -> None:
    planned, effort = plan(SPACE, 20, 0), Effort.simple(trials=20)
    whole = search(planned, loss, Effort.simple(trials=20))
    calls = []

    def dies(trial: dict[str, Any], share: float) -> float:
        calls.append(trial)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return loss(trial, share)

    with pytest.raises(KeyboardInterrupt):
        search(planned, dies, effort)
    before = len(calls)
    assert search(planned, dies, effort) == whole
    assert len(calls) == before + len(whole[1]) - (before - 1)  # nothing was done twice


def test_another_plan_does_not_take_over_old_trials() -> None:
    effort = Effort.simple(trials=20)
    search(plan(SPACE, 20, 0), loss, effort)
    best, tried = search(plan({"b": SPACE["b"]}, 20, 0), loss, effort)
    assert best["candidate"] == "b"
    assert {t["candidate"] for t in tried} == {"b"}


def test_time_up_ends_with_what_there_is() -> None:
    effort = Effort.simple(minutes=1e-9, trials=20)
    best, tried = search(plan(SPACE, 20, 0), loss, effort)
    assert len(tried) == 1
    assert best == tried[0]


def test_a_loss_that_is_no_number_is_the_worst() -> None:
    best, tried = search(
        plan(SPACE, 20, 0),
        lambda t, s: np.nan if t["candidate"] == "a" else 1.0,
        Effort.simple(trials=20),
    )
    assert best["candidate"] == "b"
    assert max(t["loss"] for t in tried) == 1e300


def test_a_model_is_named_by_its_content(tmp_path: Any) -> None:
    with Store.open(tmp_path) as store:
        arrays = {"b": np.arange(6.0).reshape(2, 3).T, "a": np.ones(2, dtype=np.float32)}
        model = Model(candidate="ridge", settings={"lags": 3}, arrays=arrays, trials=[{"loss": 1}])
        saved = save_model(store, model)
        assert saved == save_model(store, model)
        loaded = load_model(store, saved)
        assert np.array_equal(loaded.arrays["b"], arrays["b"])
        assert loaded.arrays["a"].dtype == np.float32
        assert (loaded.candidate, loaded.settings, loaded.trials) == (
            "ridge",
            {"lags": 3},
            [{"loss": 1}],
        )
        other = Model(candidate="ridge", settings={"lags": 2}, arrays=arrays)
        assert save_model(store, other)["model"] != saved["model"]


def test_rows_in_memory_are_a_view() -> None:
    line = Line(name="m", task="sensor.anomaly", data=Data(source="x:", inputs=("x",), output="y"))
    columns = {
        "entity": np.array([1, 0, 1, 0]),
        "time": np.array([2, 9, 1, 8]),
        "label": np.zeros(4),
        "split": np.array(["train", "test", "train", "train"]),
        "x": np.arange(4.0),
        "y": np.arange(4.0),
    }
    view = RowsView(line, columns, ("p", "q"))
    assert view.sensors == ("x", "y")
    assert (view.count("train"), view.count("test"), view.count("calibrate")) == (3, 1, 0)
    assert [c["row"].tolist() for c in view.chunks("train", rows=1)] == [[3], [2], [0]]
    assert view.sheet() == {"rows": 4, "entities": ["p", "q"]}
    assert view.digest != RowsView(line, {**columns, "x": np.ones(4)}, ("p", "q")).digest
