import json
from collections.abc import Iterator
from typing import Any

import pytest

from genba.core.line import Limit, Limits
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.engines.onnxruntime import OnnxRuntime
from genba.stages import optimize as stage
from genba.stages import optimize_bench as bench
from tests.unit.optimize_world import (
    F32,
    Made,
    One,
    Two,
    Unable,
    numbers,
    script_engines,
    trained,
)


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    with trained() as found:
        yield found


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    return script_engines(monkeypatch)


def test_on_this_machine_it_chooses_by_measurement_and_judges_the_exported_model(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_WHOLE_S", 0.06)
    monkeypatch.setattr(stage, "_PATIENCE_S", 0.0)
    limits = Limits(latency_ms_p99=1000, memory_mib=2000, energy_mj=1000)
    result = stage.optimize(made.context(made.line(limits=limits)))
    json.dumps(result, allow_nan=False)
    assert "stop" not in result
    assert result["engine"]["settings"]["precision"] in ("float32", "bfloat16")
    assert result["verdict"]["passed"] is True
    assert result["machine"]["cores"] > 0
    names = {c["engine"] for c in result["candidates"]}
    assert "faulty" not in names
    assert {"onnxruntime", "openvino"} <= names
    measured = [c for c in result["candidates"] if c["measures"]]
    assert len(measured) >= 3
    for candidate in measured:
        assert candidate["measures"]["memory_mib"]["value"] > 5
        assert candidate["parity"]["samples"] == made.view.count("test")
    assert [c["stand"] for c in result["candidates"] if c["chosen"]] == ["verified"]
    exported = OnnxRuntime(made.store.blobs.read(result["onnx"]), {"precision": "float32"})
    task = resolve("task", "sensor.anomaly")()
    again = task.score(exported.run, made.view, "test", made.model.settings)
    assert result["reevaluated"]["r2"]["value"] == pytest.approx(again.measures["r2"].value, 1e-6)


def test_the_cheapest_that_gives_the_right_answers_wins(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {"one": [numbers(2.0)], "two": [numbers(1.0)], "wrong": [numbers(0.1)]}
    engines = ("one", "two", "wrong", "unable")
    result = stage.optimize(made.context(made.line(engines=engines)))
    assert result["engine"]["name"] == "two"
    by_name = {c["engine"]: c for c in result["candidates"]}
    assert "not close enough to the reference" in by_name["wrong"]["refused"][0]
    assert by_name["wrong"]["stand"] == "refused"
    assert by_name["unable"]["refused"] == ["It cannot run this graph."]
    assert by_name["unable"]["why"] == "No trees."
    assert by_name["unable"]["parity"] is None


def test_the_second_measurement_is_published_and_may_change_the_choice(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {
        "one": [numbers(1.0, p99=1), numbers(1.0, p99=9)],
        "two": [numbers(2.0, p99=1), numbers(2.5, p99=2)],
    }
    line = made.line(engines=("one", "two"), limits=Limits(latency_ms_p99=3))
    result = stage.optimize(made.context(line))
    assert result["engine"]["name"] == "two"
    one, two = result["candidates"]
    assert one["refused"][0].startswith("Measured a second time: latency_ms_p99 is 9 ms")
    assert two["measures"]["cpu_ms"]["value"] == 2.5


def test_when_nothing_fits_the_nearest_is_named_with_what_to_relax(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {
        "one": [numbers(1.0, p99=30, memory=50)],
        "two": [numbers(1.0, p99=4, memory=300)],
    }
    limits = Limits(latency_ms_p99=3, memory_mib=100)
    result = stage.optimize(made.context(made.line(engines=("one", "two"), limits=limits)))
    assert "engine" not in result
    first, *reasons = result["stop"]
    assert first == (
        "No engine fits the limits of this-machine; the nearest is two (float32, threads 1)."
    )
    assert reasons == [
        "memory_mib is 300 MiB; this-machine allows 100 MiB (200 % too much).",
        "latency_ms_p99 is 4 ms; this-machine allows 3 ms (33 % too much).",
        "To accept it: genba run LINE --set target.limits.memory_mib=330 "
        "--set target.limits.latency_ms_p99=4.4",
    ]


def test_when_no_engine_answers_as_the_reference_every_reason_is_given(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {"wrong": [numbers(0.1)]}
    result = stage.optimize(made.context(made.line(engines=("wrong", "unable"))))
    assert result["stop"][0] == "No engine gives the answers of the reference on this-machine."
    assert len(result["stop"]) == 3


def test_an_engine_that_cannot_run_the_graph_is_one_row(
    made: Made, scripted: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted |= {"one": [numbers(1.0)]}
    many = [{**F32, "threads": threads} for threads in (1, 2, 3)]
    monkeypatch.setattr(Unable, "candidates", lambda cores: many)
    result = stage.optimize(made.context(made.line(engines=("unable", "one"))))
    refused = [c for c in result["candidates"] if c["engine"] == "unable"]
    assert [c["settings"] for c in refused] == [F32]
    assert refused[0]["refused"] == ["It cannot run this graph."]
    assert refused[0]["measures"] == {}


def test_what_was_measured_is_kept_of_who_exceeds_a_limit(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {"one": [numbers(1.0, p99=9)], "two": [numbers(2.0)]}
    line = made.line(engines=("one", "two"), limits=Limits(latency_ms_p99=3))
    result = stage.optimize(made.context(line))
    over, chosen = result["candidates"]
    assert result["engine"]["name"] == "two"
    assert chosen["refused"] == []
    assert len(over["refused"]) == 1
    assert over["measures"]["latency_ms_p99"]["value"] == 9
    assert over["parity"]["decision_agreement"] == 1.0


def test_an_engine_whose_memory_cannot_be_measured_is_left_out(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    died = Problem("G607", "It died.", why="SIGSEGV", tries=["x"])
    scripted |= {"one": [died], "two": [numbers(2.0)]}
    result = stage.optimize(made.context(made.line(engines=("one", "two"))))
    assert result["engine"]["name"] == "two"
    assert result["candidates"][0]["refused"] == ["It died."]
    assert result["candidates"][0]["why"] == "SIGSEGV"


def test_on_an_overloaded_machine_the_last_are_left_out_and_it_says_so(
    made: Made, scripted: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_MEASURING_S", -1.0)
    scripted |= {"one": [numbers(1.0, p99=9)], "two": [numbers(2.0)], "three": [numbers(0.1)]}
    line = made.line(engines=("one", "two", "three"), limits=Limits(latency_ms_p99=3))
    result = stage.optimize(made.context(line))
    assert result["engine"]["name"] == "two"
    assert "Not measured" in result["candidates"][2]["refused"][0]


def test_a_problem_of_the_graph_ends_the_run(made: Made, scripted: dict[str, list[Any]]) -> None:
    with pytest.raises(Problem) as refused:
        stage.optimize(made.context(made.line(engines=("broken",))))
    assert refused.value.code == "G608"
    scripted |= {"one": [Problem("G606", "No table.", tries=["x"])]}
    with pytest.raises(Problem) as refused:
        stage.optimize(made.context(made.line(engines=("one",))))
    assert refused.value.code == "G606"


def test_a_gate_that_the_exported_model_misses_stops_the_line(
    made: Made, scripted: dict[str, list[Any]]
) -> None:
    scripted |= {"one": [numbers(1.0)]}
    gates = {"r2": Limit(min=0.99999), "mae": Limit(max=100)}
    result = stage.optimize(made.context(made.line(engines=("one",), gates=gates)))
    assert result["verdict"]["passed"] is False
    (reason,) = result["stop"]
    assert reason.startswith("The exported model: r2 is 0.9")


class TestLargeSamples:
    """Where each candidate would take long, only the chosen one is held against every sample."""

    @pytest.fixture
    def screened(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stage, "_SCREENED_BYTES", 5_000)

    def test_only_the_chosen_one_is_compared_on_everything(
        self, made: Made, scripted: Any, screened: None
    ) -> None:
        scripted.update(one=[numbers(1.0)], two=[numbers(9.0)])
        result = stage.optimize(made.context(made.line(engines=("one", "two"))))
        assert result["engine"]["name"] == "one"
        first, second = result["candidates"]
        assert first["parity"]["samples"] >= made.view.count("test")
        assert 0 < second["parity"]["samples"] < 100 < made.view.count("test")
        assert second["parity"]["passed"]

    def test_who_fails_on_the_rest_is_refused_after_all(
        self, made: Made, scripted: Any, screened: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scripted.update(one=[numbers(1.0)], two=[numbers(9.0)])
        calls = []

        def later_wrong(self: Any, tensors: Any) -> Any:
            found = OnnxRuntime.run(self, tensors)
            calls.append(len(tensors["window"]))
            return found | {"alarm": ~found["alarm"]} if len(calls) > 2 else found

        monkeypatch.setattr(One, "run", later_wrong)
        monkeypatch.setattr(Two, "run", OnnxRuntime.run)
        result = stage.optimize(made.context(made.line(engines=("one", "two"))))
        assert result["engine"]["name"] == "two"
        assert "not close enough" in result["candidates"][0]["refused"][0]
