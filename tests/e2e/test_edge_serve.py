"""The service of a device: what comes in is answered once, whatever happens."""

import errno
import io as text_io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genba.core import io
from genba.core.resolve import resolve
from genba.core.values import EngineChoice, Manifest, Signature, Tensor, Verdict
from genba.edge.buffer import PREDICTION, SAMPLE, Buffer
from genba.edge.clocks import SystemClock
from genba.edge.interface import Field, Interface, Port, Span
from genba.edge.links import Around
from genba.edge.links.settings import parse_links
from genba.edge.safety import Answer, Sample, Trip
from genba.edge.service import Parts, Service
from genba.edge.service_health import Health, notify
from genba.edge.service_model import Told
from genba.testing.broker_odd import Manners, OddBroker
from genba.testing.crash import FullDisk

PATIENCE_S = 30.0
SIGNATURE = Signature(
    inputs=(
        Tensor(name="window", datatype="FP32", shape=(-1, 2, 1)),
        Tensor(name="entity", datatype="INT64", shape=(-1,), role="entity"),
    ),
    outputs=(Tensor(name="score", datatype="FP32", shape=(-1,), role="score"),),
)
MANIFEST = Manifest(
    format=1, line="pump", task="t", model="m", run="r", dataset="d",
    engine=EngineChoice(name="onnxruntime"), signature=SIGNATURE, settings={}, entities=("a",),
    files={}, verdict=Verdict(passed=True),
)  # fmt: skip
INTERFACE = Interface(
    line="pump",
    package="p",
    fields=(Field(name="flow", role="input", usual=Span(min=0.0, max=100.0)),),
    inputs=(
        Port(name="window", datatype="FP32", shape=(-1, 2, 1), role="feature", fields=("flow",),
             steps=2),
        Port(name="entity", datatype="INT64", shape=(-1,), role="entity"),
    ),
    outputs=(Port(name="score", datatype="FP32", shape=(-1,), role="score"),
             Port(name="map", datatype="FP32", shape=(-1, 9), role="map")),
    step_ms=1_000,
    tolerance_ms=500,
)  # fmt: skip


