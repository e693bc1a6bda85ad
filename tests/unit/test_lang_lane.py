"""The lane of a language model by hand: who is asked what, who hears what, and what goes wrong."""

import json
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.rollout import Rollout
from genba.core.talk import Words
from genba.edge.texts import as_bytes, written
from genba.serve.http.responses import Refusal
from genba.serve.lanes.placement import Placement
from genba.serve.lanes.speech import Wish
from genba.serve.limits import Limits
from genba.serve.oip.inputs import Inputs
from genba.serve.oip.schema import Schema
from genba.testing.speller import ByteVocabulary
from tests.unit.talk_world import Client, Talker, World, wish


def f32(*values: float) -> Array:
    return np.array(values, dtype=np.float32)


def test_answers_are_written_side_by_side() -> None:
    world = World()
    first, second = world.ask(wish("one")), world.ask(wish("two"))
    one, two = world.tickets
    assert "one" in one.prompt
    assert "two" in two.prompt
    world.say(one, "A")
    world.say(two, "B")
    world.say(one, "a", "end")
    assert (first.heard, first.got, second.got) == ({0: "Aa"}, "a", None)
    world.say(two, "b", "length")
    assert (second.heard, second.got) == ({0: "Bb"}, "a")
    assert second.told[0].finish == "length"
    assert second.told[0].counted == (len(two.ask.tokens), 2)
    assert second.outputs["answer"] == [b"Bb"]
    assert second.outputs["log_probability"] == [-0.5]
    assert second.by["prediction"] == "server-1"
    assert world.busy == [True, False]


def test_parameters_are_those_of_the_request_else_those_that_hold() -> None:
    world = World()
    world.line._services["a"].tune({"max_tokens": 7.0})
    world.ask(wish(seed=3, stop=("x",), least=1, ignore_end=True, likeliest=2, schema="{}"))
    asked = world.tickets[0].ask
    assert (asked.most, asked.temperature, asked.top_p, asked.seed) == (7, 0.0, 1.0, 3)
    assert (asked.least, asked.ignore_end, asked.likeliest, asked.schema) == (1, True, 2, "{}")
    world.ask(wish(), tensors={"max_tokens": f32(2), "temperature": f32(0.5), "top_p": f32(0.25)})
    asked = world.tickets[1].ask
    assert (asked.most, asked.temperature, asked.top_p) == (2, 0.5, 0.25)


def test_a_default_that_does_not_fit_into_the_context_is_made_smaller() -> None:
    world = World()
    world.ask(wish("x" * 960))
    asked = world.tickets[0].ask
    assert len(asked.tokens) + asked.most == Talker.context


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", -1), ("top_p", 0), ("max_tokens", -1), ("max_tokens", 1.5)]
)
def test_parameters_that_make_no_sense(name: str, value: float) -> None:
    world = World()
    assert world.ask(wish(), tensors={name: f32(value)}).got == "G704"
    world.cut()
    assert world.tallies == {}


def test_no_more_than_slots_and_one_ahead_are_asked() -> None:
    world = World()
    for number in range(5):
        world.ask(wish(str(number)))
    assert len(world.tickets) == 3
    assert world.lane.waiting_rows == 2
    world.say(world.tickets[1], "b", "end")
    assert len(world.tickets) == 4
    assert "3" in world.tickets[3].prompt


def test_several_answers_to_one_request() -> None:
    world = World()
    client = world.ask(wish(), wish())
    world.say(world.tickets[1], "second", "end")
    assert client.got is None
    world.say(world.tickets[0], "first", "end")
    assert client.outputs["answer"] == [b"first", b"second"]
    world.cut()
    (part,) = world.parts
    assert (part.rows, part.words and part.words.answer) == (2, 11)
    assert part.tensors["max_tokens"].tolist() == [128, 128]
    assert part.tensors["given"].tolist() == [b"", b""]


def test_a_stop_ends_an_answer_and_the_engine_is_told() -> None:
    world = World()
    client = world.ask(wish(stop=("END",)))
    ticket = world.tickets[0]
    world.say(ticket, "one E")
    assert client.heard == {0: "one "}
    world.say(ticket, "ND two")
    assert (client.heard[0], client.told[0].finish, ticket.cancelled) == ("one ", "stop", 1)
    world.say(ticket, "more", "end")
    assert client.outputs["answer"] == [b"one "]


def test_half_a_character_is_held_back() -> None:
    world = World()
    client = world.ask(wish())
    spelled = "é!".encode()
    world.tickets[0].piece(spelled[:1])
    world.loop.run()
    assert client.heard.get(0, "") == ""
    world.tickets[0].piece(spelled[1:], "end")
    world.loop.run()
    assert client.heard == {0: "é!"}


