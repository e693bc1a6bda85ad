"""What the labels benchmark reports, without running it."""

from typing import Any

import numpy as np
import pytest

from benchmarks.labels.page import page
from benchmarks.labels.pools import PoolView, Rows, read
from benchmarks.labels.run import SEEDS, band, reached, report
from benchmarks.labels.subjects import SUBJECTS
from genba.core.line import Data, Line
from genba.learn.rows import RowsView


def test_the_goal_is_reached_with_the_first_round_that_reaches_it() -> None:
    assert reached([0.5, 0.8, 0.7], [20, 40, 60], 0.8) == 40
    assert reached([0.5, 0.7], [20, 40], 0.8) is None


def test_a_band_is_students_interval_of_the_mean() -> None:
    low, high = band(np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]))
    assert (low[0], high[0]) == pytest.approx((3 - 1.9632, 3 + 1.9632), abs=1e-3)


def test_the_report_and_the_page_say_both_ways() -> None:
    subject = SUBJECTS[0]
    better = np.linspace(0.5, 0.9, subject.rounds + 1).tolist()
    worse = np.linspace(0.5, 0.7, subject.rounds + 1).tolist()
    curves = {"queue": [better] * len(SEEDS), "random": [worse] * len(SEEDS)}
    found = report(subject, curves, [0.95] * len(SEEDS))
    assert found["labels"][0] == subject.start
    assert found["gain"]["mean"][-1] == pytest.approx(0.2)
    stamp: dict[str, Any] = {"measured": "today", "machine": {"processor": "a chip"}}
    text = "\n".join(page({**stamp, "subjects": {subject.name: found}}))
    assert "labelled: 0.950." in text
    assert "+0.200 [+0.200 to +0.200]" in text
    most = found["labels"][-1]
    assert f"random over {most}, over {most}" in text


def table(rows: int) -> RowsView:
    chance = np.random.default_rng(0)
    columns = {
        "entity": np.arange(rows) % 2,
        "time": np.arange(rows),
        "label": np.arange(rows) % 3 == 0.0,
        "split": np.where(np.arange(rows) < rows * 0.7, "train", "test"),
        "flow": chance.normal(size=rows),
    }
    line = Line(name="x", task="sensor.anomaly", data=Data(source="files:x", inputs=("flow",)))
    return RowsView(line, columns, ("a", "b"), has_clock=False)


def test_a_pool_shows_labels_only_where_they_were_given() -> None:
    whole = table(200)
    pool, test = read(whole, ("train",), 50, 0), read(whole, ("test",), 10_000, 0)
    assert (len(pool), len(test)) == (50, 60)
    given = np.arange(50) % 5 == 0
    view = PoolView(whole, pool, test, given, 0)
    parts = [chunk for split in ("train", "calibrate") for chunk in view.chunks(split, rows=7)]
    assert (
        sum(len(part["row"]) for part in parts)
        == 50
        == view.count("train") + view.count("calibrate")
    )
    assert sum(int(np.isfinite(part["label"]).sum()) for part in parts) == 10
    assert all(len(set(part["entity"].tolist())) == 1 for part in parts)
    tested = np.concatenate([chunk["label"] for chunk in view.chunks("test")])
    assert np.isfinite(tested).all()
    again = PoolView(whole, pool, test, ~given, 0)
    rows = [np.concatenate([c["row"] for c in v.chunks("train")]) for v in (view, again)]
    assert rows[0].tolist() == rows[1].tolist()


def test_rows_are_taken_with_what_they_are() -> None:
    rows = Rows(columns={"row": np.arange(4)}, truth=np.array([0.0, 1.0, 0.0, 1.0]))
    assert rows.take(np.array([3, 1])).truth.tolist() == [1.0, 1.0]
