"""The lane of a language model by hand: who is taken, who waits, and who pays for it."""

from typing import Any

import pytest

from genba.core.line import Capture
from genba.serve.lanes.patience import usual_s
from genba.serve.limits import Limits
from genba.serve.watch.columns import as_rows
from genba.store.captures import DIGEST
from tests.unit.talk_world import Client, World, wish


@pytest.mark.parametrize(("inputs", "kept"), [("all", True), ("digest", False), ("none", False)])
def test_what_is_kept_of_a_conversation(inputs: Any, kept: bool) -> None:
    world = World()
    world.ask(wish())
    world.say(world.tickets[0], "Twelve.", "end")
    world.cut()
    (rows,) = as_rows(world.parts, Capture(inputs=inputs))
    assert ("messages" in rows.features, "answer" in rows.outputs) == (kept, kept)
    assert (DIGEST in rows.features) == (inputs == "digest")
    assert rows.outputs["by"].tolist() == [b"model"]
    assert rows.outputs["tokens"].tolist()[0][1] == 7


def test_words_are_given_more_time() -> None:
    world = World()
    assert usual_s(world.line, world.limits) == world.limits.talk_s
    assert usual_s(None, world.limits) == world.limits.deadline_s


def test_refusals_come_before_work() -> None:
    world = World(Limits(queue_talks=2))
    for _ in range(5):
        world.ask(wish())
    assert world.ask(wish()).got == "G706"
    assert len(world.tickets) == 3
    assert world.metrics._sheds["queue"] == 1


def test_tokens_are_bounded_too() -> None:
    world = World(Limits(queue_tokens=1_000))
    for _ in range(4):
        world.ask(wish(), tokens=600)
    assert world.ask(wish(), tokens=600).got == "G706"
    assert world.ask(wish(), tokens=300).got is None


def test_who_cannot_be_in_time_is_told_at_once() -> None:
    world = World()
    world.lane.pace.learn(prompt=8, answer=99, seconds=10.0)
    for _ in range(4):
        world.ask(wish())
    late = world.ask(wish(), client=Client(world.now, 12.0))
    assert late.got == "G706"
    assert world.metrics._sheds["deadline"] == 1
    assert world.ask(wish(), client=Client(world.now, 60.0)).got is None


def test_others_stand_behind_the_urgent_ones() -> None:
    world = World(Limits(queue_talks=6))
    for _ in range(3):
        world.ask(wish("running"))
    other = Client(world.now, urgent=False)
    world.ask(wish("other"), client=other)
    world.ask(wish("urgent"))
    assert world.ask(wish(), client=Client(world.now, urgent=False)).got is None
    assert world.ask(wish(), client=Client(world.now, urgent=False)).got == "G706"
    world.say(world.tickets[0], "", "end")
    assert "urgent" in world.tickets[3].prompt


def test_a_large_request_shares_with_those_behind_it() -> None:
    world = World()
    large = world.ask(*(wish(f"large {n}") for n in range(9)))
    assert len(world.tickets) == 3
    world.ask(wish("small"))
    world.ask(wish("next"))
    for number in range(4):
        world.say(world.tickets[number], "x", "end")
    words = ("large", "small", "next")
    asked = [w for ticket in world.tickets[3:] for w in words if w in ticket.prompt]
    assert asked == ["large", "small", "large", "next"]
    assert world.lane.waiting_rows == 4
    large.gone = True
    world.expire(0.1)
    assert world.lane.waiting_rows == 0


def test_work_is_charged_while_answers_are_written() -> None:
    world = World()
    world.ask(wish())
    metrics = world.line._services["a"].metrics
    world.now += 2.0
    world.cut()
    assert world.tallies == {}
    assert metrics.cpu_seconds == pytest.approx(2.0)
    world.now += 1.0
    world.say(world.tickets[0], "x", "end")
    world.line.computed_s()
    batch = world.line.cut(1.0)
    assert batch is not None
    assert batch.tallies["a"][1] == pytest.approx(3.0)
