"""The disk that crashes, looked at without crashing."""

from pathlib import Path

import pytest

from genba.core import io
from genba.testing.crash import CrashingDisk


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def disk(tmp_path: Path) -> CrashingDisk:
    keep = tmp_path / "keep"
    keep.mkdir()
    return CrashingDisk(0, "power loss", keep)


def names(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


def test_what_was_made_durable_stays(home: Path, disk: CrashingDisk) -> None:
    with io.using(disk):
        io.make_dirs_durable(home / "a" / "b")
        io.write_durable(home / "a" / "file", b"old")
        io.write_durable(home / "a" / "file", b"new")
        disk.commit(lambda: None)
    disk.lose()

    assert names(home) == ["a", "a/b", "a/file"]
    assert (home / "a" / "file").read_bytes() == b"new"


def test_a_name_that_was_not_synced_goes_back_to_the_old_file(
    home: Path, disk: CrashingDisk
) -> None:
    with io.using(disk):
        io.write_durable(home / "file", b"old")
        with io.new_file(home) as (temporary, file):
            disk.write(file, b"new")
        disk.rename(temporary, home / "file")
    disk.lose()

    assert names(home) == ["file"]
    assert (home / "file").read_bytes() == b"old"


def test_bytes_that_were_not_synced_are_gone(home: Path, disk: CrashingDisk) -> None:
    with disk.create(home / "tmp", 0o444) as file:
        disk.write(file, b"new")
    disk.rename(home / "tmp", home / "file")
    disk.sync_directory(home)
    disk.lose()

    assert (home / "file").read_bytes() == b""


def test_a_removed_file_and_a_new_directory_come_back_and_go(
    home: Path, disk: CrashingDisk
) -> None:
    with io.using(disk):
        io.write_durable(home / "file", b"data")
    disk.remove(home / "file")
    disk.make_directory(home / "new")
    disk.make_directory(home / "new")
    disk.lose()

    assert names(home) == ["file"]


def test_a_killed_process_loses_nothing(tmp_path: Path, home: Path) -> None:
    disk = CrashingDisk(0, "kill", tmp_path)
    with disk.create(home / "file", 0o644) as file:
        disk.write(file, b"new")
    disk.lose()

    assert (home / "file").read_bytes() == b"new"
    assert disk.count == 2