class Sums:
    """A model: the score is the sum of the two newest numbers, so a lost row shows."""

    def __init__(self) -> None:
        self.asked = 0
        self.shadows = False
        self.publish: Callable[[Answer], None] | None = None

    def answer(self, sample: Sample, key: str) -> Told:
        self.asked += 1
        assert sample.tensors is not None
        window = np.asarray(sample.tensors["window"])
        trips = (Trip(cause="odd", layer="unusual", detail="p = 0.001", time_ms=0),)
        score = np.nansum(window, axis=(1, 2))
        strange = score[0] >= 1_000
        outputs = {"score": score, "map": np.zeros((1, 9))}
        answer = Answer(outputs, "model", trips if strange else ())
        return Told(answer=answer, role="active", release=3, package="p")

    def beside(self, sample: Sample, told: Told) -> Any:
        if not self.shadows:
            return None
        return SimpleNamespace(answer=told.answer, release=4, package="q", role="shadow")

    def watch(self, publish: Callable[[Answer], None]) -> None:
        self.publish = publish

    def state(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def restore(self, body: dict[str, Any]) -> bool:
        self.asked = body["asked"]
        return True

    def close(self) -> None:
        pass


class Running:
    """A service on a thread of its own."""

    def __init__(self, folder: Path, broker: OddBroker, more: str, **parts: Any) -> None:
        self.clock = parts.pop("clock", SystemClock())
        topic = 'topic = "in"\n' if parts.pop("reads", "b") == "b" else ""
        text = (
            f'[links.b]\nkind = "mqtt"\naddress = "{broker.address}"\n{topic}'
            f'answers = "out/{{entity}}"\n[samples]\nshare = 0.0\n{more}'
        )
        links = parse_links(text)
        around = Around(clock=self.clock, line="pump", share=0.0)
        opened = {n: resolve("link", links.kinds[n])(s, around) for n, s in links.links.items()}
        opened["b"]._client.reconnect_delay_set(0.05, 0.05)
        self.model = parts.pop("model", Sums())
        self.buffer = Buffer(folder / "b.db", days=9, most_bytes=8 << 20, clock=self.clock)
        self.said = text_io.StringIO()
        self.health = folder / "health.json"
        self.drain_s = parts.pop("drain_s", 5.0)
        self.service = Service(
            Parts(
                manifest=MANIFEST, interface=INTERFACE, model=self.model, links=links,
                opened=opened, buffer=self.buffer, clock=self.clock,
                health=Health(self.health, "pump", self.said), **parts,
            )
        )  # fmt: skip
        self.thread = threading.Thread(target=self.service.run, kwargs={"drain_s": self.drain_s})

    def __enter__(self) -> "Running":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.service.stop.set()
        self.thread.join()
        self.buffer.close()


@pytest.fixture
def broker() -> Iterator[OddBroker]:
    with OddBroker() as made:
        yield made


@contextmanager
def serving(folder: Path, broker: OddBroker, more: str = "", **parts: Any) -> Iterator[Running]:
    with Running(folder, broker, more, **parts) as running:
        until(lambda: broker.listeners >= 1)
        yield running


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def say(broker: OddBroker, n: int, entity: str = "a") -> None:
    broker.publish("in", json.dumps({"time": 1_000 * n, "entity": entity, "flow": n}).encode())


def answers(broker: OddBroker) -> dict[str, dict[str, Any]]:
    return {b["id"]: b for topic, payload in broker.inbox for b in [json.loads(payload)]}


def scores(broker: OddBroker) -> dict[int, float]:
    return {b["time_ms"] // 1_000: b["outputs"]["score"] for b in answers(broker).values()}


def expected(first: int, last: int) -> dict[int, float]:
    return {n: float(n + (n - 1 if n > first else 0)) for n in range(first, last + 1)}


def test_each_reading_is_answered_once_and_the_answer_says_who_and_why(
    tmp_path: Path, broker: OddBroker
) -> None:
    broker.manners = Manners(twice=True, backwards=True)
    with serving(tmp_path, broker) as running:
        for n in range(1, 11):
            say(broker, n)
        until(lambda: len(broker.inbox) == 10 and broker.unacknowledged == 0)
    assert running.model.asked == 10
    assert running.service.counts.duplicates == 10
    body = answers(broker)["b/a@2000"]
    assert {k: body[k] for k in ("n", "line", "release", "role", "action", "entity")} == {
        "n": 1, "line": "pump", "release": 3, "role": "stable", "action": "model", "entity": "a",
    }  # fmt: skip
    assert set(body["outputs"]) == {"score"}  # maps stay here
    assert sorted(b["sequence"] for b in answers(broker).values()) == list(range(1, 11))
    told = json.loads(running.health.read_text())
    assert (told["readings"], told["duplicates"], told["lost"]) == (20, 10, 0)
    assert "20 readings, 10 model, 0 answers wait, 1 sample" in running.said.getvalue()


@pytest.mark.slow
def test_a_broker_that_is_away_for_an_hour_gets_every_answer(
    tmp_path: Path, broker: OddBroker
) -> None:
    rows = tmp_path / "in" / "rows.csv"
    rows.parent.mkdir()
    rows.write_text("time,entity,flow\n1000,a,1\n")
    clock = SystemClock(1_800.0)  # an hour in two seconds
    with Running(tmp_path, broker, files(rows.parent), clock=clock, reads="f"):
        until(lambda: len(broker.inbox) == 1)
        broker.stop()
        gone_ms = clock.elapsed_ms()
        for n in range(2, 62):
            with rows.open("a") as file:
                file.write(f"{n}000,a,{n}\n")
            clock.wait(threading.Event(), 60_000)
        assert clock.elapsed_ms() - gone_ms >= 3_600_000
        assert len(broker.inbox) == 1
        broker.start()
        until(lambda: len(broker.inbox) >= 61)
    assert scores(broker) == expected(1, 61)
    assert [b["sequence"] for b in answers(broker).values()] == list(range(1, 62))


def files(folder: Path) -> str:
    return f'[links.f]\nkind = "files"\nfolder = "{folder}"\nformat = "csv"\nevery_ms = 60000\n'


def test_a_restart_goes_on_where_it_was(tmp_path: Path, broker: OddBroker) -> None:
    with serving(tmp_path, broker) as first:
        for n in range(1, 6):
            say(broker, n)
        until(lambda: len(broker.inbox) == 5)
    say(broker, 6)  # while the device is off
    with serving(tmp_path, broker) as second:
        for n in range(7, 10):
            say(broker, n)
        until(lambda: len(broker.inbox) == 9)
    assert scores(broker) == expected(1, 9)  # the first window after the restart too
    assert [b["n"] for b in answers(broker).values()] == list(range(1, 10))
    assert (first.model.asked, second.model.asked) == (5, 9)
    assert second.service.counts.rows_from_before == 5


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, pytest.param(errno.EROFS, marks=pytest.mark.slow)]
)
def test_a_full_disk_holds_readings_back_and_loses_none(
    tmp_path: Path, broker: OddBroker, number: int
) -> None:
    with serving(tmp_path, broker) as running:
        say(broker, 1)
        until(lambda: len(broker.inbox) == 1 and broker.unacknowledged == 0)
        with io.using(FullDisk(1, number)):
            for n in range(2, 6):
                say(broker, n)
            until(lambda: running.service.counts.refused == 4)
            assert broker.unacknowledged == 4  # nobody was told that they are safe
            assert running.model.asked == 5  # but they were answered
            until(lambda: "cannot write" in running.said.getvalue())
        until(lambda: len(broker.inbox) == 5 and broker.unacknowledged == 0)
        assert running.service.counts.refused == 0
    assert scores(broker) == expected(1, 5)


