"""`genba predict --batch` dies at every durable effect; the file is that of a run in peace."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from genba.core import io
from genba.store.home import Store
from genba.testing.crash import CrashingDisk, FullDisk, Model
from genba.ui.cli.predict_batch_job import JSON_LINES, PARQUET, Job
from tests.unit.predict_batch_rows import batch, pump_home, rows_of_pumps, small_parts, write

Ask = Callable[..., tuple[int, dict[str, Any]]]
SCHEMA = pa.schema([("row", pa.int64())])


@pytest.fixture
def pump(home: Path) -> Store:
    return pump_home(home)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch)


class Died(BaseException):
    """The process is gone."""


class DyingDisk(CrashingDisk):
    """Dies without ending the process: the libraries that read tables do not survive a fork."""

    dead = False

    def _effect(self) -> None:
        self.count += 1
        if self.dead:
            raise Died
        if self.count == self._crash_at:
            self.dead = True
            self.lose()
            raise Died


def crash_everywhere(
    command: Callable[[Path], None], root: Path, model: Model, wanted: dict[str, bytes]
) -> int:
    """Return how many points there are; at each the command dies and is given again."""
    for point in itertools.count(1):
        folder, keep = root / f"crash-{point}", root / f"keep-{point}"
        folder.mkdir()
        keep.mkdir()
        disk = DyingDisk(point, model, keep)
        with io.using(disk), suppress(Died):
            command(folder)
            disk.lose()
        left = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        finished = {name: left[name] for name in left if name in wanted}
        assert finished == wanted if not disk.dead else finished.items() <= wanted.items(), point
        command(folder)
        after = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert after == wanted, point
        if not disk.dead:
            return point
    return 0


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        (PARQUET, "power loss"),
        pytest.param(JSON_LINES, "power loss", marks=pytest.mark.slow),
        pytest.param(JSON_LINES, "kill", marks=pytest.mark.slow),
        pytest.param(PARQUET, "kill", marks=pytest.mark.slow),
    ],
)
def test_a_job_that_dies_at_any_point_goes_on(tmp_path: Path, kind: str, model: Model) -> None:
    def command(folder: Path) -> None:
        with Job(folder / "out", kind, {"input": "a"}) as job:
            for index in range(2):
                job.reject("unreadable", index, [{"row": index, "reason": "x"}] * (2 * index))
                if not job.done(index):
                    job.add(index, pa.table({"row": [index]}, schema=SCHEMA))
            assert job.rejected() == {"x": 2}
            assert job.finish(2, SCHEMA, folder / "bad") == 2

    whole = tmp_path / "whole"
    whole.mkdir()
    command(whole)
    wanted = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert sorted(wanted) == ["bad", "out"]
    assert crash_everywhere(command, tmp_path, model, wanted) > 25


def test_forgetting_to_sync_would_be_noticed(tmp_path: Path) -> None:
    """The test can fail: without the sync of files a power cut loses what was promised."""

    def command(folder: Path) -> None:
        with Job(folder / "out", JSON_LINES, {}) as job:
            if not job.done(0):
                job.add(0, pa.table({"row": [0]}, schema=SCHEMA))
            job.finish(1, SCHEMA, None)

    (tmp_path / "keep").mkdir()
    disk = CrashingDisk(0, "power loss", tmp_path / "keep", skip=("sync",))
    with io.using(disk):
        command(tmp_path)
        disk.lose()
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["kill", "power loss"])
@pytest.mark.parametrize(("name", "mixed"), [("out.parquet", False), ("out.jsonl", True)])
def test_a_crash_at_every_effect_changes_nothing(
    pump: Store, tmp_path: Path, ask: Ask, model: Model, name: str, mixed: bool
) -> None:
    """Whenever it dies, the same command goes on, and the file is the one of a run in peace."""
    frame = rows_of_pumps(12)
    path = write(frame.sample(fraction=1.0, shuffle=True) if mixed else frame, tmp_path / "r.csv")
    with path.open("a") as file:
        file.write("2026-01-01T00:00:00Z,,1,2,3,4\n")
    whole = tmp_path / name
    assert ask(*batch(path, whole, "--rejected", str(tmp_path / "bad")))[0] == 0
    wanted, bad = whole.read_bytes(), (tmp_path / "bad").read_bytes()

    def command(folder: Path) -> int:
        argv = batch(path, folder / name, "--rejected", str(folder / "bad"))
        return ask(*argv)[0]

    points = crash_everywhere(
        lambda folder: _succeed(command(folder)), tmp_path, model, {name: wanted, "bad": bad}
    )
    assert points > 20


def _succeed(code: int) -> None:
    assert code == 0


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_point(pump: Store, tmp_path: Path, ask: Ask) -> None:
    path = write(rows_of_pumps(20), tmp_path / "rows.parquet")
    ask(*batch(path, tmp_path / "whole.parquet"))
    wanted = (tmp_path / "whole.parquet").read_bytes()
    point = 0
    while True:
        point += 1
        to, disk = tmp_path / f"{point}.parquet", FullDisk(point)
        with io.using(disk):
            code = ask(*batch(path, to))[0]
        if not disk.was_full:
            break
        assert code == 3 or to.read_bytes() == wanted
        assert ask(*batch(path, to))[0] == 0
        assert to.read_bytes() == wanted
    assert point > 15


@pytest.mark.slow
def test_kill_9_at_any_moment(pump: Store, home: Path, tmp_path: Path) -> None:
    """A real process, really killed, again and again until it gets through."""
    path = write(rows_of_pumps(200_000), tmp_path / "rows.parquet")
    whole, to = tmp_path / "whole.parquet", tmp_path / "out.parquet"

    def start(target: Path) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # this Python and nothing of a user's
            [sys.executable, "-m", "genba", *batch(path, target)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "GENBA_HOME": str(home)},
        )

    assert start(whole).wait() == 0
    kills = 0
    for delay_s in (1.6, 1.9, 2.2, 2.5, 60.0):
        process = start(to)
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay_s)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        time.sleep(0.01)
    assert kills
    assert to.read_bytes() == whole.read_bytes()
