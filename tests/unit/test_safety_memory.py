"""What an envelope remembers over a restart, what it logs, and the thread that watches it."""

import json
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genba.core.protocols import Array
from genba.edge.clocks import HandClock
from genba.edge.safety import Answer, Beside, Envelope, Trip, Watchdog
from genba.edge.safety.fallback import Ladder, shares
from genba.edge.safety.known import KnownCases, known_cases
from genba.edge.safety.log import TripLog
from genba.edge.safety.plan import Answers, Channel, Fallback
from genba.learn.safety.plausible import fit_plausible
from tests.unit.safety_plan import STEP, Says, World, causes, plan, rule
from tests.unit.test_safety_monitors import series


def watched() -> World:
    judged = np.zeros(3, dtype=np.bool_)
    fitted = fit_plausible(series(3_000, 1), series(2_000, 2), 0.01, judged, usable=True)
    channels = tuple(
        Channel(name=n, tensor="window", index=i, low=-1e9, high=1e9, declared=False, longest=5)
        for i, n in enumerate(("flow", "pressure", "third"))
    )
    shape = (-1, 1, 3)
    inputs = (replace(plan().inputs[0], shape=shape), plan().inputs[1])
    return World(plan(channels=channels, inputs=inputs, plausible=fitted.plan))


def told(world: World, values: Any) -> Answer:
    world.clock.turn(STEP)
    tensors: Any = {
        "window": np.array(values, dtype=np.float32).reshape(1, 1, 3),
        "entity": np.zeros(1, dtype=np.int64),
    }
    world.model.says = lambda t: {"score": np.array([0.1]), "alarm": np.array([False])}
    return world.envelope.answer(replace(world.sample(0.0, 0.0), tensors=tensors))


def test_after_a_power_loss_it_goes_on_where_its_memory_says() -> None:
    rows = series(60, 2).values
    whole, cut = watched(), watched()
    for values in rows[:40]:
        told(whole, values)
        told(cut, values)
    memory = json.loads(json.dumps(cut.envelope.state()))
    fresh = Envelope(cut.envelope.plan, Says(), clock=cut.clock)
    assert fresh.restore(memory)
    cut.envelope = fresh
    bad = rows[40:] + np.array([4.0, 0.0, 0.0])
    for values in bad:
        assert causes(told(cut, values)) == causes(told(whole, values))
    track = fresh.state()["tracks"][""]
    assert track["drift"] == whole.envelope.state()["tracks"][""]["drift"]


def test_a_stuck_sensor_is_found_as_soon_as_if_the_power_had_not_failed() -> None:
    world = World()
    for _ in range(3):
        world.tell(flow=42.0)
    memory = world.envelope.state()
    world.envelope = Envelope(plan(), world.model, clock=world.clock)
    assert world.envelope.restore(memory)
    assert causes(world.tell(flow=42.0)) == ["stuck:flow"]


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"package": "other", "format": 1, "tracks": {}},
        {"package": "", "format": 1, "tracks": {"a": {}}},
        {"package": "", "format": 1, "tracks": []},
        {"package": "", "format": 1, "tracks": {"a": {"before": "x"}}},
    ],
)
def test_a_damaged_or_foreign_memory_is_not_taken(memory: Any) -> None:
    envelope = Envelope(plan(), Says(), clock=HandClock())
    assert not envelope.restore(memory)
    assert envelope.state()["tracks"] == {}


def test_a_sensor_far_off_and_a_missing_one_break_the_chain_of_readings() -> None:
    world = watched()
    rows = series(40, 2).values
    for values in rows[:20]:
        assert told(world, values).action == "model"
    far = told(world, rows[20] + np.array([6.0, 0.0, 0.0]))
    assert {"cross:flow", "predicted:flow"} <= set(causes(far))
    assert far.action == "abstain"


