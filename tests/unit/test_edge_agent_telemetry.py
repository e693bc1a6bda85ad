"""What devices send becomes captures of the line, once; what is not theirs is not believed."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genba.core.codec import encode
from genba.core.problem import Problem
from genba.edge.agent.enrolment import Enrolment, sign_report
from genba.edge.agent.enrolment import enrol as take
from genba.serve.edge.devices import Devices, seen
from genba.serve.edge.intake import Intake, server_of
from genba.serve.http.responses import Refusal
from genba.stages.edge_fleet import Enrolling, enrol, revoke
from genba.store.captures import find_prediction, read_capture
from genba.store.home import Store
from genba.testing.graphs import LAGS, SENSORS
from genba.testing.serving import image_package
from tests.unit.edge_agents import Plant, copy_plant, make_plant

NOW_MS = 1_795_400_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return make_plant(tmp_path_factory.mktemp("plant"), releases=1)


@pytest.fixture
def store(made: Plant, tmp_path: Path) -> Iterator[Store]:
    with copy_plant(made, tmp_path / "factory").store() as opened:
        yield opened


@pytest.fixture
def given(store: Store, tmp_path: Path) -> Enrolment:
    order = Enrolling(device="press-7", line="pump")
    known = enrol(store, order, by="kei", now_ms=NOW_MS)
    take(tmp_path / "dev", json.dumps(encode(known)).encode())
    return known


@pytest.fixture
def key(store: Store, given: Enrolment) -> str:
    device = Devices(store.path).get(given.device)
    assert device is not None
    return device.key


def package_of(store: Store) -> str:
    return store.ledger.find("package", line="pump")[0].id


def prediction(store: Store, number: int, **changes: Any) -> dict[str, Any]:
    return {
        "n": number,
        "time_ms": NOW_MS + number,
        "entity": "R80711",
        "package": package_of(store),
        "role": "stable",
        "features": {"window": [[1.0] * SENSORS] * LAGS},
        "outputs": {"score": 0.5, "alarm": number % 2 == 0, "expected": [2.0]},
        "latency_us": 300,
        "action": "model",
        "trips": [],
        **changes,
    }


def record(body: dict[str, Any], kind: str = "prediction") -> dict[str, Any]:
    return {"id": f"{kind}:{body.get('n', 0)}", "kind": kind, "body": body}


def post(store: Store, key: str, *records: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"device": "press-7", "records": list(records), **more}
    return Intake(store, now_ms=lambda: NOW_MS).take(json.dumps(body).encode(), key)


def captured(store: Store) -> list[dict[str, Any]]:
    found = store.ledger.find("capture", line="pump")
    return [row for one in found for row in read_capture(store, one).to_pylist()]


def test_predictions_become_captures_once(store: Store, key: str) -> None:
    records = [record(prediction(store, n)) for n in range(5)]
    told = post(store, key, *records[:3])
    assert told["accepted"] == ["prediction:0", "prediction:1", "prediction:2"]
    told = post(store, key, *records[1:])  # the answer was lost, and two more came
    assert len(told["accepted"]) == 4
    post(store, key, *records)
    rows = captured(store)
    assert sorted(row["n"] for row in rows) == [0, 1, 2, 3, 4]
    found = find_prediction(store, f"{server_of('press-7')}-3")
    assert found is not None
    _, row = found
    assert (row["entity"], row["role"], row["status"]) == ("R80711", "stable", "ok")
    assert row["window"] == [1.0] * SENSORS * LAGS
    bodies = [one.body["packages"] for one in store.ledger.find("capture", line="pump")]
    counts = [body[package_of(store)] for body in bodies]
    assert sum(one["n"] for one in counts) == 5
    assert sum(one["alarms"] for one in counts) == 3


def test_an_image_may_follow_its_prediction(store: Store, key: str) -> None:
    package = image_package(store, "pump")
    outputs = {"score": 1.5, "alarm": True, "class": 1, "probability": [0.1, 0.8, 0.1]}
    plain = prediction(store, 7, package=package, features={"bar": 0.5}, outputs=outputs)
    post(store, key, record(plain))
    image = base64.b64encode(b"\xff\xd8 a part").decode()
    sample = {**plain, "features": {"bar": 0.5, "image": image}, "why": "alarm"}
    for _ in range(2):
        assert post(store, key, record(sample, "sample"))["accepted"] == ["sample:7"]
    rows = [row for row in captured(store) if row["n"] == 7]
    assert [row.get("image") for row in rows].count(b"\xff\xd8 a part") == 1
    found = store.ledger.find("capture", line="pump")
    assert sum(one.body["packages"][package]["n"] for one in found) == 1
    both = [record({**plain, "n": 8}), record({**sample, "n": 8}, "sample")]
    assert sorted(post(store, key, *both)["accepted"]) == ["prediction:8", "sample:8"]


@pytest.mark.parametrize(
    "changes",
    [
        {"package": "f" * 64},
        {"n": -1},
        {"n": "seven"},
        {"role": "king"},
        {"features": {"window": [1.0]}},
        {"features": {"window": ["a"]}},
        {"outputs": {"score": {"a": 1}}},
    ],
)
def test_what_cannot_be_a_prediction(store: Store, key: str, changes: dict[str, Any]) -> None:
    told = post(store, key, record(prediction(store, 1, **changes)), record(prediction(store, 2)))
    assert told["accepted"] == ["prediction:2"], "the others are taken all the same"
    assert len(told["refused"]) == 1


@pytest.mark.parametrize(
    ("outputs", "status"),
    [({}, "error"), ({"score": None, "alarm": False, "expected": [1.0]}, "nan")],
)
def test_answers_that_are_none(
    store: Store, key: str, outputs: dict[str, Any], status: str
) -> None:
    post(store, key, record(prediction(store, 1, outputs=outputs)))
    assert captured(store)[0]["status"] == status


def test_who_is_believed(store: Store, given: Enrolment, key: str) -> None:
    with pytest.raises(Problem, match="G689"):
        post(store, "another", record(prediction(store, 1)))
    order = Enrolling(device="press-8", line="pump")
    enrol(store, order, by="kei", now_ms=NOW_MS)
    other = Devices(store.path).get("press-8")
    assert other is not None
    with pytest.raises(Problem) as caught:
        post(store, other.key)
    assert "key of another device" in caught.value.why
    revoke(store, given.device, by="kei", now_ms=NOW_MS)
    with pytest.raises(Problem) as caught:
        post(store, key)
    assert "revoked" in caught.value.why
    assert captured(store) == []


def report(given: Enrolment, **changes: Any) -> dict[str, Any]:
    return {"device": given.device, "line": given.line, "number": 3, "active": None, **changes}


def test_reports_are_signed(store: Store, given: Enrolment, key: str, tmp_path: Path) -> None:
    signed = sign_report(tmp_path / "dev", report(given))
    post(store, key, report=signed)
    device = Devices(store.path).get(given.device)
    assert device is not None
    assert device.report["number"] == 3
    assert device.public_key == signed["public_key"]
    older = sign_report(tmp_path / "dev", report(given, number=2))
    post(store, key, report=older)
    again = Devices(store.path).get(given.device)
    assert again is not None
    assert again.report["number"] == 3, "an older report does not replace a newer one"
    forged = [
        {**signed, "body": report(given, number=9)},
        {**signed, "signature": "zz"},
        {**signed, "public_key": "00" * 32},
        {"body": None},
    ]
    for one in forged:
        with pytest.raises(Problem, match="G689"):
            post(store, key, report=one)
    for changes in ({"device": "press-8"}, {"line": "other"}):
        other = sign_report(tmp_path / "dev", report(given, **changes))
        with pytest.raises(Problem) as caught:
            seen(again, other, NOW_MS)
        assert "another device or line" in caught.value.why


def test_a_change_of_what_runs_is_in_the_ledger(
    store: Store, given: Enrolment, key: str, tmp_path: Path
) -> None:
    for release in (1, 1, 2):
        body = report(given, active={"release": release})
        post(store, key, report=sign_report(tmp_path / "dev", body))
    events = store.ledger.events(kinds=("edge.report",))
    assert [event.body["active"]["release"] for event in events] == [1, 2]


def test_events_and_feedback_are_taken_once(store: Store, key: str) -> None:
    post(store, key, record(prediction(store, 1)))
    event = {"id": "event:1", "kind": "event", "body": {"change": "release 2 is active"}}
    said = {"id": "feedback:1", "kind": "feedback", "body": {"n": 1, "value": "normal"}}
    for _ in range(2):
        told = post(store, key, event, said)
        assert told["accepted"] == ["event:1", "feedback:1"], told
    assert len(store.ledger.events(kinds=("edge.event",))) == 1
    rows = store.feedback.by_prediction(f"{server_of('press-7')}-1")
    assert [row.status for row in rows] == ["accepted", "duplicate"]
    wrong = {"id": "feedback:2", "kind": "feedback", "body": {"n": 1, "n2": 3}}
    assert list(post(store, key, wrong)["refused"]) == ["feedback:2"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"device":3}',
        b'{"device":"press-7","records":{}}',
        b'{"device":"press-7","records":[1]}',
        b'{"device":"press-7","records":[{"id":1}]}',
        b'{"device":"press-7","report":3}',
        json.dumps({"device": "press-7", "records": [{}] * 2_001}).encode(),
    ],
)
def test_what_is_no_telemetry(store: Store, key: str, body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        Intake(store).take(body, key)
    assert caught.value.status == 400
