"""A version of images continued from production."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.task import Lesson
from genba.core.values import DatasetVersion
from genba.data.images import Images, gather
from genba.data.view import DatasetView
from genba.edge.images import read_mask
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store
from genba.store.ledger import Record
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

MANIFEST = {
    "task": "vision.anomaly",
    "settings": {"size": 32},
    "signature": {
        "inputs": [
            {"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3], "role": "image"}
        ],
        "outputs": [{"name": "score", "datatype": "FP32", "shape": [-1], "role": "score"}],
    },
}


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        opened.ledger.record("package", "p1", MANIFEST, line="parts")
        yield opened


@pytest.fixture
def view(store: Store, tmp_path: Path) -> DatasetView:
    folder = write(tmp_path, numbered("good", range(40)) | numbered("dent", range(100, 110)))
    return ingested(store, line_of(folder))


def served(store: Store, images: list[bytes], first: int = 1, role: str = "stable") -> Record:
    count = len(images)
    files = np.empty(count, dtype=object)
    files[:] = images
    rows = CapturedRows(
        package="p1",
        n=np.arange(first, first + count),
        received_ms=np.arange(first, first + count) * 1_000,
        role=[role] * count,
        entity=[None] * count,
        time=[None] * count,
        latency_us=np.ones(count, dtype=np.int64),
        status=["ok"] * count,
        features={"image": files},
        outputs={"score": np.ones(count, dtype=np.float32)},
    )
    interval = Interval(from_ms=0, to_ms=1, packages={"p1": {}}, rows=[rows])
    id = CaptureWriter(store, "parts", "s").write(interval)
    (record,) = [r for r in store.ledger.find("capture") if r.id == id]
    return record


def extended(
    store: Store, view: DatasetView, captures: list[Record], *lessons: Lesson
) -> DatasetVersion:
    return Images.extend(store, view.line, view.version, captures, lessons)


def said(prediction: int, value: str, **more: Any) -> Lesson:
    return Lesson(value=value, label=99.0, prediction=f"s-{prediction}", **more)


def live(store: Store, view: DatasetView, version: DatasetVersion) -> dict[str, dict[str, Any]]:
    part = DatasetView(store, version, view.line).part("live")
    return {
        str(chunk["name"][at]): {n: chunk[n][at] for n in chunk} | {"split": split}
        for split in ("train", "calibrate", "test", "purged")
        for chunk in part.chunks(split)
        for at in range(len(chunk["row"]))
    }


def test_what_was_served_becomes_rows_with_what_was_said(store: Store, view: DatasetView) -> None:
    images = [png(seed) for seed in range(500, 520)]
    lessons = [
        said(1, "good"),
        said(2, "dent", mask=mask()),
        said(3, "new:crack"),
        said(4, "defect"),
    ]
    lessons += [said(5, "crack"), said(6, "anomaly"), said(999, "good")]
    version = extended(store, view, [served(store, images)], *lessons)
    assert version.classes == ("good", "dent", "crack", "defect")
    assert version.segments[: len(view.version.segments)] == view.version.segments
    assert (version.rows, version.parent) == (70, view.version.id)
    rows = live(store, view, version)
    labels = [rows[f"s-{n}"]["label"] for n in range(1, 7)]
    assert labels == [0.0, 1.0, 2.0, 3.0, 2.0, 3.0]
    assert np.isnan([rows[f"s-{n}"]["label"] for n in range(7, 21)]).all()
    assert read_mask(rows["s-2"]["mask"]).sum() == 25
    assert rows["s-9"]["image"] == images[8]
    assert [rows[f"s-{n}"]["row"] for n in range(1, 21)] == list(range(50, 70))
    whole = DatasetView(store, version, view.line)
    Images.refuse_leakage(whole)
    sheet: Any = whole.sheet()
    assert sheet["live"][0]["labelled"] == 6
    assert sum(sum(of.values()) for of in sheet["classes"].values()) == 70
    assert sum(sheet["split"]["rows"].values()) == 70
    assert extended(store, view, [], *lessons) == view.version


def test_the_newest_are_tested_on_among_what_was_judged_and_what_was_not(
    store: Store, view: DatasetView
) -> None:
    record = served(store, [png(seed) for seed in range(500, 520)])
    version = extended(store, view, [record], *(said(n, "good") for n in range(1, 11)))
    rows = live(store, view, version)
    expected = (["train"] * 6 + ["calibrate"] * 2 + ["test"] * 2) * 2
    assert [rows[f"s-{n}"]["split"] for n in range(1, 21)] == expected
    one = extended(store, view, [served(store, [png(900)], first=900)], said(900, "dent"))
    assert live(store, view, one)["s-900"]["split"] == "train"


def test_an_image_that_is_known_is_never_taught(store: Store, view: DatasetView) -> None:
    splits = splits_of(view)
    tested = next(n for n, s in splits.items() if s == "test" and n.startswith("good"))
    seed = int(tested[-8:-4])
    copies = [png(seed), jpeg(part(seed), 70), png(777)]
    version = extended(store, view, [served(store, copies)], said(1, "dent"), said(2, "dent"))
    rows = live(store, view, version)
    assert sorted(rows) == ["s-2", "s-3"]
    assert rows["s-2"]["split"] == "test"
    whole = DatasetView(store, version, view.line)
    assert whole.sheet()["live"][0]["already_known"] == 1
    Images.refuse_leakage(whole)


def test_one_image_served_twice_is_one_row_with_all_that_was_said(
    store: Store, view: DatasetView
) -> None:
    first = served(store, [png(600), png(601)])
    again = served(store, [png(600)], first=10)
    version = extended(store, view, [first, again], said(1, "dent"))
    rows = live(store, view, version)
    assert sorted(rows) == ["s-10", "s-2"]
    assert rows["s-10"]["label"] == 1.0


def test_what_cannot_be_an_image_is_rejected(store: Store, view: DatasetView) -> None:
    shadow = served(store, [png(650)], first=50, role="shadow")
    version = extended(store, view, [served(store, [b"junk", png(700)[:90], png(701)]), shadow])
    assert sorted(live(store, view, version)) == ["s-3"]
    assert version.rejected == {"not an image": 1, "damaged or cut off": 1}
    assert version.rejects is not None


def test_only_the_newest_of_what_nobody_judged_are_kept(
    store: Store, view: DatasetView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "MOST_UNJUDGED", 3)
    records = [served(store, [png(s) for s in range(f, f + 4)], first=f) for f in (300, 400)]
    version = extended(store, view, records, said(301, "good"))
    assert sorted(live(store, view, version)) == ["s-301", "s-401", "s-402", "s-403"]
    assert DatasetView(store, version, view.line).sheet()["live"][0]["not_kept"] == 4


def test_a_damaged_capture_hides_its_own_rows_only(store: Store, view: DatasetView) -> None:
    bad = served(store, [png(800)], first=80)
    path = store.blobs.path(bad.body["blob"])
    path.chmod(0o644)
    path.write_bytes(b"spoilt")
    version = extended(store, view, [bad, served(store, [png(801)], first=81)])
    assert sorted(live(store, view, version)) == ["s-81"]
    assert DatasetView(store, version, view.line).sheet()["live"][0]["damaged_batches"] == 1


def test_images_that_were_not_kept_are_counted(store: Store, view: DatasetView) -> None:
    bare = served(store, [png(900)], first=90)
    bare = replace(bare, body={**bare.body, "inputs": "none"})
    version = extended(store, view, [bare, served(store, [png(901)], first=91)])
    assert DatasetView(store, version, view.line).sheet()["live"][0]["inputs_not_kept"] == 1


def test_moments_and_entities(store: Store, tmp_path: Path) -> None:
    rows = [f"good/{n:04d}.png,good,L{n % 3},2026-01-01T00:{n:02d}:00Z" for n in range(40)]
    folder = write(tmp_path, numbered("good", range(40)))
    (folder / "list.csv").write_text("\n".join(["file,kind,line,at", *rows]) + "\n")
    line = line_of(folder / "list.csv", image="file", label="kind", entity="line", time="at")
    view = ingested(store, line)
    assert (view.entities, view.has_clock) == (("L0", "L1", "L2"), True)
    assert view.sheet()["split"]["rule"]["by"] == "time"
    found = splits_of(view)
    order = [found[name] for name in sorted(found)]
    assert order == ["train"] * 24 + ["calibrate"] * 8 + ["test"] * 8
    lesson = Lesson(value="dent", label=1.0, entity="all", time_ms=1_000)
    version = extended(store, view, [served(store, [png(900), png(901)])], lesson)
    assert version.entities == ("L0", "L1", "L2", "all")
    assert live(store, view, version)["s-1"]["time"] == 1_000
