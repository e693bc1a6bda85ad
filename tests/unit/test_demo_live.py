"""Replay, operators and drills of the demonstration, against a real server and controller."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genba.core.codec import decode, encode
from genba.core.line import Data, Line, RollBackOn, Rollout
from genba.core.problem import Problem
from genba.core.values import Manifest
from genba.loop.runner import Runner
from genba.serve.client import Client
from genba.serve.limits import Limits
from genba.stages.deploy import deploy
from genba.store.home import Store
from genba.testing.graphs import LAGS, SENSORS, small_reference
from genba.testing.serving import ENTITY_NAMES, serve_here, small_package
from genba.ui.demo import replay
from genba.ui.demo.drills import Drill, drill, misbehaving
from genba.ui.demo.operators import Operator
from genba.ui.demo.replay import DAY_MS, HOUR_MS, Alarm, Player
from genba.ui.demo.story import Story
from genba.ui.demo.traffic import Traffic

LIMITS = Limits(poll_s=0.01, capture_s=0.05, sweep_s=0.02)
LINE = Line(
    name="pump",
    task="sensor.anomaly",
    data=Data(source="files:pump.csv"),
    rollout=Rollout(decide="auto", roll_back_on=RollBackOn(latency_ms_p99=100)),
)
FIRST_MS = 1_700_000_000_000


def recorded(days: float) -> Traffic:
    """Hourly records of two pumps; every third moment is in the books."""
    hours = round(days * 24)
    chance = np.random.default_rng(3)
    time = FIRST_MS + np.repeat(np.arange(hours), 2) * HOUR_MS
    return Traffic(
        window=chance.normal(size=(2 * hours, LAGS, SENSORS)).astype(np.float32),
        entity=ENTITY_NAMES * hours,
        time=time,
        loss=np.repeat(np.arange(hours) % 3 == 0, 2),
    )


def alarms_of(traffic: Traffic) -> np.ndarray[Any, Any]:
    """Which records the small graph alarms on, computed in numpy."""
    entity = np.array([ENTITY_NAMES.index(name) for name in traffic.entity])
    found = small_reference({"window": traffic.window, "entity": entity})["alarm"]
    assert 0.05 < found.mean() < 0.95
    return np.asarray(found)


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        opened.ledger.record("line", "line-1", encode(LINE), line="pump")
        package = small_package(opened, "pump")
        deploy(opened, "pump", "deploy", package, reason="the first", by="a test")
        yield opened


def test_a_replay_sends_every_record_once_and_keeps_the_alarms(home: Path, store: Store) -> None:
    traffic = recorded(2.5)
    players: list[Player] = []

    def script(client: Client) -> None:
        player = Player(client, "pump", traffic, days_per_s=1_000)
        players.append(player)
        assert (player.now_ms, player.date, player.finished) == (FIRST_MS, "2023-11-14", False)
        assert list(player.days()) == ["2023-11-15", "2023-11-16", "2023-11-17"]
        player.play(DAY_MS)  # there is nothing left

    serve_here(home, script, limits=LIMITS)
    (player,) = players
    assert player.finished
    assert (player.predictions, player.failed) == (120, 0)
    assert player.now_ms == traffic.time[-1]
    assert len(player.answers) == 60, "one request for each moment"
    assert all(a.ok and a.is_number and a.latency_ms > 0 for a in player.answers)
    wanted = np.flatnonzero(alarms_of(traffic))
    assert [(a.entity, a.time_ms, a.loss) for a in player.alarms] == [
        (traffic.entity[i], traffic.time[i], traffic.loss[i]) for i in wanted
    ]
    assert len({a.prediction for a in player.alarms}) == len(wanted)
    captured = sum(record.body["rows"] for record in store.ledger.find("capture"))
    assert captured == 120


def test_requests_that_fail_are_counted_and_the_replay_goes_on(home: Path, store: Store) -> None:
    def script(client: Client) -> None:
        player = Player(client, "fan", recorded(0.5), days_per_s=1_000)
        player.play(DAY_MS)
        assert (player.predictions, player.failed, player.alarms) == (0, 12, [])
        assert player.finished
        assert not any(a.ok or a.is_number for a in player.answers)

    serve_here(home, script, limits=LIMITS)


def test_a_replay_keeps_its_pace(home: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    clock = SimpleNamespace(
        monotonic=lambda: 1.0, perf_counter=lambda: 1.0, time=lambda: 1.0, sleep=pauses.append
    )
    monkeypatch.setattr(replay, "time", clock)
    said: list[str] = []

    def script(client: Client) -> None:
        player = Player(client, "pump", recorded(2), days_per_s=0.01, tell=said.append)
        dates = list(player.days())
        assert [text[:10] for text in said] == dates

    serve_here(home, script, limits=LIMITS)
    assert pauses == [100.0, 100.0]
    assert len(said) == 2


def answered(alarms: list[Alarm], operator: Operator, store: Store) -> list[bool]:
    """Whether each answer says what the books say."""
    said = []
    for alarm in alarms:
        (row,) = store.feedback.by_prediction(alarm.prediction)
        assert (row.author, row.status) == (operator.name, "accepted")
        said.append((row.value == "anomaly") == alarm.loss)
    return said


def test_operators_answer_late_from_their_books_and_sometimes_wrongly(
    home: Path, store: Store
) -> None:
    def script(client: Client) -> None:
        player = Player(client, "pump", recorded(4), days_per_s=1_000)
        list(player.days())
        alarms = player.alarms
        server_has_written(store, player.predictions)
        day = Operator(client, "pump", name="day", wrong=0.0, seed=1)
        day.answer(alarms, alarms[0].time_ms - 1)
        assert (day.sent, day.outcomes) == (0, {})
        middle = alarms[len(alarms) // 2].time_ms
        day.answer(alarms, middle)
        first = [a for a in alarms if a.time_ms <= middle]
        assert day.sent == day.outcomes["accepted"] == len(first)
        day.answer(alarms, middle)
        assert day.sent == len(first), "an alarm is answered once"
        assert all(answered(first, day, store))

        night = Operator(client, "pump", name="night", wrong=0.3, seed=2)
        night.skip_to(first)
        night.answer(alarms, alarms[-1].time_ms)
        rest = alarms[len(first) :]
        assert night.sent == len(rest)
        assert 0 < night.mistaken < len(rest)
        assert answered(rest, night, store).count(False) == night.mistaken

    serve_here(home, script, limits=LIMITS)


def server_has_written(store: Store, predictions: int) -> None:
    pause = threading.Event()
    while sum(record.body["rows"] for record in store.ledger.find("capture")) < predictions:
        pause.wait(0.01)


@contextmanager
def controller(home: Path) -> Iterator[None]:
    """A controller at work on a thread, with a store of its own."""
    problems: list[Problem] = []
    stopped = threading.Event()

    def work() -> None:
        with Store.open(home) as own, Runner(own) as runner:
            while not stopped.wait(0.05):
                problems.extend(p for tick in runner.tick() for p in tick.problems)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
    assert problems == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"after": 20, "not_a_number": True}, "not_a_number_rate"),
        ({"after": 20, "delay_ms": 200.0}, "latency_ms_p99"),
    ],
)
def test_a_drill_is_noticed_and_ended(
    home: Path, store: Store, fault: dict[str, Any], reason: str
) -> None:
    (good,) = [record.id for record in store.ledger.find("package")]
    story = Story(store, "pump", lambda _: None)
    story.read()
    found: list[Drill] = []

    def script(client: Client) -> None:
        player = Player(client, "pump", recorded(400), days_per_s=200)
        with controller(home):
            found.append(
                drill("a test", fault, store=store, story=story, player=player, line="pump")
            )
        assert client.infer("pump", {"window": recorded(1).window[:1]}).package == good

    serve_here(home, script, limits=LIMITS)
    (ended,) = found
    assert ended.rolled_back
    assert reason in ended.reason
    assert ended.bad_answers > 0
    assert ended.seconds is not None
    assert ended.seconds >= 0
    assert ended.package != good
    assert ended.to_json()["injected"] == ", ".join(f"{k} {v}" for k, v in fault.items())
    first, *before, last = store.ledger.events(kinds=["deploy"])
    assert (first.subject, last.subject) == (good, ended.package)
    assert {event.subject for event in before} == {ended.package}
    assert before[-1].body["action"] in ("deploy", "promote"), "it was in production"
    assert last.body["action"] == "roll_back"
    assert story.stable() == good


def test_a_drill_that_nobody_notices_says_so(home: Path, store: Store) -> None:
    story = Story(store, "pump", lambda _: None)
    story.read()

    def script(client: Client) -> None:
        player = Player(client, "pump", recorded(3), days_per_s=1_000)
        fault = {"after": 20, "not_a_number": True}
        ended = drill("a test", fault, store=store, story=story, player=player, line="pump")
        assert not ended.rolled_back
        assert ended.reason == "not rolled back while the drill lasted"

    serve_here(home, script, limits=LIMITS)  # without a controller


def test_a_twin_differs_in_its_engine_only(store: Store) -> None:
    (good,) = [record.id for record in store.ledger.find("package")]
    twin = misbehaving(store, good, {"after": 5, "delay_ms": 1.0})
    real, other = (decode(Manifest, store.ledger.get("package", p)) for p in (good, twin))
    assert other.engine.name == "faulty"
    assert other.engine.settings == {
        "engine": real.engine.name,
        "settings": dict(real.engine.settings),
        "after": 5,
        "delay_ms": 1.0,
    }
    assert replace(other, engine=real.engine) == real
    assert [(edge.src, edge.role) for edge in store.ledger.parents(twin)] == [(good, "twin of")]
    with pytest.raises(Problem) as caught:
        deploy(store, "fan", "deploy", twin, reason="", by="a test")
    assert caught.value.code == "G523"
