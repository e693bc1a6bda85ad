"""`genba chat`: one question, a conversation, and what is said of an answer."""

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from genba.core.problem import Problem
from genba.serve.client import Client
from genba.store.home import Store
from genba.testing.serving import place, serve_here
from genba.testing.speller import Script
from genba.testing.talking import talk_package
from genba.ui.cli.app import run_command
from genba.ui.cli.chat import Conversation, How, Talk, footer

LINE = "desk"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    with Store.open(home, create=True) as store:
        script = Script(answers={"How high?": "Twelve metres."}, fails="Fail.")
        place(store, LINE, "promote", talk_package(store, LINE, script))
    return home


def typed(*lines: str) -> Callable[[str], str]:
    rest: Iterator[str] = iter(lines)

    def read(prompt: str) -> str:
        del prompt
        try:
            return next(rest)
        except StopIteration:
            raise EOFError from None

    return read


def test_a_question_a_conversation_and_errors(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(client: Client) -> None:
        monkeypatch.setenv("GENBA_URL", client.url)
        out = io.StringIO()
        with redirect_stdout(out):
            assert run_command(["chat", LINE, "How high?"]) == 0
        assert "Twelve metres." in out.getvalue()
        assert "by model" in out.getvalue()
        monkeypatch.setattr("sys.stdin", io.StringIO("From a pipe\n"))
        with redirect_stdout(io.StringIO()) as told:
            assert run_command(["chat", LINE, "--json", "--max-tokens", "4"]) == 0
        assert '"answer": "From"' in told.getvalue()
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        with redirect_stdout(io.StringIO()) as told:
            assert run_command(["chat", LINE, "--json"]) == 2
            assert run_command(["chat", "dusk", "x", "--json"]) == 3
        assert "did you mean desk" in told.getvalue()
        _converse(client)

    serve_here(home, script)


def _converse(client: Client) -> None:
    out = Console(file=io.StringIO(), width=100)
    talk = Talk(client, LINE, How(system="Be short.", temperature=0.0), "me", print)
    said = typed(
        "/good", "How high?", "/what", "", "Fail.", "/good", "/new", "/answer ", "/quit", "no"
    )
    assert Conversation(talk, out, said).go_on() == 2
    shown = out.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "Twelve metres.\n" in shown
    assert "There is no answer yet." in shown
    assert "G707" in shown
    assert "A new conversation." in shown
    assert (talk.messages, talk.about) == ([], {})
    talk.ask("again")
    assert [m["role"] for m in talk.messages] == ["system", "user", "assistant"]
    with Client(client.url) as other:
        chunks: Any = other.talk(LINE, [{"role": "user", "content": "left in the middle"}])
        next(chunks)
        chunks.close()
        assert other.ready(LINE)
    gone = Client("http://127.0.0.1:1")
    with pytest.raises(Problem) as caught:
        list(gone.talk(LINE, []))
    assert caught.value.code == "G712"


def test_what_is_told_of_an_answer(home: Path) -> None:
    del home
    told: list[Any] = []

    class Told:
        def feedback(self, line: str, rows: Any) -> dict[str, Any]:
            told.append((line, rows))
            return {"rejected": [{"reason": "Too long."}] if len(told) > 2 else []}

    out = Console(file=io.StringIO(), width=100)
    client: Any = Told()
    talk = Talk(client, LINE, How(), "me", print, about={"prediction": "server-1"})
    Conversation(talk, out, typed("/good", "/answer Twelve.", "/bad")).go_on()
    assert [rows[0]["value"] for _, rows in told] == ["good", "answer: Twelve.", "bad"]
    assert told[0][1][0]["prediction"] == "server-1"
    shown = out.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert shown.count("Thank you.") == 2
    assert "Too long." in shown


def test_the_line_below_an_answer() -> None:
    source = {"title": "Manual", "place": "Roof", "document": "m.md"}
    about = {"by": "student", "sources": [source, {"answer": "3"}], "prediction": "server-1"}
    assert footer(about).plain == "by student  [Manual > Roof]  server-1"
    assert footer({}).plain == ""
