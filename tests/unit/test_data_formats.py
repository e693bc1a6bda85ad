import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.line import Check, Data
from genba.core.problem import Problem
from genba.data.formats import batch as batches
from genba.data.formats import blocks, delimited
from genba.data.sources.files import FileSource

DATA = Data(source="files:x", time="t", inputs=("x",))


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(path: Path | str, data: Data = DATA, cursor: Any = None) -> list[dict[str, Any]]:
    return as_rows(batch for batch, _ in FileSource(str(path), data).batches(cursor))


def as_rows(found: Iterable[Any]) -> list[dict[str, Any]]:
    return [row for batch in found for row in batch.to_pylist()]


def problem(path: Path | str, data: Data = DATA) -> Problem:
    with pytest.raises(Problem) as caught:
        rows(path, data)
    assert caught.value.tries
    return caught.value


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    text = f"t{delimiter}x\n2024-01-01{delimiter}1.5\n"
    assert rows(write(tmp_path, "a.csv", text))[0]["x"] == 1.5


def test_the_names_of_the_line_tell_the_delimiter_where_the_header_is_in_doubt() -> None:
    head = b'"a, with, commas";t;x\n1;2;3\n'
    assert delimited.dialect(head, "a.csv", ["t", "x"]).delimiter == ";"


def test_decimal_comma_bom_quoted_header_and_windows_line_ends(tmp_path: Path) -> None:
    text = '\ufeff"t";"x"\r\n"2024-01-01";"1,5"\r\n2024-01-02;2\r\n'
    found = rows(write(tmp_path, "a.csv", text))
    assert [row["x"] for row in found] == [1.5, 2.0]


def test_a_comma_is_no_decimal_sign_where_it_separates(tmp_path: Path) -> None:
    found = rows(write(tmp_path, "a.csv", "t,x,y\n2024-01-01,1,5\n"))
    assert found[0]["x"] == 1.0


def test_texts_that_mean_nothing_are_missing_values(tmp_path: Path) -> None:
    cells = [*batches.MISSING, '""']
    text = "t;x\n" + "".join(f"2024-01-01;{cell}\n" for cell in cells)
    assert [row["x"] for row in rows(write(tmp_path, "a.csv", text))] == [None] * len(cells)


def test_a_ragged_line_gets_its_reason_and_its_number_and_harms_no_other(tmp_path: Path) -> None:
    text = "t,x\n2024-01-01,1\n2024-01-02,2,3\n2024-01-03\n2024-01-04,4\n"
    found = rows(write(tmp_path, "a.csv", text))
    assert [row["_line"] for row in found] == [2, 3, 4, 5]
    assert [row["x"] for row in found] == [1.0, None, None, 4.0]
    reason = "wrong number of fields"
    assert [row["_reason"] for row in found] == [None, reason, reason, None]
    assert "3 instead of 2" in found[1]["_detail"]


def test_a_text_where_a_number_belongs_is_shown(tmp_path: Path) -> None:
    found = rows(write(tmp_path, "a.csv", "t,x\n2024-01-01,1\n2024-01-02,soon\n2024-01-03, 3 \n"))
    assert [row["x"] for row in found] == [1.0, None, 3.0]
    assert found[1]["_reason"] == "x is not a number"
    assert found[1]["_detail"] == "soon"


def test_true_and_false_are_numbers_where_a_line_wants_numbers(tmp_path: Path) -> None:
    found = rows(write(tmp_path, "a.csv", "t,x\n2024-01-01,true\n2024-01-02,False\n"))
    assert [row["x"] for row in found] == [1.0, 0.0]


def test_line_numbers_count_blank_lines_and_line_feeds_in_quotes(tmp_path: Path) -> None:
    text = 't,x,n\n\n2024-01-01,1,"two\nlines"\n\n2024-01-02,2,one\n2024-01-03\n'
    found = rows(write(tmp_path, "a.csv", text))
    assert [row["_line"] for row in found] == [3, 6, 7]


def test_open_inputs_are_every_numeric_column(tmp_path: Path) -> None:
    text = "t,x,name,y\n2024-01-01,1,a,2\n2024-01-02,,b,3\n"
    found = rows(write(tmp_path, "a.csv", text), Data(source="files:a", time="t"))
    assert {"x", "y"} <= set(found[0])
    assert "name" not in found[0]


def test_a_column_of_allowed_words_is_read_as_text(tmp_path: Path) -> None:
    data = Data(source="f", inputs=("x",), checks={"state": Check(allowed=("1",))})
    assert rows(write(tmp_path, "a.csv", "x,state\n1,01\n"), data)[0]["state"] == "01"


