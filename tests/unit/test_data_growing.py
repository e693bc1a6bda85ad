import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genba.core.line import Data, Line, Split
from genba.core.values import DatasetVersion
from genba.data import segments
from genba.data.ingest import Sizes, ingest
from genba.data.leakage import check_leakage
from genba.data.plan import Parent
from genba.data.sources.files import FileSource
from genba.data.view import DatasetView
from genba.store.home import Store

START = np.datetime64("2024-01-01T00:00", "m")
LINE = Line(
    name="pumps",
    task="sensor.anomaly",
    data=Data(source="f", time="time", entity="pump", inputs=("flow",), output="power"),
)


def line_of(split: Split) -> Line:
    return replace(LINE, data=replace(LINE.data, split=split))


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


def pumps(rows: int, pumps: Sequence[str] = ("a", "b"), seed: int = 0, first: int = 0) -> list[str]:
    """Return CSV lines of generated readings every 10 minutes, time by time."""
    chance = np.random.default_rng(seed)
    return [
        f"{START + 10 * step}Z,{pump},{chance.normal(10, 2):.4f},{chance.normal(50, 5):.4f}"
        for step in range(first, first + rows)
        for pump in pumps
    ]


def write(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(["time,pump,flow,power", *lines]) + "\n")
    return path


def made(
    store: Store, lines: Sequence[str], line: Line = LINE, parent: DatasetVersion | None = None
) -> DatasetVersion:
    path = write(store.path.parent / "pumps.csv", lines)
    continued = Parent.load(store, parent) if parent else None
    source, sizes = FileSource(str(path), line.data), Sizes(piece_rows=500, run_rows=800)
    return ingest(source, line, store, parent=continued, sizes=sizes)


def kept(store: Store, version: DatasetVersion) -> pl.DataFrame:
    columns = list(version.columns)
    return pl.concat([segments.read(store.blobs, s, columns) for s in version.segments])


def test_new_months_leave_the_old_segments_as_they_are(store: Store) -> None:
    old = made(store, pumps(1_000))
    lines = [*pumps(1_000), *pumps(1_100, seed=1, first=1_000)]
    new = made(store, lines, parent=old)
    assert new.parent == old.id
    assert new.segments[: len(old.segments)] == old.segments
    assert new.rows == 4_200
    after = kept(store, new).filter(pl.col("row") >= 2_000)
    assert set(after["split"]) == {"train", "calibrate", "test", "purged"}
    assert check_leakage(DatasetView(store, new, LINE)) == ()
    newest = made(store, [*lines, *pumps(1_200, seed=2, first=2_100)], parent=new)
    assert newest.segments[: len(new.segments)] == new.segments
    assert check_leakage(DatasetView(store, newest, LINE)) == ()
    assert store.ledger.parents(newest.id)[0].src == new.id


def test_a_few_new_rows_train_until_there_are_enough_to_test_on(store: Store) -> None:
    old = made(store, pumps(1_000))
    new = made(store, pumps(1_000) + pumps(100, seed=1, first=1_000), parent=old)
    assert new.segments[: len(old.segments)] == old.segments
    after = kept(store, new).filter(pl.col("row") >= 2_000)
    assert dict(after["split"].value_counts().iter_rows()) == {"purged": 40, "train": 160}
    assert check_leakage(DatasetView(store, new, LINE)) == ()


def test_without_a_parent_full_segments_differ_only_in_their_splits(store: Store) -> None:
    old = made(store, pumps(1_000))
    new = made(store, [*pumps(1_000), *pumps(100, seed=1, first=1_000)])
    times = [(s.first_time_ms, s.last_time_ms) for s in new.segments]
    assert [(s.first_time_ms, s.last_time_ms) for s in old.segments[:-1]] == times[
        : len(old.segments) - 1
    ]


def test_a_corrected_row_changes_only_its_own_segment(store: Store) -> None:
    lines = pumps(1_000)
    old = made(store, lines)
    lines[900] = lines[900].rsplit(",", 1)[0] + ",51.0"
    new = made(store, lines, parent=old)
    changed = [a.digest != b.digest for a, b in zip(old.segments, new.segments, strict=True)]
    assert changed.count(True) == 1
    assert kept(store, old)["split"].to_list() == kept(store, new)["split"].to_list()


def test_nothing_new_keeps_every_segment(store: Store) -> None:
    old = made(store, pumps(1_000))
    assert made(store, pumps(1_000), parent=old).segments == old.segments


def test_entities_are_split_whole_and_keep_their_side(store: Store) -> None:
    names = [f"p{n}" for n in range(5)]
    line = line_of(Split(by="entity"))
    old = made(store, pumps(200, names), line)
    sides = dict(kept(store, old).select("entity", "split").unique().iter_rows())
    assert sorted(sides.values()) == ["calibrate", "test", "train", "train", "train"]
    new = made(store, pumps(200, [*names, "p9"]), line, parent=old)
    later = dict(kept(store, new).select("entity", "split").unique().iter_rows())
    assert {name: later[name] for name in names} == sides
    assert later["p9"] == "train"
    assert new.entities == (*old.entities, "p9")
    many = made(store, pumps(200, [*names, *"uvwxyz"]), line, parent=old)
    dealt = dict(kept(store, many).select("entity", "split").unique().iter_rows())
    assert {dealt[name] for name in "uvwxyz"} == {"train", "calibrate", "test"}


def test_a_held_out_entity_is_only_tested_on(store: Store) -> None:
    version = made(store, pumps(500, ["a", "b", "c"]), line_of(Split(holdout=("c",))))
    frame = kept(store, version)
    assert set(frame.filter(pl.col("entity") == "c")["split"]) == {"test"}
    assert check_leakage(DatasetView(store, version, LINE)) == ()


def test_rows_without_a_clock_continue_a_version_as_well(store: Store) -> None:
    lines = pumps(1_000)
    line = replace(LINE, data=replace(LINE.data, time=None, entity=None))
    version = made(store, lines, line)
    more = made(store, [*lines, *pumps(50, seed=3)], line, parent=version)
    assert more.segments[: len(version.segments)] == version.segments


PEAK = """
import sys
from pathlib import Path
from genba.core.line import Data, Line
from genba.data.ingest import ingest, Sizes
from genba.data.sources.files import FileSource
from genba.store.home import Store
line = Line(name="pumps", task="sensor.anomaly", data=Data(source="f", time="time", entity="pump",
    inputs=("flow",), output="power"))
sizes = Sizes(piece_rows=50_000, run_rows=100_000)
with Store.open(Path(sys.argv[2])) as store:
    ingest(FileSource(sys.argv[1], line.data), line, store, sizes=sizes)
# ru_maxrss would count what the parent process had in memory.
status = dict(l.split(":", 1) for l in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    peaks = []
    rows = pumps(100_000)
    for copies in (2, 12):
        lines = [row.replace("Z,", f"Z,{n}-") for n in range(copies) for row in rows]
        path = write(tmp_path / f"{copies}.csv", lines)
        command = [sys.executable, "-c", PEAK, str(path), str(tmp_path / f"home-{copies}")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] * 1.3, f"peak MiB for 400,000 and 2,400,000 rows: {peaks}"
