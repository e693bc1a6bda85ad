"""The buffer: taken, delivered, dropped by policy, and what it says about it."""

import sqlite3
import threading
from pathlib import Path

import pytest

from genba.core.problem import Problem
from genba.edge.buffer import HIGH, LOW, NORMAL, PREDICTION, TELEMETRY, VITAL, Buffer, Entry
from genba.edge.clocks import HandClock, SystemClock

DAY_MS = 86_400_000


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def opened(tmp_path: Path, clock: HandClock, *, days: float = 10, most: int = 1 << 20) -> Buffer:
    return Buffer(tmp_path / "ring.db", days=days, most_bytes=most, clock=clock)


def keys(buffer: Buffer) -> list[str]:
    return [record.key for record in buffer.pending(limit=10_000)]


def test_the_highest_priority_leaves_first_then_the_oldest(
    tmp_path: Path, clock: HandClock
) -> None:
    with opened(tmp_path, clock) as buffer:
        for key, priority in (("a", LOW), ("b", VITAL), ("c", NORMAL), ("d", VITAL)):
            assert buffer.put(PREDICTION, priority, key, b"x", time_ms=7) == "kept"
        assert keys(buffer) == ["b", "d", "c", "a"]
        first = buffer.pending(limit=1)[0]
        assert (first.sequence, first.priority, first.time_ms, first.body) == (2, VITAL, 7, b"x")
        assert [r.key for r in buffer.pending(limit=2, without=[first.id])] == ["d", "c"]


def test_kinds_do_not_compete_and_have_sequences_of_their_own(
    tmp_path: Path, clock: HandClock
) -> None:
    with opened(tmp_path, clock) as buffer:
        buffer.put(PREDICTION, HIGH, "same", b"p")
        buffer.put(TELEMETRY, LOW, "same", b"t")
        buffer.put(TELEMETRY, LOW, "other", b"t")
        told = [(r.kind, r.sequence) for r in buffer.pending((TELEMETRY,))]
        assert told == [(TELEMETRY, 1), (TELEMETRY, 2)]
        assert [r.kind for r in buffer.pending((PREDICTION,))] == [PREDICTION]


def test_what_was_given_is_there_after_a_restart_with_its_state(
    tmp_path: Path, clock: HandClock
) -> None:
    with opened(tmp_path, clock) as buffer:
        entry = Entry(kind=PREDICTION, key="a", body=b"1")
        buffer.put_all([entry], {"rows/x": b"r", "rows/y": b"s", "n": b"1"})
        buffer.put_all([], {"rows/y": None})
        name = buffer.watermark().buffer
    with opened(tmp_path, clock) as buffer:
        assert keys(buffer) == ["a"]
        assert buffer.recall("rows/") == {"rows/x": b"r"}
        assert buffer.put(PREDICTION, HIGH, "b", b"") == "kept"
        assert buffer.pending()[0].sequence == 2
        assert buffer.watermark().buffer == name


def test_a_full_ring_drops_the_oldest_of_the_lowest_priority_and_counts(
    tmp_path: Path, clock: HandClock
) -> None:
    with opened(tmp_path, clock, most=64 << 10) as buffer:
        body = bytes(3_000)
        for n in range(10):
            buffer.put(TELEMETRY, LOW, f"low{n}", body)
        for n in range(15):
            assert buffer.put(PREDICTION, HIGH, f"high{n}", body) == "kept"
        assert [k for k in keys(buffer) if k.startswith("low")] == ["low5", "low6", "low7", "low8",
                                                                    "low9"]  # fmt: skip
        for n in range(15, 25):
            assert buffer.put(PREDICTION, HIGH, f"high{n}", body) == "kept"
        assert keys(buffer)[0] == "high5"
        # There is no room left for what is less important than all that is there.
        assert buffer.put(TELEMETRY, LOW, "late", body) == "dropped"
        assert buffer.put(PREDICTION, VITAL, "huge", bytes(1 << 20)) == "dropped"
        mark = buffer.watermark()
        assert mark.dropped == {
            "telemetry: the ring is full": 10,
            "telemetry: no room for its priority": 1,
            "prediction: the ring is full": 5,
            "prediction: no room for its priority": 1,
        }
        assert mark.bytes <= mark.most_bytes == 64 << 10


def test_the_file_stays_near_its_size_whatever_is_put_into_it(
    tmp_path: Path, clock: HandClock
) -> None:
    most = 256 << 10
    with opened(tmp_path, clock, most=most) as buffer:
        for n in range(40):
            entries = [
                Entry(
                    kind="k", key=f"{n}.{i}", body=bytes((n * 37 + i * 911) % 9_000), priority=i % 4
                )
                for i in range(25)
            ]
            buffer.put_all(entries)
            buffer.acknowledge([r.id for r in buffer.pending(limit=3)])
    assert (tmp_path / "ring.db").stat().st_size < 1.25 * most + (64 << 10)


def test_what_is_too_old_is_dropped_by_time_that_the_device_was_on(
    tmp_path: Path, clock: HandClock
) -> None:
    with opened(tmp_path, clock, days=2) as buffer:
        buffer.put(PREDICTION, HIGH, "old", b"")
        clock.turn(DAY_MS)
        buffer.put(PREDICTION, LOW, "new", b"")
        clock.turn(DAY_MS + 60_000)
        buffer.put(PREDICTION, LOW, "newest", b"")
        assert keys(buffer) == ["new", "newest"]
        assert buffer.watermark().dropped == {"prediction: too old": 1}


