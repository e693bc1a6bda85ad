"""What a line shows of predictions whose truth is known by now, and what was set in service."""

from collections.abc import Callable
from typing import Any

from genba.runs.lines import newest_line
from genba.store.captures import CaptureWriter, Interval
from genba.store.home import Store


def test_hindsight_and_parameters_of_the_stable_package(
    factory: Any, ask: Callable[..., Any], show: Callable[..., str]
) -> None:
    package, ledger = factory.packages[0], factory.store.ledger
    coverage = {
        "name": "coverage", "kind": "hindsight", "statistic": 0.71, "low": 0.68, "high": 0.74,
        "n": 900, "limit": 0.8, "null_q": None, "drifted": True,
    }  # fmt: skip
    fine = {**coverage, "name": "width", "drifted": False, "limit": None}
    for number, findings in enumerate(([], [coverage, fine])):
        body = {"package": package, "window": number, "rows": 1, "findings": findings}
        ledger.append("watch", {**body, "cursor": {}}, line="pump", subject=package)
    tune = {"parameter": "stretch", "value": 1.25, "reason": "coverage fell", "by": "watch"}
    ledger.append("tune", {**tune, "evidence": {}}, line="pump", subject=package)
    ledger.append("tune", {**tune, "value": 9.0}, line="pump", subject=factory.packages[1])
    (line,) = ask("status")[1]["lines"]
    assert [f["name"] for f in line["hindsight"]] == ["coverage", "width"]
    assert line["parameters"] == {"stretch": 1.25}
    text = " ".join(show("status", "pump").split())
    assert "in hindsight coverage 0.71 [0.68 to 0.74], of 900; beyond its gate, 0.8" in text
    assert "width 0.71 [0.68 to 0.74], of 900 " in text
    assert "set in service stretch = 1.25 by watch: coverage fell" in text


def test_a_line_without_any_shows_none(factory: Any, ask: Callable[..., Any]) -> None:
    (line,) = ask("status")[1]["lines"]
    assert (line["hindsight"], line["parameters"]) == ([], {})


def test_what_is_not_kept_of_predictions_is_shown(
    factory: Any, ask: Callable[..., Any], show: Callable[..., str]
) -> None:
    store: Store = factory.store
    assert "captured" not in show("status", "pump")
    known = newest_line(store, "pump")
    assert known is not None
    body = {**known.body, "capture": {"inputs": "digest", "sample": 0.05}}
    store.ledger.record("line", "changed", body, line="pump")
    store.ledger.append("run.started", {"line_digest": "changed"}, line="pump", subject="run-2")
    packages = {factory.packages[0]: {"role": "stable", "n": 9}}
    interval = Interval(from_ms=1, to_ms=2, packages=packages, dropped=7)
    CaptureWriter(store, "pump", "server-1").write(interval)
    (line,) = ask("status")[1]["lines"]
    assert line["capture"] == {"inputs": "digest", "sample": 0.05}
    assert line["dropped_today"] == 7
    text = " ".join(show("status", "pump").split())
    assert "a digest of the inputs, 5 % of the predictions, and all alarms and errors" in text
    assert "7 predictions today: the disk was too slow" in text
