"""A line that joins sources: read, stored, said, refused, reused."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from genba.core.codec import encode
from genba.core.line import Data, Join, Line
from genba.core.linefile import parse_line
from genba.core.lineschema import line_text
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.data import versions
from genba.data.ingest import ingest
from genba.data.sources import source_of
from genba.data.sources.aligned import Aligned
from genba.runs.effort import Effort
from genba.runs.progress import SilentProgress
from genba.runs.stage import StageContext
from genba.stages.prepare import prepare
from genba.stages.reuse import prepare_config
from genba.store.home import Store
from genba.ui.cli import sheet_report
from genba.ui.cli.check import check

START = np.datetime64("2026-01-01T00:00:00", "s")
TEXT = """\
name = "pump"
task = "sensor.anomaly"

[data]
source = "files:rows.csv"
time = "time"
entity = "pump"
inputs = ["flow", "plc.speed"]
output = "power"

[data.join]
plc = { source = "files:plc.csv", time = "ts", within_s = 90 }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pumps every minute, their controller every 30 seconds and two seconds earlier."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows, plc = ["time,pump,flow,power"], ["ts,pump,speed"]
    for minute in range(600):
        for pump in "ab":
            speed, flow = 50 + rng.normal(), rng.normal()
            rows.append(f"{START + 60 * minute}Z,{pump},{flow:.4f},{2 * speed + flow:.4f}")
            plc += [f"{START + 60 * minute + s}Z,{pump},{speed:.4f}" for s in (-2, 28)]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "plc.csv").write_text("\n".join(plc) + "\n")
    (tmp_path / "pump.toml").write_text(TEXT)
    return tmp_path


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


def context(store: Store, line: Line) -> StageContext:
    return StageContext(
        line=line,
        store=store,
        run="r",
        inputs={},
        effort=Effort.simple(),
        progress=SilentProgress(),
    )


def sheet_of(store: Store, line: Line) -> dict[str, Any]:
    version = ingest(source_of(line), line, store)
    found: dict[str, Any] = json.loads(store.blobs.read(version.sheet))
    assert not list(store.work_dir("ingest").glob("join-*"))
    return found


def test_a_line_is_written_back_as_it_was_read() -> None:
    line = parse_line(TEXT)
    assert line.data.join["plc"] == Join(source="files:plc.csv", time="ts", within_s=90.0)
    assert parse_line(line_text(line)) == line


def test_the_sheet_and_the_reports_tell_how_well_it_aligned(folder: Path, store: Store) -> None:
    sheet = sheet_of(store, parse_line(TEXT))
    joined = sheet["join"]["plc"]
    assert (joined["rows"], joined["found"]) == (1_200, 1_200)
    assert joined["age_s_p50"] == pytest.approx(2.0, rel=0.01)
    assert sheet["columns"]["plc.speed"]["missing"] == 0
    console = Console(width=200, record=True, file=io.StringIO())
    for block in sheet_report.blocks(sheet):
        console.print(block)
    told = console.export_text()
    assert "plc: 100.0 % of 1,200 rows found a value, p50 2 s" in told
    assert "2,400 rows of each machine, step 30.0 s; not older" in told


def test_check_reads_the_sources_and_says_how_they_align(folder: Path) -> None:
    answer = check("pump.toml")
    (told,) = answer.data["aligned"]
    assert told.startswith("plc: 100.0 % of 1,200 rows found a value")


def test_prepare_tells_it_and_a_changed_joined_file_is_another_dataset(
    folder: Path, store: Store
) -> None:
    line = parse_line(TEXT)
    before, config = prepare(context(store, line)), prepare_config(context(store, line))
    assert before["joined"]["plc"]["found"] == 1_200
    with (folder / "plc.csv").open("a") as file:
        file.write(f"{START + 36_100}Z,a,51\n")
    assert prepare_config(context(store, line))["fingerprint"] != config["fingerprint"]
    assert prepare(context(store, line))["source"]["fingerprint"] != before["source"]["fingerprint"]


