"""Folders of images become versions: what is kept, how it is split, what is said about it."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genba.core.line import Split
from genba.core.problem import Problem
from genba.data import segments
from genba.data.images import Images, pieces
from genba.data.sources import imagefiles, source_of
from genba.data.view import DatasetView
from genba.edge.images import decode, encode_png
from genba.runs.progress import SilentProgress
from genba.store.home import Store
from tests.unit.image_files import (
    ingested,
    jpeg,
    line_of,
    mask,
    numbered,
    part,
    png,
    splits_of,
    write,
)


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


def plain(folder: Path, good: int = 50, bad: int = 20) -> Path:
    return write(
        folder, numbered("good", range(good)) | numbered("scratch", range(1000, 1000 + bad))
    )


def test_a_version_holds_what_the_folder_holds(store: Store, tmp_path: Path) -> None:
    folder = write(plain(tmp_path / "parts"), {"masks/scratch/1003_mask.png": mask()})
    view = ingested(store, line_of(folder))
    assert (view.modality, view.classes, view.sensors) == ("image", ("good", "scratch"), ())
    assert (view.entities, view.has_clock) == (("all",), False)
    assert Counter(splits_of(view).values()) == {"train": 33, "calibrate": 13, "test": 24}
    assert view.version.rows == 70
    assert [view.count(s) for s in ("train", "calibrate", "test", "purged")] == [33, 13, 24, 0]
    seen = [chunk for split in ("train", "calibrate", "test") for chunk in view.chunks(split)]
    for chunk in seen:
        assert list(chunk) == ["entity", "time", "label", "row", "image", "mask", "name"]
        types = [chunk[n].dtype.kind for n in chunk]
        assert types == ["i", "i", "f", "i", "O", "O", "O"]
        for image, name, label, marked in zip(
            chunk["image"], chunk["name"], chunk["label"], chunk["mask"], strict=True
        ):
            assert image == (folder / name).read_bytes()
            assert label == float(name.startswith("scratch"))
            assert (marked is not None) == (name == "scratch/1003.png")
    rows = np.concatenate([chunk["row"] for chunk in seen])
    assert sorted(rows) == list(range(70))
    sheet: Any = view.sheet()
    assert sheet["classes"] == {
        "good": {"train": 30, "calibrate": 10, "test": 10},
        "scratch": {"train": 3, "calibrate": 3, "test": 14},
    }
    assert sheet["images"]["masks"] == 1
    assert sheet["derived"]["layout"] == "one folder per class, masks in folders of their own"
    assert (sheet["split"]["rule"]["by"], sheet["rows"]["kept"]) == ("good", 70)
    json.dumps(sheet, allow_nan=False)


def test_the_same_folder_anywhere_is_the_same_version(store: Store, tmp_path: Path) -> None:
    one, other = plain(tmp_path / "one"), plain(tmp_path / "two" / "deep")
    first, again = ingested(store, line_of(one)), ingested(store, line_of(one))
    assert again.version == first.version
    moved = ingested(store, line_of(other))
    assert moved.version.segments == first.version.segments
    seeded = ingested(store, line_of(one, seed=7))
    assert splits_of(seeded) != splits_of(first)


def test_every_unusual_file_has_its_outcome(store: Store, tmp_path: Path) -> None:
    folder = plain(tmp_path)
    ramp = np.linspace(0, 4000, 1024).reshape(32, 32).astype(np.uint16)
    write(
        folder,
        {
            "good/a_empty.png": b"",
            "good/b_text.jpg": b"not a picture",
            "good/c_cut.png": png(5)[:100],
            "good/d_tiny.png": encode_png(np.zeros((4, 4), np.uint8)),
            "good/e.gif": b"GIF89a" + bytes(40),
            "good/f_again.png": png(3),
            "scratch/g_again.png": png(4),
            "good/h_deep.png": encode_png(ramp),
            "good/._hidden.png": b"",
            "good/notes.txt": b"about",
            "readme.md": b"read me",
            "masks/scratch/1001.png": b"damaged",
            "masks/scratch/1002.png": encode_png(np.ones((32, 64), bool)),
            "masks/scratch/1003.png": encode_png(np.zeros((32, 32), bool)),
        },
    )
    view = ingested(store, line_of(folder))
    assert view.version.rejected == {
        "empty file": 1,
        "not an image": 1,
        "damaged or cut off": 1,
        "too small": 1,
        "a kind of image that is not read": 1,
        "duplicate": 1,
        "duplicate in another class": 1,
    }
    assert view.version.rows == 71
    assert view.version.rejects is not None
    (rejects,) = segments.read_rejects(store.blobs, view.version.rejects)
    held = {row["file"]: row for row in rejects.to_dicts()}
    assert held["good/f_again.png"]["detail"] == "the same file as good/0003.png"
    assert json.loads(held["good/c_cut.png"]["values"]).keys() == {"sha256", "bytes", "label"}
    notes = view.sheet()["images"]["notes"]
    assert notes == {
        "16-bit grey, 12 bits used": 1,
        "mask left out: not an image": 1,
        "mask left out: of another shape than its image": 1,
    }


def test_nothing_left_is_a_problem(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "bad", {"good/1.png": b"", "good/2.png": b"x"})
    for folder, files, code in (
        ("bad", {}, "G208"),
        ("few", numbered("good", range(2)), "G211"),
    ):
        write(tmp_path / folder, files)
        with pytest.raises(Problem) as caught:
            ingested(store, line_of(tmp_path / folder))
        assert caught.value.code == code
    (tmp_path / "table.csv").write_text("x,y\n1,2\n")
    with pytest.raises(Problem) as caught:
        ingested(store, line_of(tmp_path / "table.csv"))
    assert caught.value.code == "G235"


def test_near_duplicates_are_on_one_side(store: Store, tmp_path: Path) -> None:
    files = numbered("good", range(100))
    for seed in range(0, 100, 3):
        files[f"good/copy{seed}.jpg"] = jpeg(part(seed), 60)
        brighter = np.clip(part(seed) * 0.9 + 20, 0, 255).astype(np.uint8)
        files[f"good/bright{seed}.png"] = encode_png(brighter)
    view = ingested(store, line_of(write(tmp_path, files)))
    found = splits_of(view)
    for seed in range(0, 100, 3):
        assert found[f"good/copy{seed}.jpg"] == found[f"good/{seed:04d}.png"]
        assert found[f"good/bright{seed}.png"] == found[f"good/{seed:04d}.png"]
    assert view.sheet()["alike"]["groups"] == 34
    assert set(found.values()) == {"train", "calibrate", "test"}


def test_folders_of_splits_are_respected(store: Store, tmp_path: Path) -> None:
    files = numbered("train/good", range(40)) | numbered("test/good", range(100, 110))
    files |= numbered("test/dent", range(200, 205))
    files["train/good/copy.jpg"] = jpeg(part(104), 85)  # of one that is tested on
    files["train/good/again.png"] = png(105)
    view = ingested(store, line_of(write(tmp_path, files)))
    found = splits_of(view)
    assert all((split == "test") == name.startswith("test/") for name, split in found.items())
    assert Counter(found.values()) == {"train": 32, "calibrate": 8, "test": 15, "purged": 1}
    assert found["train/good/copy.jpg"] == "purged"
    assert view.version.rejected == {"duplicate": 1}
    files = {name.replace("train/", "train/"): data for name, data in files.items()}
    files |= numbered("val/good", range(300, 304))
    view = ingested(store, line_of(write(tmp_path / "three", files)))
    found = splits_of(view)
    assert {n for n, s in found.items() if s == "calibrate"} == {n for n in found if "val/" in n}


def test_classes_are_dealt_alike_where_the_task_asks(store: Store, tmp_path: Path) -> None:
    files = {
        n: d for k in range(3) for n, d in numbered(f"{k + 8}", range(k * 99, k * 99 + 20)).items()
    }
    view = ingested(store, line_of(write(tmp_path, files), task="vision.classify"))
    assert view.classes == ("8", "9", "10")
    share = {"train": 12, "calibrate": 4, "test": 4}
    assert view.sheet()["classes"] == {name: share for name in view.classes}
    good = write(
        tmp_path / "with good", numbered("good", range(20)) | numbered("bad", range(50, 70))
    )
    view = ingested(store, line_of(good, task="vision.classify"))
    assert view.sheet()["classes"]["bad"] == share


@pytest.mark.parametrize("count", [3, 6, 7, 40])
def test_few_defects_are_mostly_tested_on(store: Store, tmp_path: Path, count: int) -> None:
    files = numbered("good", range(30)) | numbered("dent", range(100, 100 + count))
    view = ingested(store, line_of(write(tmp_path, files)))
    dealt = view.sheet()["classes"]["dent"]
    assert dealt["test"] == count - 2 * int(0.15 * count)
    assert sum(dealt.values()) == count


def test_a_later_version_keeps_splits_and_segments(store: Store, tmp_path: Path) -> None:
    folder = plain(tmp_path)
    old = ingested(store, line_of(folder))
    write(folder, numbered("good", range(500, 520)) | numbered("crack", range(700, 710)))
    write(folder, {"good/copy.jpg": jpeg(part(0), 70)})
    new = ingested(store, line_of(folder), parent=old.version)
    before, after = splits_of(old), splits_of(new)
    assert {name: after[name] for name in before} == before
    assert after["good/copy.jpg"] == before["good/0000.png"]
    assert new.classes == ("good", "scratch", "crack")
    assert new.version.segments[: len(old.version.segments)] == old.version.segments
    assert new.version.parent == old.version.id
    again = ingested(store, line_of(folder), parent=old.version)
    assert again.version == new.version
    (folder / "good/0001.png").rename(folder / "scratch/0001.png")
    third = ingested(store, line_of(folder), parent=new.version)
    labels = {
        str(n): float(v) for s in before.values() for c in third.chunks(s)
        for n, v in zip(c["name"], c["label"], strict=True)
    }  # fmt: skip
    assert labels["scratch/0001.png"] == 1.0
    assert splits_of(third)["scratch/0001.png"] == before["good/0001.png"]
    assert (
        0 < len(set(third.version.segments) & set(new.version.segments)) < len(new.version.segments)
    )


def test_memory_is_bounded_on_ten_times_the_images(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "MOST_BYTES", 1 << 18)
    monkeypatch.setattr(imagefiles, "_BATCH_BYTES", 1 << 17)
    chance = np.random.default_rng(0)
    peaks = []
    for count in (30, 300):
        noise = chance.integers(0, 256, (count, 128, 128), dtype=np.uint8)
        folder = write(
            tmp_path / str(count), {f"good/{n:04d}.png": encode_png(a) for n, a in enumerate(noise)}
        )
        watch = Watch()
        line = line_of(folder)
        Images.ingest(source_of(line), line, store, watch, parent=None, split_by=None)
        peaks.append(watch.peak)
        assert watch.steps
    assert peaks[1] <= 1.5 * peaks[0] + (1 << 18)


class Watch(SilentProgress):
    """Looks at Arrow's memory at every step."""

    def __init__(self) -> None:
        self.before = pa.total_allocated_bytes()
        self.peak = 0
        self.steps: set[str] = set()

    def step(self, text: str, done: float | None = None, total: float | None = None) -> None:
        self.steps.add(text)
        self.peak = max(self.peak, pa.total_allocated_bytes() - self.before)


