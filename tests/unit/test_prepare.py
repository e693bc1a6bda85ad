import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.line import Data, Line, Train
from genba.core.problem import Problem
from genba.data import versions
from genba.data.sources import source_of
from genba.data.sources.files import FileSource
from genba.runs.effort import Effort
from genba.runs.progress import SilentProgress
from genba.runs.run import execute
from genba.runs.stage import Stage, StageContext
from genba.stages import prepare as stage
from genba.stages import reuse
from genba.store.home import Store
from genba.testing.generated import pump_line, pump_rows


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


@pytest.fixture
def line(tmp_path: Path) -> Line:
    path = tmp_path / "pumps.csv"
    path.write_bytes(pump_rows(400))
    return pump_line(path)


def grow(tmp_path: Path, rows: int) -> None:
    (tmp_path / "pumps2.csv").write_bytes(pump_rows(rows, seed=1).replace(b"2024-", b"2025-"))


def context(store: Store, line: Line, **extra: Any) -> StageContext:
    return StageContext(
        line=line,
        store=store,
        run="run-1",
        inputs={},
        effort=Effort.simple(),
        progress=SilentProgress(),
        extra=extra,
    )


def run(store: Store, line: Line) -> Any:
    prepare = Stage(
        name="prepare", function=stage.prepare, uses=("genba.data",), config=reuse.prepare_config
    )
    result = execute([prepare], line=line, store=store)
    if result.problem:
        raise result.problem
    return result


def test_the_result_says_what_was_made(store: Store, line: Line) -> None:
    result = stage.prepare(context(store, line))
    json.dumps(result, allow_nan=False)
    assert result["rows"] == 800
    assert result["entities"] == 2
    assert result["rejected"] == {}
    assert result["splits"]["test"] > 100
    assert result["derived"]["step_ms"] == 600_000
    assert (
        result["source"]["fingerprint"] == reuse.prepare_config(context(store, line))["fingerprint"]
    )
    assert versions.load(store, result["dataset"]).sheet == result["sheet"]


def test_an_unchanged_source_is_not_read_again(
    store: Store, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(store, line)

    def read(*_: Any) -> Any:
        raise AssertionError("the source was read again")

    monkeypatch.setattr(FileSource, "batches", read)
    again = run(store, line)
    assert again.results == first.results
    assert [report.reused for report in again.stages] == [True]


def test_a_version_that_is_handed_in_is_the_result(store: Store, line: Line) -> None:
    made = stage.prepare(context(store, line))
    again = context(store, line, dataset=made["dataset"])
    assert reuse.prepare_config(again) == {"dataset": made["dataset"]}
    assert stage.prepare(again) == made
    with pytest.raises(Problem) as caught:
        stage.prepare(context(store, line, dataset="0" * 64))
    assert caught.value.code == "G219"


def test_a_source_that_grew_continues_the_version_before(
    store: Store, line: Line, tmp_path: Path
) -> None:
    data = dataclasses.replace(line.data, source=f"files:{tmp_path}/*.csv")
    line = dataclasses.replace(line, data=data)
    old = stage.prepare(context(store, line))
    grow(tmp_path, 500)
    new = stage.prepare(context(store, line))
    before, after = (versions.load(store, r["dataset"]) for r in (old, new))
    assert after.parent == before.id
    assert after.segments[: len(before.segments)] == before.segments
    assert new["rows"] == 1_800


def test_reading_again_makes_the_same_version_again(
    store: Store, line: Line, tmp_path: Path
) -> None:
    data = dataclasses.replace(line.data, source=f"files:{tmp_path}/*.csv")
    line = dataclasses.replace(line, data=data)
    first = stage.prepare(context(store, line))
    assert stage.prepare(context(store, line)) == first
    grow(tmp_path, 500)
    second = stage.prepare(context(store, line))
    assert stage.prepare(context(store, line)) == second


@pytest.mark.parametrize("change", ["data", "seed"])
def test_another_reading_of_the_source_begins_anew(
    store: Store, line: Line, change: str, tmp_path: Path
) -> None:
    stage.prepare(context(store, line))
    other = (
        dataclasses.replace(line, train=Train(seed=5))
        if change == "seed"
        else dataclasses.replace(line, data=dataclasses.replace(line.data, since="2024-01-02"))
    )
    assert reuse.prepare_config(context(store, other)) != reuse.prepare_config(context(store, line))
    result = stage.prepare(context(store, other))
    assert versions.load(store, result["dataset"]).parent is None


@pytest.mark.parametrize(
    ("source", "code"),
    [("pumps.csv", "G103"), ("files:", "G103"), ("file:pumps.csv", "G105"), ("files:no", "G201")],
)
def test_a_source_that_cannot_be(store: Store, line: Line, source: str, code: str) -> None:
    wrong = dataclasses.replace(line, data=Data(source=source))
    with pytest.raises(Problem) as caught:
        stage.prepare(context(store, wrong))
    assert caught.value.code == code


def test_progress_reaches_sources_that_report_it(store: Store) -> None:
    line = Line(name="l", task="sensor.anomaly", data=Data(source="package:shuttle"))
    progress = SilentProgress()
    source = source_of(line, progress)
    assert getattr(source, "progress") is progress  # noqa: B009  # not part of the protocol


def test_label_columns_reach_the_version(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "labelled.csv"
    chance = np.random.default_rng(0)
    lines = [f"{x:.3f},{y:.3f},{int(x > 1)}" for x, y in chance.normal(size=(400, 2))]
    path.write_text("\n".join(["x,y,fault", *lines]) + "\n")
    data = Data(source=f"files:{path}", label="fault")
    result = stage.prepare(context(store, Line(name="l", task="sensor.anomaly", data=data)))
    sheet = json.loads(store.blobs.read(result["sheet"]))
    assert sheet["label"]["count"] == 400
    assert result["derived"]["inputs"] == ["x", "y"]
