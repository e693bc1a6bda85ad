"""Who was at work when a server died, read from the files it left."""

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from genba.serve.packages.marks import Death, Marker, deaths

A, B = "a" * 64, "b" * 64
_PROGRAM = """
import ctypes, os, signal, sys, threading, time
from pathlib import Path
from genba.serve.packages.marks import Marker
marker = Marker(Path(sys.argv[1]), sys.argv[2])
a, b = (marker.number(c * 64) for c in "ab")
def on_a_thread(work):
    def run():
        marker.enter(b)
        work()
        marker.leave()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.05)
    return thread
"""
_WATCH = "marker.watch(30)\n"
_NULL = "ctypes.string_at(0)"
_SEGMENT = "Segmentation fault"


def died(folder: Path, program: str, *, watch: bool = True) -> list[Death]:
    """Let a server die as a program says, and return what is found of it."""
    whole = _PROGRAM + (_WATCH if watch else "") + program
    subprocess.run([sys.executable, "-c", whole, str(folder), "server-1"], check=False)
    with deaths(folder) as found:
        pass
    assert not list(folder.iterdir())  # looked into once
    return found


@pytest.mark.parametrize(
    ("program", "how", "packages"),
    [
        (f"marker.enter(a); {_NULL}", _SEGMENT, (A,)),
        (f"on_a_thread(lambda: {_NULL}); time.sleep(9)", _SEGMENT, (B,)),
        # Both compute, and it is known on whose thread it happened.
        (f"marker.enter(a); on_a_thread(lambda: {_NULL}); time.sleep(9)", _SEGMENT, (B,)),
        (f"on_a_thread(lambda: time.sleep(9)); marker.enter(a); {_NULL}", _SEGMENT, (A,)),
        ("marker.enter(a); os.abort()", "Aborted", (A,)),
        # It happened on a thread of the runtime's: both are suspects.
        (
            "marker.enter(a); on_a_thread(lambda: time.sleep(9));"
            "t = threading.Thread(target=lambda: ctypes.string_at(0)); t.start(); t.join()",
            _SEGMENT,
            (A, B),
        ),
        (
            "marker.enter(a); on_a_thread(lambda: time.sleep(9)); marker.watch(0.1); time.sleep(9)",
            "it did not come back",
            (A,),
        ),
        # The event loop hangs, and no package is on it: whoever computes may hold Python up.
        ("on_a_thread(lambda: time.sleep(9)); marker.watch(0.1); time.sleep(9)",
         "it did not come back", (B,)),
        (f"marker.enter(a); marker.leave(); {_NULL}", _SEGMENT, ()),
    ],
)  # fmt: skip
def test_who_did_it(tmp_path: Path, program: str, how: str, packages: tuple[str, ...]) -> None:
    assert died(tmp_path, program) == [Death(server="server-1", how=how, packages=packages)]


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(3)", "marker.close()"])
def test_nobody_is_blamed_for_an_end_from_outside(tmp_path: Path, end: str) -> None:
    assert died(tmp_path, f"marker.enter(a); {end}") == []


def test_without_a_watch_there_is_no_evidence(tmp_path: Path) -> None:
    assert died(tmp_path, f"marker.enter(a); {_NULL}", watch=False) == []


def test_patience_ends_no_process(tmp_path: Path) -> None:
    program = """
marker.watch(0.2)
with marker.patience():
    marker.watch(0.1)
    time.sleep(0.4)
print("alive", flush=True)
os._exit(0)
"""
    whole = _PROGRAM + program
    command = [sys.executable, "-c", whole, str(tmp_path), "server-1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "alive\n"


def test_a_living_server_is_left_alone(tmp_path: Path) -> None:
    marker = Marker(tmp_path, "server-1")
    marker.enter(marker.number(A))
    with deaths(tmp_path) as found:
        assert found == []
    assert (tmp_path / "server-1.marks").is_file()
    marker.leave()
    marker.close()
    assert not list(tmp_path.iterdir())


def test_a_death_that_could_not_be_reported_is_found_again(tmp_path: Path) -> None:
    whole = _PROGRAM + _WATCH + f"marker.enter(a); {_NULL}"
    subprocess.run([sys.executable, "-c", whole, str(tmp_path), "s"], check=False)
    with suppress(OSError), deaths(tmp_path) as found:
        assert len(found) == 1
        raise OSError("the disk is full")
    with deaths(tmp_path) as found:
        assert len(found) == 1


def test_marks_that_are_damaged_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "server-1.marks").write_bytes(b"short")
    (tmp_path / "server-1.died").write_bytes(b"Fatal Python error: Segmentation fault\n")
    with deaths(tmp_path) as found:
        assert found == []
    with deaths(tmp_path / "nowhere") as found:
        assert found == []


def test_more_packages_and_threads_than_there_are_places(tmp_path: Path) -> None:
    marker = Marker(tmp_path, "server-1")
    numbers = [marker.number(f"{n:064}") for n in range(600)]
    assert numbers[:511] == list(range(1, 512))
    assert set(numbers[511:]) == {0}
    assert marker.number(f"{7:064}") == 8
    barrier = threading.Barrier(100)

    def compute() -> None:
        marker.enter(5)
        barrier.wait()
        marker.leave()

    threads = [threading.Thread(target=compute) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    marker.close()
