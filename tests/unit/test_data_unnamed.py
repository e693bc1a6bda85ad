"""Files without a header, cells between blanks, and columns that count."""

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from genba.core.line import Data, Line, Split
from genba.core.problem import Problem
from genba.data.clock import Clock
from genba.data.formats import blocks, delimited
from genba.data.ingest import ingest
from genba.data.intake import Intake
from genba.data.roles import settle
from genba.data.sources.files import FileSource
from genba.data.view import DatasetView
from genba.store.home import Store

#: As run-to-failure sets are published: 26 columns, one blank between, two at the end.
LINES = [
    f"{unit} {cycle} -0.0007 -0.0004 100.0 "
    + " ".join(f"{500 + cycle + sensor / 10:.2f}" for sensor in range(21))
    + "  "
    for unit in (1, 2, 3, 4, 5)
    for cycle in range(1, 31)
]
DATA = Data(source="files:x", entity="column_1", time="column_2")


def write(folder: Path, text: str | bytes, name: str = "train.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def rows(path: Path, data: Data, cursor: Any = None) -> list[dict[str, Any]]:
    batches = FileSource(str(path), data).batches(cursor)
    return [row for batch, _ in batches for row in batch.to_pylist()]


def test_26_unnamed_columns_between_blanks_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "\n".join(LINES) + "\n")
    found = rows(path, DATA)
    assert len(found) == len(LINES)
    assert found[0]["_line"] == 1
    assert found[31] | {"column_1": "2", "column_2": "2", "column_6": 502.0} == found[31]
    names = [n for n in found[0] if not n.startswith("_")]
    assert sorted(names, key=lambda n: int(n[7:])) == [f"column_{i}" for i in range(1, 27)]
    assert (
        rows(write(tmp_path, gzip.compress(path.read_bytes()), "t.txt.gz"), DATA)[5]["_line"] == 6
    )


def test_a_bad_line_between_blanks_has_its_number_and_its_reason(tmp_path: Path) -> None:
    lines = [*LINES[:3], "", "1 4 5", *LINES[4:]]
    lines[7] = lines[7].replace("100.0", "hot")
    found = rows(write(tmp_path, "\n".join(lines)), DATA)
    bad = {row["_line"]: row["_reason"] for row in found if row["_reason"]}
    assert bad == {5: "wrong number of fields", 8: "column_5 is not a number"}
    assert len(found) == len(LINES)


def test_a_cursor_goes_on_in_the_middle_of_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(blocks.blocks, "__kwdefaults__", {"size": 4_000})
    path = write(tmp_path, "\n".join(LINES) + "\n")
    whole = list(FileSource(str(path), DATA).batches())
    assert len(whole) > 3
    rest = rows(path, DATA, whole[1][1])
    assert rest == [row for batch, _ in whole[2:] for row in batch.to_pylist()]


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("1,2,3\n4,5,6\n", ("column_1", "column_2", "column_3")),
        ("2024-01-01 00:00;1,5\n2024-01-02 00:00;2,5\n", ("column_1", "column_2")),
        ("0.1\t\t7\n0.2\t\t8\n", ("column_1", "", "column_3")),
        ("1.5|NaN|\n2.5|3|\n", ("column_1", "column_2", "")),
        ("  1   2.5\n  2  -3e4  \n", ("column_1", "column_2")),
        ("7\n8\n", ("column_1",)),
        ("0,1,2\n5,6,7\n", ("0", "1", "2")),  # names of a table that never had any
        ("unit cycle s1\n1 1 0.5\n1 2 0.6\n", ("unit", "cycle", "s1")),
        ("t,x\n2024-01-01,1\n", ("t", "x")),
        ("when and where\n2024-01-01 00:00:00\n", ("when and where",)),
        ("value\n2024-01-01 00:00\n", ("value",)),
        ("1,5 2,5\n3,5 4,5\n", ("column_1", "column_2")),  # decimal commas between blanks
    ],
)
def test_headers_and_data_are_told_apart(text: str, header: tuple[str, ...]) -> None:
    assert delimited.dialect(text.encode(), "a.txt", ()).header == header


def test_a_line_that_names_the_first_cells_makes_them_a_header() -> None:
    assert delimited.dialect(b"10,20\n1,2\n", "a.csv", ["20"]).header == ("10", "20")


