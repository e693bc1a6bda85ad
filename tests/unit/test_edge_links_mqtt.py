"""MQTT as it is on a bad day: twice, backwards, deaf, hung up, away."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.edge.clocks import SystemClock
from genba.edge.links import Around, Reading
from genba.edge.links.mqtt import MqttLink
from genba.edge.links.settings import FieldColumn, MqttSettings
from genba.testing.broker import Broker, installed
from genba.testing.broker_odd import Manners, OddBroker

PATIENCE_S = 30.0


@pytest.fixture
def broker() -> Iterator[OddBroker]:
    with OddBroker() as made:
        yield made


def settings(broker: Any, **more: Any) -> MqttSettings:
    given = {"topic": "plant/+/readings", "answers": "genba/{line}/{entity}", **more}
    return MqttSettings(name="broker", address=broker.address, **given)


class Device:
    """A link with the thread that reads it; acknowledges what it has read."""

    def __init__(self, given: MqttSettings, *, acknowledges: bool = True) -> None:
        self.link = MqttLink(given, Around(clock=SystemClock(), line="pump", share=0.0))
        self.link._client.reconnect_delay_set(0.05, 0.05)  # type: ignore[arg-type]  # any number will do
        self.seen: list[Reading] = []
        self.acknowledges = acknowledges
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        for reading in self.link.readings(self.stop):
            self.seen.append(reading)
            if self.acknowledges:
                self.link.acknowledge(reading)

    def close(self) -> None:
        self.stop.set()
        self.thread.join()
        self.link.close()


@contextmanager
def device(given: MqttSettings, **more: Any) -> Iterator[Device]:
    made = Device(given, **more)
    try:
        yield made
    finally:
        made.close()


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def told(n: int, entity: str = "a") -> bytes:
    return json.dumps({"time": 1_000 * n, "flow": n, "entity": entity}).encode()


def publish_all(link: MqttLink, count: int) -> list[int]:
    """Publish as a service does: again what was not taken, until all is confirmed."""
    waiting, sent, confirmed = list(range(count)), set[int](), list[int]()
    end = time.monotonic() + PATIENCE_S
    while len(confirmed) < count:
        assert time.monotonic() < end, link.standing
        for number in waiting:
            if number not in sent and link.publish(number, {"entity": "a", "n": number}):
                sent.add(number)
        confirmed += link.confirmed()
        time.sleep(0.01)
    return confirmed


def test_a_reading_comes_with_its_time_and_entity(broker: OddBroker) -> None:
    columns = {"flow": FieldColumn(field="in.flow", scale=0.5), "heat": FieldColumn()}
    given = settings(broker, columns=columns, entity_level=1)
    with device(given) as made:
        until(lambda: broker.listeners == 1)
        body = {"in": {"flow": 3}, "heat": "n/a", "time": "2026-11-23T00:00:00Z"}
        broker.publish("plant/north/readings", json.dumps(body).encode())
        until(lambda: len(made.seen) == 1 and broker.unacknowledged == 0)
    reading = made.seen[0]
    assert (reading.entity, reading.time_ms) == ("north", 1_795_392_000_000)
    assert reading.values == {"flow": 1.5, "heat": None}
    assert reading.id == "broker/north@1795392000000"
    assert (made.link.standing.readings, made.link.standing.bad) == (1, 1)


def test_a_list_is_acknowledged_when_all_of_it_is_safe(broker: OddBroker) -> None:
    with device(settings(broker), acknowledges=False) as made:
        until(lambda: broker.listeners == 1)
        broker.publish("plant/x/readings", b"[" + told(1) + b"," + told(2, "b") + b"]")
        until(lambda: len(made.seen) == 2)
        made.link.acknowledge(made.seen[0])
        time.sleep(0.1)
        assert broker.unacknowledged == 1
        made.link.acknowledge(made.seen[1])
        until(lambda: broker.unacknowledged == 0)
    assert [r.id for r in made.seen] == ["broker/a@1000", "broker/b@2000"]


def test_what_is_no_reading_is_refused_and_never_comes_again(broker: OddBroker) -> None:
    odd = [b"", b"{", b"[]", b"[1]", b'"x"', b'{"time": "soon"}', b'{"image": "%"}', b"[" * 5_000]
    with device(settings(broker)) as made:
        until(lambda: broker.listeners == 1)
        for payload in odd:
            broker.publish("plant/x/readings", payload)
        broker.publish("plant/x/readings", told(1))
        until(lambda: len(made.seen) == 1 and broker.unacknowledged == 0)
    assert made.link.standing.refused == len(odd)


def test_twice_and_backwards_is_known_by_its_id(broker: OddBroker) -> None:
    broker.manners = Manners(twice=True, backwards=True)
    with device(settings(broker)) as made:
        until(lambda: broker.listeners == 1)
        for n in range(4):
            broker.publish("plant/x/readings", told(n))
        until(lambda: len(made.seen) == 8)
    ids = [reading.id for reading in made.seen]
    assert ids[0] == "broker/a@1000"
    assert sorted(set(ids)) == [f"broker/a@{1_000 * n}" for n in range(4)]


def test_what_was_not_acknowledged_comes_again_after_a_restart(broker: OddBroker) -> None:
    with device(settings(broker), acknowledges=False) as first:
        until(lambda: broker.listeners == 1)
        broker.publish("plant/x/readings", told(1))
        until(lambda: len(first.seen) == 1)
    broker.publish("plant/x/readings", told(2))  # while the device is off
    with device(settings(broker)) as second:
        until(lambda: broker.unacknowledged == 0)
    assert [r.id for r in second.seen] == ["broker/a@1000", "broker/a@2000"]


def test_more_than_there_is_room_for_comes_in_the_end(
    broker: OddBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba.edge.links.mqtt._ROOM", 5)
    slow = threading.Event()
    with device(settings(broker, keepalive_s=1)) as made:
        acknowledge = made.link.acknowledge

        def slowly(reading: Reading) -> None:
            slow.wait(0.7 if len(made.seen) < 3 else 0)
            acknowledge(reading)

        monkeypatch.setattr(made.link, "acknowledge", slowly)
        until(lambda: broker.listeners == 1)
        for n in range(20):
            broker.publish("plant/x/readings", told(n))
        until(lambda: broker.unacknowledged == 0)
    assert {r.time_ms for r in made.seen} == {1_000 * n for n in range(20)}
    assert made.link.standing.lost == 0


def test_a_broker_that_goes_away_and_comes_back(broker: OddBroker) -> None:
    with device(settings(broker)) as made:
        until(lambda: broker.listeners == 1)
        broker.stop()
        until(lambda: not made.link.standing.connected)
        assert not made.link.publish(1, {"entity": "a"})
        broker.start()
        until(lambda: broker.listeners == 1)
        broker.publish("plant/x/readings", told(1))
        until(lambda: len(made.seen) == 1)
        assert publish_all(made.link, 3) == [0, 1, 2]
        assert made.link.standing.connections == 2


@pytest.mark.parametrize("manners", [Manners(hang_up_every=7), Manners(deaf_every=5)])
def test_a_broker_that_loses_things_gets_every_answer_in_the_end(
    broker: OddBroker, manners: Manners
) -> None:
    broker.manners = manners
    with device(settings(broker)) as made:
        until(lambda: broker.listeners == 1)
        numbers: list[int] = []
        end = time.monotonic() + PATIENCE_S
        pending = set(range(20))
        for number in sorted(pending):
            while not made.link.publish(number, {"entity": "a/+", "n": number}):
                assert time.monotonic() < end
                time.sleep(0.01)
        while pending:
            assert time.monotonic() < end
            numbers += made.link.confirmed()
            pending -= set(numbers)
            if manners.deaf_every and pending:  # only a new connection makes it listen
                broker.stop()
                broker.manners = Manners()
                broker.start()
            time.sleep(0.02)
    assert sorted(numbers) == list(range(20))
    got = {json.loads(payload)["n"] for topic, payload in broker.inbox}
    assert got == set(range(20))
    assert {topic for topic, _ in broker.inbox} == {"genba/pump/a__"}


def test_images_as_they_are_and_inside_of_json(broker: OddBroker) -> None:
    with device(settings(broker, payload="image", entity="camera")) as made:
        until(lambda: broker.listeners == 1)
        broker.publish("plant/x/readings", b"\x89PNG")
        broker.publish("plant/x/readings", b"\x89PNG")  # the same picture again
        until(lambda: len(made.seen) == 2)
    assert made.seen[0].image == b"\x89PNG"
    assert made.seen[0].id == made.seen[1].id
    until(lambda: broker.listeners == 0)  # the first has gone
    with device(settings(broker, client_id="other")) as made:
        until(lambda: broker.listeners == 1)
        body = {"id": "p7", "image": base64.b64encode(b"jpeg").decode()}
        broker.publish("plant/x/readings", json.dumps(body).encode())
        until(lambda: len(made.seen) == 1)
    assert (made.seen[0].image, made.seen[0].id) == (b"jpeg", "broker/p7")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"address": "http://h"}, "is no address of a broker"),
        ({"address": "mqtt://u:p@h"}, "password does not belong"),
        ({"address": "mqtt://h:99999"}, "no usable port"),
        ({"answers": "{machine}"}, "names something that is not known"),
        ({"user": "u", "password_file": "/no/file"}, "/no/file cannot be read"),
        ({"address": "mqtts://h", "ca_file": "/no/ca"}, "/no/ca cannot be read"),
    ],
)
def test_settings_that_cannot_be(broker: OddBroker, more: dict[str, Any], what: str) -> None:
    with pytest.raises(Problem, match=what):
        MqttLink(replace(settings(broker), **more), Around(clock=SystemClock()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_with_a_real_broker(tmp_path: Path, kind: str, version: Any) -> None:
    if kind not in installed() or (kind == "amqtt" and version == "5"):
        pytest.skip(f"no {kind} of version {version} here")
    with Broker(tmp_path, kind) as real:
        given = settings(real, version=version, topic="genba/pump/#")
        with device(given) as made:
            until(lambda: made.link.standing.connected)
            time.sleep(0.3)  # the subscription
            assert sorted(publish_all(made.link, 30)) == list(range(30))
            until(lambda: len(made.seen) >= 30)
        numbers = {r.values["n"] for r in made.seen}
        assert numbers == set(range(30))
