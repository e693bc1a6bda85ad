"""Writing a line from tables of texts: questions with answers, or texts with their class."""

from pathlib import Path

import polars as pl
import pytest

from genba.core.linefile import load_line
from genba.ui.cli.app import run_command
from genba.ui.cli.texts import in_columns

ASKED = [f"where is parcel number {n} please" for n in range(12)]


@pytest.mark.parametrize("classes", [["parcels", "prices"] * 6, [0, 1] * 6])
def test_texts_with_a_class_are_sorted(
    classes: list[str] | list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"said": ASKED, "about": classes}).write_csv("asked.csv")
    assert run_command(["new", "mail", "--from", "asked.csv"]) == 0
    line = load_line(Path("mail.toml"))
    assert (line.task, line.data.inputs, line.data.label) == (
        "language.classify",
        ("said",),
        "about",
    )


def test_questions_with_answers_are_conversations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = [f"On its way, number {n}." for n in range(12)]
    pl.DataFrame({"question": ASKED, "answer": answers}).write_csv("asked.csv")
    assert run_command(["new", "mail", "--from", "asked.csv"]) == 0
    assert load_line(Path("mail.toml")).task == "language.chat"


@pytest.mark.parametrize(
    "columns",
    [
        {"said": ASKED, "about": ["parcels", "prices"] * 6, "weight": [1.5] * 12},
        {"said": ["parcel"] * 12, "about": ["parcels", "prices"] * 6},
        {"said": ASKED, "about": [f"class {n}" for n in range(12)]},
        {"said": ASKED},
        {"said": [None] * 12, "about": [1, 2] * 6},
    ],
)
def test_other_tables_are_tables(columns: dict[str, list[object]]) -> None:
    assert in_columns(pl.DataFrame(columns), "files:asked.csv") is None
