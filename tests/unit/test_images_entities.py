"""Images of several entities, with times: what the line asks for and how they are split by it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genba.core.line import Split
from genba.core.problem import Problem
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


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Forty images of five cameras, a minute apart; two of them without a time."""
    write(tmp_path, numbered("img", range(40)))
    times = [f"2026-01-01T00:{n:02d}:00Z" for n in range(40)]
    times[7], times[8] = "", "soon"
    rows = [f"img/{n:04d}.png,good,C{n % 5},{times[n]}" for n in range(40)]
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["file,kind,camera,at", *rows]) + "\n")
    return path


COLUMNS: dict[str, Any] = {"image": "file", "label": "kind", "entity": "camera"}


def cameras(found: dict[str, str]) -> dict[str, set[str]]:
    of: dict[str, set[str]] = {}
    for name, split in found.items():
        of.setdefault(f"C{int(name[4:8]) % 5}", set()).add(split)
    return of


def test_whole_entities_are_dealt_and_keep_their_side(store: Store, manifest: Path) -> None:
    line = line_of(manifest, **COLUMNS, split=Split(by="entity"))
    first = ingested(store, line)
    before = cameras(splits_of(first))
    assert (
        sorted(min(splits) for splits in before.values()) == ["calibrate", "test"] + ["train"] * 3
    )
    assert all(len(splits) == 1 for splits in before.values())
    write(manifest.parent, numbered("img", range(40, 60)))
    more = [f"img/{n:04d}.png,good,C{n % 5},2026-01-02" for n in range(40, 55)]
    more += [f"img/{n:04d}.png,good,N{n % 4},2026-01-02" for n in range(55, 60)]
    manifest.write_text(manifest.read_text() + "\n".join(more) + "\n")
    after = ingested(store, line, parent=first.version)
    found = {n: s for n, s in splits_of(after).items() if int(n[4:8]) < 55}
    assert cameras(found) == before
    assert after.entities == (*first.entities, "N0", "N1", "N2", "N3")


def test_a_copy_of_another_side_is_in_none(store: Store, manifest: Path) -> None:
    write(manifest.parent, {"img/copy.jpg": jpeg(part(0), 70)})
    line = line_of(manifest, **COLUMNS, split=Split(by="entity"))
    other = next(
        c
        for c, s in cameras(splits_of(ingested(store, line))).items()
        if c != "C0" and s != {"train"}
    )
    manifest.write_text(manifest.read_text() + f"img/copy.jpg,good,{other},2026-01-02\n")
    found = splits_of(ingested(store, line))
    sides = {found["img/copy.jpg"], found["img/0000.png"]}
    assert len(sides) == 1 or "purged" in sides


def test_only_the_entities_and_times_asked_for_are_read(store: Store, manifest: Path) -> None:
    line = line_of(
        manifest, **COLUMNS, time="at", entities=("C0", "C1", "C2", "C3"),
        since="2026-01-01T00:05:00Z", until="2026-01-01T00:35:00Z",
    )  # fmt: skip
    view = ingested(store, line)
    sheet: Any = view.sheet()
    assert sheet["rows"]["skipped"] == {
        "other entity": 8, "before since": 4, "from until on": 4,
    }  # fmt: skip
    assert view.version.rejected == {"time is missing or unreadable": 2}
    assert view.version.rows == 22
    assert (view.has_clock, sheet["split"]["rule"]["by"]) == (True, "time")
    with pytest.raises(Problem) as caught:
        ingested(store, line_of(manifest, **COLUMNS, since="2026-01-01"))
    assert caught.value.code == "G217"


def test_held_out_entities_are_only_tested_on(store: Store, manifest: Path) -> None:
    line = line_of(manifest, **COLUMNS, split=Split(holdout=("C4",)))
    found = cameras(splits_of(ingested(store, line)))
    assert found["C4"] == {"test"}
    assert {"train", "calibrate", "test"} <= set().union(*(found[f"C{n}"] for n in range(4)))


def test_images_of_one_series_stay_together(store: Store, tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    blank = mask()
    for series in range(12):
        for n in range(4):
            files[f"kos{series:02d}/part{n}.png"] = png(series * 10 + n)
            marked = series % 4 == 0 and n == 2
            files[f"kos{series:02d}/part{n}_label.png"] = blank if marked else black()
    view = ingested(store, line_of(write(tmp_path, files)))
    assert view.classes == ("good", "defect")
    found = splits_of(view)
    for series in range(12):
        assert len({found[f"kos{series:02d}/part{n}.png"] for n in range(4)}) == 1
    assert set(found.values()) == {"train", "calibrate", "test"}


def black() -> bytes:
    import numpy as np

    from genba.edge.images import encode_png

    return encode_png(np.zeros((32, 32), np.uint8))