@pytest.mark.parametrize("jump_ms", [-40 * 365 * DAY_MS, 30 * 365 * DAY_MS])
def test_a_clock_that_is_years_off_and_set_right_makes_nothing_old(
    tmp_path: Path, clock: HandClock, jump_ms: int
) -> None:
    with opened(tmp_path, clock, days=2) as buffer:
        buffer.put(PREDICTION, HIGH, "a", b"")
        clock.set_wall(clock.now_ms() + jump_ms)
        clock.turn(60_000)
        buffer.put(PREDICTION, HIGH, "b", b"")
        assert keys(buffer) == ["a", "b"]
    clock.set_wall(clock.now_ms() - jump_ms)  # while the device was off
    with opened(tmp_path, clock, days=2) as buffer:
        assert keys(buffer) == ["a", "b"]


def test_time_that_the_device_was_off_counts_as_far_as_it_is_believed(
    tmp_path: Path, clock: HandClock
) -> None:
    with opened(tmp_path, clock, days=2) as buffer:
        buffer.put(PREDICTION, HIGH, "a", b"")
        clock.turn(DAY_MS)
        buffer.put(PREDICTION, HIGH, "b", b"")
    clock.turn(int(1.5 * DAY_MS))
    with opened(tmp_path, HandClock(clock.now_ms()), days=2) as buffer:
        assert keys(buffer) == ["b"]


def test_a_key_is_known_while_it_waits_and_after_it_was_delivered(
    tmp_path: Path, clock: HandClock
) -> None:
    with opened(tmp_path, clock) as buffer:
        assert not buffer.knows(PREDICTION, "a")
        buffer.put(PREDICTION, HIGH, "a", b"")
        assert buffer.knows(PREDICTION, "a")
        assert not buffer.knows(TELEMETRY, "a")
        assert buffer.acknowledge([r.id for r in buffer.pending()]) == 1
        assert buffer.acknowledge([12345]) == 0
        assert buffer.knows(PREDICTION, "a")
        assert buffer.put(PREDICTION, HIGH, "a", b"") == "duplicate"
        assert buffer.watermark().acknowledged == {PREDICTION: 1}


def test_a_damaged_file_is_put_aside_and_what_can_be_read_is_saved(
    tmp_path: Path, clock: HandClock
) -> None:
    path = tmp_path / "ring.db"
    with opened(tmp_path, clock, most=4 << 20) as buffer:
        buffer.put_all([Entry(kind="k", key=f"{n}", body=bytes(900)) for n in range(600)])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = b"\xaa" * 20_000
    path.write_bytes(data)
    with opened(tmp_path, clock, most=4 << 20) as buffer:
        mark = buffer.watermark()
        assert mark.damaged == 1
        saved = keys(buffer)
        assert 300 < len(saved) < 600
        assert mark.pending == {"k": len(saved)}
        assert buffer.put("k", HIGH, "new", b"") == "kept"
        assert buffer.put("k", HIGH, saved[0], b"") == "duplicate"
    assert (tmp_path / "ring.db.damaged").exists()


def test_a_file_that_is_no_buffer_is_put_aside(tmp_path: Path, clock: HandClock) -> None:
    (tmp_path / "ring.db").write_bytes(b"something else" * 1_000)
    with opened(tmp_path, clock) as buffer:
        assert buffer.put("k", HIGH, "a", b"") == "kept"
    assert (tmp_path / "ring.db.damaged").read_bytes().startswith(b"something else")


def test_another_process_that_holds_the_file_refuses_nothing_for_good(
    tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba.edge.buffer_file._BUSY_S", 0.05)
    with opened(tmp_path, clock) as buffer:
        other = sqlite3.connect(tmp_path / "ring.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert buffer.put("k", HIGH, "a", b"") == "refused"
        assert buffer.watermark().trouble == "another process holds the file"
        other.execute("ROLLBACK")
        other.close()
        assert buffer.put("k", HIGH, "a", b"") == "kept"
        assert buffer.watermark().refused == 1


def test_no_buffer_where_none_can_be_made(tmp_path: Path, clock: HandClock) -> None:
    with pytest.raises(Problem) as caught:
        Buffer(tmp_path / "no" / "folder" / "ring.db", days=1, most_bytes=1, clock=clock)
    assert caught.value.code == "G690"


def test_threads_may_use_one_buffer(tmp_path: Path) -> None:
    with Buffer(tmp_path / "ring.db", days=1, most_bytes=1 << 20, clock=SystemClock()) as buffer:

        def work(name: str) -> None:
            for n in range(20):
                buffer.put("k", HIGH, f"{name}{n}", b"x")
                buffer.acknowledge([r.id for r in buffer.pending(limit=1)])

        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        mark = buffer.watermark()
        assert mark.sequence == {"k": 40}
        assert mark.acknowledged["k"] + mark.pending["k"] == 40


def test_old_keys_are_forgotten_in_the_end(
    tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba.edge.buffer_rows._REMEMBERED", 10)
    monkeypatch.setattr("genba.edge.buffer_rows._PRUNED", 8)
    with opened(tmp_path, clock) as buffer:
        for n in range(30):
            buffer.put("k", HIGH, f"{n}", b"")
            buffer.acknowledge([r.id for r in buffer.pending()])
        assert not buffer.knows("k", "0")
        assert buffer.knows("k", "29")