def test_who_left_costs_nothing_more() -> None:
    world = World()
    clients = [world.ask(wish(str(n))) for n in range(4)]
    for client in clients:
        client.gone = True
    world.expire(0.05)
    assert [ticket.cancelled for ticket in world.tickets] == [1, 1, 1]
    assert world.lane.idle
    assert world.metrics._sheds["gone"] == 4
    world.cut()
    assert world.tallies == {}


def test_a_deadline_ends_what_runs_and_what_waits() -> None:
    world = World()
    clients = [world.ask(wish(), client=Client(world.now, 2.0)) for _ in range(4)]
    world.expire(2.5)
    assert [client.got for client in clients] == ["G706"] * 4
    assert [ticket.cancelled for ticket in world.tickets] == [1, 1, 1]
    world.cut()
    assert world.tallies == {}  # a long answer is nobody's fault


def test_an_engine_that_falls_silent_is_stuck_and_tried_again() -> None:
    world = World(Limits(silent_s=10.0))
    client = world.ask(wish())
    world.expire(11.0)
    assert client.got == "G742"
    assert world.lane.stuck
    world.cut()
    assert (world.tallies["a"].n, world.tallies["a"].errors) == (1, 1)
    tried = world.ask(wish())  # nobody else is there: it may show that it works again
    assert world.ask(wish()).got == "G742"
    world.say(world.tickets[1], "well", "end")
    assert (tried.got, world.lane.stuck) == ("a", False)


def test_what_the_engine_says_too_late_goes_nowhere() -> None:
    world = World()
    client = world.ask(wish(), client=Client(world.now, 1.0))
    world.expire(2.0)
    world.say(world.tickets[0], "late", "end")
    assert (client.got, client.heard) == ("G706", {})


@pytest.mark.parametrize("code", ["G640", "G641"])
def test_what_cannot_be_asked_is_the_requests_fault(code: str) -> None:
    world = World()
    world.engines["a"].refuses = Problem(code, "No.", tries=["genba explain"])
    assert world.ask(wish()).got == code
    world.cut()
    assert world.tallies == {}


def test_an_engine_that_fails_is_an_error_of_the_package() -> None:
    world = World()
    world.engines["a"].refuses = RuntimeError("no")
    assert world.ask(wish()).got == "G707"
    world.engines["a"].refuses = None
    client = world.ask(wish(), wish())
    broken = Problem("G707", "It broke.", tries=["genba explain G707"])
    world.say(world.tickets[0], "", "error", problem=broken)
    assert client.got == "G707"
    assert world.tickets[1].cancelled == 1
    world.cut()
    assert (world.tallies["a"].n, world.tallies["a"].errors) == (3, 3)
    assert world.lane.idle


def test_an_engine_that_breaks_off_by_itself_is_an_error_too() -> None:
    world = World()
    client = world.ask(wish())
    world.say(world.tickets[0], "half", "cancelled")
    assert client.got == "G707"


def test_tokens_that_are_none_are_an_error_too() -> None:
    world = World()
    client = world.ask(wish())
    world.tickets[0].piece([-1])
    world.loop.run()
    assert client.got == "G707"


def test_a_number_that_is_none_is_counted() -> None:
    world = World()
    client = world.ask(wish())
    world.tickets[0].piece(b"A", "end", log=float("nan"))
    world.loop.run()
    assert client.got == "a"
    world.cut()
    assert world.tallies["a"].not_a_number == 1


# Placements.


def test_what_a_condemned_package_has_is_asked_again() -> None:
    world = World()
    world.place("a", canary="b")
    silent = world.ask(wish(), version="b")
    silent_too = world.ask(wish())  # of the canary, whose share is all
    world.place("a", condemned=["b"])
    assert silent.got == "G703"  # it wanted this one and no other
    assert [t.cancelled for t in world.engines["b"].tickets] == [1, 1]
    world.say(world.tickets[-1], "again", "end")
    assert (silent_too.got, silent_too.heard) == ("a", {0: "again"})


def test_who_has_heard_a_part_is_not_told_another_answer() -> None:
    world = World()
    world.place("a", canary="b")
    client = world.ask(wish())
    world.say(world.engines["b"].tickets[0], "half")
    world.place("a", condemned=["b"])
    assert client.got == "G740"
    assert world.tickets == []


def test_a_shadow_hears_everything_and_says_nothing() -> None:
    world = World()
    world.place("a", shadow="b")
    client = world.ask(wish())
    world.say(world.engines["b"].tickets[0], "shadow", "end")
    assert client.heard == {}
    world.say(world.tickets[0], "light", "end")
    assert client.heard == {0: "light"}
    world.cut()
    found = {p.jobs[0].role: p.outputs["answer"].tolist() for p in world.parts}
    assert found == {"shadow": [b"shadow"], "stable": [b"light"]}


