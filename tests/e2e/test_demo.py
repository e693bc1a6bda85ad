"""The demonstration on a farm that a program made up: everything real but the wind, no network."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genba.core.line import Limit
from genba.core.rollout import fold
from genba.store.home import Store
from genba.store.signing import verify
from genba.ui.cli import demo as command
from genba.ui.cli.app import run_command
from genba.ui.demo.plan import Plan
from tests.farm import farm_line, write_farm

KEYS = {
    "line", "data", "trained_on", "gates", "measures", "baselines", "engine", "first", "promoted",
    "drift", "canary", "promotion", "in_production", "feedback", "poisoned", "drills", "runs",
    "replay", "trace", "bill", "status", "server", "seconds", "story", "not_shown",
}  # fmt: skip
LONGEST_ROLLBACK_S = 10.0
Played = Callable[[Plan], tuple[int, dict[str, Any]]]


def farm_plan(folder: Path, *, days: int, patience_days: int) -> Plan:
    path = folder / "farm.csv"
    write_farm(path, days)
    return Plan(
        line=farm_line(path),
        train_until="2024-03-01T00:00:00Z",
        live_until="2030-01-01T00:00:00Z",
        entities=("T1", "T2"),
        days_per_s=12,
        patience_days=patience_days,
        late_days=20,  # a capture is written every second; the answer must come later
        drills={
            "not a number": {"after": 50, "not_a_number": True},
            "latency": {"after": 50, "delay_ms": 300.0},
        },
    )


@pytest.fixture
def played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Played:
    """Run `genba demo` with a plan of one's own; return its exit code and the report it wrote."""

    def play(plan: Plan) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(command, "wind_farm", lambda _line: plan)
        report = tmp_path / "report.json"
        code = run_command(
            ["demo", "--home", str(tmp_path / "home"), "--report", str(report), "--json"]
        )
        shown = capsys.readouterr()
        found: dict[str, Any] = json.loads(report.read_text())
        assert set(found) == KEYS
        answer = json.loads(shown.out)
        assert {key: answer[key] for key in KEYS} == found
        told = "".join(shown.err.split())
        assert all("".join(h["what"].split())[:60] in told for h in found["story"])
        return code, found

    return play


def check(plan: Plan, store: Store, report: dict[str, Any]) -> None:
    """Hold the report against the ledger: nothing invented, and nothing hidden."""
    packages = {record.id: record for record in store.ledger.find("package", line="farm")}
    check_the_first_model(plan, store, report)
    check_the_drills(store, report)
    shown = " ".join(report["not_shown"])
    if report["promoted"]:
        assert report["promoted"]["package"] in packages
        assert report["promoted"]["model"] in {r.id for r in store.ledger.find("model")}
        assert report["promotion"]["package"] == report["promoted"]["package"]
        assert 0 < report["canary"]["share"] < 1
    else:
        assert report["promotion"] is None
        assert "No challenger was promoted." in shown
    if report["poisoned"]:
        runs = {run["run"]: run for run in report["runs"]}
        assert runs[report["poisoned"]["run"]]["outcome"] == report["poisoned"]["outcome"]
    else:
        assert "No run was judged on poisoned labels." in shown
    finished = store.ledger.events(line="farm", kinds=["run.finished"])
    told = [run["run"] for run in report["runs"]]
    assert told == [event.subject for event in finished][: len(told)]
    feedback = store.feedback.counts("farm")
    labels = sum(operator["labels"] for operator in report["feedback"])
    assert labels == sum(feedback.values())
    assert report["replay"]["failed_requests"] == 0
    stable = next(found for found in report["status"]["lines"] if found["line"] == "farm")
    assert report["in_production"]["package"] == stable["rollout"]["stable"]["package"]
    captures = store.ledger.find("capture", line="farm")
    assert report["replay"]["predictions"] <= sum(record.body["rows"] for record in captures)
    assert report["trace"]["prediction"]["values"]["alarm"] is True
    assert report["trace"]["package"]["id"] in packages
    assert report["trace"]["run"]["code"]["source"]
    assert verify(store).ok


def check_the_first_model(plan: Plan, store: Store, report: dict[str, Any]) -> None:
    rows = len((Path(plan.line.data.source.partition(":")[2])).read_text().splitlines()) - 1
    assert report["data"]["rows_in"] == rows == report["data"]["rows_kept"]
    assert report["data"]["rejected"] == {}
    assert report["trained_on"]["rows_kept"] == 2 * 60 * 24, "two turbines, sixty days, hourly"
    first = store.ledger.get("package", report["first"]["package"])
    assert first is not None
    assert first["model"] == report["first"]["model"]
    assert report["first"]["deployed"] is True
    assert [gate["passed"] for gate in report["gates"]] == [True]
    assert report["engine"]["chosen"] == first["engine"]
    assert report["bill"]["joules"]["value"] > 0
    assert report["bill"]["joules"]["method"] != "measured", "nothing measures energy here"


def check_the_drills(store: Store, report: dict[str, Any]) -> None:
    events = store.ledger.events(line="farm", kinds=["deploy"])
    assert [drill["name"] for drill in report["drills"]] == ["not a number", "latency"]
    for drill in report["drills"]:
        assert drill["rolled_back"], drill
        assert drill["bad_answers"] > 0
        assert drill["seconds"] < LONGEST_ROLLBACK_S
        *before, ended = [e for e in events if e.subject == drill["package"]]
        assert before[-1].body["action"] in ("deploy", "promote"), "it was in production"
        assert ended.body["action"] == "roll_back"
        assert ended.body["reason"] == drill["reason"]
    twins = {drill["package"] for drill in report["drills"]}
    assert twins <= set(fold(events).condemned)


def test_a_short_demonstration_says_what_it_did_not_show(tmp_path: Path, played: Played) -> None:
    plan = farm_plan(tmp_path, days=400, patience_days=24)
    code, report = played(plan)
    assert code == 0
    assert report["promoted"] is None
    assert report["poisoned"] is None
    with Store.open(tmp_path / "home") as store:
        check(plan, store, report)


def test_a_first_model_that_misses_its_gates_ends_it(tmp_path: Path, played: Played) -> None:
    plan = farm_plan(tmp_path, days=70, patience_days=5)
    plan = replace(plan, line=replace(plan.line, gates={"r2": Limit(min=0.9999)}))
    code, report = played(plan)
    assert code == 1
    assert report["first"]["deployed"] is False
    assert report["first"]["package"] is None
    assert report["drills"] == report["feedback"] == []
    assert report["trace"] is report["status"] is report["promoted"] is None
    assert report["in_production"] is None
    assert len(report["not_shown"]) >= 4
    with Store.open(tmp_path / "home") as store:
        assert store.ledger.events(kinds=["deploy"]) == []


def test_it_needs_a_home_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "something").touch()
    assert run_command(["demo", "--home", str(tmp_path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["problem"]["code"] == "G111"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_loop_closes_on_generated_data(tmp_path: Path, played: Played) -> None:
    """About a minute: three trainings in processes of their own, and their canaries."""
    plan = farm_plan(tmp_path, days=900, patience_days=240)
    _, report = played(plan)
    with Store.open(tmp_path / "home") as store:
        check(plan, store, report)
    asked_for = [run for run in report["runs"] if run["reason"].startswith("labels")]
    assert asked_for, "two hundred days of alarms and answers ask for a challenger"
