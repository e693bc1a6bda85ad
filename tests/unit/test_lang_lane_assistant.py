"""An assistant in a lane: who answers without the model, what rails hold back, what is told."""

import json
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genba.edge.assistant import Answered, Assistant, Block, Passage, Question, Ruled, Source
from genba.edge.assistant.seams import Parts
from genba.serve.lanes.speech import Wish
from tests.unit.talk_world import Client, Talker, World, wish

SECRET = "secret"
PASSAGE = Passage(
    id="1", document="manual.md", title="Manual", place="Roof", text="It is 12 m.", score=1
)


class Gate:
    block: Block | None = None

    def __init__(self) -> None:
        self._held = ""

    def take(self, text: str) -> str:
        self._held += text
        if SECRET in self._held:
            self.block = Block(rail="leak", say="No.")
            return ""
        out, self._held = self._held[: -len(SECRET)], self._held[-len(SECRET) :]
        return out

    def end(self) -> str:
        return self._held


class RailsOfTest:
    @classmethod
    def open(cls, *_: Any) -> Any:
        return cls()

    def before(self, question: Question) -> Ruled:
        bad = "attack" in question.text
        return Ruled(block=Block(rail="attack", say="Not that.") if bad else None)

    def passage(self, text: str) -> Block | None:
        del text
        return None

    def guard(self, question: Question, known: Iterable[str] = ()) -> Gate:
        del question, known
        return Gate()


class StudentOfTest:
    @classmethod
    def open(cls, *_: Any) -> Any:
        return cls()

    def answer(self, question: Question) -> Answered | None:
        if question.text != "Known?":
            return None
        return Answered(text="Known.", confidence=0.5, origin="answer-3")


class LibraryOfTest:
    def __init__(self) -> None:
        self.access: list[frozenset[str]] = []

    @classmethod
    def open(cls, *_: Any) -> Any:
        return cls()

    def search(self, question: Question) -> tuple[Passage, ...]:
        self.access.append(question.access)
        return (PASSAGE,)

    def cite(self, answer: str, passages: Sequence[Passage]) -> tuple[Source, ...]:
        return tuple(Source(passage=p, support=0.5) for p in passages if "12" in answer)


@pytest.fixture
def worlds() -> Iterator[Any]:
    opened: list[Assistant] = []

    def make(**parts: Any) -> World:
        talker: Any = Talker()
        opened.append(Assistant(talker, parts=Parts(**parts)))
        return World(engine=opened[-1])

    yield make
    for assistant in opened:
        assistant.close()


def tickets(world: World) -> Any:
    return world.engines["a"].talks.tickets


def test_who_answers_without_the_model(worlds: Any) -> None:
    world = worlds(rails=RailsOfTest(), student=StudentOfTest())
    known, bad = world.ask(wish("Known?")), world.ask(wish("an attack"))
    assert (known.got, known.heard, tickets(world)) == ("a", {0: "Known."}, [])
    assert known.outputs["by"] == [b"student"]
    assert json.loads(known.outputs["sources"][0]) == [{"answer": "answer-3"}]
    assert known.outputs["log_probability"] == pytest.approx([np.log(0.5)])
    assert (bad.heard, bad.told[0].blocked) == ({0: "Not that."}, True)
    assert bad.outputs["by"] == [b"rail:attack"]
    world.cut()
    assert world.tallies["a"].n == 2
    shaped = world.ask(wish("Known?", plain=False))
    assert (shaped.got, len(tickets(world))) == (None, 1)


def test_rails_hold_back_until_they_have_seen_it(worlds: Any) -> None:
    world = worlds(rails=RailsOfTest())
    client = world.ask(wish())
    (ticket,) = tickets(world)
    world.say(ticket, "The height is 12 m.")
    assert client.heard == {0: "The height is"}
    world.say(ticket, " Good.", "end")
    assert client.heard == {0: "The height is 12 m. Good."}
    assert (client.told[0].by, client.told[0].finish) == ("model", "end")