def test_chunks_are_small(store: Store, tmp_path: Path) -> None:
    view = ingested(store, line_of(plain(tmp_path, good=400)))
    sizes = [len(chunk["row"]) for chunk in view.chunks("train")]
    assert max(sizes) == 64
    assert max(len(c["row"]) for c in view.chunks("train", rows=5)) == 5


@pytest.mark.parametrize(
    ("split", "code"), [(Split(by="time"), "G216"), (Split(holdout=("x",)), "G216")]
)
def test_splits_that_cannot_be(store: Store, tmp_path: Path, split: Split, code: str) -> None:
    with pytest.raises(Problem) as caught:
        ingested(store, line_of(plain(tmp_path), split=split))
    assert caught.value.code == code


def test_a_planted_copy_is_a_leak(store: Store, tmp_path: Path) -> None:
    view = ingested(store, line_of(plain(tmp_path)))
    first, *rest = view.version.segments
    names = list(pieces.COLUMNS)
    table = pieces.read(store.blobs, first, names)
    moved = table.slice(0, 3).set_column(3, "split", pa.array(["test"] * 3))
    planted = pieces.write(store.blobs, moved, origin="source", clock=False)
    version = replace(view.version, segments=(first, *rest, planted))
    with pytest.raises(Problem) as caught:
        Images.refuse_leakage(DatasetView(store, version, view.line))
    assert caught.value.code == "G214"
    assert "twice" in caught.value.what
    assert "3 near-duplicates are on two sides" in caught.value.why


def test_images_can_be_looked_at_again(store: Store, tmp_path: Path) -> None:
    view = ingested(store, line_of(plain(tmp_path)))
    assert all(
        (decode(i, 32)[..., 0] == part(int(str(n)[-8:-4]))).all()
        for c in view.chunks("test")
        for i, n in zip(c["image"], c["name"], strict=True)
    )
    assert np.isnan(view.ends()).all()
    assert view.part("live").count("test") == 0
