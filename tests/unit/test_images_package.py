"""Images in packages: read without installing, made the same way each time."""

import gzip
import io
import struct
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genba.core.digest import digest_bytes
from genba.core.line import Data
from genba.core.problem import Problem
from genba.data.sources import brick, deb, fashion, package
from genba.data.sources.package import Packaged, PackageSource, packaged
from genba.edge.images import decode, encode_png, read_mask
from genba.runs.progress import SilentProgress
from tests.unit.image_files import part

URLOPEN = "genba.data.sources.deb.urllib.request.urlopen"


def photo() -> bytes:
    """Stands in for the photograph of bricks."""
    return encode_png(part(0, 512))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brick, "GOOD", {"train": 3, "test": 2})
    monkeypatch.setattr(brick, "DEFECTIVE", {"train": 0, "test": 2})


def rows_of(batches: Any) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(batch) for batch in batches])


def test_drawn_parts_are_the_same_each_time(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brick, "_ROWS", 4)
    frame = rows_of(brick.batches({"photo.png": photo()}))
    assert frame.equals(rows_of(brick.batches({"photo.png": photo()})))
    assert dict(frame["label"].value_counts().iter_rows()) == {
        "good": 5, "scratch": 2, "blob": 2, "patch": 2, "missing": 2,
    }  # fmt: skip
    assert frame.filter(pl.col("label") != "good")["split"].unique().to_list() == ["test"]
    for row in frame.to_dicts():
        image = decode(row["image"], brick.SIZE)
        assert image.std() > 5
        assert (row["mask"] is None) == (row["label"] == "good")
        if row["mask"]:
            assert 30 < read_mask(row["mask"]).sum() < 6_000


def test_training_parts_are_cut_from_one_half(few: None) -> None:
    halves = np.zeros((512, 512), np.uint8)
    halves[:, 256:] = 200
    frame = rows_of(brick.batches({"photo.png": encode_png(halves)}))
    good = frame.filter(pl.col("label") == "good")
    level: dict[str, list[float]] = {"train": [], "test": []}
    for row in good.to_dicts():
        level[row["split"]].append(float(decode(row["image"], 8).mean()))
    assert max(level["train"]) < 10
    assert min(level["test"]) > 150


def idx(array: Any) -> bytes:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


