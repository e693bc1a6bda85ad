"""Where stages run: children that answer, fail, die, are cancelled or lose their parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genba.core.line import Data, Line, Train
from genba.core.problem import Problem
from genba.runs import child
from genba.runs.executor import InlineExecutor, ProcessExecutor
from genba.runs.progress import SilentProgress
from genba.runs.run import execute
from genba.runs.stage import Stage, StageContext
from genba.runs.stop import Cancelled, StopSign
from genba.store.home import Store

LINE = Line(
    name="pump",
    task="sensor.anomaly",
    data=Data(source="files:pump.csv"),
    train=Train(seed=3),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def rows(_context: StageContext) -> dict[str, Any]:
    return {"rows": 10}


ROWS = Stage("rows", rows)
STAGES_FILE = """
import os, sys, time
from genba.core.problem import Problem

def double(payload):
    print("this must not disturb the answer")
    return {"n": 2 * payload["n"], "pid": os.getpid()}

def problem(payload):
    raise Problem("G201", "No rows.", where="here", why="because", tries=["a", "b"])

def bug(payload):
    raise ValueError("a bug")

def die(payload):
    os._exit(payload["code"])

def shoot(payload):
    os.kill(os.getpid(), 9)

def sleep(payload):
    pid = os.fork()
    open(payload["file"], "a").write(f"{os.getpid()}\\n")
    time.sleep(60)

def stubborn(payload):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep(payload)

def train(context):
    context.progress.step("training", 1, 2)
    context.progress.note("half way")
    loaded = context.effort.checkpoint.load()
    context.effort.checkpoint.save({"n": 1})
    blob = context.store.blobs.put(b"model")
    return {"blob": blob, "rows": context.inputs["rows"]["rows"], "x": context.extra["x"],
            "seed": context.effort.seed, "again": loaded is not None, "pid": os.getpid()}
"""


@pytest.fixture
def stages_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "stages_of_tests.py").write_text(STAGES_FILE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("stages_of_tests", None)


@pytest.mark.usefixtures("stages_file")
class TestProcessExecutor:
    def test_json_goes_in_and_comes_out(self) -> None:
        result = ProcessExecutor().run("stages_of_tests:double", {"n": 4})

        assert result["n"] == 8
        assert result["pid"] != os.getpid()

    def test_a_problem_crosses_unchanged(self) -> None:
        with pytest.raises(Problem) as caught:
            ProcessExecutor().run("stages_of_tests:problem", {})

        problem = caught.value
        assert (problem.code, problem.what) == ("G201", "No rows.")
        assert (problem.where, problem.why, problem.tries) == ("here", "because", ("a", "b"))

    @pytest.mark.parametrize(
        ("function", "why"),
        [
            ("bug", "ValueError: a bug"),
            ("shoot", "SIGKILL"),
            ("die", "exit code 3"),
            ("nothing", "AttributeError"),
        ],
    )
    def test_a_child_that_dies_is_a_problem(self, function: str, why: str) -> None:
        with pytest.raises(Problem) as caught:
            ProcessExecutor().run(f"stages_of_tests:{function}", {"code": 3})

        assert caught.value.code == "G403"
        assert why in caught.value.why

    def test_a_child_that_dies_before_it_listens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(Problem, match="died") as caught:
            ProcessExecutor().run("stages_of_tests:double", {"n": 4})

        assert "exit code 1" in caught.value.why

    def test_a_stage_in_a_process_is_a_stage(self, store: Store) -> None:
        train = __import__("stages_of_tests").train
        said: list[str] = []

        class Heard(SilentProgress):
            def note(self, text: str) -> None:
                said.append(text)

        stages = (ROWS, Stage("train", train, after=("rows",)))
        result = execute((ROWS,), line=LINE, store=store)  # inline: the test's own module
        assert result.outcome == "done"
        executor = ProcessExecutor(Heard())
        result = execute(stages, line=LINE, store=store, executor=executor, extra={"x": 5})

        trained = dict(result.results["train"])
        assert trained.pop("pid") != os.getpid()
        assert store.blobs.read(trained.pop("blob")) == b"model"
        assert trained == {"rows": 10, "x": 5, "seed": 3, "again": False}
        assert said == ["half way"]
        assert result.stages[1].cpu_seconds > 0.05  # the child's
        again = execute(stages, line=LINE, store=store, executor=InlineExecutor(), extra={"x": 5})
        assert [report.reused for report in again.stages] == [True, True]

    def test_what_a_child_answers(self, capsys: pytest.CaptureFixture[str]) -> None:
        def answer(function: str) -> dict[str, Any]:
            return child.answer({"function": f"stages_of_tests:{function}", "payload": {"n": 2}})

        assert answer("double")["result"]["n"] == 4
        assert answer("problem")["problem"]["code"] == "G201"
        assert answer("bug") == {"crash": "ValueError: a bug"}
        assert "Traceback" in capsys.readouterr().err

    def test_a_stage_through_json_in_this_process(self, store: Store) -> None:
        train = __import__("stages_of_tests").train
        execute((ROWS,), line=LINE, store=store)
        stages = (ROWS, Stage("train", train, after=("rows",)))
        result = execute(stages, line=LINE, store=store, executor=InlineExecutor(), extra={"x": 5})

        assert result.results["train"]["pid"] == os.getpid()


def pids(path: Path, count: int) -> list[int]:
    for _ in range(2000):
        lines = path.read_text().split() if path.exists() else []
        if len(lines) == count:
            return [int(line) for line in lines]
        time.sleep(0.01)
    raise AssertionError(f"{count} processes were expected")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_until_gone(found: list[int]) -> list[int]:
    for _ in range(1000):
        if not any(alive(pid) for pid in found):
            break
        time.sleep(0.01)
    return [pid for pid in found if alive(pid)]


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


@needs_proc
@pytest.mark.usefixtures("stages_file")
@pytest.mark.parametrize("function", ["sleep", "stubborn"])
def test_a_cancelled_child_leaves_nobody_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.setattr("genba.runs.executor._PATIENCE_S", 0.2)
    file = tmp_path / "pids"
    stop = StopSign()

    def interrupt() -> None:
        pids(file, 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Cancelled), stop.listening(lambda: False), stop.interruptible():
        ProcessExecutor().run(f"stages_of_tests:{function}", {"file": str(file)})
    thread.join()

    assert wait_until_gone(pids(file, 2)) == []


@needs_proc
@pytest.mark.usefixtures("stages_file")
def test_a_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    code = (
        "from genba.runs.executor import ProcessExecutor; import sys;"
        "ProcessExecutor().run('stages_of_tests:sleep', {'file': sys.argv[1]})"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    found = pids(file, 2)
    parent.kill()
    parent.wait()

    assert wait_until_gone(found) == []
