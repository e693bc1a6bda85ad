"""Shapes of questions and answers, and the files they come in."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from genba.core.line import Data
from genba.core.problem import Problem
from genba.data.formats.dialogues import UnreadableError, samples
from genba.data.formats.texts import conversation
from genba.data.sources.files import FileSource

USER = {"role": "user", "content": "Why?"}
SAID = {"role": "assistant", "content": "Because."}
OTHER = {"role": "assistant", "content": "Go away."}


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [USER, SAID]},
        {
            "conversations": [
                {"from": "human", "value": "Why?"},
                {"from": "gpt", "value": "Because."},
            ]
        },
        {"prompt": "Why?", "completion": "Because."},
        {"prompt": [USER], "completion": [SAID]},
        {"instruction": "Why?", "input": "", "output": "Because."},
        {"question": "Why?", "answer": "Because."},
        {"q": "Why?", "a": "Because.", "id": "7"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}, SAID]},
        {"messages": [OTHER, USER, SAID]},
    ],
)
def test_shapes_mean_the_same(record: dict[str, Any]) -> None:
    (found,) = samples(record)
    assert found.messages == ({"role": "user", "content": "Why?"},)
    assert (found.text, found.answer, found.rejected) == ("Why?", "Because.", "")


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "Go away."},
        {"prompt": [USER], "chosen": [SAID], "rejected": [OTHER]},
        {"chosen": [USER, SAID], "rejected": [USER, OTHER]},
        {
            "chosen": "\n\nHuman: Why?\n\nAssistant: Because.",
            "rejected": "\n\nHuman: Why?\n\nAssistant: Go away.",
        },
    ],
)
def test_preferences(record: dict[str, Any]) -> None:
    (found,) = samples(record)
    assert (found.text, found.answer, found.rejected) == ("Why?", "Because.", "Go away.")


def test_a_system_message_and_a_weight_are_kept() -> None:
    (found,) = samples({"system": "Be short.", "prompt": "Why?", "completion": "So.", "weight": 3})
    assert found.messages[0] == {"role": "system", "content": "Be short."}
    assert found.weight == 3.0


def test_a_question_alone_and_a_text_alone() -> None:
    (asked,) = samples({"question": "Why?"})
    assert (asked.text, asked.answer) == ("Why?", "")
    (text,) = samples({"text": "Once upon a time."})
    assert (text.messages, text.answer) == ((), "Once upon a time.")
    (nobody,) = samples({"messages": [USER]})
    assert (nobody.text, nobody.answer) == ("Why?", "")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"x": 1}, "no question"),
        ({"messages": [{"role": "ghost", "content": "Boo"}]}, "an unknown role"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [1]}]}, "tool calls"),
        ({"messages": [SAID]}, "no answer"),
        ({"messages": ["text"]}, "a message that is no text"),
        ({"messages": [{"role": "user", "content": {"image": 1}}]}, "a message that is no text"),
        ({"chosen": [USER, SAID], "rejected": [SAID]}, "the two answers are not"),
        ({"chosen": [USER], "rejected": [USER]}, "no answer"),
        ({"prompt": [USER, SAID], "completion": "x"}, "the question is not"),
        ({"prompt": "Why?", "completion": [USER]}, "no answer"),
    ],
)
def test_what_is_no_shape_has_a_reason(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnreadableError) as raised:
        samples(record)
    assert raised.value.reason.startswith(reason)


def read(path: Path, **data: Any) -> list[dict[str, Any]]:
    source = FileSource(str(path), Data(source=f"files:{path}", **data))
    source.modality = "text"
    assert source.facts().bytes > 0
    return [row for batch, _ in source.batches() for row in batch.to_pylist()]


PAIRS = [{"ask": f"Question {n}?", "say": f"Answer {n}."} for n in range(5)]


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    frame = pl.DataFrame(PAIRS)
    lines = "".join(json.dumps(pair) + "\n" for pair in PAIRS)
    frame.write_csv(tmp_path / "a.csv")
    frame.write_csv(tmp_path / "b.tsv", separator="\t")
    frame.write_parquet(tmp_path / "c.parquet")
    (tmp_path / "d.jsonl").write_text(lines)
    (tmp_path / "e.json").write_text(json.dumps({"about": "x", "rows": PAIRS}))
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    expected = [(f"Question {n}?", f"Answer {n}.") for n in range(5)]
    for path in sorted(tmp_path.iterdir()):
        found = read(path, inputs=("ask",), output="say")
        pairs = [(conversation(row["messages"])[-1]["content"], row["answer"]) for row in found]
        assert pairs == expected, path.name
        assert found[0]["name"].startswith(f"{path.name}:")
    assert len(read(tmp_path, inputs=("ask",), output="say")) == 30


def test_a_text_with_a_class_is_a_question(tmp_path: Path) -> None:
    path = tmp_path / "mails.csv"
    path.write_text("text,team\nWhere is my bill?,money\nNo team here,\n")
    found = read(path, label="team")
    assert [conversation(row["messages"])[0]["content"] for row in found] == [
        "Where is my bill?",
        "No team here",
    ]
    assert [(row["answer"], row["label"]) for row in found] == [("", "money"), ("", None)]


def test_a_folder_of_documents(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.md").write_text("# One")
    (tmp_path / "two.txt").write_text("Two")
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "image.png").write_bytes(b"no")
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe\x00")
    found = {row["name"]: row for row in read(tmp_path)}
    assert found["deep/one.md"]["answer"] == "# One"
    assert found["deep/one.md"]["messages"] == "[]"
    assert found["odd.txt"]["_reason"] == "not UTF-8 text"
    assert set(found) == {"deep/one.md", "two.txt", "odd.txt"}


def test_lines_that_cannot_be_read_are_rows_with_reasons(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_bytes(b'{"q": "a", "a": "b"}\n\n{"q": \n[1]\n{"y": 2}\n\xff\n')
    reasons = [row["_reason"] for row in read(path)]
    assert reasons == [None, "not a JSON object", "not a JSON object", "no question and no answer",
                       "not a JSON object"]  # fmt: skip


def test_a_cursor_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"q": f"{n}?", "a": "x" * 200}) + "\n" for n in range(5000)))
    source = FileSource(str(path), Data(source=f"files:{path}"))
    source.modality = "text"
    batches = list(source.batches())
    assert len(batches) == 2
    rest = list(source.batches(batches[0][1]))
    assert [len(b) for b, _ in rest] == [len(batches[1][0])]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("x.json", b"{", "G206"),
        ("x.csv", b"q,a\n\xff,b\n", "G203"),
        ("x.parquet", b"PAR1", "G203"),
        ("x.jsonl.gz", b"\x1f\x8bnothing", "G203"),
        ("x.exe", b"MZ", "G201"),
    ],
)
def test_damaged_files_are_problems(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Problem) as raised:
        read(tmp_path / name)
    assert raised.value.code == code
