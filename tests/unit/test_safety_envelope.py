"""The envelope of one reading after the other: every layer trips for its own reason."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genba.core.codec import encode
from genba.core.problem import Problem
from genba.core.values import Tensor
from genba.edge.safety import LAYERS, STATEMENT, Beside, Envelope, Sample, read_plan
from genba.edge.safety.plan import Answers, Fallback, Picture, Timing, Unusual
from genba.learn.safety.calibration import conformal
from tests.unit.safety_plan import STEP, Says, World, causes, channel, plan, rule


def test_what_is_usual_passes_untouched() -> None:
    world = World()
    answers = [world.tell() for _ in range(20)]
    assert {a.action for a in answers} == {"model"}
    assert not any(a.trips for a in answers)
    assert all(a.outputs and a.outputs["score"].shape == (1,) for a in answers)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tensors": None}, "nothing to read"),
        ({"tensors": {}}, "window is missing"),
        ({"fault": "G231 the file was cut off"}, "G231"),
        ({"tensors": {"window": np.zeros((1, 2, 2), np.float32)}}, "shape"),
        ({"tensors": {"window": np.array([[[b"x"] * 2] * 3])}}, "type"),
    ],
)
def test_what_cannot_be_read_is_never_shown_to_the_model(more: Any, said: str) -> None:
    world = World()
    answer = world.tell(**more)
    assert (answer.action, answer.outputs, world.model.asked) == ("abstain", None, 0)
    assert answer.trips[0].layer == "schema"
    assert said in answer.trips[0].detail


def test_a_missing_sensor_is_left_to_the_rule_that_does_without_it() -> None:
    made = plan(fallback=Fallback(chain=("rule", "abstain"), rules={"flow": rule("flow")}))
    world = World(made)
    answer = world.tell(flow=np.nan, power=70.0)
    assert (answer.action, causes(answer), world.model.asked) == ("rule", ["missing:flow"], 0)
    assert answer.outputs is not None
    assert answer.outputs["alarm"].tolist() == [True]
    # The rule without flow needs power: with both gone nobody but a person may answer.
    assert world.tell(flow=np.nan, power=np.nan).action == "abstain"
    # Nor where power is missing: there is no rule that does without it.
    assert world.tell(power=np.nan).action == "abstain"


def test_a_sensor_the_model_can_do_without_is_named_but_holds_nothing_back() -> None:
    channels = (channel("flow", 4, tolerated=True), channel("power", 5))
    world = World(plan(channels=channels))
    answer = world.tell(flow=np.nan)
    assert (answer.action, causes(answer)) == ("model", ["missing:flow"])
    assert world.tell(flow=300.0).action == "abstain"  # a wrong number is worse than none


def test_a_strange_number_may_be_a_wrong_plug_so_no_rule_answers() -> None:
    made = plan(fallback=Fallback(chain=("rule", "abstain"), rules={"flow": rule("flow")}))
    answer = World(made).tell(flow=250.0)
    assert (answer.action, causes(answer)) == ("abstain", ["range:flow"])
    assert "0 to 100" in answer.trips[0].detail


def test_a_sensor_that_repeats_itself_is_stuck_and_at_rest_it_may() -> None:
    channels = (channel("flow", 4, rest=0.0, longest_at_rest=0), channel("power", 5))
    world = World(plan(channels=channels))
    assert not any(causes(world.tell(flow=0.0)) for _ in range(12))
    told = [world.tell(flow=42.0) for _ in range(5)]
    assert [causes(a) for a in told] == [[], [], [], ["stuck:flow"], ["stuck:flow"]]
    assert told[-1].action == "abstain"
    assert told[-1].suspect is not None  # what the model said is kept, for people


def test_an_alarm_passes_a_doubt_about_the_reading_with_the_doubt_attached() -> None:
    world = World()
    told = [world.tell(flow=99.0, power=90.0) for _ in range(4)][-1]
    assert (told.action, causes(told)) == ("model", ["stuck:flow"])
    assert told.outputs is not None
    assert told.outputs["alarm"].tolist() == [True]


@pytest.mark.parametrize(
    ("late", "cause"), [(2_600, "stale"), (-61_000, "clock"), (0, ""), (2_400, "")]
)
def test_old_and_future_readings_are_refused(late: int, cause: str) -> None:
    world = World()
    answer = world.tell(time_ms=world.clock.now_ms() + STEP - late)
    assert causes(answer) == ([cause] if cause else [])
    assert answer.action == ("abstain" if cause else "model")


def test_the_same_reading_again_is_no_new_reading() -> None:
    world = World()
    world.tell()
    assert causes(world.tell(time_ms=world.clock.now_ms())) == ["again"]


def test_silence_is_answered_once_per_stretch() -> None:
    world = World()
    world.tell()
    assert world.envelope.overdue() is None
    world.clock.turn(2_600)
    answer = world.envelope.overdue()
    assert answer is not None
    assert (answer.action, causes(answer)) == ("abstain", ["silent"])
    assert world.envelope.overdue() is None
    world.clock.turn(2_600)
    assert world.envelope.overdue() is not None


def test_an_inference_that_hangs_is_overdue_in_another_thread() -> None:
    made = plan(timing=replace(plan().timing, deadline_ms=100.0))
    world = World(made)
    seen: list[Any] = []

    def hangs(tensors: Any) -> Any:
        world.clock.turn(150)
        seen.append(world.envelope.overdue())
        return Says().predict(tensors)

    world.model.says = hangs
    world.tell()
    assert causes(seen[0]) == ["late"]
    assert seen[0].action == "abstain"


def test_a_late_answer_is_not_acted_on() -> None:
    world = World(plan(timing=replace(plan().timing, deadline_ms=1e-6)))
    answer = world.tell()
    assert (answer.action, causes(answer)) == ("abstain", ["late"])


def test_a_model_that_fails_leaves_the_answer_to_the_one_before() -> None:
    world = World(beside=Beside(last_good=Says()))
    world.model.error = RuntimeError("no memory")
    answer = world.tell(flow=99.0, power=90.0)
    assert (answer.action, causes(answer)) == ("last_good_model", ["model:failed"])
    assert answer.outputs is not None
    assert answer.outputs["alarm"].tolist() == [True]
    # It reads the same sensors, so it does not answer where one of them has failed.
    assert world.tell(flow=np.nan).action == "abstain"


def test_a_known_case_that_is_answered_otherwise_condemns_the_model_until_it_is_right() -> None:
    says = iter(["", "score differs by 0.5", "score differs by 0.5", "", ""])
    made = plan(answers=Answers(alarm="alarm", score="score", check_every=2))
    world = World(made, beside=Beside(check=lambda: next(says)))
    actions = [world.tell().action for _ in range(9)]
    assert actions == ["model"] * 3 + ["abstain"] * 4 + ["model"] * 2


def test_equal_scores_and_floods_of_alarms_are_noticed() -> None:
    made = plan(answers=Answers(alarm="alarm", score="score", longest=3, flood=0.3))
    world = World(made)
    world.model.says = lambda tensors: {
        "score": np.array([2.0], np.float32),
        "alarm": np.array([True]),
    }
    told = [world.tell() for _ in range(5)]
    assert causes(told[1]) == []
    assert causes(told[2]) == ["model:constant"]
    assert "model:flood" in causes(told[4])
    assert told[4].action == "abstain"  # an alarm is held back where the model itself is in doubt


def test_what_is_unsure_is_left_to_a_person() -> None:
    made = plan(
        answers=Answers(score="score", expected="expected", chosen="class", probability="p",
                        margin=0.1, floor=0.6, most_step=5.0)
    )  # fmt: skip
    world = World(made)

    def says(score: float, expected: float, chosen: int, p: float) -> list[str]:
        outputs = {"score": [score], "expected": [[expected]], "class": [chosen], "p": [[p, 1 - p]]}
        world.model.says = lambda tensors: {n: np.array(v) for n, v in outputs.items()}
        return causes(world.tell())

    assert says(0.5, 10.0, 1, 0.9) == []
    assert says(0.97, 11.0, 1, 0.9) == ["unsure"]
    assert says(0.5, 11.0, -1, 0.9) == ["unsure"]
    assert says(0.5, 11.0, 1, 0.55) == ["unsure"]
    assert says(0.5, 20.0, 1, 0.9) == ["rate"]
    assert says(float("nan"), 20.0, 1, 0.9) == ["model:not_a_number"]
    assert says(0.5, float("inf"), 1, 0.9) == ["model:not_a_number"]


def test_a_sample_that_looks_back_on_a_gap_is_cold() -> None:
    world = World(plan(timing=replace(plan().timing, history=2, holes=0.4)))

    def told(rows: int) -> list[str]:
        window = np.full((1, 3, 2), 41.0 + world.turn, dtype=np.float32)
        window[0, :rows] = np.nan
        tensors = {"window": window, "entity": np.zeros(1, dtype=np.int64)}
        return causes(world.tell(tensors=tensors))

    assert [told(rows) for rows in (2, 1, 0)] == [["cold"], [], []]


def test_a_bad_reading_is_remembered_as_long_as_samples_hold_it() -> None:
    world = World(plan(timing=replace(plan().timing, history=2)))
    told = [causes(world.tell(flow=f)) for f in (41.0, 150.0, 42.0, 43.0, 44.0)]
    assert told == [[], ["range:flow"], ["after:flow"], ["after:flow"], []]


def test_images_are_compared_with_the_frame_before_and_with_the_sizes_seen() -> None:
    image = np.zeros((1, 4, 4, 3), np.uint8)
    made = plan(
        inputs=(Tensor(name="image", datatype="UINT8", shape=(-1, 4, 4, 3), role="image"),),
        channels=(),
        timing=Timing(ordered=False),
        answers=Answers(),
        picture=Picture(tensor="image", sizes=((64, 48),), stride=5),
    )
    envelope = Envelope(made, SimpleNamespace(predict=lambda tensors: {}))

    def told(value: int, size: tuple[int, int] = (64, 48)) -> list[str]:
        return causes(
            envelope.answer(
                Sample(tensors={"image": image + np.uint8(value)}, time_ms=0, size=size)
            )
        )

    assert told(1) == []
    assert told(1) == ["frame"]
    assert told(2, (32, 48)) == ["size"]
    assert told(3) == []


def test_strange_outputs_are_judged_within_their_class() -> None:
    scores = np.arange(1.0, 100.0)
    strange = Unusual(
        on="look", method="mahalanobis", alpha=0.02, matrix=((1.0,),), center=(0.0,),
        pooled=conformal(scores), by="class", categories={"1": conformal(scores * 100)},
    )  # fmt: skip
    world = World(plan(unusual=(strange,), answers=Answers(chosen="class")))

    def says(look: float, chosen: int) -> list[str]:
        world.model.says = lambda tensors: {
            "class": np.array([chosen]),
            "look": np.array([[look]]),
        }
        return causes(world.tell())

    assert says(5.0, 0) == []
    assert says(11.0, 0) == ["unusual:look"]  # 121 is beyond 99
    assert says(11.0, 1) == []  # of class 1 it is usual
    assert says(float("nan"), 1) == ["unusual:look"]


def test_a_plan_is_read_from_its_manifest_and_refused_where_it_does_not_belong() -> None:
    made = plan()
    assert read_plan({"plan": encode(made)}) == made
    assert read_plan(encode(made)) == made
    for body in ({"plan": {"format": 2}}, {}, {"format": 1, "line": "a"}):
        with pytest.raises(Problem) as caught:
            read_plan(body)
        assert caught.value.code == "G599"
    ours = replace(made, package="ab")
    with pytest.raises(Problem, match="cannot be used"):
        Envelope(ours, SimpleNamespace(package=SimpleNamespace(id="cd"), predict=None))
    ports = [SimpleNamespace(name="image", datatype="UINT8", shape=(-1, 4))]
    with pytest.raises(Problem, match="cannot be used"):
        Envelope(made, Says(), SimpleNamespace(inputs=ports))


def test_every_layer_has_words_and_nothing_is_claimed() -> None:
    world = World()
    for reading in (np.nan, 200.0, 41.0):
        world.tell(flow=reading)
    found = world.envelope.spis()
    assert found["statement"] == STATEMENT == "not a safety-rated function"
    assert set(found["by_layer"]) <= set(LAYERS)
    assert (found["answered"], found["trips"]) == (3, 2)
    assert found["by_cause"] == {"missing:flow": 1, "range:flow": 1}
    assert found["withheld_share"] == pytest.approx(2 / 3)