def test_a_package_is_closed_when_its_last_answer_is_written() -> None:
    world = World()
    engine, client = world.engines["a"], world.ask(wish())
    lane = world.lane
    world.line.place(Placement(line="desk", rollout=Rollout(), models={}))
    assert engine.closed == 0
    world.say(engine.tickets[0], "last", "end")
    assert (client.got, engine.closed, lane.idle) == ("a", 1, True)


# Tensors, scores, and what is no prediction.


def test_tensors_without_a_speech() -> None:
    world = World()
    client = Client(world.now)
    messages = as_bytes(["plain", written([{"role": "user", "content": "json"}])])

    def read(schema: Schema) -> Inputs:
        wanted = schema.all_outputs("", binary=False)
        given = {"messages": messages, "given": as_bytes(["", "scored"])}
        return Inputs(given, 2, entity_names=None, time=None, wanted=wanted)

    world.line.ask(client, None, read)
    world.loop.run()
    (ticket,) = world.tickets
    assert "plain" in ticket.prompt
    world.say(ticket, "written", "end")
    assert client.outputs["answer"] == [b"written", b"scored"]
    assert client.outputs["log_probability"] == [-0.5, -2.0]
    assert client.outputs["tokens"][1] == [3, 3]
    assert client.outputs["by"] == [b"model", b"model"]


def test_a_prompt_is_scored_and_goes_on_as_it_is() -> None:
    world = World()
    client = world.ask(Wish(prompt="ab", scored=1), tensors={"max_tokens": f32(1)}, kept=False)
    assert world.tickets[0].ask.tokens.tolist() == [97, 98]
    world.say(world.tickets[0], "c", "length")
    scored = client.told[0].scored
    assert scored is not None
    assert scored.log_probability.tolist() == [-1.0, -1.0]
    world.cut()
    assert (world.parts, world.tallies) == ([], {})
    assert world.line._services["a"].metrics.tokens["prompt"] == 2


def test_nothing_is_written_where_no_token_may_be() -> None:
    world = World()
    client = world.ask(Wish(prompt=np.array([1, 2]), scored=0), tensors={"max_tokens": f32(0)})
    assert (client.got, client.told[0].finish, world.tickets) == ("a", "length", [])
    assert world.ask(Wish(prompt=np.array([999]))).got == "G704"


def test_there_is_room_for_so_many_errands() -> None:
    world = World(Limits(pipelined=1))
    world.threads["a"].held = []
    done: list[object] = []
    assert world.lane.aside(lambda: 7, lambda found, error: done.append((found, error)))
    assert not world.lane.aside(lambda: 8, lambda found, error: None)
    world.threads["a"].held.pop()()
    world.loop.run()
    assert done == [(7, None)]


def test_the_line_says_what_it_is_doing() -> None:
    world = World()
    world.ask(wish())
    world.say(world.tickets[0], "abcd", "end")
    told = world.line.describe()["versions"]["a"]
    assert told["language"]["answer_tokens"] == 4
    assert told["language"]["running"] == 0.0
    assert not world.line.inline
    assert not world.line.busy


def test_a_mistake_of_ours_does_not_leave_the_client_waiting() -> None:
    world = World()
    client = world.ask(wish())

    def write(*_: object, **__: object) -> None:
        raise Refusal(500, "G711", "a mistake")

    client.write = write  # type: ignore[method-assign]  # on purpose
    world.say(world.tickets[0], "x", "end")
    assert client.got == "G707"


class ToolWords(ByteVocabulary):
    """A vocabulary whose template knows tools."""

    def prompt(self, messages: Words, *, tools: Any = ()) -> list[int]:
        told = [{"role": "tools", "content": json.dumps(list(tools))}] if tools else []
        plain = [{"role": m["role"], "content": json.dumps(m, sort_keys=True)} for m in messages]
        return super().prompt([*told, *plain])


CALL = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "2"},
]
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": {}}}


def test_a_template_that_knows_tools_is_given_them() -> None:
    talker: Any = Talker()
    talker.vocabulary = ToolWords()
    world = World(engine=talker)
    world.ask(Wish(words=TALK, tools=(TOOL,)))
    prompt = talker.tickets[0].prompt
    assert '"name": "add", "parameters"' in prompt
    assert '"arguments": {"a": 1}' in prompt
    assert '"role": "tool"' in prompt


def test_a_template_that_knows_none_is_told_in_words() -> None:
    world = World()
    system = {"role": "system", "content": "Be short."}
    world.ask(Wish(words=[system, *TALK], tools=(TOOL,)))
    prompt = world.tickets[0].prompt
    assert prompt.startswith("system\nBe short.\n\nYou may call")
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>' in prompt
    assert "<tool_response>\n2\n</tool_response>" in prompt


def test_what_is_nested_too_deeply_is_not_the_packages_fault() -> None:
    world = World()
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert world.ask(wish(tools=({**TOOL, "deep": deep},))).got == "G704"
    world.cut()
    assert world.tallies == {}