def test_a_name_that_an_unnamed_file_does_not_have_is_explained(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        rows(write(tmp_path, "1 2\n3 4\n"), Data(source="f", time="cycle"))
    assert caught.value.code == "G204"
    assert "no header line" in caught.value.why


def test_a_look_shows_every_column_with_its_type(tmp_path: Path) -> None:
    path = write(tmp_path, "\n".join(LINES) + "\n")
    with path.open("rb") as file:
        frame = delimited.look(file, path.name, 40)
    assert frame.shape == (40, 26)
    assert frame["column_2"].dtype == pl.Int64
    named = write(tmp_path, "t;x;\n2024-01-01;1,5;\n2024-01-02;2,5;\n", "a.csv")
    with named.open("rb") as file:
        frame = delimited.look(file, named.name, 40)
    assert frame.columns == ["t", "x"]
    assert frame["x"].to_list() == [1.5, 2.5]


@pytest.mark.parametrize("values", [[1, 2, 3], ["1", " 2 ", "3.0"], [1.0, 2.0, 3.0]])
def test_small_whole_numbers_count(values: list[Any]) -> None:
    clock = Clock("cycle")
    assert clock.read(pl.Series(values)).to_list() == [1, 2, 3]
    assert clock.counts
    assert clock.notes()["is_count"]
    assert clock.read(pl.Series(["4", "later", "5.5", None])).to_list() == [4, None, None, None]


@pytest.mark.parametrize(
    "values", [["2026-01-01"], [1_700_000_000], [20260331], [0.5, 1.0], ["1", "soon", "2"], [-1, 2]]
)
def test_other_columns_do_not_count(values: list[Any]) -> None:
    clock = Clock("t")
    clock.read(pl.Series(values))
    assert not clock.counts


def test_whole_numbers_behind_a_date_are_still_times() -> None:
    clock = Clock("t")
    clock.read(pl.Series(["2026-01-01T00:00:00Z"]))
    assert clock.read(pl.Series(["1000"])).to_list() == [1_000_000]


def test_counts_have_no_since() -> None:
    batch = pl.DataFrame({"cycle": [1, 2], "x": [1.0, 2.0]}).to_arrow().to_batches()[0]
    intake = Intake(Data(source="f", time="cycle", inputs=("x",), since="2026-01-01"))
    with pytest.raises(Problem) as caught:
        intake.take(batch)
    assert caught.value.code == "G217"
    assert "counts" in caught.value.why


def test_columns_that_hold_an_answer_are_no_inputs_unless_the_line_says_so() -> None:
    frame = pl.DataFrame({"x": [1.0], "changepoint": [0.0], "RUL": [9], "anomaly": [0]})
    schema = frame.to_arrow().schema
    roles = settle(Data(source="f", label="anomaly"), schema)
    assert (roles.inputs, roles.answers) == (("x",), ("changepoint", "RUL"))
    told = settle(Data(source="f", label="anomaly", inputs=("x", "changepoint")), schema)
    assert (told.inputs, told.answers) == (("x", "changepoint"), ())


def test_a_dataset_of_counts_has_no_clock_and_keeps_order_and_duplicates(tmp_path: Path) -> None:
    shuffled = [*LINES[5:], *LINES[:5], LINES[7]]
    path = write(tmp_path, "\n".join(shuffled) + "\n")
    line = Line(
        name="engines",
        task="sensor.remaining_life",
        data=Data(
            source=f"files:{path}",
            entity="column_1",
            time="column_2",
            split=Split(by="entity"),
        ),
    )
    with Store.open(tmp_path / "home") as store:
        version = ingest(FileSource(str(path), line.data), line, store)
        view = DatasetView(store, version, line)
        assert not view.has_clock
        assert version.rejected == {"duplicate": 1}
        chunks = [c for split in ("train", "calibrate", "test") for c in view.chunks(split)]
        assert sorted(int(c["entity"][0]) for c in chunks) == [0, 1, 2, 3, 4]
        for chunk in chunks:
            assert chunk["time"].tolist() == list(range(1, 31))
        assert view.ends().tolist() == [30.0] * 5


def test_a_wide_table_with_bad_cells_takes_no_longer_than_a_good_one(tmp_path: Path) -> None:
    """Nested inside each other, reasons would double with every column and never end."""
    names = [f"s{i}" for i in range(60)]
    good, bad = ",".join(["1"] * 60), ",".join(["1"] * 58 + ["hot", "inf"])
    lines = [",".join(names), good, bad, good.replace("1", "inf", 1), ""]
    path = write(tmp_path, "\n".join(lines))
    data = Data(source="f", inputs=tuple(names))
    found = rows(path, data)
    assert [row["_reason"] for row in found] == [None, "s58 is not a number", None]
    assert found[1]["_detail"] == "hot"
    intake = Intake(data)
    kept, rejected = intake.take(next(iter(FileSource(str(path), data).batches()))[0])
    assert kept.height == 1
    assert rejected["reason"].to_list() == ["s58 is not a number", "s0 is not finite"]
    assert rejected["detail"].to_list() == ["hot", "inf"]
