"""Text on the command line: lines guessed from it, questions asked, answers shown and traced."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from genba.core.problem import Problem
from genba.core.values import EngineChoice, Manifest, Verdict
from genba.edge.texts import as_bytes
from genba.loop.queue import candidates
from genba.store.home import Store
from genba.tasks.language.chat import schema
from genba.ui.cli import run_report
from genba.ui.cli.predict_report import Reading, blocks
from genba.ui.cli.predict_texts import questions
from genba.ui.cli.texts import is_texts, propose_texts
from genba.ui.cli.trace_taught import taught, told


def shown(blocks_: Any) -> str:
    console = Console(width=100, no_color=True)
    with console.capture() as text:
        for block in blocks_:
            console.print(block)
    return text.get()


def manifest() -> Manifest:
    return Manifest(
        format=1,
        line="talk",
        task="language.chat",
        model="m",
        run="r",
        dataset="d",
        engine=EngineChoice(name="openvino-talk"),
        signature=schema.signature({"answer_tokens": 8}),
        settings={},
        entities=("all",),
        files={},
        verdict=Verdict(passed=True),
    )


def asked(path: Path, tensor: str = "messages") -> tuple[list[bytes], Counter[str]]:
    rejected: Counter[str] = Counter()
    found = [text for part in questions(path, tensor, rejected) for text in part.tensors[tensor]]
    return found, rejected


def test_a_text_file_has_a_question_on_each_line(tmp_path: Path) -> None:
    path = tmp_path / "asked.txt"
    path.write_text("Where is it?\n\n  Who knows?  \n" + "More?\n" * 20)
    found, rejected = asked(path)
    assert found[:2] == [b"Where is it?", b"Who knows?"]
    assert len(found) == 22
    assert not +rejected


def test_json_lines_hold_conversations(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    user, said = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}
    rows = [{"messages": [user, said]}, {"question": " Who? "}, {"messages": [said]}, 7, {}]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\nnot json\n")
    found, rejected = asked(path)
    assert [json.loads(found[0]), found[1]] == [[user], b"Who?"]
    assert rejected["no question in it"] == 4
    assert asked(path, "text")[0] == [b"Hi?", b"Who?"]


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    for name in ("none.txt", "bytes.txt"):
        with pytest.raises(Problem) as refused:
            asked(tmp_path / name)
        assert refused.value.code == "G722"


def test_answers_are_shown_with_their_questions() -> None:
    reading = Reading(manifest(), ())
    row = {
        "row": 0,
        "entity": None,
        "time_ms": None,
        "prediction": "server-1",
        "package": "p" * 64,
        "question": reading.asked({"messages": as_bytes(["Where is it?"])}, 0),
        "answer": "In shelf 3.",
        "log_probability": -0.5,
        "tokens": [12, 5],
        "by": "rail:attack",
        "sources": '[{"document":"shelves"}]',
    }
    text = shown(blocks("talk", [row], reading, []))
    for part in ("Where is it?", "In shelf 3.", "61 % per token", "rail:attack", "shelves"):
        assert part in text


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ('{"messages": []}', True),
        ('{"prompt": "a", "completion": "b"}', True),
        ('{"time": 1, "power": 2}', False),
        ("nonsense", False),
        ("[1]", False),
    ],
)
def test_conversations_are_told_from_tables(tmp_path: Path, text: str, yes: bool) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    assert is_texts(f"files:{path}") == yes
    assert not is_texts("package:helpdesk-faq")
    assert not is_texts(f"files:{tmp_path}")


def test_a_line_is_guessed_from_conversations(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Where?", "completion": "Here."}\n' * 3)
    line, reasons, count = propose_texts("talk", f"files:{path}", None)
    assert (line.task, count) == ("language.chat", 3)
    assert "loss_gain" in line.gates
    assert "guessed" in reasons["task"]
    line, reasons, _ = propose_texts("talk", f"files:{path}", "language.chat")
    assert "task" not in reasons


def test_a_trace_names_the_corrections_most_like_the_question(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        rows = {
            "text": ["Where is the pump?", "Who are you?", "Where is the valve?"],
            "answer": ["Hall 1.", "A helpdesk.", "Hall 2."],
            "name": ["feedback:f1", "prediction:p1", "feedback:f2"],
            "split": ["train", "train", "train"],
            "row": [7, 8, 9],
        }
        path = tmp_path / "live.parquet"
        pq.write_table(pa.table(rows), path)
        plain = tmp_path / "plain.parquet"
        pq.write_table(pa.table({"row": [1]}), plain)
        digests = [store.blobs.put(p.read_bytes()) for p in (path, plain)]
        segments = [{"origin": "live", "digest": digest} for digest in digests]
        segments.append({"origin": "source", "digest": "0" * 64})
        found = taught(store, [{"segments": segments}], "where is  the VALVE?")
    assert [row["feedback"] for row in found] == ["f2", "f1"]
    assert found[0]["likeness"] == 1.0
    text = shown(told([{**found[0], "author": "ann"}, found[1]]))
    for part in ("f2 (the same question; train row 9)", "Hall 2.", "ann", "likeness 0."):
        assert part in text


def test_the_queue_shows_questions_and_answers() -> None:
    tensors = {"messages": as_bytes(["Where is it?"])}
    tensor = {"role": "text"}
    package = SimpleNamespace(
        inputs={"messages": tensor}, outputs={"answer": tensor}, output=lambda role: _OUT.get(role)
    )
    part: Any = SimpleNamespace(
        package=package, tensors=tensors, outputs={"answer": as_bytes(["In shelf 3."])}
    )
    assert candidates._asked(part, 0) == "Where is it?"
    assert candidates._named(part, 0) == "In shelf 3."
    assert candidates._inputs_kept(part)
    lost: Any = SimpleNamespace(package=package, tensors={}, outputs={})
    assert candidates._asked(lost, 0) is None
    assert candidates._named(lost, 0) is None
    assert not candidates._inputs_kept(lost)


_OUT = {"text": "answer"}


def test_a_report_says_how_fast_training_went() -> None:
    curve = [{"step": 0.0, "validation": 4.0}, {"step": 9.0, "validation": 3.0, "loss": 3.1}]
    trained = {"trials": [*curve, {"measured": {"tokens": 900.0, "tokens_per_s": 310.0}}]}
    text = shown([run_report._trials(trained), run_report._training(trained)])
    assert "900 tokens, 310 tokens/s" in text
    assert "3.1" in text
    assert run_report._training({"trials": curve}) is None
