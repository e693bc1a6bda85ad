"""Assurance of a real, small package: plan, matrix, bounds, refusals, the ledger, the command."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genba.core.line import Line, Safety
from genba.core.problem import Problem
from genba.core.values import Signature, Tensor
from genba.data.view import DatasetView
from genba.edge.predict import Predictor
from genba.edge.safety import Envelope, Sample, read_plan
from genba.runs.progress import SilentProgress
from genba.stages.assurance import assure, recorded, refuse_failing
from genba.stages.assurance_limits import accepted, check_fallback, check_words, limit_of
from genba.stages.assurance_model import constant, garbled, inverted
from genba.stages.assurance_pass import Pass
from genba.stages.pipeline import run_line
from genba.stages.repack import opened
from genba.store.home import Store
from genba.testing.generated import generated_view
from genba.ui.cli.app import run_command

TASK = "sensor.anomaly"
SENSORS = ("flow", "pressure", "temperature", "power")
EPISODES = 24


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Store, DatasetView, str, Line, dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as patch, generated_view(TASK, rows=900) as (store, view):
        patch.setattr("genba.stages.assurance_pass.EPISODES", EPISODES)
        patch.setattr("genba.stages.assurance_clean._TIMED", 60)
        line = replace(view.line, target=replace(view.line.target, engines=("onnxruntime",)))
        outcome = run_line(line, store)
        assert outcome.package
        found = assure(store, outcome.package, line, view, strict=False)
        yield store, view, outcome.package, line, found


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["cell"]: row for row in found["matrix"]}


def test_every_fault_is_tried_on_every_sensor_and_judged_by_its_bound(made: Any) -> None:
    found = made[4]
    cells = rows(found)
    assert {f"stuck:{name}" for name in SENSORS} | {"drop", "bad_model:garbled"} <= set(cells)
    for row in cells.values():
        assert 0 < row["episodes"] <= EPISODES
        assert row["failed"] <= row["episodes"]
        assert row["holds"] == (row["upper"] <= row["limit"])
        assert row["upper"] >= (row["rate"] or 0)
    assert cells["missing:power"]["failed"] == 0
    assert cells["missing:power"]["layers"] == {"range": cells["missing:power"]["episodes"]}
    assert cells["bad_model:inverted"]["failed_without"] == cells["bad_model:inverted"]["episodes"]
    assert cells["bad_model:inverted"]["failed"] == 0


def test_the_manifest_says_what_it_is_and_what_is_left(made: Any) -> None:
    found = made[4]
    json.dumps(found, allow_nan=False)
    assert found["statement"] == "not a safety-rated function"
    assert "F3269" in found["pattern"]
    assert "nobody has assessed" in found["pattern"]
    uncovered = {c for c, row in rows(found).items() if not row["holds"]}
    assert uncovered <= {risk["risk"] for risk in found["residual"]}
    assert set(found["failing"]) - {"false_trips"} == uncovered
    assert found["residual"][-1]["risk"] == "faults that are not in the matrix"
    assert found["false_trips"]["readings"] > 100
    assert found["deadline"]["monitor_us_p50"] > 0
    assert {m["layer"] for m in found["monitors"]} >= {
        "schema",
        "range",
        "time",
        "unusual",
        "model",
    }
    flow = next(s for s in found["sensors"] if s["sensor"] == "flow")
    assert (flow["range"], flow["range_is"]) == ([0.0, 100.0], "declared by the line")


def test_the_plan_runs_around_the_package_it_was_made_for(made: Any) -> None:
    store, view, package, _, found = made
    predictor = Predictor(opened(store, package))
    envelope = Envelope(read_plan(found), predictor)
    window = np.full((1, 3, 4), np.nan, dtype=np.float32)
    tensors = {"window": window, "entity": np.array(["north"], dtype=object)}
    answer = envelope.answer(Sample(tensors=tensors, time_ms=0, entity="north"))
    predictor.engine.close()
    assert (answer.action, answer.outputs) == ("abstain", None)
    assert {t.cause for t in answer.trips} >= {f"missing:{name}" for name in SENSORS}
    assert view.entities == ("north", "south")


@pytest.mark.slow
def test_test_rows_decide_nothing_in_the_plan(made: Any, monkeypatch: Any) -> None:
    store, view, package, line, found = made
    chunks = view.chunks

    def other(split: str, **more: Any) -> Any:
        for chunk in chunks(split, **more):
            if split == "test":
                shaken = {n: c * 1.02 for n, c in chunk.items() if n in SENSORS}
                yield {**chunk, **shaken}
            else:
                yield chunk

    monkeypatch.setattr(view, "chunks", other)
    again = Pass(opened(store, package), line, view, SilentProgress()).run()
    for name in ("channels", "unusual", "plausible", "answers", "fallback"):
        assert again["plan"][name] == found["plan"][name], name


def test_the_result_is_recorded_and_read_back_for_the_same_words(
    made: Any, monkeypatch: Any
) -> None:
    store, view, package, line, found = made
    monkeypatch.setattr(Pass, "run", lambda self: pytest.fail("computed twice"))
    assert assure(store, package, line, view, strict=False) == found
    assert recorded(store, package, replace(line, safety=Safety(accept=("bias",)))) is None
    assert recorded(store, package, replace(line, gates={})) == found


def test_a_failing_cell_stops_the_package_until_somebody_accepts_it(made: Any) -> None:
    found = made[4]
    failing = {**found, "failing": ["bias:flow", "drop"]}
    with pytest.raises(Problem) as caught:
        refuse_failing(failing)
    problem = caught.value
    assert (problem.code, problem.exit_code) == ("G596", 1)
    assert "bias:flow and 1 more" in problem.what
    assert any('accept = ["bias:flow", "drop"]' in step for step in problem.tries)
    with pytest.raises(Problem) as caught:
        refuse_failing({**found, "failing": ["false_trips"]})
    assert "clean" in caught.value.why
    refuse_failing({**found, "failing": []})


def test_the_command_prints_the_matrix_and_exits_with_its_verdict(
    made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    store, _, package, line, found = made
    code = run_command(["safety", line.name, "--home", str(store.path), "--json"])
    body = json.loads(capsys.readouterr().out)
    assert (code, body["exit_code"]) == ((1, 1) if found["failing"] else (0, 0))
    assert body["package"] == package
    assert [row["cell"] for row in body["matrix"]] == [row["cell"] for row in found["matrix"]]
    run_command(["safety", line.name, "--home", str(store.path)])
    text = capsys.readouterr().out
    for words in ("stuck:power", "not a safety-rated function", "one-sided 95 %", "stays"):
        assert words in text


def line_with(**safety: Any) -> Line:
    from genba.core.line import Data

    return Line(name="pump", task=TASK, data=Data(source="files:a"), safety=Safety(**safety))


@pytest.mark.parametrize(
    ("safety", "sensors", "said"),
    [
        ({"fallback": ("rule",)}, 3, "ends with rule"),
        ({"fallback": ("last_good_model",)}, 3, "ends with last_good_model"),
        ({"fallback": ("rule", "stop")}, 0, "the camera"),
        ({"fallback": ("rule", "stop")}, 1, "one sensor"),
        ({"fallback": ("fixed",)}, 3, "no value"),
        ({"fallback": ("fixed",), "value": {"alrm": 1.0}}, 3, "alrm"),
    ],
)
def test_a_fallback_that_shares_what_fails_is_refused(safety: Any, sensors: int, said: str) -> None:
    alarm = Tensor(name="alarm", datatype="BOOL", shape=(-1,), role="alarm")
    signature = Signature(inputs=(), outputs=(alarm,))
    with pytest.raises(Problem) as caught:
        check_fallback(line_with(**safety), signature, sensors=sensors)
    assert caught.value.code == "G597"
    assert said in caught.value.why
    fine = {"fallback": ("rule", "fixed"), "value": {"alarm": 1.0}}
    check_fallback(line_with(**fine), signature, sensors=2)


def test_words_that_name_nothing_are_refused_with_the_nearest() -> None:
    cells = {"bias:flow", "stuck:flow", "drop"}
    for safety in ({"accept": ("bias:flwo",)}, {"limits": {"critcal": 0.1}}):
        with pytest.raises(Problem) as caught:
            check_words(line_with(**safety), cells)
        assert caught.value.code == "G598"
        assert "did you mean" in caught.value.what
    check_words(line_with(accept=("bias", "drop", "false_trips"), limits={"bias": 0.4}), cells)


def test_a_limit_is_the_cells_own_then_its_faults_then_its_severitys() -> None:
    line = line_with(limits={"bias": 0.4, "bias:flow": 0.5, "major": 0.3}, accept=("bias:flow",))
    found = [limit_of(line, cell, "major") for cell in ("bias:flow", "bias:power", "spike:flow")]
    assert found == [0.5, 0.4, 0.3]
    assert limit_of(line, "drop", "critical") == 0.05
    assert accepted(line, "bias:flow")
    assert not accepted(line, "bias:power")


def test_a_garbled_model_answers_otherwise_and_known_answers_give_it_away(made: Any) -> None:
    store, view, package, _, _ = made
    loaded = opened(store, package)
    engine = garbled(loaded, 1)
    assert engine is not None
    mine = Predictor(loaded)
    window = np.random.default_rng(0).uniform(1, 9, (20, 3, 4)).astype(np.float32)
    tensors: Any = {"window": window, "entity": np.zeros(20, dtype=np.int64)}
    right, wrong = mine.predict(tensors), engine.run(tensors)
    for one in (engine, mine.engine):
        one.close()
    assert not np.allclose(right["score"], wrong["score"], rtol=0.05)
    assert garbled(replace(loaded, files={}), 1) is None


def test_answers_turned_round_and_answers_that_are_all_the_same() -> None:
    outputs = {
        "alarm": np.array([True, False]),
        "score": np.array([2.0, 0.0], np.float32),
        "p": np.array([[0.9, 0.1], [0.2, 0.8]]),
        "expected": np.array([[1.0], [3.0]]),
        "kind": np.array([0, 2]),
        "look": np.array([[1.0], [2.0]]),
    }
    roles = {"score": "score", "p": "probability", "expected": "expected", "kind": "class"}
    found = inverted(outputs, roles)
    assert found["alarm"].tolist() == [False, True]
    assert found["score"].tolist() == [0.5, 1e6]
    assert found["expected"].tolist() == [[3.0], [1.0]]
    assert found["kind"].tolist() == [2, 0]
    assert found["p"][0].round(3).tolist() == [0.1, 0.9]
    assert found["look"] is outputs["look"]
    assert constant(outputs, 1)["kind"].tolist() == [2, 2]
