"""The buffer on a bad day: killed, out of room, crashed at every effect; compared with a model."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from genba.core import io
from genba.edge.buffer import HIGH, LOW, NORMAL, VITAL, Buffer, Entry
from genba.edge.clocks import HandClock
from genba.testing.crash import Acknowledge, FullDisk, crash_everywhere

MOST = 64 << 10
HERE = "import sys; from pathlib import Path; from tests.chaos import test_edge_buffer as t; "
FEED = HERE + "t.feed(Path(sys.argv[1]), int(sys.argv[2]))"
SMALL = HERE + "t.on_a_small_disk(Path(sys.argv[1]))"


class RingAgainstModel(RuleBasedStateMachine):
    """Whatever is done to a buffer, it holds what a list with the same policy holds."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.folder = Path(os.environ["GENBA_RING"]) / str(time.monotonic_ns())
        self.folder.mkdir(parents=True)
        self.buffer = self.opened()
        self.held: list[Entry] = []  # as the model has it, in the order in which it came
        self.given: set[str] = set()
        self.dropped = 0

    def opened(self) -> Buffer:
        return Buffer(self.folder / "ring.db", days=9, most_bytes=MOST, clock=self.clock)

    @rule(
        key=st.integers(0, 40),
        priority=st.sampled_from([LOW, NORMAL, HIGH, VITAL]),
        size=st.integers(0, 14_000),
    )
    def put(self, key: int, priority: int, size: int) -> None:
        entry = Entry(kind="k", key=str(key), body=bytes(size), priority=priority)
        assert self.buffer.put("k", priority, entry.key, entry.body) == self.expected(entry)

    def expected(self, entry: Entry) -> str:
        if entry.key in self.given:
            return "duplicate"
        need = sum(e.size for e in self.held) + entry.size - MOST
        victims = sorted(
            (e for e in self.held if e.priority <= entry.priority), key=lambda e: e.priority
        )
        if need > sum(e.size for e in victims):
            self.dropped += 1
            return "dropped"
        while need > 0:
            gone = victims.pop(0)
            need -= gone.size
            self.held.remove(gone)
            self.given.discard(gone.key)
            self.dropped += 1
        self.held.append(entry)
        self.given.add(entry.key)
        return "kept"

    @precondition(lambda self: self.held)
    @rule(count=st.integers(1, 5))
    def acknowledge(self, count: int) -> None:
        records = self.buffer.pending(limit=count)
        assert self.buffer.acknowledge([r.id for r in records]) == len(records)
        gone = {r.key for r in records}
        self.held = [e for e in self.held if e.key not in gone]

    @rule()
    def restart(self) -> None:
        self.buffer.close()
        self.buffer = self.opened()

    @rule(hours=st.integers(0, 3))
    def time_passes(self, hours: int) -> None:
        self.clock.turn(hours * 3_600_000)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        found = [(r.key, len(r.body)) for r in self.buffer.pending(limit=1_000)]
        ordered = sorted(self.held, key=lambda e: -e.priority)
        assert found == [(e.key, len(e.body)) for e in ordered]
        mark = self.buffer.watermark()
        assert mark.bytes == sum(e.size for e in self.held) <= MOST
        assert sum(mark.dropped.values()) == self.dropped
        assert sum(mark.pending.values()) == len(self.held)

    def teardown(self) -> None:
        self.buffer.close()


def test_a_ring_does_what_its_policy_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBA_RING", str(tmp_path))
    monkeypatch.setattr("genba.edge.buffer._RESERVE", 4_096)  # nothing is full here
    case: Any = RingAgainstModel.TestCase
    case.settings = settings(max_examples=5, stateful_step_count=20)
    case().runTest()


def feed(path: Path, start: int) -> None:
    """Put records and say which were taken, until somebody ends it."""
    with Buffer(path, days=9, most_bytes=32 << 20) as buffer:
        number = start
        while True:
            entries = [Entry(kind="k", key=f"{number + i}", body=bytes(200)) for i in range(3)]
            taken = buffer.put_all(entries, {"last": str(number).encode()})
            told = [e.key for e, o in zip(entries, taken, strict=True) if o == "kept"]
            gone = buffer.pending(limit=1)
            buffer.acknowledge([r.id for r in gone])
            sys.stdout.write(json.dumps({"taken": told, "gone": [r.key for r in gone]}) + "\n")
            sys.stdout.flush()
            number += 3