def clothing() -> dict[str, bytes]:
    chance = np.random.default_rng(0)
    files = {}
    for split, (images, labels) in fashion.PARTS.items():
        count = 30 if split == "train" else 10
        files[images] = idx(chance.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        files[labels] = idx(np.arange(count, dtype=np.uint8) % 10)
    return files


def debian(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    found = b"!<arch>\n"
    for name, data in (("debian-binary", b"2.0\n"), ("data.tar.xz", buffer.getvalue())):
        found += f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(data):<10}`\n".encode()
        found += data + b"\n" * (len(data) % 2)
    return found


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packaged:
    """A cache that holds a small Debian package, and the entry that pins it."""
    data = debian(clothing())
    place = tmp_path / "cache" / "packages" / "clothes.deb"
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    entry = Packaged(
        requirement="clothes=1",
        file="clothes.deb",
        sha256=digest_bytes(data),
        bytes=len(data),
        about="a few clothes",
        licence="MIT",
        attribution="nobody",
        kind="fashion-mnist",
        members={name: digest_bytes(d) for name, d in clothing().items()},
        pool="pool/clothes.deb",
    )
    monkeypatch.setattr(package, "packaged", lambda: {"clothes": entry})
    monkeypatch.setenv("GENBA_CACHE", str(tmp_path / "cache"))
    return entry


def test_a_debian_package_is_read_without_installing_it(
    shelf: Packaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fashion, "_ROWS", 20)
    source = PackageSource("clothes", Data(source="package:clothes"))
    facts = source.facts()
    assert (facts.licence, facts.generated, facts.location) == ("MIT", False, "clothes=1")
    batches = list(source.batches())
    assert [batch.num_rows for batch, _ in batches] == [20, 10, 10]
    assert list(source.batches(batches[0][1]))[0][0].equals(batches[1][0])
    first = batches[0][0].to_pylist()[0]
    assert (first["name"], first["label"], first["split"]) == (
        "train/00000.png",
        "T-shirt",
        "train",
    )
    assert decode(first["image"], 28).shape == (28, 28, 3)
    raised = replace(shelf, version=2)
    monkeypatch.setattr(package, "packaged", lambda: {"clothes": raised})
    other = PackageSource("clothes", Data(source="package:clothes")).facts()
    assert other.fingerprint != facts.fingerprint


@pytest.mark.parametrize("damage", ["magic", "no data", "cut", "absent", "content"])
def test_a_damaged_debian_package_is_refused(tmp_path: Path, damage: str) -> None:
    files = {"a/b.gz": b"content"}
    data = {
        "magic": b"!<nothing>\n" + debian(files),
        "no data": debian(files).replace(b"data.tar", b"else.tar"),
        "cut": debian(files)[:180],
        "absent": debian({"a/c.gz": b"content"}),
        "content": debian({"a/b.gz": b"altered"}),
    }[damage]
    path = tmp_path / "x.deb"
    path.write_bytes(data)
    with pytest.raises(Problem) as caught:
        deb.read(path, {"a/b.gz": digest_bytes(b"content")})
    assert caught.value.code == "G222"


def test_a_debian_package_comes_from_apt_or_from_a_mirror(
    shelf: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (tmp_path / "cache" / "packages" / "clothes.deb").read_bytes()
    monkeypatch.setenv("GENBA_CACHE", str(tmp_path / "other"))
    asked: list[str] = []

    def apt(command: list[str], *, cwd: Path, **how: Any) -> Any:
        asked.append(" ".join(command))
        if "none" in asked:
            return subprocess.CompletedProcess(command, 100, "", "E: no such package\n")
        (cwd / "clothes_1_all.deb").write_bytes(data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(deb, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("genba.data.sources.deb.subprocess.run", apt)
    place = deb.fetch(shelf.package, shelf.pool, SilentProgress())
    assert place.read_bytes() == data
    assert asked == ["apt-get download clothes=1"]
    asked.append("none")
    place.unlink()
    monkeypatch.setattr(URLOPEN, lambda url, timeout: io.BytesIO(data))
    assert deb.fetch(shelf.package, shelf.pool, SilentProgress()).read_bytes() == data
    place.unlink()
    monkeypatch.setattr(URLOPEN, lambda url, timeout: io.BytesIO(data[:-1]))
    with pytest.raises(Problem) as caught:
        deb.fetch(shelf.package, shelf.pool, SilentProgress())
    assert caught.value.code == "G222"
    monkeypatch.setattr(URLOPEN, lambda url, timeout: io.BytesIO(data * 2))
    with pytest.raises(Problem) as caught:
        deb.fetch(shelf.package, shelf.pool, SilentProgress())
    assert (caught.value.code, caught.value.why) == ("G902", "E: no such package")


def test_every_set_of_images_is_pinned() -> None:
    others = {"table", "helpdesk", "chitchat"}
    entries = {name: entry for name, entry in packaged().items() if entry.kind not in others}
    assert sorted(entries) == ["brick", "fashion-mnist"]
    for name, entry in entries.items():
        assert all(len(pin) == 64 for pin in (entry.sha256, *entry.members.values()))
        source = PackageSource(name, Data(source=f"package:{name}"))
        assert source.facts().fingerprint
        assert source.facts().generated == (name == "brick")


@pytest.mark.network
def test_the_bricks_can_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBA_CACHE", str(tmp_path))
    source = PackageSource("brick", Data(source="package:brick"))
    batch, _ = next(source.batches())
    assert batch.num_rows == 64


@pytest.mark.network
def test_the_clothes_can_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBA_CACHE", str(tmp_path))
    source = PackageSource("fashion-mnist", Data(source="package:fashion-mnist"))
    batch, _ = next(source.batches())
    assert batch.num_rows == 2_000
