"""A line guessed from images: folders, manifests, and tasks that do not read them."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genba.catalog import TASKS
from genba.core.line import Data, Line
from genba.core.linefile import load_line
from genba.core.resolve import resolve
from genba.edge.images import encode_png
from genba.ui.cli.app import run_command
from genba.ui.cli.listed import listed


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.full((8, 8, 3), 10 * number, dtype=np.uint8)
        (folder / f"{number}.png").write_bytes(encode_png(pixels))


def names(count: int) -> list[str]:
    return [f"shelf\\{i}.JPG" for i in range(count)]


def test_good_parts_and_defects_become_inspection_with_gates_that_can_be_measured(
    here: Path,
) -> None:
    pictures(here / "parts" / "good", 4)
    assert run_command(["new", "only", "--from", "parts"]) == 0
    assert set(load_line("only.toml").gates) == {"overkill"}
    pictures(here / "parts" / "scratch", 2)
    assert run_command(["new", "parts", "--from", "parts"]) == 0
    line = load_line("parts.toml")
    assert (line.task, line.options) == ("vision.anomaly", {"overkill": 0.02})
    assert set(line.gates) == {"overkill", "auroc"}


def test_a_line_is_often_called_like_the_folder_of_its_data(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(here / "parts" / "good", 2)
    assert run_command(["new", "parts", "--from", "parts"]) == 0
    assert run_command(["check", "parts"]) == 0
    assert "parts.toml is a line that can run" in capsys.readouterr().out
    Path("parts.toml").unlink()
    assert run_command(["run", "parts"]) == 2
    assert "parts is a folder, not a line file" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_that_names_images_becomes_a_line_of_images(ending: str, here: Path) -> None:
    rows = pl.DataFrame(
        {"path": names(6), "when": ["2026-01-01"] * 6, "kind": ["nut", "bolt", "gear"] * 2}
    )
    text = io.BytesIO()
    (rows.write_csv if ending == "csv" else rows.write_ndjson)(text)
    (here / f"list.{ending}").write_bytes(text.getvalue())
    assert run_command(["new", "shelf", "--from", f"list.{ending}"]) == 0
    line = load_line("shelf.toml")
    assert line.task == "vision.classify"
    assert (line.data.image, line.data.label, line.data.time) == ("path", "kind", "when")
    assert line.data.inputs == ()
    assert "# guessed: images; 2" in Path("shelf.toml").read_text()


def test_columns_of_a_manifest_are_told_by_values_and_names() -> None:
    rows = {
        "mask_file": ["", *names(9)[1:]],
        "file": names(9),
        "split": ["train", "test", "val"] * 3,
        "width": [640] * 9,
        "defect": [0, 1, 0] * 3,
    }
    found = listed(pl.DataFrame(rows).with_columns(pl.col("mask_file").replace("", None)))
    assert found is not None
    assert (found.image, found.mask, found.label) == ("file", "mask_file", "defect")
    assert found.classes == {"0": 6, "1": 3}


def test_the_only_column_of_few_words_tells_classes_and_two_do_not() -> None:
    one = pl.DataFrame({"file": names(4), "part": ["nut", "gear"] * 2})
    found = listed(one)
    assert found is not None
    assert found.label == "part"
    two = listed(one.with_columns(shift=pl.Series(["early", "late"] * 2)))
    assert two is not None
    assert (two.label, two.classes) == (None, {})


def test_a_table_of_readings_is_no_manifest() -> None:
    assert listed(pl.DataFrame({"flow": [1.0, 2.0], "note": ["see a.png", "none"]})) is None
    assert listed(pl.DataFrame({"note": pl.Series([None, None], dtype=pl.String)})) is None


@pytest.mark.parametrize(
    ("source", "task", "said"),
    [
        ("parts", "sensor.forecast", "sensor.forecast reads tables; parts holds images."),
        ("x.csv", "vision.anomaly", "vision.anomaly reads images; x.csv holds tables."),
    ],
)
def test_a_task_that_does_not_read_what_is_there_is_refused(
    source: str, task: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(here / "parts" / "good", 2)
    (here / "x.csv").write_text("x\n1\n2\n1\n3\n")
    assert run_command(["new", "mine", "--from", source, "--task", task, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["problem"]["what"] == said
    assert not Path("mine.toml").exists()


def test_readings_without_label_say_how_to_forecast_them(here: Path) -> None:
    days = "".join(f"2026-01-{d:02d},{d % 5}\n" for d in range(1, 29))
    (here / "load.csv").write_text(f"date,load\n{days}")
    assert run_command(["new", "load-1", "--from", "load.csv"]) == 0
    assert "--task sensor.forecast" in Path("load-1.toml").read_text()
    asked = ["new", "load-2", "--from", "load.csv", "--task", "sensor.forecast"]
    assert run_command(asked) == 0
    written = Path("load-2.toml").read_text()
    assert "--task" not in written
    assert "output = " not in written
    assert set(load_line("load-2.toml").gates) == {"skill", "coverage_adaptive"}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_suggests_gates_and_keeps_those_that_are_stated(name: str) -> None:
    task = resolve("task", name)
    line = Line(name="a", task=name, data=Data(source="files:a"))
    suggested: Line = task.suggest(line, ("good", "scratch"))
    assert suggested.gates
    assert task.suggest(suggested, ("good", "scratch")) == suggested