def test_gzip_is_unpacked_on_the_way(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv.gz", gzip.compress(b"t,x\n2024-01-01,1\n"))
    assert rows(path)[0]["x"] == 1.0


def test_damaged_gzip_is_a_problem(tmp_path: Path) -> None:
    whole = gzip.compress(b"t,x\n" + b"2024-01-01,1\n" * 500)
    assert problem(write(tmp_path, "a.csv.gz", whole[: len(whole) // 2])).code == "G203"


def test_json_lines(tmp_path: Path) -> None:
    lines = [{"t": "2024-01-01", "x": 1, "y": 5}, {"t": "2024-01-02", "x": None}]
    found = rows(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert [row["x"] for row in found] == [1.0, None]
    assert [row["_line"] for row in found] == [1, 2]


def test_json_lines_with_bad_lines_keep_the_good_ones(tmp_path: Path) -> None:
    text = '{"t": 1, "x": "2.5"}\n{bad\n\n[1]\n{"t": 2, "x": "soon"}\n{"t": 3, "x": 4}\n'
    found = rows(write(tmp_path, "a.jsonl", text))
    assert [row["x"] for row in found] == [2.5, None, None, None, 4.0]
    bad = "not a JSON object"
    assert [row["_reason"] for row in found] == [None, bad, bad, "x is not a number", None]
    assert [row["_line"] for row in found] == [1, 2, 4, 5, 6]


def test_json_lines_find_their_numeric_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "a.ndjson", '{"t": "2024-01-01", "x": 1, "s": "a"}\n')
    found = rows(path, Data(source="f", time="t"))
    assert found[0]["x"] == 1.0
    assert "s" not in found[0]


def test_json_without_objects_is_a_problem(tmp_path: Path) -> None:
    found = problem(write(tmp_path, "a.json", "[1, 2]\n"))
    assert found.code == "G206"
    assert "a.json:1" in found.where


def test_parquet_keeps_types_and_skips_to_the_cursor(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"t": [1, 2, 3], "x": [1, 2, 3], "s": ["a", "b", "c"]}).write_parquet(path)
    found = rows(path, Data(source="f", time="t"), {"file": str(path), "offset": 1, "line": 2})
    assert [(row["t"], row["x"], row["_line"]) for row in found] == [(2, 2, 2), (3, 3, 3)]
    assert "s" not in found[0]


def test_a_damaged_parquet_file_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"t": range(1000), "x": range(1000)}).write_parquet(path)
    whole = path.read_bytes()
    cut = problem(write(tmp_path, "cut.parquet", whole[: len(whole) // 2]))
    assert (cut.code, "cut.parquet" in cut.what) == ("G203", True)
    spoilt = bytearray(whole)
    spoilt[10 : len(whole) // 2] = b"\xff" * (len(whole) // 2 - 10)
    assert problem(write(tmp_path, "spoilt.parquet", bytes(spoilt))).code == "G203"


def test_many_files_are_one_source_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, "b.csv", "t,x\n2024-01-02,2\n")
    write(tmp_path, "a.csv", "t;x\n2024-01-01;1,0\n")
    write(tmp_path, "c.csv", "x,t,other\n3,2024-01-03,9\n")
    for address in (tmp_path / "*.csv", tmp_path):
        assert [row["x"] for row in rows(address)] == [1.0, 2.0, 3.0]


def test_a_changed_column_names_the_file_and_the_column(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "t,x,wind\n2024-01-01,1,2\n")
    write(tmp_path, "b.csv", "t,x,Wind\n2024-01-01,1,2\n")
    found = problem(tmp_path / "*.csv", Data(source="f", time="t"))
    assert found.code == "G204"
    assert found.what == "b.csv has no column 'wind'; did you mean 'Wind'?"
    assert any("b.csv" in attempt for attempt in found.tries)


@pytest.mark.parametrize(
    ("name", "content", "code", "where"),
    [
        ("empty.csv", "", "G202", "empty.csv"),
        ("blank.csv", "\n\n", "G202", "blank.csv"),
        ("noise.csv", bytes(range(256)) * 8, "G203", "noise.csv:1"),
        ("utf16.csv", "t,x\n1,2\n".encode("utf-16"), "G203", "utf16.csv:1"),
        ("latin.csv", "t,x,n\n2024-01-01,1,a\n2024-01-01,1,ä\n".encode("latin-1"), "G203", ":3"),
        ("latin_header.csv", "t,x,°C\n".encode("latin-1"), "G203", "latin_header.csv:1"),
        ("mac.csv", "t,x\r1,2\r", "G203", "mac.csv"),
        ("quote.csv", 't,x\n2024-01-01,1\n2024-01-02,"2\n', "G206", "quote.csv:3"),
        ("twice.csv", "t,x,x\n1,2,3\n", "G205", "twice.csv:1"),
    ],
)
def test_bad_files_are_named_with_line_and_fix(
    tmp_path: Path, name: str, content: str | bytes, code: str, where: str
) -> None:
    data = Data(source="f", time="t", inputs=("x",), checks={"n": Check(allowed=("a",))})
    chosen = data if name == "latin.csv" else DATA
    found = problem(write(tmp_path, name, content), chosen)
    assert found.code == code
    assert found.where.endswith(where)
    assert any(name in attempt for attempt in found.tries) or code == "G206"


def test_nothing_there_is_a_problem(tmp_path: Path) -> None:
    assert problem(tmp_path / "none" / "*.csv").code == "G201"
    assert problem(tmp_path / "none.csv").code == "G201"


def test_a_file_that_may_not_be_read_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "a.csv", "t,x\n")

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    found = problem(path)
    assert (found.code, found.why) == ("G201", "Permission denied.")


def test_a_file_that_changes_while_it_is_read_is_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "t,x\n2024-01-01,1\n")
    reading = FileSource(str(path), DATA).batches()
    next(reading)
    path.write_text("t,x\n2024-01-01,1\n2024-01-02,2\n")
    with pytest.raises(Problem) as caught:
        list(reading)
    assert caught.value.code == "G213"


def test_facts_depend_on_contents_only(tmp_path: Path) -> None:
    one = write(tmp_path, "a.csv", "t,x\n1,2\n")
    two = write(tmp_path, "b.csv", "t,x\n1,2\n")
    three = write(tmp_path, "c.csv", "t,x\n1,3\n")
    facts = [FileSource(str(path), DATA).facts() for path in (one, two, three)]
    assert facts[0].fingerprint == facts[1].fingerprint != facts[2].fingerprint
    assert facts[0].bytes == 8


def test_every_cursor_resumes_behind_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks.blocks, "__kwdefaults__", {"size": 64})
    for name in ("a.csv", "b.csv"):
        lines = "".join(f'2024-01-{d:02d},{d},"q\nq"\n' for d in range(1, 20))
        write(tmp_path, name, "t,x,note\n" + lines)
    source = FileSource(str(tmp_path / "*.csv"), DATA)
    whole = list(source.batches())
    assert len(whole) > 10
    for number, (_, cursor) in enumerate(whole):
        rest = [batch for batch, _ in source.batches(json.loads(json.dumps(cursor)))]
        wanted = [batch for batch, _ in whole[number + 1 :]]
        assert as_rows(rest) == as_rows(wanted)


@given(
    cells=st.lists(st.sampled_from(["1", '"2"', '"a\nb"', '"say ""hi"""', ""]), min_size=1),
    size=st.integers(1, 40),
)
def test_blocks_end_where_records_end_and_lose_nothing(cells: list[str], size: int) -> None:
    data = "".join(f"{cell},x\n" for cell in cells).encode()
    found = list(
        blocks.blocks(
            pa.PythonFile(pa.BufferReader(data)), "a", start=0, line=1, quoted=True, size=size
        )
    )
    assert b"".join(block.data for block in found) == data
    for block in found:
        assert block.data.count(b'"') % 2 == 0
        assert block.line == data[: block.offset].count(b"\n") + 1
        assert block.lines == block.data.count(b"\n")


def test_a_record_without_end_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_LONGEST_RECORD", 100)
    data = b'1,2\n"' + b"\n" * 500
    with pytest.raises(Problem) as caught:
        list(
            blocks.blocks(
                pa.PythonFile(pa.BufferReader(data)), "a", start=0, line=1, quoted=True, size=64
            )
        )
    assert (caught.value.code, caught.value.where) == ("G206", "a:2")


def test_what_an_error_suggests_can_be_typed_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.csv").write_text("time,speed\n2026-01-01,1\n")
    monkeypatch.chdir(tmp_path)
    data = Data(source="files:data/x.csv", time="time", inputs=("spee",))
    with pytest.raises(Problem) as caught:
        list(FileSource("data/x.csv", data).batches())
    assert caught.value.where == "data/x.csv"
    assert "head -1 data/x.csv" in caught.value.tries
