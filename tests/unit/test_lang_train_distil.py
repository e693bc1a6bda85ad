"""Learning from a teacher: what it said, and that it said it."""

import json
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from genba.core.digest import digest_json
from genba.core.line import Budget
from genba.core.problem import Problem
from genba.core.talk import Ask, Piece, Said, Words
from genba.learn.language.distil import Answered, Sampling, Taught, distil_all, json_lines
from genba.learn.language.teachers import Endpoint, Local
from genba.runs.effort import Effort, MemoryCheckpoint
from genba.runs.progress import SilentProgress
from genba.runs.stop import Cancelled, StopSign
from genba.ui.cli.app import run_command
from genba.ui.cli.distil import read_questions

QUESTIONS = [[{"role": "user", "content": f"Question {i}?"}] for i in range(10)]


class Server(BaseHTTPRequestHandler):
    """Answers as OpenAI does; what it says depends on the question."""

    asked: list[dict[str, Any]] = []
    keys: list[str | None] = []
    reply: Any = None

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        self.keys.append(self.headers["authorization"])
        content = f"Answer to {body['messages'][-1]['content']}"
        reply = type(self).reply or {
            "model": "large-1",
            "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
            "usage": {"completion_tokens": 5},
        }
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(500 if reply == b"broken" else 200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    Server.asked, Server.keys, Server.reply = [], [], None
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_answers_come_with_where_they_came_from(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENBA_TEACHER_KEY", "secret")
    teacher = Endpoint(address, "large")
    found = distil_all(QUESTIONS, teacher, Sampling(samples=2, at_once=2), Effort.simple(seed=7))
    assert [taught.answer for taught in found[:3]] == [
        "Answer to Question 0?",
        "Answer to Question 0?",
        "Answer to Question 1?",
    ]
    said = found[1].provenance
    assert said["teacher"] == f"{address} large"
    assert (said["model"], said["seed"], said["tokens"]) == ("large-1", 8, 5)
    assert said["question_sha256"] == digest_json(QUESTIONS[0])
    assert said["answer_sha256"] == digest_json("Answer to Question 0?")
    assert sorted(body["seed"] for body in Server.asked) == [7] * 10 + [8] * 10
    assert set(Server.keys) == {"Bearer secret"}
    lines = [json.loads(line) for line in json_lines(found)]
    assert len(lines) == 20
    assert lines[0]["messages"][-1] == {"role": "assistant", "content": "Answer to Question 0?"}
    assert lines[0]["provenance"]["model"] == "large-1"


class Says:
    """A teacher that is not there."""

    name = "somebody"

    def __init__(self, text: str = "So it is.", finish: str = "stop") -> None:
        self.said = Answered(text=text, finish=finish, model="m")
        self.asked = 0

    def answer(self, messages: Words, sampling: Sampling, seed: int) -> Answered:
        self.asked += 1
        return self.said


@pytest.mark.parametrize(
    ("text", "finish", "why"),
    [("  ", "stop", "empty"), ("So it", "length", "not finished: length"), ("So.", "stop", "")],
)
def test_answers_that_teach_nothing_are_dropped(text: str, finish: str, why: str) -> None:
    (found,) = distil_all(QUESTIONS[:1], Says(text, finish), Sampling(), Effort.simple())
    assert found.dropped == why
    assert len(list(json_lines([found]))) == int(not why)


def test_nothing_is_asked_twice() -> None:
    class Twice(StopSign):
        left = 2

        def check(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Cancelled

    checkpoint = MemoryCheckpoint()
    sampling = Sampling(at_once=1)

    def effort(stop: StopSign) -> Effort:
        return Effort(
            seed=0,
            budget=Budget(minutes=1, trials=1),
            checkpoint=checkpoint,
            progress=SilentProgress(),
            stop=stop,
        )

    first, second, third = Says(), Says(), Says()
    with pytest.raises(Cancelled):
        distil_all(QUESTIONS, first, sampling, effort(Twice()))
    whole = distil_all(QUESTIONS, second, sampling, effort(StopSign()))
    assert (first.asked, second.asked) == (8, 2)
    assert whole == distil_all(QUESTIONS, Says(), sampling, Effort.simple())
    distil_all(QUESTIONS[1:], third, sampling, effort(StopSign()))  # other questions
    assert third.asked == 9


def test_a_spent_budget_leaves_the_rest_unasked() -> None:
    assert distil_all(QUESTIONS, Says(), Sampling(), Effort.simple(minutes=0)) == []


@pytest.mark.parametrize("reply", [b"broken", b"no json", {"choices": []}, {"error": "x"}, b"[1]"])
def test_a_teacher_that_does_not_answer_is_said(address: str, reply: Any) -> None:
    Server.reply = reply
    with pytest.raises(Problem) as found:
        distil_all(QUESTIONS[:1], Endpoint(address, "large"), Sampling(), Effort.simple())
    assert found.value.code == "G564"


@pytest.mark.parametrize("address", ["ftp://somewhere", "nowhere", "http://127.0.0.1:9/v1"])
def test_an_address_that_is_none_is_said(address: str) -> None:
    with pytest.raises(Problem) as found:
        Endpoint(address, "large").answer(QUESTIONS[0], Sampling(), 0)
    assert found.value.code == "G564"


class Engine:
    """The two things of an engine that a teacher needs."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self.vocabulary = self

    def prompt(self, messages: Words) -> list[int]:
        return [1, 2, 3]

    def decode(self, tokens: list[int]) -> str:
        return " ".join(map(str, tokens))

    def ask(self, ask: Ask, said: Said) -> None:
        assert (ask.tokens.tolist(), ask.most, ask.seed) == ([1, 2, 3], 9, 4)
        threading.Thread(target=lambda: deque(map(said, self.pieces))).start()


def test_an_engine_of_this_machine_teaches() -> None:
    engine: Any = Engine([Piece(tokens=(5,)), Piece(tokens=(6,), finish="end")])
    (found,) = distil_all(
        QUESTIONS[:1], Local(engine, "big.gguf"), Sampling(most=9), Effort.simple(seed=4)
    )
    assert isinstance(found, Taught)
    assert (found.answer, found.dropped) == ("5 6", "")
    assert found.provenance["model"] == "big.gguf"


def test_what_stops_the_engine_stops_the_teacher() -> None:
    problem = Problem("G640", "Too long.", tries=["less"])
    engine: Any = Engine([Piece(finish="error", problem=problem)])
    with pytest.raises(Problem) as found:
        Local(engine, "big").answer(QUESTIONS[0], Sampling(most=9), 4)
    assert found.value.code == "G640"


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_command_writes_data_to_learn_from(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], interrupted: bool
) -> None:
    asked = tmp_path / "questions.txt"
    rows = [
        "Open on Sunday?",
        "",
        json.dumps({"messages": [*QUESTIONS[0], {"role": "assistant", "content": "old"}]}),
        json.dumps({"prompt": "And on Monday?"}),
        json.dumps({"prompt": ""}),
    ]
    asked.write_text("\n".join(rows))
    to = tmp_path / "taught.jsonl"
    command = ["distil", str(asked), "--teacher", address, "--to", str(to), "--json"]
    if interrupted:
        assert run_command([*command, "--minutes", "0"]) == 1
        assert json.loads(capsys.readouterr().out)["whole"] is False
    assert run_command(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["questions"], said["answers"], said["whole"]) == (3, 3, True)
    lines = [json.loads(line) for line in to.read_text().splitlines()]
    assert [line["messages"][0]["content"] for line in lines] == [
        "Open on Sunday?",
        "Question 0?",
        "And on Monday?",
    ]
    assert lines[1]["messages"][1]["content"] == "Answer to Question 0?"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["questions.txt", "taught.jsonl"]


@pytest.mark.parametrize("text", [None, "", "\n \n", b"\xff\xfe"])
def test_a_file_without_questions_is_said(tmp_path: Path, text: str | bytes | None) -> None:
    asked = tmp_path / "questions.txt"
    if text is not None:
        asked.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Problem) as found:
        read_questions(asked)
    assert found.value.code == "G562"
