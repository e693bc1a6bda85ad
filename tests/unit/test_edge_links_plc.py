"""Controllers over OPC UA and Modbus, simulated: what they say, how well, and what is written."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.edge.clocks import SystemClock
from genba.edge.links import Around, Reading
from genba.edge.links.modbus import ModbusLink, pack, unpack
from genba.edge.links.opcua import OpcUaLink
from genba.edge.links.settings import (
    ModbusSettings,
    NodeColumn,
    OpcUaSettings,
    RegisterColumn,
    parse_links,
)
from genba.testing.broker import free_port
from genba.testing.plc import Rows, Values, replay

PATIENCE_S = 10.0
ENTITIES = ("north", "south")
COLUMNS = ("flow", "heat")
KINDS = {"opcua": OpcUaLink, "modbus": ModbusLink}


def around() -> Around:
    return Around(clock=SystemClock(), share=0.0)


@pytest.fixture(
    scope="module",
    params=["modbus", pytest.param("opcua", marks=pytest.mark.slow)],  # it takes seconds to start
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def plc(kind: str) -> Iterator[Any]:
    made = resolve("simulator", kind)(ENTITIES, COLUMNS, free_port())
    made.start()
    yield made
    made.stop()


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class Reader:
    """A thread that reads a link."""

    def __init__(self, link: Any) -> None:
        self.link = link
        self.seen: list[Reading] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        for reading in self.link.readings(self.stop):
            self.seen.append(reading)

    def __enter__(self) -> "Reader":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.link.close()

    def of(self, time_ms: int) -> dict[str, Any]:
        return {r.entity: dict(r.values) for r in self.seen if r.time_ms == time_ms}


def link_to(kind: str, plc: Any, **more: Any) -> Any:
    settings: Any = parse_links(plc.link(20)).links["plc"]
    if kind == "opcua":
        answers: Any = {n: NodeColumn(node=f"ns=2;s={{entity}}.{n}") for n in ("alarm", "score")}
        beat: Any = NodeColumn(node="ns=2;s=heartbeat")
    else:
        text = plc.link(20)
        at = text.index("[links.plc.columns]")
        head, _, tail = plc.answers().partition("\n")
        whole: Any = parse_links(f"{text[:at]}{head}\n{text[at:]}{tail}").links["plc"]
        answers, beat = whole.answers, whole.heartbeat
    made = {"answers": answers, "heartbeat": beat, **more}
    return KINDS[kind](replace(settings, **made), around())


@pytest.mark.parametrize("mode", ["poll", "subscribe"])
def test_every_step_of_every_machine_once(kind: str, plc: Any, mode: str) -> None:
    if kind == "modbus" and mode == "subscribe":
        pytest.skip("Modbus knows no subscriptions")
    more = {"mode": mode} if kind == "opcua" else {}
    steps: list[dict[str, Values]] = [
        {"north": {"flow": float(n), "heat": None if n == 1 else 2.5}, "south": {"flow": -n / 3,
         "heat": 20.0}} for n in range(1, 4)
    ]  # fmt: skip
    begun = time.time_ns() // 1_000_000
    with Reader(link_to(kind, plc, **more)) as reader:
        until(lambda: reader.link.standing.connected)
        time.sleep(0.1)
        rows = Rows(entities=ENTITIES, columns=COLUMNS, steps=steps)
        assert replay(rows, plc, SystemClock(), threading.Event(), step_ms=300) == 3
        until(lambda: sum(r.time_ms > begun for r in reader.seen) >= 6)
        time.sleep(0.1)
    times = sorted({r.time_ms for r in reader.seen if r.time_ms > begun})
    assert len(times) == 3
    assert [t % 300 for t in times] == [0, 0, 0]
    for time_ms, step in zip(times, steps, strict=True):
        found = reader.of(time_ms)
        for entity in ENTITIES:
            assert found[entity] == pytest.approx(step[entity], abs=1e-5)
    assert len({r.id for r in reader.seen}) == len(reader.seen)
    assert reader.link.standing.bad >= 1


def test_an_answer_is_written_at_once_and_a_heart_beats(kind: str, plc: Any) -> None:
    link = link_to(kind, plc)
    with Reader(link) as reader:
        until(lambda: reader.link.standing.connected)
        body = {"entity": "south", "outputs": {"score": 1.5, "alarm": True}, "action": "model"}
        assert link.publish(7, body)
        until(lambda: 7 in link.confirmed())
        assert (plc.answer("south", "score"), plc.answer("south", "alarm")) == (1.5, 1.0)
        assert link.standing.published == 1
        if kind == "modbus":
            until(lambda: plc.heartbeat() > 0)


def test_an_answer_that_nobody_takes_is_not_written_later(kind: str) -> None:
    gone = resolve("simulator", kind)(ENTITIES, COLUMNS, free_port())
    link = link_to(kind, gone, timeout_ms=300, heartbeat=None)
    assert link.publish(1, {"entity": "north", "outputs": {"score": 1.0}})
    assert link.publish(2, {"entity": "north", "outputs": {"score": 2.0}})
    found: list[int] = []

    def both() -> bool:
        found.extend(link.confirmed())
        return len(found) == 2

    until(both)
    assert sorted(found) == [1, 2]
    assert link.standing.published == 0
    link.close()


def test_a_controller_that_goes_away_and_comes_back(kind: str) -> None:
    port = free_port()
    first = resolve("simulator", kind)(ENTITIES, COLUMNS, port)
    first.start()
    first.show("north", {"flow": 1.0, "heat": 1.0}, 1_000)
    with Reader(link_to(kind, first, timeout_ms=500)) as reader:
        until(lambda: len(reader.seen) == 1)
        first.stop()
        until(lambda: not reader.link.standing.connected)
        second = resolve("simulator", kind)(ENTITIES, COLUMNS, port)
        second.start()
        second.show("north", {"flow": 2.0, "heat": 1.0}, 2_000)
        until(lambda: len(reader.seen) >= 2)
    second.stop()
    assert [r.time_ms for r in reader.seen] == [1_000, 2_000]
    assert reader.link.standing.connections == 2


def test_numbers_in_registers_come_back_as_they_were() -> None:
    for order in ("big", "little"):
        for name, value in [("int16", -5), ("uint16", 65_535), ("int32", -70_000),
                            ("uint32", 1 << 31), ("int64", -(1 << 40)), ("uint64", 1 << 40),
                            ("float32", 0.5), ("float64", -1e300), ("bool", 1)]:  # fmt: skip
            column = RegisterColumn(register=0, type=name)  # type: ignore[arg-type]  # all of its values
            assert unpack(pack(value, column, order), column, order) == value
    assert pack(-1.0, RegisterColumn(register=0, type="uint16"), "big") == [0]


def test_coils_input_registers_and_registers_that_are_not_there() -> None:
    plc: Any = resolve("simulator", "modbus")(("a",), ("flow",), free_port())
    plc.start()
    plc.show("a", {"flow": 3.0}, 5_000)
    columns = {
        "flow": RegisterColumn(register=10, type="float32", table="input", scale=2.0),
        "on": RegisterColumn(register=3, table="coil"),
        "off": RegisterColumn(register=4, table="discrete"),
        "none": RegisterColumn(register=60_000),
    }
    settings = ModbusSettings(name="plc", address=plc.address, columns=columns, every_ms=20)
    with Reader(ModbusLink(settings, around())) as reader:
        until(lambda: len(reader.seen) >= 1)
        assert "holding 60000" in reader.link.standing.detail
    plc.stop()
    values = reader.seen[0].values
    assert (values["flow"], values["none"]) == (6.0, None)


@pytest.mark.parametrize(
    ("made", "what"),
    [
        (lambda: ModbusLink(ModbusSettings(name="p", address="mqtt://h"), around()), "no address"),
        (lambda: ModbusLink(ModbusSettings(name="p", address="tcp://h:x"), around()), "no address"),
        (lambda: OpcUaLink(OpcUaSettings(name="p", address="tcp://h"), around()), "no address"),
        (
            lambda: OpcUaLink(
                OpcUaSettings(name="p", address="opc.tcp://h", columns={"a": NodeColumn(node="x")}),
                around(),
            ),
            "no name of a node",
        ),
        (
            lambda: ModbusLink(
                ModbusSettings(
                    name="p", address="tcp://h", columns={"a": RegisterColumn(register=65_536)}
                ),
                around(),
            ),
            "outside 0 to 65,535",
        ),
    ],
    ids=["scheme", "port", "opcua scheme", "node", "register"],
)
def test_settings_that_cannot_be(made: Callable[[], Any], what: str) -> None:
    with pytest.raises(Problem, match=what) as caught:
        made()
    assert caught.value.code == "G691"
