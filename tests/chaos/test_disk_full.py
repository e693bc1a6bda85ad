"""A full disk: the Problem that says so, nothing half-written, and all well once there is room."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core import io
from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.runs.run import execute
from genba.runs.stage import Stage, StageContext
from genba.store.home import Store
from genba.testing.crash import FullDisk

LINE = Line(name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv"))


def write_everything(home: Path) -> None:
    with Store.open(home) as store:
        blob = store.blobs.put(b"rows")
        store.ledger.record("dataset", "d", {"blob": blob}, line="pump")
        with store.blobs.writer() as writer:
            writer.write(b"more rows")
        store.ledger.append("note", {"blob": writer.digest}, key="note")


def training(context: StageContext) -> dict[str, Any]:
    context.effort.checkpoint.save({"trial": 1}, {"w": np.ones(2)})
    return {"blob": context.store.blobs.put(b"a model")}


def run_a_line(home: Path) -> None:
    with Store.open(home) as store:
        result = execute([Stage("train", training)], line=LINE, store=store)
        if result.problem:
            raise result.problem


def problem_of(work: Callable[[Path], None], home: Path) -> str | None:
    try:
        work(home)
    except Problem as problem:
        return problem.code
    return None


def assert_sound(home: Path) -> None:
    if not (home / "ledger.db").exists():
        return
    with Store.open(home) as store:
        assert store.ledger.verify().ok
        for digest in store.blobs.digests():
            store.blobs.read(digest)
        for record in store.ledger.find("dataset"):
            assert store.blobs.has(record.body["blob"])
    assert not list(home.rglob("*.tmp"))


@pytest.mark.parametrize("work", [write_everything, run_a_line])
def test_a_disk_that_is_full_at_any_point(tmp_path: Path, work: Callable[[Path], None]) -> None:
    point = 0
    while True:
        point += 1
        home, disk = tmp_path / f"{point}" / "home", FullDisk(point)
        home.parent.mkdir()
        with io.using(disk):
            assert problem_of(work, home) in (None, "G303")
        if not disk.was_full:
            break
        assert_sound(home)
        work(home)  # there is room again
        assert_sound(home)
    assert point > 15


def test_a_place_that_may_not_be_written_to(tmp_path: Path) -> None:
    with (
        io.using(FullDisk(1, errno.EROFS)),
        pytest.raises(Problem, match="may not write") as caught,
    ):
        Store.open(tmp_path / "home")

    assert caught.value.code == "G304"


def test_other_errors_of_the_disk_pass_unchanged(tmp_path: Path) -> None:
    with io.using(FullDisk(1, errno.EIO)), pytest.raises(OSError, match="Input/output"):
        io.write_durable(tmp_path / "file", b"data")

    assert list(tmp_path.iterdir()) == []


TINY = """
import json, sys
from pathlib import Path
from genba.core.problem import Problem
from genba.store.home import Store

root = Path(sys.argv[1])
store = Store.open(root / "home")
kept, codes = [], []

def until_full(write):
    for n in range(100_000):
        try:
            write(n)
        except Problem as problem:
            codes.append(problem.code)
            return

until_full(lambda n: kept.append(store.blobs.put(bytes([n % 256]) * 50_000)))
until_full(lambda n: store.ledger.append("note", {"text": "x" * 2000}))
store.close()
report = Store.open(root / "home").ledger.verify()
for digest in kept:
    store.blobs.read(digest)
(root / "home" / "blobs" / kept[0][:2] / kept[0][2:]).unlink()
seq = store.ledger.append("note", {"text": "there is room again"}).seq
print(json.dumps({"codes": codes, "ok": report.ok, "events": report.events, "seq": seq}))
"""


def can_mount() -> bool:
    try:
        command = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not can_mount(), reason="mounting a small disk needs unshare -m and root")
def test_a_small_disk_that_really_fills_up(tmp_path: Path) -> None:
    script = tmp_path / "tiny.py"
    script.write_text(TINY)
    small = tmp_path / "small"
    small.mkdir()
    shell = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" "$3" "$1"'
    command = ["unshare", "-m", "sh", "-c", shell, "sh", str(small), sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=60
    )

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["codes"] == ["G303", "G303"]
    assert said["ok"]
    assert said["seq"] == said["events"] + 1