def killed_rounds(path: Path, rounds: int, seed: int) -> tuple[set[str], set[str]]:
    """Kill a process at random moments; return what it said it took and let go."""
    rng = random.Random(seed)
    taken: set[str] = set()
    gone: set[str] = set()
    for turn in range(rounds):
        command = [sys.executable, "-c", FEED, str(path), str(turn * 100_000)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        lines = [child.stdout.readline()]  # it is at work
        time.sleep(rng.uniform(0, 0.03))
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
        for line in [*lines, *rest.splitlines()]:
            if line.endswith("}") or line.endswith("}\n"):
                told = json.loads(line)
                taken.update(told["taken"])
                gone.update(told["gone"])
    return taken, gone


def assert_nothing_is_lost(path: Path, rounds: int) -> None:
    taken, gone = killed_rounds(path, rounds, seed=rounds)
    with Buffer(path, days=9, most_bytes=32 << 20) as buffer:
        assert len(taken) >= 3 * rounds
        waiting = {record.key for record in buffer.pending(limit=100_000)}
        assert {key for key in taken if not buffer.knows("k", key)} == set()
        # What is neither here nor known to be delivered was let go just before the kill.
        assert len(taken - waiting - gone) <= rounds
        assert buffer.watermark().damaged == 0
        assert buffer.watermark().dropped == {}


def test_killed_in_the_middle(tmp_path: Path) -> None:
    assert_nothing_is_lost(tmp_path / "ring.db", 3)


@pytest.mark.slow
def test_killed_in_the_middle_many_times(tmp_path: Path) -> None:
    assert_nothing_is_lost(tmp_path / "ring.db", 60)


def work(home: Path, acknowledge: Acknowledge) -> None:
    with Buffer(home / "ring.db", days=9, most_bytes=MOST, clock=HandClock()) as buffer:
        for n in range(3):
            if buffer.put("k", HIGH, f"{n}", b"x") == "kept":
                acknowledge(f"{n}")
        buffer.acknowledge([buffer.pending(limit=1)[0].id])


def lost(home: Path, promises: tuple[str, ...]) -> Iterable[str]:
    with Buffer(home / "ring.db", days=9, most_bytes=MOST, clock=HandClock()) as buffer:
        for key in promises:
            if not buffer.knows("k", key):
                yield f"{key} was taken and is gone"
        if buffer.put("k", HIGH, "new", b"") != "kept":
            yield "nothing can be put any more"


def test_crashed_at_every_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genba.edge.buffer._RESERVE", 4_096)  # nothing is full here
    report = crash_everywhere(work, lost, tmp_path, model="kill")
    assert report.points > 10
    assert report.violations == ()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_takes_nothing_from_some_point_on(tmp_path: Path, number: int) -> None:
    with Buffer(tmp_path / "ring.db", days=9, most_bytes=MOST, clock=HandClock()) as buffer:
        buffer.put("k", HIGH, "before", b"x")
        with io.using(FullDisk(1, number)):
            assert buffer.put("k", HIGH, "during", b"x") == "refused"
            assert buffer.watermark().trouble
            # What the other side has cannot be written down either; it is not sent again.
            assert buffer.acknowledge([r.id for r in buffer.pending()]) == 0
            assert buffer.pending() == []
        assert buffer.put("k", HIGH, "during", b"x") == "kept"
        assert buffer.acknowledge([]) == 1
        assert [r.key for r in buffer.pending()] == ["during"]
        assert buffer.watermark().trouble == ""


def on_a_small_disk(folder: Path) -> None:
    """Fill a disk that is smaller than the ring, with somebody else's help."""
    with Buffer(folder / "ring.db", days=9, most_bytes=64 << 20, clock=HandClock()) as buffer:
        for n in range(100):
            assert buffer.put("low", LOW, f"{n}", bytes(5_000)) == "kept"
        outcomes = [buffer.put("high", HIGH, f"{n}", bytes(5_000)) for n in range(900)]
        mark = buffer.watermark()
        taken = outcomes.count("kept")
        assert taken == mark.pending["high"] > 200, mark
        assert outcomes.count("refused") == mark.refused == 900 - taken > 200, mark
        # Lower priorities made room, counted, and what was taken of the same priority stays.
        assert mark.pending["low"] == 0, mark
        assert mark.dropped == {"low: the disk is full": 100}, mark
        assert [r.key for r in buffer.pending(("high",), limit=3)] == ["0", "1", "2"]
        assert mark.trouble == "the disk is full", mark
        # Somebody else takes every byte that is left; what is delivered still makes room.
        with (folder / "other").open("wb", buffering=0) as other, suppress(OSError):
            while True:
                other.write(bytes(4_096))
        assert buffer.acknowledge([r.id for r in buffer.pending(("high",), limit=20)]) == 20
        again = [buffer.put("high", HIGH, f"again{n}", bytes(5_000)) for n in range(40)]
        assert 10 <= again.count("kept") <= 24, again
        assert buffer.watermark().pending["high"] == taken - 20 + again.count("kept")
        # Killed now and begun again on the full disk, nothing is missing.
        buffer._file.close()
    with Buffer(folder / "ring.db", days=9, most_bytes=64 << 20, clock=HandClock()) as buffer:
        waiting = len(buffer.pending(("high",), limit=2_000))
        assert waiting == taken - 20 + again.count("kept")
        (folder / "other").unlink()
        assert buffer.put("high", HIGH, "room again", bytes(5_000)) == "kept"
        assert buffer.watermark().trouble == ""


@pytest.mark.slow
def test_a_disk_smaller_than_the_ring(tmp_path: Path) -> None:
    inside = 'mount -t tmpfs -o size=5m,nr_inodes=64 ring "$1" && shift && exec "$@"'
    unshare = [*("unshare", "--map-root-user", "--mount", "sh", "-c", inside, "sh"), str(tmp_path)]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], check=False).returncode
    ):
        pytest.skip("no disk of its own can be made here")
    command = [*unshare, sys.executable, "-c", SMALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
