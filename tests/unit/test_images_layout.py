"""What folders and names of image files mean, for the layouts that are common."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.line import Data
from genba.core.problem import Problem
from genba.data.sources.files import FileSource
from genba.data.sources.imagelayout import arrange
from genba.edge.images import encode_png, is_mask
from tests.unit.image_files import jpeg, mask, numbered, part, png, write


def picture(name: str) -> bool | None:
    return None


def told(*names: str, look: Callable[[str], bool | None] = picture) -> dict[str, tuple[Any, ...]]:
    return {
        e.name: (e.split, e.label, e.mask, e.entity or e.group)
        for e in arrange(names, look).entries
    }


def test_mvtec() -> None:
    found = told(
        "bottle/train/good/000.png",
        "bottle/test/good/000.png",
        "bottle/test/broken_large/000.png",
        "bottle/ground_truth/broken_large/000_mask.png",
    )
    mask = "bottle/ground_truth/broken_large/000_mask.png"
    assert found == {
        "bottle/test/broken_large/000.png": ("test", "broken_large", mask, None),
        "bottle/test/good/000.png": ("test", "good", None, None),
        "bottle/train/good/000.png": ("train", "good", None, None),
    }


def test_several_products_are_entities() -> None:
    found = told(
        "bottle/train/good/0.png", "bottle/test/dent/0.png", "cable/train/good/0.png",
        "cable/test/cut/0.png", "cable/ground_truth/cut/0_mask.png",
    )  # fmt: skip
    assert found["cable/test/cut/0.png"] == (
        "test",
        "cut",
        "cable/ground_truth/cut/0_mask.png",
        "cable",
    )
    assert found["bottle/train/good/0.png"][3] == "bottle"


def test_visa_and_btad() -> None:
    visa = told(
        "candle/Data/Images/Normal/0000.JPG", "candle/Data/Images/Anomaly/000.JPG",
        "candle/Data/Masks/Anomaly/000.png",
    )  # fmt: skip
    assert visa["candle/Data/Images/Anomaly/000.JPG"] == (
        None, "Anomaly", "candle/Data/Masks/Anomaly/000.png", None,
    )  # fmt: skip
    btad = told(
        "01/train/ok/0.bmp", "01/test/ko/0.bmp", "01/test/ok/1.bmp", "01/ground_truth/ko/0.png"
    )
    assert btad["01/test/ko/0.bmp"] == ("test", "ko", "01/ground_truth/ko/0.png", None)


def test_neu_in_folders_and_in_names() -> None:
    nested = told(*(
        f"NEU-DET/{split}/images/{kind}/{kind}_{n}.jpg"
        for split in ("train", "validation") for kind in ("crazing", "patches") for n in (1, 2)
    ))  # fmt: skip
    assert nested["NEU-DET/validation/images/patches/patches_2.jpg"][:2] == ("calibrate", "patches")
    flat = told(*(f"{kind}_{n}.bmp" for kind in ("Cr", "Pa") for n in range(1, 7)))
    assert flat["Cr_1.bmp"] == (None, "Cr", None, None)


def test_a_flat_folder_holds_good_parts() -> None:
    for names in (
        ["IMG_001.png", "DSC_002.png"],
        ["a.png", "b7.png"],
        [f"left_{n}.png" for n in range(9)],
    ):
        assert {entry[1] for entry in told(*names).values()} == {"good"}
    assert arrange(["a.png"], picture).layout == "no classes: every image is taken for good"


def test_masks_beside_by_name() -> None:
    beside = told("good/0.png", "bad/1.png", "bad/1_mask.png", "bad/2.png", "bad/2_GT.bmp")
    assert beside["bad/1.png"] == (None, "bad", "bad/1_mask.png", None)
    assert beside["bad/2.png"][2] == "bad/2_GT.bmp"
    assert len(beside) == 3


def marks(name: str) -> bool | None:
    """A mask file that ends in an odd number marks something."""
    return (
        int("".join(c for c in name if c.isdigit())[-1]) % 2 == 1
        if "mask" in name or "_label" in name or name.endswith(".png")
        else None
    )


def test_masks_say_what_is_good() -> None:
    names = [f"train/{n}.jpg" for n in range(4)] + [f"train/{n}_label.jpg" for n in range(4)]
    found = told(*names, look=marks)
    assert [entry[1] for entry in found.values()] == ["good", "defect", "good", "defect"]
    series = [
        f"kos{k}/Part{n}{end}" for k in range(3) for n in range(4) for end in (".jpg", "_label.bmp")
    ]
    found = told(*series, look=marks)
    assert found["kos1/Part2.jpg"] == (None, "good", "kos1/Part2_label.bmp", "kos1")
    assert found["kos1/Part3.jpg"][1] == "defect"


def test_masks_with_the_name_of_their_image() -> None:
    names = [
        f"MT_{kind}/Imgs/e{n}.{end}"
        for kind, n in (("Free", 0), ("Free", 2), ("Crack", 1), ("Crack", 3))
        for end in ("jpg", "png")
    ]
    found = told(*names, look=marks)
    assert found["MT_Free/Imgs/e0.jpg"] == (None, "good", "MT_Free/Imgs/e0.png", None)
    assert found["MT_Crack/Imgs/e1.jpg"] == (None, "MT_Crack", "MT_Crack/Imgs/e1.png", None)
    exported = told(*(f"good/{n}.{end}" for n in range(4) for end in ("jpg", "png")))
    assert len(exported) == 8  # two formats of pictures, no masks


def test_aitex_masks_are_found_by_name_alone() -> None:
    found = told(
        "Defect_images/0001_002.png",
        "NODefect_images/0000_000.png",
        "Mask_images/0001_002_mask.png",
    )
    assert found["Defect_images/0001_002.png"][2] == "Mask_images/0001_002_mask.png"
    assert told("a/1.png", "b/1.png", "masks/1.png")["a/1.png"][2] is None  # which one is unknown


def test_general_folders_with_kinds_below() -> None:
    found = told("ok/1.png", "defects/scratch/2.png", "defects/dent/3.png")
    assert [entry[1] for entry in found.values()] == ["dent", "scratch", "ok"]
    above = told("good/train/1.png", "bad/test/2.png")
    assert above == {
        "bad/test/2.png": ("test", "bad", None, None),
        "good/train/1.png": ("train", "good", None, None),
    }


@given(
    st.lists(
        st.from_regex(r"([a-z_]{1,6}/){0,3}[a-z0-9_]{1,6}\.(png|jpg)", fullmatch=True),
        unique=True,
        max_size=20,
    )
)
def test_every_file_is_an_image_or_a_mask_once(names: list[str]) -> None:
    found = arrange(names, picture)
    images = [entry.name for entry in found.entries]
    assert images == sorted(set(images))
    assert set(images) | {e.mask for e in found.entries if e.mask} <= set(names)


def rows(source: FileSource, cursor: Any = None) -> list[dict[str, Any]]:
    return [row for batch, _ in source.batches(cursor) for row in batch.to_pylist()]


def source(address: Path | str, **data: Any) -> FileSource:
    return FileSource(str(address), Data(**({"source": f"files:{address}"} | data)))


def test_a_folder_is_read_in_batches_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "one", numbered("good", range(30)) | {"LICENSE.txt": b"mine"})
    monkeypatch.setattr("genba.data.sources.imagefiles._BATCH_ROWS", 7)
    batches = list(source(folder).batches())
    assert [batch.num_rows for batch, _ in batches] == [7, 7, 7, 7, 2]
    assert rows(source(folder), batches[1][1]) == rows(source(folder))[14:]
    facts = source(folder).facts()
    assert facts.licence == "see LICENSE.txt"
    assert facts.bytes == sum(p.stat().st_size for p in folder.rglob("*.png"))
    moved = write(tmp_path / "else" / "where", numbered("good", range(30)))
    assert source(moved).facts().fingerprint == facts.fingerprint
    (moved / "good/0003.png").rename(moved / "good/x.png")
    assert source(moved).facts().fingerprint != facts.fingerprint


def test_patterns_and_files_of_images(tmp_path: Path) -> None:
    folder = write(
        tmp_path, numbered("a", range(3)) | {"b/1.jpg": jpeg(part(1)), "b/x.csv": b"t,x\n1,2\n"}
    )
    assert [r["name"] for r in rows(source(folder / "a" / "*.png"))] == [
        "0000.png",
        "0001.png",
        "0002.png",
    ]
    assert [r["name"] for r in rows(source(folder / "*" / "*1*"))] == ["a/0001.png", "b/1.jpg"]
    assert [r["name"] for r in rows(source(folder / "b" / "1.jpg"))] == ["1.jpg"]
    assert [r["label"] for r in rows(source(folder / "?"))] == ["a", "a", "a", "b"]
    tables = source(folder / "b", time="t")  # the line names columns, so tables come first
    assert next(iter(tables.batches()))[0].schema.names[:2] == ["t", "x"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_manifest_names_images(tmp_path: Path, form: str) -> None:
    write(tmp_path / "data", {"img/a.png": png(1), "img/b.png": png(2), "m/b.png": mask()})
    write(tmp_path, {"far.png": png(3)})
    lines = [
        ("img/a.png", "normal", "", "train", "L1"),
        ("img/b.png", "anomaly", "m/b.png", "test", "L2"),
        ("../far.png", "", "", "", "L1"),
        (str(tmp_path / "far.png"), "dent", "", "val", "L1"),
        ("img/none.png", "dent", "", "", "L1"),
    ]
    names = ("file", "kind", "marks", "split", "camera")
    if form == "csv":
        text = "\n".join([";".join(names), *(";".join(line) for line in lines)]) + "\n"
    else:
        pairs = [
            ", ".join(f'"{n}": "{v}"' for n, v in zip(names, line, strict=True)) for line in lines
        ]
        text = "".join(f"{{{pair}}}\n" for pair in pairs)
    path = tmp_path / "data" / f"list.{form}"
    path.write_text(text)
    read = source(path, image="file", label="kind", mask="marks", entity="camera")
    found = rows(read)
    keys = ("name", "label", "split", "entity", "_reason")
    assert [tuple(r[k] for k in keys) for r in found] == [
        ("img/a.png", "normal", "train", "L1", None),
        ("img/b.png", "anomaly", "test", "L2", None),
        ("../far.png", None, None, "L1", None),
        (str(tmp_path / "far.png"), "dent", "calibrate", "L1", None),
        ("img/none.png", "dent", None, "L1", "the file is missing"),
    ]
    assert found[1]["mask"] == mask()
    assert is_mask(found[1]["mask"])
    before = read.facts()
    write(tmp_path / "data", {"img/a.png": png(9)})
    assert source(path, image="file").facts().fingerprint != before.fingerprint


def test_a_manifest_without_its_column_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("file,kind\na.png,good\n")
    with pytest.raises(Problem) as caught:
        rows(source(path, image="path"))
    assert caught.value.code == "G204"


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, {"good/1.png": png(1), "good/2.png": encode_png(part(2, 64))})
    monkeypatch.setattr("genba.data.sources.imagefiles.MAX_BYTES", len(png(1)) + 9)
    assert [r["_reason"] for r in rows(source(folder))] == [None, "too large"]

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert rows(source(folder))[0]["_reason"] == "the file may not be read"
