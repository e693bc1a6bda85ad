from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genba.core.line import Data, Line, Split
from genba.core.problem import Problem
from genba.core.values import DatasetVersion
from genba.data import segments, versions
from genba.data.ingest import Sizes, ingest
from genba.data.leakage import check_leakage, refuse_leakage
from genba.data.sources.files import FileSource
from genba.data.view import DatasetView
from genba.store.home import Store

STEP = 600_000


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


def view_of(store: Store, rows: int = 600, **changes: Any) -> DatasetView:
    fields: dict[str, Any] = {"source": "f", "time": "t", "entity": "who", "inputs": ("x", "y")}
    line = Line(name="pumps", task="sensor.anomaly", data=Data(**(fields | changes)))
    names = ("a", "b", "c", "d")
    chance = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "t": np.repeat(np.arange(rows) * STEP, len(names)),
            "who": list(names) * rows,
            "x": np.round(chance.normal(0, 1, rows * len(names)), 3),
            "y": np.arange(rows * len(names), dtype=np.float64),
        }
    )
    path = store.path.parent / "rows.parquet"
    frame.with_columns(pl.from_epoch("t", time_unit="ms")).write_parquet(path)
    version = ingest(FileSource(str(path), line.data), line, store, sizes=Sizes(piece_rows=500))
    return DatasetView(store, version, line)


def test_a_view_knows_its_version(store: Store) -> None:
    view = view_of(store)
    assert view.digest == view.version.id
    assert (view.entities, view.sensors) == (("a", "b", "c", "d"), ("x", "y"))
    assert view.has_clock
    assert view.sheet()["rows"]["kept"] == 2_400
    assert DatasetView.open(store, view.digest, view.line).version == view.version


def test_chunks_are_rows_of_one_entity_in_the_order_of_time(store: Store) -> None:
    view = view_of(store)
    seen = 0
    for chunk in view.chunks("train", rows=50):
        size = len(chunk["time"])
        assert 0 < size <= 50
        assert {len(values) for values in chunk.values()} == {size}
        assert len(set(chunk["entity"])) == 1
        assert (np.diff(chunk["time"]) == STEP).all()
        assert (chunk["y"] == chunk["row"]).all()
        seen += size
    types = {name: values.dtype.str for name, values in chunk.items()}
    assert types == {
        "entity": "<i4",
        "time": "<i8",
        "x": "<f8",
        "y": "<f8",
        "label": "<f8",
        "row": "<i8",
    }
    assert seen == view.count("train") == 1_440
    assert sum(view.count(s) for s in ("train", "calibrate", "test", "purged")) == 2_400


def test_a_damaged_segment_is_never_read(store: Store) -> None:
    view = view_of(store)
    path = store.blobs.path(view.version.segments[0].digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(Problem) as caught:
        list(view.chunks("train"))
    assert caught.value.code == "G302"


def test_parts_by_origin(store: Store) -> None:
    view = view_of(store)
    assert view.part("source").count("test") == view.count("test")
    assert view.part("live").count("test") == 0
    assert list(view.part("live").chunks("test")) == []


def planted(view: DatasetView, change: Any) -> DatasetView:
    """Return the view of a version whose rows were changed behind its rule's back."""
    store, version = view.store, view.version
    frame = pl.concat(
        [segments.read(store.blobs, s, list(version.columns)) for s in version.segments]
    )
    frame = change(frame).sort("entity", "time")
    segment = segments.write(store.blobs, frame, origin="source", clock=view.has_clock)
    changed: DatasetVersion = replace(version, segments=(segment,))
    sheet = view.sheet()
    sealed = versions.seal(changed)
    return DatasetView(store, versions.record(store, sealed, sheet, {}), view.line)


def test_honest_splits_do_not_leak(store: Store) -> None:
    for changes in ({}, {"split": Split(by="entity")}, {"time": None, "entity": None}):
        view = view_of(store, **changes)
        assert check_leakage(view) == ()
        refuse_leakage(view)


def shuffled_splits(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("split").shuffle(seed=0))


def test_rows_dealt_by_chance_leak_where_there_is_a_clock(store: Store) -> None:
    leaks = check_leakage(planted(view_of(store), shuffled_splits))
    assert {leak.kind for leak in leaks} == {"time"}


def test_rows_next_to_the_cut_leak(store: Store) -> None:
    def into_the_gap(frame: pl.DataFrame) -> pl.DataFrame:
        purged = pl.col("split") == "purged"
        return frame.with_columns(
            pl.when(purged).then(pl.lit("test")).otherwise("split").alias("split")
        )

    leaky = planted(view_of(store), into_the_gap)
    with pytest.raises(Problem) as caught:
        refuse_leakage(leaky)
    assert caught.value.code == "G214"
    assert "is not 7200000 ms older than the oldest" in caught.value.what


def test_an_entity_on_both_sides_leaks(store: Store) -> None:
    view = view_of(store, split=Split(by="entity"))
    assert [leak.kind for leak in check_leakage(planted(view, shuffled_splits))] == ["entity"] * 3


def test_a_held_out_entity_that_was_trained_on_leaks(store: Store) -> None:
    view = view_of(store, split=Split(holdout=("c",)))
    leaks = check_leakage(planted(view, shuffled_splits))
    assert {leak.kind for leak in leaks} == {"time", "entity"}


def test_equal_rows_on_both_sides_leak(store: Store) -> None:
    def repeat_training_rows_as_test(frame: pl.DataFrame) -> pl.DataFrame:
        train = frame.filter(pl.col("split") == "train").head(7)
        moved = train.with_columns(pl.lit("test").alias("split"), pl.col("time") + 10**6)
        return pl.concat([frame, moved])

    view = view_of(store, time=None, entity=None)
    (leak,) = check_leakage(planted(view, repeat_training_rows_as_test))
    assert (leak.kind, leak.reason[:2]) == ("contents", "7 ")


def test_a_moment_that_is_there_twice_leaks(store: Store) -> None:
    def again(frame: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([frame, frame.filter(pl.col("split") == "test").head(1)])

    assert "moment" in {leak.kind for leak in check_leakage(planted(view_of(store), again))}


def test_segments_of_a_source_that_overlap_leak(store: Store) -> None:
    view = view_of(store)
    first = view.version.segments[0]
    doubled = replace(view.version, segments=(*view.version.segments, first))
    leaks = check_leakage(DatasetView(store, doubled, view.line))
    assert "Two segments of the source overlap in time." in {leak.reason for leak in leaks}
