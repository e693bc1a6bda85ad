"""`genba chat`: talk to a language model in service, and tell it what was wrong."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from genba.core.problem import Problem
from genba.serve.client import Client, environment_ca, environment_key
from genba.ui.cli.answer import Answer, make_console
from genba.ui.cli.options import DEFAULT, Options

_URL: Final = "http://127.0.0.1:8080"
_PROMPT: Final = "you  "
_TIMEOUT_S: Final = 300.0  # between two words
_WORDS: Final = """\
/good  /bad              say what the last answer was worth
/answer TEXT             say what it should have been
/new                     begin a new conversation
/quit                    or Ctrl-D"""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """How the model answers."""

    system: str = ""
    """What it is told before everything else (default: what its package says)."""

    max_tokens: int | None = None
    """New tokens of an answer (default: what holds for the line)."""

    temperature: float | None = None
    """0 says the likeliest words, 1 varies them (default: what holds for the line)."""

    package: str = ""
    """Ask this package instead of whose turn it is; the first characters of its id will do."""

    def fields(self) -> dict[str, Any]:
        """Return what is sent of it."""
        given = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        return {name: value for name, value in given.items() if value is not None}


AS_USUAL: Final = How()


@dataclass(slots=True)
class Talk:
    """A conversation with a line."""

    client: Client
    line: str
    how: How
    author: str
    words: Callable[[str], object]  # takes text as it comes
    messages: list[dict[str, str]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)  # the last answer

    def ask(self, text: str) -> str:
        """Ask something and return the answer; it is handed on word by word.

        Raises:
            Problem: What the server says.
        """
        asked = [*self._begun(), {"role": "user", "content": text}]
        model = f"{self.line}@{self.how.package}" if self.how.package else self.line
        said: list[str] = []
        for chunk in self.client.talk(model, asked, **self.how.fields()):
            for choice in chunk["choices"]:
                content = choice["delta"].get("content") or ""
                if content:
                    said.append(content)
                    self.words(content)
            self.about = {**self.about, **chunk.get("genba", {})}
        answer = "".join(said)
        self.messages = [*asked, {"role": "assistant", "content": answer}]
        return answer

    def tell(self, value: str) -> dict[str, Any]:
        """Say what the last answer was worth.

        Raises:
            Problem: G110 before there is an answer; what the server says.
        """
        prediction = self.about.get("prediction")
        if not prediction:
            raise Problem("G110", "There is no answer yet.", tries=["ask something first"])
        row = {"prediction": prediction, "value": value, "author": self.author}
        return self.client.feedback(self.line, [row])

    def begin_anew(self) -> None:
        """Forget the conversation."""
        self.messages, self.about = [], {}

    def _begun(self) -> list[dict[str, str]]:
        if self.messages or not self.how.system:
            return self.messages
        return [{"role": "system", "content": self.how.system}]


def chat(
    name: str,
    question: str = "",
    /,
    *,
    how: How = AS_USUAL,
    url: str = "",
    me: str = "",
    options: Options = DEFAULT,
) -> Answer:
    """Talk to a line that has a language model.

    With a question it answers that and ends; without one it is a conversation, until Ctrl-D. In it
    /good and /bad say what the last answer was worth, and /answer TEXT what it should have been:
    the line learns from that in its next loop.

    Args:
        name: Name of the line.
        question: What is asked; "-" reads it from standard input.
        how: How the model answers.
        url: The server (default: $GENBA_URL, else http://127.0.0.1:8080).
        me: Who says what an answer was worth (default: your login name).
        options: Common options.
    """
    where = url or os.environ.get("GENBA_URL") or _URL
    author = me or os.environ.get("USER") or "somebody"
    with _client(where) as client:
        talk = Talk(client, name, how, author, lambda _: None)
        if question or options.json or not sys.stdin.isatty():
            asked = sys.stdin.read().strip() if question in ("", "-") else question
            return _once(talk, asked)
        count = Conversation(talk, make_console(), input).go_on()
    return Answer(data={"line": name, "questions": count}, next=(f"genba feedback {name}",))


def _once(talk: Talk, question: str) -> Answer:
    if not question:
        raise Problem(
            "G110", "There is nothing to ask.", tries=[f'genba chat {talk.line} "How high?"']
        )
    said = talk.ask(question)
    prediction = talk.about.get("prediction")
    follow = (f"genba trace {prediction}",) if prediction else ()
    return Answer(
        data={"line": talk.line, "question": question, "answer": said, **talk.about},
        blocks=[Text(said), footer(talk.about)],
        next=follow,
    )


class Conversation:
    """Reads questions from a person, and shows the answers as they are written.

    Args:
        talk: With whom.
        console: Where answers are shown.
        read: Asks for a line of text; raises EOFError at the end.
    """

    def __init__(self, talk: Talk, console: Console, read: Callable[[str], str]) -> None:
        self._talk = talk
        self._console = console
        self._read = read
        talk.words = lambda text: console.print(text, end="", soft_wrap=True)

    def go_on(self) -> int:
        """Talk until the person has enough; return how many questions there were."""
        self._console.print(Text(_WORDS, style="dim"))
        count = 0
        while (line := self._line()) is not None:
            try:
                if line.startswith("/"):
                    self._do(line)
                elif line:
                    count += 1
                    self._talk.ask(line)
                    self._console.print()
                    self._console.print(footer(self._talk.about))
            except Problem as problem:  # the conversation goes on
                self._console.print(Text(f"{problem.code}  {problem.what}", style="bold red"))
        return count

    def _line(self) -> str | None:
        try:
            line = self._read(_PROMPT).strip()
        except EOFError:
            return None
        return None if line == "/quit" else line

    def _do(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "/new":
            self._talk.begin_anew()
            self._console.print(Text("A new conversation.", style="dim"))
        elif word in ("/good", "/bad"):
            self._tell(word[1:])
        elif word == "/answer" and rest.strip():
            self._tell(f"answer: {rest.strip()}")
        else:
            self._console.print(Text(_WORDS, style="dim"))

    def _tell(self, value: str) -> None:
        told = self._talk.tell(value)
        rejected = told.get("rejected") or []
        said = rejected[0].get("reason", "It was not taken.") if rejected else "Thank you."
        self._console.print(Text(str(said), style="dim"))


def footer(about: dict[str, Any]) -> Text:
    """Return the line below an answer: who gave it, from what, and under which number."""
    parts = [f"by {about['by']}" if "by" in about else ""]
    parts += [_named(source) for source in about.get("sources", ())]
    parts.append(str(about.get("prediction") or ""))
    return Text("  ".join(filter(None, parts)), style="dim")


def _named(source: dict[str, Any]) -> str:
    names = (source.get("title") or source.get("document"), source.get("place"))
    return f"[{' > '.join(str(name) for name in names if name)}]" if any(names) else ""


@contextmanager
def _client(url: str) -> Iterator[Client]:
    with Client(url, key=environment_key(), ca=environment_ca(), timeout_s=_TIMEOUT_S) as client:
        yield client
