"""Processes killed and stalled at random moments: the same results, nothing done twice at once."""

import json
import os
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genba.core.line import Data, Line
from genba.runs import run as runs
from genba.runs.run import RunResult, execute
from genba.runs.stage import Stage, StageContext
from genba.store.home import Store

LINE = Line(name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv"))
STAGE_NAMES = ("one", "two", "three", "four")


def slow_stage(context: StageContext) -> dict[str, Any]:
    """Work for a while with checkpoints, and keep a journal of who worked when."""
    name = str(len(context.inputs))
    journal(context.store.path, "start", name)
    meta, _ = context.effort.checkpoint.load() or ({"done": 0, "sum": 0}, {})
    for step in range(meta["done"], 5):
        time.sleep(0.006)
        meta = {"done": step + 1, "sum": meta["sum"] + step}
        context.effort.checkpoint.save(meta)
    blob = context.store.blobs.put(json.dumps([name, meta["sum"]]).encode())
    journal(context.store.path, "end", name)
    return {"blob": blob, "before": sorted(r["blob"] for r in context.inputs.values())}


def journal(home: Path, what: str, stage: str) -> None:
    line = f"{time.monotonic_ns()} {os.getpid()} {what} {stage}\n"
    file = os.open(home.parent / "journal", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)


STAGES = tuple(Stage(name, slow_stage, after=STAGE_NAMES[:n]) for n, name in enumerate(STAGE_NAMES))


def go(home: Path) -> RunResult:
    with Store.open(home) as store:
        return execute(STAGES, line=LINE, store=store)


@dataclass
class Child:
    """A forked process that runs the line."""

    pid: int
    died_ns: int = 0

    @classmethod
    def start(cls, work: Callable[[], Any]) -> "Child":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if work().outcome == "done" else 1
            finally:
                os._exit(code)
        return cls(pid)

    def ended(self) -> bool:
        pid, _ = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.died_ns = time.monotonic_ns()
        return bool(pid)

    def kill(self) -> None:
        # Before, not after: another process may take over before the parent hears of the death.
        died_ns = time.monotonic_ns()
        os.kill(self.pid, signal.SIGKILL)
        self.wait()
        self.died_ns = died_ns

    def wait(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.died_ns = time.monotonic_ns()
        return code


def intervals(root: Path, children: list[Child]) -> Iterator[tuple[str, int, int, int]]:
    """Yield (stage, pid, from, until): when somebody worked on a stage, in nanoseconds."""
    died = {child.pid: child.died_ns for child in children}
    begun: dict[tuple[int, str], int] = {}
    for line in (root / "journal").read_text().splitlines():
        at_ns, pid, what, stage = line.split()
        if what == "start":
            begun[int(pid), stage] = int(at_ns)
        else:
            yield stage, int(pid), begun.pop((int(pid), stage)), int(at_ns)
    for (owner, name), start_ns in begun.items():
        yield name, owner, start_ns, died[owner]


def overlaps(root: Path, children: list[Child]) -> list[str]:
    """Say which stages two processes worked on at once."""
    found = []
    spans = sorted(intervals(root, children), key=lambda span: (span[0], span[2]))
    for (stage, pid, _, until), (other, other_pid, start, _) in zip(spans, spans[1:], strict=False):
        if stage == other and pid != other_pid and start < until:
            found.append(f"{stage}: {pid} and {other_pid}")
    return found


def wait_for_work(root: Path, children: list[Child]) -> int:
    """Wait until one of the children is at work, or nobody has any; return which it is."""
    pids = [child.pid for child in children]
    while not all(child.died_ns or child.ended() for child in children):
        path = root / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        _, pid, what, _ = lines[-1].split() if lines else ("", "0", "", "")
        if what == "start" and int(pid) in pids:
            return pids.index(int(pid))
        time.sleep(0.001)
    return 0


def torment(root: Path, kills: int, seed: int) -> list[Child]:
    """Keep two processes on the line and kill one of them, most often the one at work."""
    chance = random.Random(seed)
    home = root / "home"
    Store.open(home).close()
    children = [Child.start(lambda: go(home)) for _ in range(2)]
    everyone = list(children)
    for _ in range(kills):
        which = wait_for_work(root, children)
        if chance.random() < 0.2:
            which = 1 - which
        time.sleep(chance.uniform(0.0, 0.04))
        if not children[which].died_ns and not children[which].ended():
            children[which].kill()
        children[which] = Child.start(lambda: go(home))
        everyone.append(children[which])
    for child in children:
        assert child.died_ns or child.wait() == 0
    return everyone


def check_after(root: Path, everyone: list[Child], tmp_path: Path) -> None:
    undisturbed = go(tmp_path / "undisturbed" / "home").results
    result = go(root / "home")

    assert result.results == undisturbed
    assert all(report.reused for report in result.stages)
    assert overlaps(root, everyone) == []
    with Store.open(root / "home") as store:
        assert store.ledger.verify().ok
        finished = [e.body for e in store.ledger.events(kinds=["stage.finished"])]
        assert sorted(b["stage"] for b in finished if not b["reused"]) == sorted(STAGE_NAMES)
        for stage in result.results.values():
            store.blobs.read(stage["blob"])


def cut_off(root: Path) -> int:
    text = (root / "journal").read_text()
    return text.count(" start ") - text.count(" end ")


def test_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    root = tmp_path / "killed"
    everyone = torment(root, kills=8, seed=1)

    check_after(root, everyone, tmp_path)
    assert cut_off(root) > 0  # or no kill hit anybody at work


@pytest.mark.slow
def test_many_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    hits = 0
    for seed in range(5):
        root = tmp_path / f"killed-{seed}"
        everyone = torment(root, kills=10, seed=seed)
        check_after(root, everyone, tmp_path / f"{seed}")
        hits += cut_off(root)
    assert hits >= 10


def test_processes_that_race_for_a_stage_do_it_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Store.open(home).close()
    children = [Child.start(lambda: go(home)) for _ in range(4)]

    assert [child.wait() for child in children] == [0] * 4
    starts = [s for s in (tmp_path / "journal").read_text().splitlines() if " start " in s]
    assert len(starts) == len(STAGE_NAMES)


def stalling(context: StageContext) -> dict[str, Any]:
    """Say who did it; the first one to come stalls until it is stopped and continued."""
    marker = context.store.path.parent / "stalled"
    first = not marker.exists()
    if first:
        marker.touch()
        time.sleep(0.05)
        while not (context.store.path.parent / "go on").exists():
            time.sleep(0.005)
    return {"by": "the one that stalled" if first else "the one that took over"}


def test_a_stalled_owner_is_fenced_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LEASE_S", 0.3)
    home = tmp_path / "home"
    stages = [Stage("stall", stalling)]

    def work() -> RunResult:
        with Store.open(home) as store:
            return execute(stages, line=LINE, store=store)

    Store.open(home).close()
    stalled = Child.start(work)
    while not (tmp_path / "stalled").exists():
        time.sleep(0.005)
    os.kill(stalled.pid, signal.SIGSTOP)

    with Store.open(home) as store:
        result = execute(stages, line=LINE, store=store)  # waits for the lease to run out
    (tmp_path / "go on").touch()
    os.kill(stalled.pid, signal.SIGCONT)

    assert stalled.wait() == 0
    assert result.results["stall"] == {"by": "the one that took over"}
    with Store.open(home) as store:
        states = [row.state for row in store.attempts.history()]
        finished = [e.body for e in store.ledger.events(kinds=["run.finished"])]
    assert states == ["lost", "done"]
    assert [body["stall"] for body in finished] == [result.results["stall"]] * 2
