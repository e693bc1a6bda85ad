"""`genba data` shows versions of images; prepare makes them; a view knows when lives ended."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genba.core.line import Data, Line
from genba.data.ingest import ingest
from genba.data.live import ORIGIN
from genba.data.segments import write as write_segment
from genba.data.sources.files import FileSource
from genba.data.view import DatasetView
from genba.runs.effort import Effort
from genba.runs.progress import SilentProgress
from genba.runs.stage import StageContext
from genba.stages.prepare import prepare
from genba.store.home import Store
from tests.unit.image_files import jpeg, line_of, mask, numbered, part, write


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


def prepared(store: Store, line: Line) -> dict[str, Any]:
    return prepare(
        StageContext(
            line=line,
            store=store,
            run="run-1",
            inputs={},
            effort=Effort.simple(),
            progress=SilentProgress(),
            extra={},
        )
    )


def test_a_sheet_of_images_is_shown(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from genba.ui.cli.app import run_command

    files = numbered("good", range(60)) | numbered("dent", range(200, 220))
    files |= {
        "good/copy.jpg": jpeg(part(0), 80),
        "good/bad.png": b"x",
        "dent/0200_mask.png": mask(),
    }
    line = line_of(write(tmp_path, files))
    made = prepared(store, line)
    assert made["derived"]["classes"] == ["good", "dent"]
    assert made["splits"] == {"train": 40, "calibrate": 15, "test": 26}
    json.dumps(made, allow_nan=False)
    capsys.readouterr()
    assert run_command(["data", made["dataset"]]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "82 read, 81 kept",
        "by class, most defects to test with: train 40, calibrate 15, test 26",
        "32 x 32 pixels",
        "1 masks",
        "2 images in 1 groups, each on one side of the split",
    ):
        assert words in text, text
    assert "good 37 12 12 dent 3 3 14" in text
    assert run_command(["data", made["dataset"], "--rejects", "5"]) == 0
    assert "not an image" in capsys.readouterr().out


def test_a_folder_that_grew_continues_the_version_before(store: Store, tmp_path: Path) -> None:
    folder = write(tmp_path, numbered("good", range(30)))
    line = line_of(folder)
    first = prepared(store, line)
    assert prepared(store, line) == first
    write(folder, numbered("good", range(50, 60)))
    second = prepared(store, line)
    view = DatasetView.open(store, second["dataset"], line)
    assert view.version.parent == first["dataset"]
    assert prepared(store, line) == second
    other = prepared(store, replace(line, task="vision.classify"))
    assert DatasetView.open(store, other["dataset"], line).version.parent is None


def units(store: Store, label: Callable[[str, int], float | None], **data: Any) -> DatasetView:
    """Three units that were seen for 30, 40 and 50 cycles."""
    rows = [
        {"unit": unit, "x": float(t), "failed": label(unit, t)}
        for unit, cycles in (("a", 30), ("b", 40), ("c", 50))
        for t in range(cycles)
    ]
    path = store.path.parent / "units.parquet"
    pl.DataFrame(
        rows, schema={"unit": pl.String, "x": pl.Float64, "failed": pl.Float64}
    ).write_parquet(path)
    fields: dict[str, Any] = {"source": "f", "entity": "unit", "inputs": ("x",), "label": "failed"}
    line = Line(name="units", task="sensor.remaining_life", data=Data(**(fields | data)))
    version = ingest(FileSource(str(path), line.data), line, store, split_by="entity")
    return DatasetView(store, version, line)


def test_without_labels_every_unit_ran_to_failure(store: Store) -> None:
    view = units(store, lambda unit, t: None)
    assert view.sheet()["split"]["rule"]["by"] == "entity"
    assert view.sheet()["split"]["asked"] == "entity"
    assert view.ends().tolist() == [29.0, 69.0, 119.0]


def test_with_labels_a_unit_ends_where_it_first_failed(store: Store) -> None:
    view = units(store, lambda unit, t: float(unit == "b" and t >= 30))
    ends = view.ends()
    assert ends[1] == 60.0
    assert np.isnan(ends[[0, 2]]).all()


def test_a_unit_that_was_seen_again_has_not_ended(store: Store) -> None:
    view = units(store, lambda unit, t: None)
    frame = pl.DataFrame(
        {
            "entity": ["a", "b", "b", "d"],
            "time": [200, 200, 201, 200],
            "x": [1.0] * 4,
            "label": [float("nan"), 0.0, 1.0, float("nan")],
            "split": ["train"] * 4,
            "row": [200, 201, 202, 203],
        }
    )
    segment = write_segment(store.blobs, frame, origin=ORIGIN, clock=False)
    version = replace(
        view.version, segments=(*view.version.segments, segment), entities=("a", "b", "c", "d")
    )
    ends = DatasetView(store, version, view.line).ends()
    assert ends[[1, 2]].tolist() == [201.0, 119.0]
    assert np.isnan(ends[[0, 3]]).all()


def test_the_wish_of_a_task_is_left_aside_where_the_line_says_otherwise(store: Store) -> None:
    assert units(store, lambda u, t: None, entity=None).sheet()["split"]["rule"]["by"] == "random"
    from genba.core.line import Split

    by = Split(by="random")
    assert units(store, lambda u, t: None, split=by).sheet()["split"]["rule"]["by"] == "random"
