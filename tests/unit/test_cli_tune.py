"""`genba tune`: parameters are shown, checked, changed and recorded with their evidence."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.codec import decode, encode
from genba.core.digest import digest_json
from genba.core.line import Data, Line
from genba.core.values import Manifest
from genba.learn.proportion import wilson
from genba.stages.deploy import deploy
from genba.stages.tune import estimate
from genba.store.home import Store
from genba.testing.serving import image_package, place, small_package
from genba.ui.cli.app import run_command

Ask = Callable[..., tuple[int, dict[str, Any]]]
LINE = Line(name="parts", task="vision.anomaly", data=Data(source="files:parts"))
CALIBRATION = {
    "parameter": "bar",
    "measure": "overkill",
    "quantiles": np.linspace(0.0, 0.6, 61).tolist(),
    "units": 61,
}


@pytest.fixture
def inspection(home: Path) -> tuple[Store, str]:
    store, body = Store.open(home), encode(LINE)
    store.ledger.record("line", digest_json(body), body, line="parts")
    settings = {"size": 16, "calibration": CALIBRATION}
    package = image_package(store, "parts", bar=0.5, settings=settings)
    deploy(store, "parts", "deploy", package, reason="first", by="me")
    return store, package


def test_tuning_is_shown_checked_and_recorded(
    inspection: tuple[Store, str], ask: Ask, show: Callable[..., str]
) -> None:
    store, package = inspection
    code, told = ask("tune", "parts")
    assert code == 0
    (bar,) = told["parameters"]
    assert (bar["name"], bar["value"], bar["default"]) == ("bar", 0.5, 0.5)
    assert bar["expected"]["overkill"]["value"] == pytest.approx(10 / 61)
    for argv, problem, exit_code in (
        (("baar", "1", "--reason", "x"), "G551", 1),
        (("baar",), "G551", 1),
        (("bar", "0", "--reason", "x"), "G552", 1),
        (("bar", "nan", "--reason", "x"), "G552", 1),
        (("bar", "1"), "G110", 2),
    ):
        code, told = ask("tune", "parts", *argv)
        assert (code, told["problem"]["code"]) == (exit_code, problem)
    assert store.ledger.events(kinds=("tune",)) == []
    text = show("tune", "parts", "bar", "0.55", "--reason", "fewer good parts", "--me", "ann")
    assert "bar of parts is now 0.55" in text
    assert "overkill 0.08197 [" in text
    assert "(estimated)" in text
    (event,) = store.ledger.events(kinds=("tune",))
    assert event.subject == package
    assert event.line == "parts"
    assert {k: event.body[k] for k in ("parameter", "value", "reason", "by")} == {
        "parameter": "bar",
        "value": 0.55,
        "reason": "fewer good parts",
        "by": "ann",
    }
    assert event.body["evidence"]["before"] == 0.5
    assert event.body["evidence"]["overkill"]["n"] == 61
    shown = " ".join(show("tune", "parts", "bar", "--package", package[:8]).split())
    assert "fewer good parts (ann," in shown
    local = ask("tune", "parts", "bar")[1]["parameters"][0]
    assert local["value"] == 0.55


def test_what_a_value_does_is_known_where_the_package_knows_its_calibration(
    inspection: tuple[Store, str],
) -> None:
    store, package = inspection
    manifest = decode(Manifest, store.ledger.get("package", package))
    found = estimate(manifest, "bar", 0.3)
    assert found is not None
    name, measure = found
    assert (name, measure.n, measure.method) == ("overkill", 61, "estimated")
    assert measure.low is not None
    assert measure.high is not None
    assert measure.value == pytest.approx(30 / 61)
    assert measure.low < measure.value < measure.high
    assert estimate(manifest, "other", 0.3) is None
    bare = replace(manifest, settings={"calibration": {"parameter": "bar", "default": 3.0}})
    assert estimate(bare, "bar", 0.3) is None
    assert wilson(0.0, 10)[0] == 0.0
    assert wilson(1.0, 10)[1] == pytest.approx(1.0)


def test_a_package_without_parameters(
    home: Path, show: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(home)
    line = replace(LINE, name="pump", task="sensor.anomaly")
    store.ledger.record("line", digest_json(encode(line)), encode(line), line="pump")
    place(store, "pump", "deploy", small_package(store, "pump"))
    assert "no parameter that can be changed" in show("tune", "pump")
    assert run_command(["tune", "pump", "x", "1", "--reason", "y"]) == 1
    assert "G551" in capsys.readouterr().err