def test_a_line_without_joins_has_the_source_itself(folder: Path) -> None:
    line = parse_line(TEXT)
    alone = replace(line, data=replace(line.data, join={}, inputs=("flow",)))
    assert isinstance(source_of(line), Aligned)
    assert not isinstance(source_of(alone), Aligned)
    assert source_of(line).facts().bytes > source_of(alone).facts().bytes


def test_the_facts_are_of_all_sources(folder: Path) -> None:
    join = {"sets": Join(source="generated:bearings?units=25", within_s=5)}
    line = parse_line(TEXT)
    facts = source_of(replace(line, data=replace(line.data, join=join))).facts()
    assert facts.generated
    assert "Genba" in facts.attribution


def test_a_sheet_from_before_there_were_joins_is_continued(folder: Path, store: Store) -> None:
    # A field that the sheet does not know has its default: the line is still the same.
    line = parse_line(TEXT)
    alone = replace(line, data=replace(line.data, join={}, inputs=("flow",)))
    ingest(source_of(alone), alone, store)
    with (folder / "rows.csv").open("a") as file:
        file.write(f"{START + 40_000}Z,a,1,100\n")
    assert "join" in encode(alone.data)
    found = prepare(context(store, alone))
    assert versions.load(store, found["dataset"]).parent


def test_the_last_and_the_mean_differ_and_checks_hold_for_joined_columns(
    folder: Path, store: Store
) -> None:
    text = TEXT.replace('"plc.speed"', '"plc.speed", "plc.speed:mean"')
    text += '\n[data.checks]\n"plc.speed" = { max = 51 }\n'
    sheet = sheet_of(store, parse_line(text))
    columns = sheet["columns"]
    assert columns["plc.speed"]["max"] <= 51 < columns["plc.speed:mean"]["max"] + 2
    assert sum(sheet["rows"]["rejected"].values()) > 0


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ('time = "time"\n', "", "G218", "names no time column"),
        ('output = "power"', 'output = "plc.speed"', "G218", "output cannot come from"),
        ("plc = {", '"my plc" = {', "G218", "cannot be the name"),
        ("within_s = 90", "within_s = 0", "G108", "must be above 0"),
        ("files:plc.csv", "fils:plc.csv", "G105", "fils"),
        ('"plc.speed"]', '"plc.speed:median"]', "G218", "asks for 'median'"),
        ('source = "files:rows.csv"', 'source = "files:x"\nimage = "i"', "G218", "not images"),
        ("within_s = 90", "within = 90", "G102", "within"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(
    old: str, new: str, code: str, words: str
) -> None:
    assert old in TEXT
    with pytest.raises(Problem) as caught:
        parse_line(TEXT.replace(old, new, 1), file="pump.toml")
    assert caught.value.code == code
    assert words in caught.value.what


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("files:plc.csv", "files:plx.csv", "G201", "No file matches plx.csv"),
        ('time = "ts", ', "", "G221", "no column 'time'"),
        ("plc.speed", "plc.sped", "G221", "did you mean 'speed'?"),
        ("within_s = 90", "within_s = 0.5", "G223", "at most 0.5 s old"),
        ('"ts"', '"ts +01:00"', "", ""),  # an hour ahead: still most rows find a value in time
    ],
)
def test_check_explains_what_is_wrong_with_a_joined_source(
    folder: Path, old: str, new: str, code: str, words: str
) -> None:
    (folder / "pump.toml").write_text(TEXT.replace(old, new, 1))
    if not code:
        (told,) = check("pump.toml").data["aligned"]
        assert "not: the source had ended" in told
        return
    with pytest.raises(Problem) as caught:
        check("pump.toml")
    assert caught.value.code == code
    assert words in caught.value.what


def test_only_tables_are_joined() -> None:
    data = Data(source="files:a", time="t", join={"b": Join(source="files:b", within_s=1)})
    with pytest.raises(Problem) as caught:
        source_of(Line(name="a", task="language.classify", data=data))
    assert caught.value.code == "G218"
    assert resolve("task", "sensor.forecast").modality == "table"
