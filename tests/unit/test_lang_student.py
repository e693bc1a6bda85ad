"""The student at run time, and the router that decides when it answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from genba.core.problem import Problem
from genba.edge.assistant import Question
from genba.edge.encoder import Encoder
from genba.edge.student import (
    ANSWERS_FILE,
    STUDENT_FILE,
    Route,
    Student,
    overlap,
    student_files,
    words_of,
)
from genba.learn.encoder import LETTERS, load_encoder
from genba.learn.logistic import rising
from genba.loop.flywheel.asked import Asked
from genba.loop.flywheel.reword import reworded
from genba.loop.flywheel.routing import NEVER, learn_route, lessons
from genba.loop.flywheel.trial import quality
from genba.stages.students import Pair, knowledge

EMBED = Encoder(load_encoder(LETTERS)).embed
PAIRS = (
    Pair(text="What does a permit cost?", answer="A hundred.", origin="faq:1", split="train"),
    Pair(text="Who needs a permit?", answer="Everybody.", origin="faq:2", split="train"),
    Pair(text="How much is a permit?", answer="a hundred", origin="faq:3", split="train"),
)
NEAR = Route(weight=(20.0, 0.0, 0.0), offset=-18.0, bar=0.5)  # from a cosine of 0.9 on
SETTINGS = {"weight": [20.0, 0.0, 0.0], "offset": -18.0, "bar": 0.5}


def question(text: str, *, plain: bool = True) -> Question:
    return Question([{"role": "user", "content": text}], embed=EMBED, plain=plain)


def files() -> dict[str, bytes]:
    tensors, answers = student_files(knowledge(PAIRS, EMBED))
    return {STUDENT_FILE: save(tensors), ANSWERS_FILE: answers}


def test_a_student_says_what_was_approved_and_where_it_is_from() -> None:
    student = Student.open(files(), SETTINGS, EMBED)
    assert len(student.known.answers) == 2  # equal answers are one
    found = student.answer(question("what does a permit cost"))
    assert found is not None
    assert (found.text, found.origin, found.confidence) == ("A hundred.", "faq:1", 1.0)
    near = student.answer(question("so what does a permit cost"))
    assert near is not None
    assert near.text == "A hundred."
    assert 0.5 <= near.confidence < 1.0


@pytest.mark.parametrize("text", ["", "xylophone zebra", "a permit " * 400])
def test_what_is_not_near_is_left(text: str) -> None:
    assert Student.open(files(), SETTINGS, EMBED).answer(question(text)) is None


def test_a_conversation_that_went_on_is_left() -> None:
    student = Student.open(files(), SETTINGS, EMBED)
    said = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Who needs a permit?"},
    ]
    assert student.answer(Question(said, embed=EMBED)) is None
    assert student.answer(question("Who needs a permit?", plain=False)) is None
    assert student.answer(Question(said[2:])) is not None  # the question brings no vector


def test_a_route_that_never_answers_does_not_answer_the_same_words_either() -> None:
    student = Student(knowledge(PAIRS, EMBED), NEVER, EMBED)
    assert student.answer(question("Who needs a permit?")) is None
    alone = Student(knowledge(PAIRS[:1], EMBED), NEAR, EMBED)
    _, looked = alone.look("A permit?", EMBED(["A permit?"])[0])
    assert looked[0] == looked[1]  # there is no other answer


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({STUDENT_FILE: b"no"}, SETTINGS),
        ({ANSWERS_FILE: b"{}"}, SETTINGS),
        ({ANSWERS_FILE: json.dumps({"questions": ["a"], "answers": []}).encode()}, SETTINGS),
        ({}, {}),
        ({}, {**SETTINGS, "weight": [1.0]}),
        ({}, {**SETTINGS, "bar": "high"}),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    change: dict[str, bytes], settings: dict[str, object]
) -> None:
    with pytest.raises(Problem, match="G583"):
        Student.open({**files(), **change}, settings, EMBED)


def test_a_student_without_an_encoder_is_refused() -> None:
    with pytest.raises(Problem, match="G583"):
        Student.open(files(), SETTINGS, None)


def asked(text: str, right: str) -> Asked:
    return Asked(messages=b"[]", text=text, right=right, group=right)


def test_a_router_learns_where_the_student_is_as_good() -> None:
    known = knowledge(PAIRS, EMBED)
    questions = [asked(pair.text + " please", pair.answer) for pair in PAIRS]
    bad = lessons(known, questions, ["nonsense"] * 3, EMBED)
    assert bad.features.shape == (3 + 3 + 40, 3)
    assert (bad.difference[:3] > 0).all()
    assert (bad.difference[6:] == -1.0).all()
    route = learn_route(bad.features, bad.difference)
    sure = route.confidence(bad.features)
    assert (sure[:3] >= route.bar).all()
    assert (sure[6:] < route.bar).mean() > 0.9
    good = lessons(known, questions, [pair.answer + " And more." for pair in PAIRS], EMBED)
    assert (good.difference[:3] >= 0).all()
    assert (good.difference[3:6] < 0).all()  # as if the answer were not known


def test_a_router_never_answers_where_nothing_is_as_good_and_always_where_all_is() -> None:
    features = np.random.default_rng(0).random((20, 3))
    assert learn_route(features, np.full(20, -0.1)) == NEVER
    always = learn_route(features, np.full(20, 0.1))
    assert (always.confidence(features) >= always.bar).all()
    mixed = np.where(np.arange(20) < 10, -1.0, 0.0)  # never better, and sure of what is not
    route = learn_route(np.full((20, 3), 0.5), mixed)
    assert route.bar == 2.0


def test_quality_is_nearness_to_the_approved_answer() -> None:
    found = quality(["A hundred.", ""], [asked("a", "A hundred."), asked("b", "x")], EMBED)
    assert found[0] == pytest.approx(1.0, abs=1e-5)
    assert 0.0 <= found[1] < 0.5
    assert quality([], [], EMBED).tolist() == []


def test_rising_pools_what_falls() -> None:
    assert rising(np.array([3.0, 2.0, 1.0])).tolist() == [2.0, 2.0, 2.0]
    assert rising(np.zeros(0)).tolist() == []


def test_rewording_keeps_what_is_asked_about() -> None:
    chance = np.random.default_rng(0)
    text = "How can I apply for a building permit?"
    made = {reworded(text, chance) for _ in range(60)}
    assert len(made) > 8
    assert all("permit" in one or "buil" in one.lower() or "apply" in one for one in made)
    assert {reworded("Why?", chance) for _ in range(40)} >= {"why"}
    assert "How much is a roof" in {
        reworded("What does a roof cost?", chance).rstrip("?") for _ in range(60)
    }


def test_words_in_common() -> None:
    assert overlap(words_of(""), words_of("")) == 1.0
    assert overlap(words_of("a"), words_of("b")) == 0.0
    assert replace(NEAR, bar=0.1).confidence(np.array([[0.9, 0, 0]]))[0] == pytest.approx(0.5)