def test_a_block_ends_the_answer(worlds: Any) -> None:
    world = worlds(rails=RailsOfTest())
    client, silent = world.ask(wish()), world.ask(wish())
    one, two = tickets(world)
    world.say(one, "The word is: sec")
    world.say(one, "ret and more")
    assert (client.heard, one.cancelled, client.told[0].blocked) == ({0: "The word i"}, 1, True)
    assert client.outputs["answer"] == [b"No."]
    assert client.outputs["by"] == [b"rail:leak"]
    world.say(two, SECRET, "end")
    assert silent.heard == {0: "No."}


def test_rails_look_at_one_piece_after_the_other(worlds: Any) -> None:
    world = worlds(rails=RailsOfTest())
    client = world.ask(wish())
    (ticket,) = tickets(world)
    threads = world.threads["a"]
    threads.held = []
    for piece in ("one two ", "three ", "four"):
        world.say(ticket, piece)
    assert len(threads.held) == 1
    while threads.held:
        threads.held.pop(0)()
        world.loop.run()
    assert client.heard == {0: "one two thre"}
    ticket.say("", "end")
    world.loop.run()
    while threads.held:
        threads.held.pop(0)()
        world.loop.run()
    assert client.heard == {0: "one two three four"}


def test_who_is_gone_before_the_rails_are_done(worlds: Any) -> None:
    world = worlds(rails=RailsOfTest())
    client = world.ask(wish())
    (ticket,) = tickets(world)
    threads = world.threads["a"]
    threads.held = []
    world.say(ticket, "words", "end")
    client.gone = True
    world.expire(0.1)
    threads.held.pop(0)()
    world.loop.run()
    assert (client.heard, world.lane.idle) == ({}, True)


def test_documents_are_cited_by_who_may_see_them(worlds: Any) -> None:
    library = LibraryOfTest()
    world = worlds(library=library)
    client = world.ask(wish(), wish(), access=frozenset({"staff"}))
    one, two = tickets(world)
    assert "It is 12 m." in one.prompt
    world.say(one, "12 m", "end")
    world.say(two, "no idea", "end")
    assert library.access == [frozenset({"staff"})] * 2  # two different conversations
    cited = json.loads(client.outputs["sources"][0])
    assert (cited[0]["document"], client.outputs["sources"][1]) == ("manual.md", b"[]")


def test_one_conversation_is_looked_at_once(worlds: Any) -> None:
    library = LibraryOfTest()
    world = worlds(library=library)
    words = [{"role": "user", "content": "How high?"}]
    world.ask(Wish(words=words), Wish(words=words))
    assert (len(library.access), len(tickets(world))) == (1, 2)


def test_tokens_are_not_told_where_rails_may_change_them(worlds: Any) -> None:
    world = worlds(rails=RailsOfTest())
    assert world.ask(wish(logs=True)).got == "G783"
    one = {"max_tokens": np.array([1], dtype=np.float32)}
    measured = world.ask(Wish(prompt="ab", logs=True, scored=0), tensors=one)
    assert measured.got is None


def test_text_that_goes_on_passes_rails_too(worlds: Any) -> None:
    world = worlds(rails=RailsOfTest(), student=StudentOfTest())
    assert world.ask(Wish(prompt="an attack")).heard == {0: "Not that."}
    tokens = np.array(list(b"an attack"), dtype=np.int64)
    assert world.ask(Wish(prompt=tokens)).heard == {0: "Not that."}
    world.ask(Wish(prompt="Known?"))
    assert tickets(world)[0].prompt == "Known?"


def test_rails_that_break_say_nothing(worlds: Any) -> None:
    class Broken(RailsOfTest):
        def guard(self, question: Question, known: Iterable[str] = ()) -> Gate:
            raise RuntimeError("broken")

    world = worlds(rails=Broken())
    client = world.ask(wish())
    world.say(tickets(world)[0], "words", "end")
    assert client.told[0].by == "rail:broken"
    assert "words" not in client.heard[0]


def test_what_breaks_at_the_end_is_an_error(worlds: Any) -> None:
    world = worlds(library=LibraryOfTest())
    client = Client(world.now)
    world.ask(wish(), client=client)
    voice = next(iter(world.lane._speaking))
    guard: Any = SimpleNamespace(feed=lambda text: text, block=None)  # without a finish
    voice._guard = guard
    world.say(tickets(world)[0], "words", "end")
    assert client.got == "G707"