@pytest.mark.slow
def test_memory_is_bounded_on_a_disk_that_stays_full(
    tmp_path: Path, broker: OddBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba.edge.service._HELD", 3)
    with serving(tmp_path, broker, drain_s=0.2) as running:
        with io.using(FullDisk(1)):
            for n in range(1, 9):
                say(broker, n)
                while running.model.asked < n:
                    time.sleep(0.01)
            until(lambda: running.service.counts.lost > 0)
            assert running.service.counts.refused <= 8
        until(lambda: running.service.counts.refused == 0)
        lost = running.service.counts.lost
        until(lambda: len(answers(broker)) == 8 - lost)
        assert broker.unacknowledged == lost  # the broker still has them, for the next connection


def test_the_factory_gets_predictions_samples_and_what_was_on_trial(
    tmp_path: Path, broker: OddBroker
) -> None:
    model = Sums()
    model.shadows = True
    more = "near = 0.9\nper_day = 4\nalike = 0.001\n"
    with serving(tmp_path, broker, more, factory=True, model=model) as running:
        for n in (1, 500, 501, 1_000):  # 1: score 1, at the threshold; 1001 and more are strange
            say(broker, n)
        until(lambda: len(broker.inbox) == 4)
        found = running.buffer.pending((PREDICTION,))
        bodies = [json.loads(record.body) for record in found]
        samples = [json.loads(record.body) for record in running.buffer.pending((SAMPLE,))]
    assert [(b["role"], b["n"], b["release"]) for b in bodies[:2]] == [
        ("stable", 1, 3), ("shadow", 2, 4),
    ]  # fmt: skip
    assert bodies[0]["features"] == {"window": [[None], [1.0]], "entity": 0}
    assert len({record.key for record in found}) == len(found) == 8
    assert samples[0]["why"] == "near the threshold"


def test_an_answer_that_nobody_asked_for_is_published_too(
    tmp_path: Path, broker: OddBroker
) -> None:
    with serving(tmp_path, broker) as running:
        until(lambda: running.model.publish is not None)
        trip = Trip(cause="silent", layer="time", detail="no reading", time_ms=0)
        running.model.publish(Answer(None, "stop", (trip,)))
        until(lambda: len(broker.inbox) == 1)
    body = next(iter(answers(broker).values()))
    assert (body["action"], body["n"], body["trips"][0]["cause"]) == ("stop", -1, "silent")


@pytest.mark.slow
def test_a_link_that_fails_is_begun_again(
    tmp_path: Path, broker: OddBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba.edge.service._AGAIN_S", 0.05)
    failures = iter([True, False])
    real = resolve("link", "mqtt").readings

    def readings(self: Any, stop: threading.Event) -> Iterator[Any]:
        if next(failures, False):
            raise RuntimeError("an odd byte")
        yield from real(self, stop)

    monkeypatch.setattr(resolve("link", "mqtt"), "readings", readings)
    with serving(tmp_path, broker):
        say(broker, 1)
        until(lambda: len(broker.inbox) == 1)


def test_a_service_manager_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")
