"""Writing a line from a look at the data: guesses that a person can read, and mistakes refused."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from genba.core.linefile import load_line
from genba.core.problem import Problem
from genba.ui.cli import example
from genba.ui.cli.app import run_command
from genba.ui.cli.guess import guess
from genba.ui.cli.look import look
from genba.ui.cli.lookup import example_line

DAYS = [f"2026-01-{d:02d} {h:02d}:00" for d in range(1, 6) for h in range(24)]


def frame(**columns: Any) -> pl.DataFrame:
    rows = len(DAYS)
    wave = [float(i % 7) for i in range(rows)]
    return pl.DataFrame({"flow": wave, **columns})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["when", "timestamp", "Datum"])
def test_a_column_of_times_is_the_clock(name: str) -> None:
    assert guess(frame(**{name: DAYS})).time == name


def test_a_typed_date_is_the_clock_and_bad_times_are_not() -> None:
    dated = frame(when=pl.Series(DAYS).str.to_datetime("%Y-%m-%d %H:%M"))
    assert guess(dated).time == "when"
    assert guess(frame(time=["soon"] * len(DAYS))).time is None
    mostly = [t if i % 2 else "soon" for i, t in enumerate(DAYS)]
    assert guess(frame(time=mostly)).time is None


def test_numbers_are_times_only_if_they_are_of_our_time() -> None:
    assert guess(frame(t=[20 + i for i in range(len(DAYS))])).time is None
    assert guess(frame(t=[1_760_000_000 + 60 * i for i in range(len(DAYS))])).time == "t"


def test_a_count_that_begins_anew_with_every_unit_is_a_life() -> None:
    lives = pl.DataFrame(
        {
            "column_1": [u for u in range(1, 6) for _ in range(20 + u)],
            "column_2": [c for u in range(1, 6) for c in range(1, 21 + u)],
            "column_3": [0.1 * (i % 7) for i in range(115)],
        }
    )
    found = guess(lives)
    assert (found.kind, found.entity, found.time) == ("run to failure", "column_1", "column_2")
    assert found.inputs == ("column_3",)
    twice = guess(pl.concat([lives, lives]))  # two files that number their units alike
    assert (twice.kind, twice.entity) == ("table", None)
    assert "column_1 names 5 units, but 10 lives begin" in twice.reasons["data.entity"]
    assert guess(lives.sample(fraction=1.0, shuffle=True, seed=0)).kind == "table"
    assert guess(lives.filter(pl.col("column_1") < 3)).kind == "table"


def test_few_repeated_words_are_the_machine() -> None:
    names = ["A", "B", "C"] * (len(DAYS) // 3)
    found = guess(frame(note=["x"] * len(DAYS), pump=names))
    assert found.entity == "pump"
    assert "3 values (A, B, C, …)" in found.reasons["data.entity"]
    assert guess(frame(note=list(map(str, range(len(DAYS)))))).entity is None


def test_whole_numbers_are_a_machine_only_if_they_are_called_so() -> None:
    ids = [1, 2] * (len(DAYS) // 2)
    assert guess(frame(unit_id=ids)).entity == "unit_id"
    assert guess(frame(gear=ids)).entity is None


@pytest.mark.parametrize("values", [[0, 1], [True, False], ["normal", "anomaly"], [0.0, 1.0]])
def test_two_values_under_a_telling_name_are_the_label(values: list[Any]) -> None:
    found = guess(frame(fault=values * (len(DAYS) // 2)))
    assert found.label == "fault"
    assert found.inputs == ("flow",)
    assert "50 % are anomalies" in found.reasons["data.label"]


def test_other_values_or_other_names_are_no_label() -> None:
    assert guess(frame(target=list(range(len(DAYS))))).label is None
    assert guess(frame(valve=[0, 1] * (len(DAYS) // 2))).label is None


def test_constants_and_row_numbers_are_no_sensors() -> None:
    found = guess(frame(constant=[1.0] * len(DAYS), number=list(range(len(DAYS)))))
    assert found.inputs == ("flow",)


def test_readings_that_are_absurdly_far_get_a_check() -> None:
    values = [20.0 + i % 5 for i in range(10_000)]
    values[7] = -273.0
    found = guess(pl.DataFrame({"t": values}))
    check = found.checks["t"]
    assert check.max is None
    assert check.min is not None
    assert -273 < check.min < 20
    assert "1 of 10000" in found.reasons["data.checks.t"]


def test_no_check_is_proposed_where_labels_say_what_is_wrong() -> None:
    values = [20.0 + i % 5 for i in range(10_000)]
    values[7] = -273.0
    fault = [int(i == 7) for i in range(10_000)]
    assert guess(pl.DataFrame({"t": values, "fault": fault})).checks == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "time;entity;x\n2026-01-01;P;1,5\n2026-01-02;P;2,5\n"),
        (
            "a.jsonl",
            '{"time":"2026-01-01","entity":"P","x":1.5}\n{"time":"2026-01-02","entity":"P","x":2.5}\n',
        ),
    ],
)
def test_every_format_shows_all_its_columns(name: str, text: str, here: Path) -> None:
    (here / name).write_text(text)
    (here / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    for path in (name, f"{name}.gz"):
        seen = look(f"files:{path}")
        assert seen.columns == ["time", "entity", "x"]
        assert seen["x"].to_list() == [1.5, 2.5]


def test_parquet_and_many_files(here: Path) -> None:
    for number in range(5):
        pl.DataFrame({"x": [float(number)]}).write_parquet(here / f"{number}.parquet")
    assert look("files:*.parquet")["x"].to_list() == [0.0, 2.0, 4.0]


class Stream:
    """A source that is not made of files."""

    def __init__(self, *_: Any) -> None:
        self.read = 0

    def batches(self) -> Iterator[tuple[pa.RecordBatch, dict[str, Any]]]:
        for _ in range(5):
            self.read += 1
            yield pa.RecordBatch.from_pydict({"x": [1.0] * 100_000, "_line": [1] * 100_000}), {}


def test_a_source_without_files_is_read_until_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    monkeypatch.setattr("genba.ui.cli.look.resolve", lambda *_: lambda *_: stream)
    assert look("mqtt:pump").columns == ["x"]
    assert stream.read == 2


def test_a_packaged_source_shows_every_column(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "shuttle.csv").write_text("f1,when,anomaly\n1,2026-01-01,0\n2,2026-01-02,1\n")
    monkeypatch.setattr("genba.data.sources.cache.member", lambda *_: here / "shuttle.csv")
    assert look("package:shuttle").columns == ["f1", "when", "anomaly"]


@pytest.mark.parametrize("content", [b"x\n", b"PAR1 and then nothing"])
def test_files_without_rows_or_damaged(content: bytes, here: Path) -> None:
    (here / "a.csv").write_bytes(content)
    with pytest.raises(Problem) as caught:
        look("files:a.csv")
    assert caught.value.code == "G113"


def test_new_writes_a_line_that_can_be_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "pump.csv").write_text(example.rows())
    assert run_command(["new", "mine", "--from", "pump.csv", "--output", "power_kw", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    line = load_line("mine.toml")
    assert answer["file"] == "mine.toml"
    assert answer["next"] == ["genba run mine.toml"]
    assert (line.data.time, line.data.entity, line.data.label) == ("time", "pump", "fault")
    assert line.data.inputs == ("speed_rpm", "pressure_bar", "temperature_c")
    assert set(line.gates) == {"r2", "f1", "false_alarms_per_day"}
    assert "# guessed" in Path("mine.toml").read_text()


def test_new_never_overwrites_by_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "x.csv").write_text("x\n1\n2\n1\n3\n")
    assert run_command(["new", "mine", "--from", "x.csv"]) == 0
    before = Path("mine.toml").read_bytes()
    assert run_command(["new", "mine", "--from", "x.csv"]) == 2
    assert "G111" in capsys.readouterr().err
    assert Path("mine.toml").read_bytes() == before
    assert run_command(["new", "mine", "--from", "x.csv", "--force"]) == 0
    assert "false_alarm_rate" in Path("mine.toml").read_text()


def test_a_pattern_that_the_shell_expanded_is_found_again(here: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (here / name).write_text("x\n1\n2\n1\n3\n")
    assert run_command(["new", "both", "--from", "a.csv", "b.csv"]) == 0
    assert load_line("both.toml").data.source == "files:*.csv"


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["new", "Bad Name", "--from", "a.csv"], "G104"),
        (["new", "mine", "--from", "a.csv", "c.txt"], "G112"),
        (["new", "mine", "--from", "a.csv", "--output", "nothing"], "G110"),
        (["new", "mine", "--from", "none.csv"], "G201"),
        (["new", "mine", "--from", "carrier-pigeon:x"], "G201"),
        (["new", "mine", "--from", "mqtt:x"], "G105"),
    ],
)
def test_mistakes_are_refused(
    argv: list[str], code: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a.csv").write_text("x\n1\n2\n1\n3\n")
    (here / "b.csv").write_text("x\n1\n2\n1\n3\n")
    assert run_command(argv) == 2
    assert f"error {code}" in capsys.readouterr().err
    assert not Path("mine.toml").exists()


def test_init_makes_a_home_and_an_example_once(
    here: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["init", "first"]) == 0
    assert "genba run pump.toml" in capsys.readouterr().out
    assert (home / "ledger.db").exists()
    assert load_line("first/pump.toml").data.entity == "pump"
    assert run_command(["init", "first"]) == 2
    assert "G111" in capsys.readouterr().err
    assert run_command(["init", "first", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["generated"] is True


def test_the_example_is_the_same_every_time_and_says_that_it_is_generated() -> None:
    text = example.rows()
    assert text == example.rows()
    rows = pl.read_csv(text.encode())
    assert 18_000 < len(rows) < 19_000
    assert rows["temperature_c"].min() == -273.0
    assert len(rows) - len(rows.unique(["time", "pump"])) == 12
    assert 0.01 < float(rows["fault"].sum()) / len(rows) < 0.05
    assert "generated" in example.LINE


def test_an_example_that_does_not_ship() -> None:
    with pytest.raises(Problem) as caught:
        example_line("nothing")
    assert caught.value.code == "G109"
