"""Effort, progress, stopping, keys, meter."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core import io as files
from genba.core.problem import Problem
from genba.runs import effort as efforts
from genba.runs import keys
from genba.runs.effort import Effort, FileCheckpoint, MemoryCheckpoint
from genba.runs.meter import Meter
from genba.runs.progress import ChannelProgress, ConsoleProgress, SilentProgress, forward
from genba.runs.stop import Cancelled, LeaseLost, StopSign
from genba.testing.crash import FullDisk


def test_a_memory_checkpoint_keeps_a_copy() -> None:
    checkpoint = Effort.simple().checkpoint
    assert checkpoint.load() is None
    weights = np.zeros(2)
    checkpoint.save({"trial": 1, "seen": (1, 2)}, {"w": weights})
    weights[0] = 7

    loaded = checkpoint.load()
    assert loaded is not None
    assert loaded[0] == {"trial": 1, "seen": [1, 2]}
    assert loaded[1]["w"].tolist() == [0, 0]
    checkpoint.save({})
    assert checkpoint.load() == ({}, {})


def test_a_checkpoint_survives_in_another_process(tmp_path: Path) -> None:
    first = FileCheckpoint(tmp_path / "work", attempt=1)
    assert first.load() is None
    arrays = {"w": np.arange(6.0).reshape(2, 3).T, "n": np.array([1, 2], dtype=np.int32)}
    first.save({"trial": 1}, arrays)
    first.save({"trial": 2}, arrays)

    loaded = FileCheckpoint(tmp_path / "work", attempt=2).load()
    assert loaded is not None
    assert loaded[0] == {"trial": 2}
    assert loaded[1]["w"].tolist() == arrays["w"].tolist()
    assert loaded[1]["n"].dtype == np.int32
    assert len(list((tmp_path / "work").iterdir())) == 2  # the arrays before are gone


def test_what_was_spent_is_counted_over_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def attempt(number: int) -> Effort:
        return Effort(
            seed=0,
            budget=Effort.simple(minutes=1).budget,
            checkpoint=FileCheckpoint(tmp_path, attempt=number),
            progress=SilentProgress(),
            stop=StopSign(),
        )

    first = attempt(1)
    now[0] += 25
    first.checkpoint.save({})
    now[0] += 5  # lost: nothing was saved after it
    second = attempt(2)
    assert (second.elapsed_s, second.expired) == (25, False)
    now[0] += 30
    second.checkpoint.save({})
    assert second.elapsed_s == 55
    now[0] += 5
    assert second.expired
    assert attempt(3).elapsed_s == 55


def test_a_stalled_attempt_cannot_disturb_the_next(tmp_path: Path) -> None:
    old, new = FileCheckpoint(tmp_path, attempt=1), FileCheckpoint(tmp_path, attempt=2)
    new.save({"by": "new"}, {"w": np.ones(1)})
    old.save({"by": "old"}, {"w": np.zeros(1)})

    loaded = FileCheckpoint(tmp_path, attempt=3).load()
    assert loaded is not None
    assert loaded[0] == {"by": "new"}
    assert FileCheckpoint(tmp_path, attempt=1).load() == ({"by": "old"}, {"w": np.zeros(1)})


@pytest.mark.parametrize("damage", ["arrays", "json", "missing"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    FileCheckpoint(tmp_path, attempt=1).save({"by": "the one before"})
    FileCheckpoint(tmp_path, attempt=2).save({"by": "the damaged one"}, {"w": np.ones(3)})
    (arrays,) = tmp_path.glob("arrays-2-*")
    if damage == "arrays":
        arrays.write_bytes(arrays.read_bytes()[:-1] + b"x")
    elif damage == "json":
        (tmp_path / "checkpoint-2.json").write_text("{")
    else:
        arrays.unlink()
    (tmp_path / "checkpoint-x.json").write_text("not ours")

    loaded = FileCheckpoint(tmp_path, attempt=3).load()
    assert loaded is not None
    assert loaded[0] == {"by": "the one before"}


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path, attempt=1)
    checkpoint.save({"trial": 1}, {"w": np.ones(3)})
    for point in range(1, 9):
        with files.using(FullDisk(point)), pytest.raises(Problem):
            checkpoint.save({"trial": 2}, {"w": np.zeros(3)})
        loaded = FileCheckpoint(tmp_path, attempt=2).load()
        assert loaded is not None
        assert loaded[0]["trial"] in (1, 2)  # 2 where only the last fsync failed


def test_clearing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path / "work", attempt=1)
    checkpoint.save({}, {"w": np.ones(1)})
    (tmp_path / "work" / "download").touch()
    checkpoint.clear()
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["download"]
    (tmp_path / "work" / "download").unlink()
    efforts.clear(tmp_path / "work")
    assert not (tmp_path / "work").exists()
    efforts.clear(tmp_path / "work")


def test_a_plain_screen_shows_stages_notes_and_few_steps() -> None:
    screen = io.StringIO()
    progress = ConsoleProgress(screen)
    progress.stage("train")
    for n in range(100):
        progress.step("trial", n, 100)
    progress.note("the best is [0.97, 0.98]")
    progress.stage("package")
    progress.close()
    progress.close()

    lines = screen.getvalue().splitlines()
    assert lines[:2] == ["train  trial  0 of 100", "the best is [0.97, 0.98]"]
    assert [line.split()[0] for line in lines[2:]] == ["train", "package"]
    assert lines[-1].endswith(" s")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    progress = ConsoleProgress(screen)
    progress.stage("train")
    progress.step("trial", 1_000_000)
    time.sleep(0.15)
    progress.note("a note")
    progress.stage("package")
    progress.close()

    text = screen.getvalue()
    assert "train  trial  1,000,000" in text
    assert "a note" in text
    assert "\x1b[" in text


def test_progress_crosses_a_channel_unchanged() -> None:
    calls: list[tuple[object, ...]] = []

    class Recorded(SilentProgress):
        def stage(self, name: str) -> None:
            calls.append(("stage", name))

        def step(self, text: str, done: float | None = None, total: float | None = None) -> None:
            calls.append(("step", text, done, total))

        def note(self, text: str) -> None:
            calls.append(("note", text))

    channel = io.StringIO()
    sender = ChannelProgress(channel)
    sender.stage("train")
    sender.step("trial", 1, 12)
    sender.note("a note\nof two lines")
    sender.close()
    for line in channel.getvalue().splitlines():
        forward(Recorded(), json.loads(line)["progress"])

    assert calls == [("stage", "train"), ("step", "trial", 1, 12), ("note", "a note\nof two lines")]
    silent = SilentProgress()
    silent.stage("x")
    silent.step("x")
    silent.note("x")
    silent.close()


def test_a_stop_sign() -> None:
    stop = StopSign()
    stop.check()
    stop.sleep(0)
    stop.lose()
    with pytest.raises(LeaseLost):
        stop.check()
    stop.found()
    stop.check()
    stop.cancel()
    assert stop.cancelled
    with pytest.raises(Cancelled):
        stop.sleep(60)
    with pytest.raises(Cancelled), stop.interruptible():
        raise AssertionError("not reached")


def spin_until_stopped() -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(0.001)
    raise AssertionError("the signal did not stop the work")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_work_that_never_looks(number: signal.Signals) -> None:
    stop = StopSign()
    before = signal.getsignal(number)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
    timer.start()

    with pytest.raises(Cancelled), stop.listening(lambda: False), stop.interruptible():
        spin_until_stopped()

    timer.join()
    assert signal.getsignal(number) is before


def test_a_signal_waits_until_a_transaction_is_over() -> None:
    stop, looks = StopSign(), []

    def busy() -> bool:
        looks.append(time.monotonic())
        return len(looks) < 3

    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(Cancelled), stop.listening(busy), stop.interruptible():
        spin_until_stopped()

    assert len(looks) == 3


def test_a_signal_between_stages_is_seen_at_the_next_check() -> None:
    stop = StopSign()
    with stop.listening(lambda: False):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    with pytest.raises(Cancelled):
        stop.check()


def test_other_threads_do_not_touch_signals() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with StopSign().listening(lambda: False):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [before]


def test_a_meter_counts_children_that_were_waited_for() -> None:
    with Meter() as meter:
        subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
        inside = meter.cpu_seconds

    assert 0.01 < inside <= meter.cpu_seconds
    assert meter.seconds == meter.seconds  # it has stopped
    assert meter.seconds > 0


@given(st.integers(), st.integers())
def test_a_key_is_decided_by_everything_that_decides_a_result(a: int, b: int) -> None:
    def key(**more: object) -> str:
        parts: dict[str, object] = {"uses": [], "config": 0, "inputs": {}, "seed": 0}
        return keys.stage_key("s", **{**parts, **more})  # type: ignore[arg-type]  # by name

    assert (key(config=a) == key(config=b)) == (a == b)
    assert (key(seed=a) == key(seed=b)) == (a == b)
    assert (key(inputs={"x": a}) == key(inputs={"x": b})) == (a == b)
    assert key(inputs={"x": a}) != key(inputs={"y": a})
    assert key(uses=["genba.core", "genba.core"]) == key(uses=["genba.core"])
    assert key(uses=["genba.core"]) != key(uses=["genba.runs"])
    assert key() != keys.stage_key("t", uses=[], config=0, inputs={}, seed=0)


def test_the_source_of_a_package_is_part_of_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "line_of_tests"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("x = 1\n")
    (package / "device.toml").write_text("cores = 2\n")
    (package / "notes.txt").write_text("not source")
    monkeypatch.syspath_prepend(tmp_path)

    def digest(name: str) -> str:
        keys.code_digest.cache_clear()
        return keys.code_digest(name)

    whole, part = digest("line_of_tests"), digest("line_of_tests.part")
    (package / "notes.txt").write_text("still not source")
    assert digest("line_of_tests") == whole
    (package / "device.toml").write_text("cores = 4\n")
    assert digest("line_of_tests") != whole
    assert digest("line_of_tests.part") == part
    (package / "part.py").write_text("x = 2\n")
    assert digest("line_of_tests.part") != part
    keys.code_digest.cache_clear()


def test_a_library_counts_with_its_version_imported_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    keys.code_digest.cache_clear()
    imported = keys.code_digest("numpy")
    keys.code_digest.cache_clear()
    monkeypatch.delitem(sys.modules, "numpy")

    assert imported == keys.code_digest("numpy") == f"numpy=={np.__version__}"


def test_a_module_has_one_digest_imported_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    keys.code_digest.cache_clear()
    imported = keys.code_digest("genba.runs.meter")
    keys.code_digest.cache_clear()
    monkeypatch.delitem(sys.modules, "genba.runs.meter")

    assert keys.code_digest("genba.runs.meter") == imported


def test_code_that_is_nowhere() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        keys.code_digest("no_such_module")


def test_code_typed_at_a_prompt_is_never_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = type(sys)("typed_at_a_prompt")
    monkeypatch.setitem(sys.modules, "typed_at_a_prompt", prompt)
    first = keys.code_digest("typed_at_a_prompt")
    keys.code_digest.cache_clear()

    assert keys.code_digest("typed_at_a_prompt") != first


def test_memory_checkpoints_have_no_past() -> None:
    assert MemoryCheckpoint().spent_s == 0
