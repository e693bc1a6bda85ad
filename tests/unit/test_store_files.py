"""Durable files and blobs."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core import io
from genba.core.digest import digest_bytes
from genba.core.problem import Problem
from genba.store.blobs import Blobs
from genba.store.home import Store


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    io.write_durable(path, b"old")
    io.write_durable(path, b"new", mode=0o600)

    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_rename_leaves_nothing_behind(tmp_path: Path) -> None:
    class NoRename(io.Disk):
        def rename(self, source: Path, target: Path) -> None:
            raise OSError(5, "Input/output error")

    with io.using(NoRename()), pytest.raises(OSError, match="Input/output"):
        io.write_durable(tmp_path / "file", b"data")
    with io.using(NoRename()), pytest.raises(OSError, match="Input/output"):
        Blobs(tmp_path / "blobs").put(b"data")

    assert not list(tmp_path.rglob("*.tmp"))


def test_directories_are_made_with_their_parents_and_made_again_for_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a" / "b" / "c"
    io.make_dirs_durable(path)
    io.make_dirs_durable(path)

    assert path.is_dir()


def test_a_file_where_a_directory_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")

    with pytest.raises(NotADirectoryError):
        io.make_dirs_durable(tmp_path / "a" / "b")


@given(st.binary(max_size=3_000_000))
def test_a_blob_comes_back_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    blobs = Blobs(tmp_path_factory.mktemp("blobs"))

    assert blobs.put(data) == digest_bytes(data)
    assert blobs.read(digest_bytes(data)) == data
    assert blobs.size(digest_bytes(data)) == len(data)


def test_the_layout_is_two_digits_then_the_rest_and_blobs_are_read_only(blobs: Blobs) -> None:
    digest = blobs.put(b"rows")

    path = blobs.path(digest)
    assert path == blobs.root / digest[:2] / digest[2:]
    assert path.stat().st_mode & 0o222 == 0
    assert list(blobs.digests()) == [digest]


def test_the_same_content_is_stored_once_in_every_way(blobs: Blobs) -> None:
    with blobs.writer() as writer:
        assert writer.write(b"ro") == 2
        writer.flush()
        assert (writer.write(bytearray(b"ws")), writer.tell(), writer.closed) == (2, 4, False)

    assert blobs.put(b"rows") == writer.digest
    assert writer.closed
    assert len(list(blobs.digests())) == 1
    assert list((blobs.root / "incoming").iterdir()) == []


def test_a_writer_that_fails_leaves_no_blob(blobs: Blobs) -> None:
    def write_half() -> None:
        with blobs.writer() as writer:
            writer.write(b"half")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_half()

    assert list(blobs.digests()) == []
    assert list((blobs.root / "incoming").iterdir()) == []


def test_arrow_can_write_into_a_blob(blobs: Blobs) -> None:
    table = pa.table({"a": list(range(1000))})
    with blobs.writer() as writer:
        pq.write_table(table, pa.PythonFile(writer, mode="w"))

    assert pq.read_table(blobs.path(writer.digest)).equals(table)


def damage(blobs: Blobs, digest: str) -> None:
    path = blobs.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"other")


def test_a_damaged_blob_is_refused_and_healed_by_storing_it_again(blobs: Blobs) -> None:
    digest = blobs.put(b"rows")
    damage(blobs, digest)

    for read in (blobs.read, blobs.verify):
        with pytest.raises(Problem, match="damaged") as caught:
            read(digest)
        assert caught.value.code == "G302"
    again = Blobs(blobs.root)
    assert again.put(b"rows") == digest
    assert again.read(digest) == b"rows"
    again.verify(digest)


def test_a_blob_that_is_not_there(blobs: Blobs) -> None:
    for name in (digest_bytes(b"never stored"), "../../etc/passwd", ""):
        assert not blobs.has(name)
        with pytest.raises(Problem, match="not in the store") as caught:
            blobs.path(name)
        assert caught.value.code == "G302"


def test_a_blob_removed_behind_our_back_is_stored_again(blobs: Blobs) -> None:
    digest = blobs.put(b"rows")
    blobs.path(digest).unlink()

    assert blobs.put(b"rows") == digest
    assert blobs.read(digest) == b"rows"


def test_what_dead_writers_left_is_swept_and_the_living_are_not(blobs: Blobs) -> None:
    blobs.put(b"rows")
    incoming = blobs.root / "incoming"
    (incoming / ".old.tmp").touch()
    (incoming / ".new.tmp").touch()
    os.utime(incoming / ".old.tmp", (0, time.time() - 90_000))

    with Store.open(blobs.root.parent):  # whoever comes next to work here
        pass
    assert [p.name for p in incoming.iterdir()] == [".new.tmp"]
