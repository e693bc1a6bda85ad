"""What may change in service: parameters, time, and challengers of another working size."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.protocols import Array
from genba.edge.images import encode_png
from genba.edge.package import load
from genba.edge.predict import Predictor
from genba.serve.client import Answer, Client
from genba.serve.limits import Limits
from genba.serve.oip import requests as oip
from genba.serve.oip.inputs import Inputs
from genba.store.captures import read_capture
from genba.store.home import Store
from genba.testing.graphs import LAGS, small_batch
from genba.testing.serving import (
    IMAGE_SIZE,
    clock_package,
    image_package,
    place,
    serve_here,
    small_package,
    until,
)

LIMITS = Limits(poll_s=0.01, capture_s=0.05, sweep_s=0.02)
GREY = np.full((1, IMAGE_SIZE, IMAGE_SIZE, 3), 51, np.uint8)  # a fifth of white


def tune(store: Store, package: str, value: Any, name: str = "bar") -> None:
    body = {"parameter": name, "value": value, "reason": "test", "by": "me"}
    store.ledger.append("tune", body, line="parts", subject=package)


def score(client: Client, **more: Any) -> float:
    tensors: dict[str, Array] = {"image": GREY}
    if "bar" in more:
        tensors["bar"] = np.array([more["bar"]], dtype=np.float32)
    return float(client.infer("parts", tensors, outputs=["score"]).outputs["score"][0])


def rows_of(store: Store) -> list[dict[str, Any]]:
    return [r for c in store.ledger.find("capture") for r in read_capture(store, c).to_pylist()]


def test_a_parameter_changes_while_the_server_runs(home: Path) -> None:
    store = Store.open(home)
    package = image_package(store, "parts")
    tune(store, package, 0.4)
    place(store, "parts", "deploy", package)

    def script(client: Client) -> None:
        assert score(client) == pytest.approx(0.5)
        assert client.metadata("parts")["parameters"]["parameters"] == {"bar": 0.4}
        tune(store, package, 0.1)
        until(lambda: score(client) == pytest.approx(2.0))
        assert score(client, bar=0.2) == pytest.approx(1.0)  # for this request only
        assert score(client) == pytest.approx(2.0)
        for name, value in (("bar", "high"), ("other", 3.0)):  # not through `genba tune`
            tune(store, package, value, name)
        tune(store, "0" * 64, 9.0)  # of a package that is not served
        tune(store, package, 1.0)
        until(lambda: score(client) == pytest.approx(0.2))
        (version,) = client.line("parts")["versions"].values()
        assert version["parameters"] == {"bar": 1.0}

    serve_here(home, script, limits=LIMITS)
    kept = {round(row["bar"], 6) for row in rows_of(store)}
    assert {0.4, 0.1, 0.2, 1.0} == kept


def test_a_challenger_has_its_own_parameters_and_working_size(home: Path) -> None:
    store = Store.open(home)
    stable = image_package(store, "parts", bar=0.5)
    larger = image_package(store, "parts", size=24, bar=0.2)
    place(store, "parts", "deploy", stable)
    file = encode_png(GREY[0])

    def script(client: Client) -> None:
        place(store, "parts", "canary", larger, share=0.5)
        until(lambda: client.line("parts")["canary"] is not None)
        for tensors in ({"image": [file]}, {"image": GREY}):
            seen: dict[str, Answer] = {}
            while len(seen) < 2:
                answer = client.infer("parts", tensors, outputs=["score", "map"])
                seen[answer.role] = answer
            assert seen["stable"].outputs["map"].shape == (1, 16, 16)
            assert seen["canary"].outputs["map"].shape == (1, 24, 24)
            assert seen["stable"].outputs["score"] == pytest.approx([0.4])
            assert seen["canary"].outputs["score"] == pytest.approx([1.0])
        tune(store, larger, 0.1)
        place(store, "parts", "withdraw", larger)

    serve_here(home, script, limits=LIMITS)
    assert not store.ledger.events(kinds=["serve.load_failed"])


def test_a_shadow_sees_the_same_bytes(home: Path) -> None:
    store = Store.open(home)
    place(store, "parts", "deploy", image_package(store, "parts"))
    place(store, "parts", "shadow", image_package(store, "parts", size=24, bar=0.2))
    files = [encode_png(np.full((9 + n, 30, 3), 51, np.uint8)) for n in range(3)]

    def script(client: Client) -> None:
        client.infer("parts", {"image": files})
        client.infer("parts", {"image": GREY})
        client.infer("parts", {"image": GREY, "bar": np.array([0.4], np.float32)})

    serve_here(home, script, limits=LIMITS)
    by_role = {
        role: sorted((r for r in rows_of(store) if r["role"] == role), key=lambda r: r["n"])
        for role in ("stable", "shadow")
    }
    for role, bars in (("stable", [0.5] * 4 + [0.4]), ("shadow", [0.2] * 4 + [0.4])):
        rows = by_role[role]
        assert [row["image"] for row in rows[:3]] == files
        assert rows[3]["image"] == encode_png(GREY[0])
        assert [row["bar"] for row in rows] == pytest.approx(bars)
        assert [row["score"] for row in rows] == pytest.approx([0.2 / bar for bar in bars])


def test_time_is_now_where_a_package_needs_it(home: Path) -> None:
    store = Store.open(home)
    place(store, "parts", "deploy", clock_package(store, "parts"))
    recent = np.arange(LAGS, dtype=np.float32).reshape(1, LAGS, 1)

    def script(client: Client) -> None:
        told = client.metadata("parts")["inputs"][1]
        assert (told["name"], told["parameters"]["optional"]) == ("time", True)
        said = client.infer("parts", {"recent": recent}, times=[7 * 3_600_000])
        assert said.outputs["expected"].ravel().tolist() == [LAGS - 1, 7]
        client.infer("parts", {"recent": recent})

    before_ms = time.time_ns() // 1_000_000
    serve_here(home, script, limits=LIMITS)
    rows = sorted(rows_of(store), key=lambda row: row["n"])
    assert rows[0]["time"] == 7 * 3_600_000
    assert before_ms <= rows[1]["time"] <= time.time_ns() // 1_000_000
    hour = rows[1]["time"] // 3_600_000 % 24
    assert rows[1]["expected"] == [LAGS - 1, hour]
    assert rows[0]["recent"] == list(range(LAGS))


def test_a_request_read_on_a_thread_while_its_package_is_exchanged(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(home)
    first, second, third = (small_package(store, "parts", seed=seed) for seed in range(3))
    place(store, "parts", "deploy", first)
    entered, gate = threading.Event(), threading.Event()
    real = oip.read_request

    def slow(*arguments: Any) -> Inputs:
        entered.set()
        assert gate.wait(20)
        return real(*arguments)

    def script(client: Client) -> None:
        answers: list[Any] = []
        monkeypatch.setattr(oip, "read_request", slow)
        with Client(client.url) as other:
            thread = threading.Thread(
                target=lambda: answers.append(other.infer("parts", small_batch(2)))
            )
            thread.start()
            assert entered.wait(20)
            for package in (second, third):  # so that the first is not even needed to go back to
                place(store, "parts", "canary", package, share=0.5)
                place(store, "parts", "promote", package)
            until(lambda: client.line("parts")["stable"]["package"] == third)
            until(lambda: first not in client.line("parts")["versions"])
            gate.set()
            thread.join()
        assert answers[0].package == third

    serve_here(home, script, limits=replace(LIMITS, parse_bytes=0))


def test_a_mistake_while_reading_is_one_500(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.open(home)
    place(store, "parts", "deploy", small_package(store, "parts"))

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    def script(client: Client) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(oip, "read_request", broken)
            with pytest.raises(Exception, match="made a mistake"):
                client.infer("parts", small_batch(1))
        assert client.infer("parts", small_batch(1)).role == "stable"

    serve_here(home, script, limits=replace(LIMITS, parse_bytes=0))
    assert "ZeroDivisionError" in caplog.text


def test_a_device_uses_the_parameters_of_the_package(home: Path) -> None:
    store = Store.open(home)
    package = image_package(store, "parts", bar=0.25)
    predictor = Predictor(load(store.blobs.read(package), store.blobs.read))
    assert predictor.predict({"image": GREY})["score"] == pytest.approx([0.8])
    given: dict[str, Array] = {"image": GREY, "bar": np.array([0.5], dtype=np.float32)}
    assert predictor.predict(given)["score"] == pytest.approx([0.4])
    predictor.engine.close()
