"""`genba data --rejects`: what was rejected can be looked at, row by row."""

import json
from pathlib import Path
from typing import Any

import pytest

from genba.core.linefile import parse_line
from genba.data.ingest import ingest
from genba.data.sources import source_of
from genba.store.home import Store
from genba.ui.cli.app import run_command

TEXT = """
name = "pump"
task = "sensor.anomaly"
[data]
source = "files:{csv}"
time = "time"
inputs = ["speed"]
checks = {{ speed = {{ max = 100 }} }}
"""


@pytest.fixture
def dataset(tmp_path: Path, home: Path) -> str:
    rows = [f"2026-01-01T{h:02d}:{m:02d}:00Z,{m}" for h in range(10) for m in range(60)]
    rows[7] = "2026-01-01T00:07:00Z,999"
    rows[9] = "2026-01-01T00:09:00Z,1000"
    csv = tmp_path / "pump.csv"
    csv.write_text("\n".join(["time,speed", *rows]) + "\n")
    line = parse_line(TEXT.format(csv=csv))
    with Store.open(home) as store:
        return ingest(source_of(line), line, store).id


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = run_command([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_rejected_rows_are_shown_with_place_and_reason(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = ask(capsys, "data", dataset, "--rejects", "20")
    assert code == 0
    assert found["rejected"] == 2
    assert [(r["line"], r["reason"]) for r in found["rows"]] == [
        (9, "speed is above 100"),
        (11, "speed is above 100"),
    ]
    assert len(ask(capsys, "data", "pump", "--rejects", "1")[1]["rows"]) == 1
    assert run_command(["data", dataset, "--rejects", "5"]) == 0
    text = capsys.readouterr().out
    assert "2 of 2 rows rejected" in text
    assert "speed 999" in text


def test_the_sheet_says_how_to_see_them(dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert any("--rejects" in command for command in ask(capsys, "data", dataset)[1]["next"])
