"""The contract kit finds what is wrong with sources and targets, and reports every check."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from genba.core.line import Data
from genba.core.problem import Problem
from genba.core.protocols import SourceFacts
from genba.core.values import Measure
from genba.data.sources.files import FileSource
from genba.targets.local import ThisMachine
from genba.targets.registry import as_target
from genba.testing import kit, sources, targets
from genba.testing.checks import CheckFailed, require_problem, run_checks


class Greedy(FileSource):
    def batches(self, cursor: Any = None) -> Any:
        yield from iter(list(super().batches(cursor)))


class Forgetful(FileSource):
    def batches(self, cursor: Any = None) -> Any:
        return super().batches(None)


class Moody(FileSource):
    opened = 0

    def facts(self) -> SourceFacts:
        Moody.opened += 1
        return dataclasses.replace(super().facts(), fingerprint=str(Moody.opened))


class Blind(FileSource):
    def facts(self) -> SourceFacts:
        return dataclasses.replace(super().facts(), fingerprint="always the same")


class Ragged(FileSource):
    def batches(self, cursor: Any = None) -> Any:
        for number, (batch, at) in enumerate(super().batches(cursor)):
            yield batch.rename_columns([f"{n}{number}" for n in batch.schema.names]), at


class Plain(FileSource):
    def batches(self, cursor: Any = None) -> Any:
        for batch, at in super().batches(cursor):
            yield pa.Table.from_batches([batch]), at


class Silent(FileSource):
    def facts(self) -> SourceFacts:
        return SourceFacts(fingerprint="x", location="y", bytes=1)

    def batches(self, cursor: Any = None) -> Any:
        return iter([(pa.record_batch({"x": [1]}), {})])


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        (Greedy, "memory is bounded on ten times the rows"),
        (Forgetful, "a cursor resumes behind its batch"),
        (Moody, "facts are stable"),
        (Blind, "other content has another fingerprint"),
        (Ragged, "batches have one schema"),
        (Plain, "batches have one schema"),
        (Silent, "nothing there is a Problem"),
    ],
)
def test_a_broken_source_fails(
    kind: Any, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "resolve", lambda _kind, _name: kind)
    with pytest.raises(CheckFailed):
        sources.source_checks("files", tmp_path)[title]()


class Boastful(ThisMachine):
    def measure(self, engine: Any, tensors: Any) -> Any:
        found = super().measure(engine, tensors)
        return found | {"energy_mj": dataclasses.replace(found["energy_mj"], method="measured")}


class Vague(ThisMachine):
    def measure(self, engine: Any, tensors: Any) -> Any:
        return {"latency_ms_p50": Measure(value=1.0, unit="s")}

    def facts(self) -> Any:
        return super().facts() | {"cores": 0}

    def fits(self, measures: Any, limits: Any) -> Any:
        return ()


class Strict(ThisMachine):
    def fits(self, measures: Any, limits: Any) -> Any:
        return tuple(sorted(super().fits(measures, limits)))


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        (Boastful, "measures with unit, interval and method"),
        (Vague, "measures with unit, interval and method"),
        (Vague, "says what it is"),
        (Vague, "refuses by sentence, the worst first"),
        (Vague, "does not accept what was not measured"),
        (Strict, "refuses by sentence, the worst first"),
    ],
)
def test_a_broken_target_fails(kind: Any, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "open_target", lambda name, _: as_target(kind(0.02), name))
    with pytest.raises(CheckFailed):
        targets.target_checks("broken")[title]()


def test_a_problem_must_be_a_sentence_with_something_to_try() -> None:
    def raising(problem: Exception) -> Callable[[], None]:
        def action() -> None:
            raise problem

        return action

    good = Problem("G602", "It does not fit.", tries=["do this"])
    assert require_problem(raising(good), ["G602"], "for a test") is good
    for bad in (
        Problem("G603", "It does not fit.", tries=["do this"]),
        Problem("G602", "no sentence", tries=["do this"]),
        Problem("G602", "It does not fit.", tries=[]),
        KeyError("x"),
    ):
        with pytest.raises(CheckFailed):
            require_problem(raising(bad), ["G602"], "for a test")


def test_every_check_is_reported_also_after_a_failure() -> None:
    def fail() -> None:
        raise CheckFailed("3 rows, not 2")

    def crash() -> None:
        raise ZeroDivisionError("by 0")

    def refuse() -> None:
        raise Problem("G601", "It cannot.", why="So it is.", tries=["x"])

    results = run_checks({"a": fail, "b": crash, "c": refuse, "d": lambda: None})
    assert [r.passed for r in results] == [False, False, False, True]
    assert [r.reason for r in results] == [
        "3 rows, not 2",
        "ZeroDivisionError: by 0",
        "G601 It cannot. So it is.",
        "",
    ]


class TestKit:
    def test_it_finds_the_kind_by_name(self) -> None:
        assert kit.kind_of("sensor.anomaly") == "task"
        assert kit.kind_of("files") == "source"
        assert kit.kind_of("this-machine") == "target"
        with pytest.raises(Problem) as refused:
            kit.kind_of("openvin")
        assert refused.value.code == "G105"
        assert "openvino" in refused.value.what

    def test_it_checks_what_it_is_given(self, tmp_path: Path) -> None:
        assert all(r.passed for r in kit.check("engine", "faulty"))
        path = tmp_path / "a.csv"
        path.write_text("time,pump,flow,pressure,temperature,power\n2024-01-01,north,1,2,3,4\n")
        results = kit.check("source", "files", str(path))
        assert all(r.passed for r in results)
        assert len(results) == 5

    def test_a_task_without_generated_data_is_a_problem(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address = "genba.tasks.sensor.anomaly.SensorAnomaly.example"
        monkeypatch.setattr(address, staticmethod(lambda _: None))
        with pytest.raises(Problem) as refused:
            kit.check("task", "sensor.anomaly")
        assert refused.value.code == "G610"


def test_a_source_of_which_nothing_is_known_needs_an_address() -> None:
    with pytest.raises(Problem) as refused:
        sources.check_source("files-elsewhere")
    assert refused.value.code in ("G105", "G610")


def test_data_of_ones_own_gives_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("when,x\n2024-01-01,1\n")
    data = Data(source="files:a.csv", time="when", inputs=("x",))
    assert all(r.passed for r in sources.check_source("files", str(path), data))
