"""Candidates that misbehave, and targets that go away: each has one defined outcome."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.codesign.runner import Order, bench, close, measure, open_engine
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.edge.frames import Incoming, pack
from genba.edge.tensors import write_tensors
from genba.targets import runner
from genba.testing.graphs import small_batch, small_graph

F32 = {"precision": "float32"}
REAL = {"engine": "onnxruntime", "settings": F32}
ORDER = Order(
    engine="onnxruntime",
    settings=F32,
    graph=small_graph(),
    samples=small_batch(70),
    seconds=0.01,
    limit_s=20.0,
)


@pytest.fixture(autouse=True, scope="module")
def _nothing_stays() -> Iterator[None]:
    yield
    close()


def faulty(limit_s: float = 20.0, memory: float | None = None, **fault: Any) -> Order:
    settings = {**REAL, **fault}
    return replace(
        ORDER, engine="faulty", settings=settings, limit_s=limit_s, memory_limit_mib=memory
    )


def refused(order: Order, *reach: str) -> Problem:
    with pytest.raises(Problem) as raised:
        measure(order, reach)
    assert raised.value.tries
    return raised.value


class TestMeasures:
    def test_it_measures_and_answers_as_the_engine_here_does(self) -> None:
        found = bench(ORDER)
        here = resolve("engine", "onnxruntime")(small_graph(), F32).run(small_batch(70))
        assert found.outputs.keys() == here.keys()
        for name, output in here.items():
            np.testing.assert_array_equal(found.outputs[name], output)
        for name in ("latency_ms_p50", "latency_ms_p99", "cpu_ms", "rows_per_s", "memory_mib"):
            assert found.measures[name].value > 0
            assert found.measures[name].method == "measured"
        assert found.measures["load"].unit == "processes"
        assert found.measures["open_ms"].value > 0

    def test_a_batch_of_several_callers_is_measured_per_row(self) -> None:
        one = measure(replace(ORDER, seconds=0.05))
        many = measure(replace(ORDER, batch=32, callers=2, seconds=0.05))
        assert many["cpu_ms"].value < one["cpu_ms"].value
        assert many["rows_per_s"].value > 32

    def test_an_engine_away_is_used_as_any_other_until_it_is_closed(self) -> None:
        with open_engine(ORDER) as away:
            assert (away.name, away.settings, away.model) == ("onnxruntime", F32, small_graph())
            first, second = away.run(small_batch(3)), away.run(small_batch(3))
            np.testing.assert_array_equal(first["score"], second["score"])
            assert 5 < away.memory().value < 500
        with pytest.raises(Problem, match="not open any more"):
            away.run(small_batch(3))

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"graph": b"no graph"}, "G608"),
            ({"engine": "onxruntime"}, "G105"),
            ({"settings": {"precision": "float32", "threads": 0}}, "G103"),
        ],
    )
    def test_what_the_engine_says_crosses_unchanged(
        self, change: dict[str, Any], code: str
    ) -> None:
        assert refused(replace(ORDER, **change)).code == code

    def test_samples_that_do_not_fit_are_the_engines_problem(self) -> None:
        wrong = {"x": np.zeros((3, 99), dtype=np.float32)}
        assert refused(replace(ORDER, samples=wrong)).code == "G602"


class TestMisbehaving:
    @pytest.mark.parametrize(
        ("fault", "code", "why"),
        [
            ({"signal": 11}, "G625", "SIGSEGV"),
            ({"signal": 6}, "G625", "SIGABRT"),
            ({"signal": 9}, "G627", "SIGKILL"),
            ({"error": True}, "G625", "RuntimeError: the drill makes this engine fail"),
        ],
    )
    def test_an_engine_that_dies_is_one_problem_with_its_reason(
        self, fault: dict[str, Any], code: str, why: str
    ) -> None:
        problem = refused(faulty(**fault))
        assert problem.code == code
        assert why in problem.why
        assert "faulty" in problem.what
        assert measure(ORDER)["cpu_ms"].value > 0  # the next one, as if nothing had been

    def test_one_that_hangs_is_stopped_with_all_it_began(self, tmp_path: Path) -> None:
        began = tmp_path / "pid"
        problem = refused(faulty(limit_s=0.5, hang=True, spawn=str(began)))
        assert problem.code == "G626"
        assert "stopped after 0.5 s" in problem.why
        assert not Path(f"/proc/{began.read_text()}").exists()

    def test_one_that_eats_memory_is_stopped(self) -> None:
        problem = refused(faulty(memory=200, leak_bytes=8 << 20, delay_ms=1))
        assert problem.code == "G627"
        assert "200 MiB are allowed" in problem.why

    def test_one_that_asks_for_far_too_much_at_once_fails_at_once(self) -> None:
        problem = refused(faulty(memory=200, leak_bytes=8 << 30))
        assert problem.code == "G627"
        assert "MemoryError" in problem.why

    def test_one_that_prints_what_looks_like_an_answer_is_measured_all_the_same(self) -> None:
        assert measure(faulty(print_bytes=1 << 12))["cpu_ms"].value > 0

    def test_the_process_that_watches_outlives_them_all(self) -> None:
        measure(ORDER)
        (line,) = runner._idle[(), ""]
        for fault in ({"signal": 11}, {"error": True}):
            refused(faulty(**fault))
        assert runner._idle[(), ""] == [line]
        assert line.alive


class TestTargets:
    def test_a_prefix_that_greets_first_reaches_the_device(self) -> None:
        reach = ("sh", "-c", 'echo "Welcome to line 7"; exec "$@"', "sh")
        paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
        there = (*reach, "env", *(f"{name}={value}" for name, value in paths.items()))
        assert measure(ORDER, there, sys.executable)["cpu_ms"].value > 0

    @pytest.mark.parametrize(
        ("reach", "why"),
        [
            (("/no/such/command",), "No such file"),
            (("sh", "-c", "echo no route to host >&2; exit 255", "sh"), "no route to host"),
            (("sh", "-c", "exec yes rubbish", "sh"), "cannot be understood"),
        ],
    )
    def test_one_that_cannot_be_reached_says_why(self, reach: tuple[str, ...], why: str) -> None:
        problem = refused(ORDER, *reach)
        assert problem.code == "G628"
        assert why in problem.why
        assert problem.where == " ".join(reach)

    def test_one_that_says_nothing_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runner, "_SILENCE_S", 0.2)
        monkeypatch.setattr(runner, "_LEAVING_S", 0.1)
        problem = refused(ORDER, "sh", "-c", "exec sleep 60", "sh")
        assert problem.code == "G628"
        assert "Nothing was heard" in problem.why

    def test_one_that_goes_away_in_the_middle_is_a_problem_and_nothing_stays(
        self, tmp_path: Path
    ) -> None:
        began = tmp_path / "pid"
        order = faulty(spawn=str(began), hang=True)
        with open_engine(order) as away:
            assert away._line is not None
            watching = away._line._process
            stop = subprocess.Popen(
                ["sh", "-c", f"while ! test -s {began}; do sleep 0.05; done; kill {watching.pid}"]
            )
            with pytest.raises(Problem) as raised:
                away.measure()
            stop.wait()
        assert raised.value.code == "G628"
        assert watching.poll() is not None
        assert not Path(f"/proc/{began.read_text()}").exists()


def test_the_command_ends_with_all_it_began_when_nobody_listens(tmp_path: Path) -> None:
    began = tmp_path / "pid"
    with subprocess.Popen(
        [sys.executable, "-m", "genba.edge.bench"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        settings = {**REAL, "spawn": str(began), "hang": True}
        opening = {"do": "open", "engine": "faulty", "settings": settings}
        asking = {"do": "run", "texts": [], "rows": 0}
        process.stdin.write(pack(opening, small_graph()))
        process.stdin.write(pack(asking, write_tensors(small_batch(3))))
        process.stdin.flush()
        while not began.exists() or not began.read_text():
            time.sleep(0.02)
        child = int(began.read_text())
        assert Path(f"/proc/{child}").exists()
        process.stdin.close()
        process.stdout.close()
        assert process.wait(10) == 0
    assert not Path(f"/proc/{child}").exists()


def test_work_that_was_never_opened_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "genba.edge.bench"],
        input=pack({"do": "run", "texts": []}, b"") + pack({"do": "close"}, b""),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    hello, answer, closed = Incoming().feed(done.stdout)
    assert "hello" in hello.header
    assert answer.header == {"refused": "crashed", "why": "Nothing is open."}
    assert closed.header == {"closed": True}


def test_pages_of_the_codes_exist() -> None:
    pages = Path(__file__).parents[2] / "docs" / "errors"
    for code in ("G625", "G626", "G627", "G628"):
        assert (pages / f"{code}.md").read_text().startswith(f"# {code}: ")