def test_trips_are_counted_always_and_written_once_a_minute_per_cause() -> None:
    written: list[Any] = []
    log = TripLog(written.append)
    trip = Trip(cause="stuck:flow", layer="stuck", detail="", time_ms=0, part="sensor:flow")
    for second in range(130):
        log.note(Answer(None, "abstain", (trip,)), "north", second * 1_000)
    log.note(Answer({}, "model"), "north", 131_000)
    assert [(w["time_ms"], w["left_out"], w["entity"]) for w in written] == [
        (0, 0, "north"),
        (0, 59, "north"),
        (0, 59, "north"),
    ]
    found = log.indicators()
    assert (found["trips"], found["answered"], found["by_action"]["abstain"]) == (130, 131, 130)
    assert found["trips_per_hour"] == pytest.approx(130 / (131 / 3600))
    assert TripLog().indicators()["trips_share"] is None


def test_many_causes_cannot_fill_the_memory() -> None:
    log = TripLog()
    for number in range(1_500):
        trip = Trip(cause=f"c{number}", layer="range", detail="", time_ms=0)
        log.note(Answer(None, "abstain", (trip,)), "", number)
    assert len(log._last) <= 1_001
    assert log.causes["others"] == 500


def test_the_chain_goes_on_to_the_first_that_shares_nothing_that_failed() -> None:
    made = Fallback(
        chain=("last_good_model", "rule", "fixed", "stop"),
        value={"alarm": 1.0},
        rules={"": rule("flow"), "flow": rule("flow")},
    )
    ladder = Ladder(made, plan().channels, {"alarm": np.bool_}, Says())
    tensors = World().sample(99.0, 90.0).tensors

    def answer(*parts: str, given: Any = tensors) -> Answer:
        trips = [Trip(cause="x", layer="model", detail="", time_ms=0, part=p) for p in parts]
        return ladder.answer(trips, (99.0, 90.0), given, None)

    assert answer("model").action == "last_good_model"
    assert answer("model", given=None).action == "rule"
    assert answer("sensor:flow").action == "rule"
    assert answer("sensor:flow", "sensor:power").action == "fixed"
    fixed = answer("input").outputs
    assert fixed is not None
    assert fixed["alarm"].tolist() == [True]
    stops = Ladder(Fallback(chain=("fixed", "stop")), plan().channels, {}, None)
    assert stops.answer([], (), None, None).action == "stop"
    assert shares("fixed", frozenset({"input"})) is False


def test_a_last_good_model_that_fails_too_leaves_it_to_the_next() -> None:
    broken = Says()
    broken.error = RuntimeError("gone as well")
    ladder = Ladder(Fallback(chain=("last_good_model", "abstain")), (), {}, broken)
    trip = Trip(cause="x", layer="model", detail="", time_ms=0, part="model")
    assert ladder.answer([trip], (), {}, None).action == "abstain"


class Recorded:
    def __init__(self, answers: Array) -> None:
        self.answers, self.at = answers, 0
        self.error: Exception | None = None

    def predict(self, tensors: Any) -> dict[str, Array]:
        if self.error:
            raise self.error
        return {"score": self.answers[int(tensors["row"][0])][None]}


def test_known_cases_are_asked_in_turn() -> None:
    inputs, right = {"row": np.arange(3)}, np.array([0.5, 1.5, 2.5])
    model = Recorded(right.copy())
    check = KnownCases(model, inputs, {"score": right}, 1e-3)
    assert [check() for _ in range(4)] == [""] * 4
    model.answers[2] = 9.0
    said = [check() for _ in range(3)]
    assert [bool(s) for s in said] == [False, True, False]
    model.error = RuntimeError("x")
    assert "RuntimeError" in check()
    assert known_cases(model) is None  # nothing was recorded of it


def test_the_watchdog_says_what_is_overdue_from_its_own_thread() -> None:
    world = World(plan(answers=Answers()))
    world.tell()
    said: list[Answer] = []
    done = threading.Event()

    def publish(answer: Answer) -> None:
        said.append(answer)
        done.set()

    dog = Watchdog(world.envelope, publish, 1_000, world.clock)  # waiting turns the clock
    dog.start()
    assert done.wait(20)
    dog.stop()
    assert causes(said[0]) == ["silent"]


def test_entities_are_remembered_apart_and_not_without_end(monkeypatch: Any) -> None:
    monkeypatch.setattr("genba.edge.safety.envelope._MOST_ENTITIES", 2)
    world = World(beside=Beside())
    for name in ("north", "south", "west"):
        world.tell(flow=42.0, entity=name)
    assert list(world.envelope.state()["tracks"]) == ["south", "west"]
