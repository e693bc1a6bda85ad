"""The commands that ask: status, models, data, trace; and those that decide or tell."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.runs.software import software
from genba.stages.deploy import deploy
from genba.store.home import Store
from genba.ui.cli import lookup
from genba.ui.cli.figures import short

Factory = Any  # the fixture's type lives in conftest, which pytest imports by file
Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.mark.parametrize(
    "argv", [["status"], ["models"], ["data"], ["trace", "x"], ["approve", "x"], ["label", "x"]]
)
def test_without_a_home_every_question_says_so(argv: list[str], ask: Ask) -> None:
    code, answer = ask(*argv)
    assert code == 3
    assert answer["problem"]["code"] == "G301"


def test_an_empty_home_says_what_to_do(home: Path, ask: Ask, show: Callable[..., str]) -> None:
    Store.open(home).close()
    assert ask("status")[1]["lines"] == []
    assert "genba init" in show("status")
    assert "No model was trained here yet" in show("models")
    assert "No data was read here yet" in show("data")


def test_status_shows_production_the_run_and_the_bill(
    factory: Factory, ask: Ask, show: Callable[..., str]
) -> None:
    code, answer = ask("status")
    assert code == 0
    (line,) = answer["lines"]
    assert line["rollout"]["stable"]["package"] == factory.packages[0]
    assert line["rollout"]["canary"] is None
    assert line["newest_run"]["run"] == factory.run
    assert line["bill_today"]["cpu_seconds"] == pytest.approx(6.03)
    assert line["bill_today"]["joules"]["method"] == "modelled"
    assert line["waits_for_a_person"] == []
    text = show("status", "pump")
    assert "pump  in production" in text
    assert short(factory.packages[0]) in text
    assert "nothing to do; watching" in text
    assert "(modelled)" in text


def test_status_of_a_line_that_waits_says_how_to_answer(
    factory: Factory, ask: Ask, show: Callable[..., str]
) -> None:
    old, new = factory.packages
    deploy(factory.store, "pump", "canary", new, share=0.2, reason="r", by="b")
    add_traffic(factory, old, new)
    (line,) = ask("status")[1]["lines"]
    assert len(line["waits_for_a_person"]) == 1
    text = show("status")
    assert "waits for a person" in text
    assert "20 % of the traffic" in text
    assert "genba approve pump" in text
    # The controller writes the question down; it must not be forgotten because of that.
    asked = {"action": "ask", "key": "k", "package": new, "reason": "as good on 500 predictions"}
    placed = factory.store.ledger.events(line="pump", kinds=("deploy",))[-1]
    key = f"loop/pump/ask/{new}/{placed.seq}"
    factory.store.ledger.append("action", {**asked, "key": key}, line="pump", subject=new)
    (line,) = ask("status")[1]["lines"]
    assert line["waits_for_a_person"] == ["as good on 500 predictions"]


def add_traffic(factory: Factory, *packages: str) -> None:
    summary = {
        "n": 50,
        "errors": 0,
        "not_a_number": 0,
        "latency_ms_p50": 0.1,
        "latency_ms_p99": 0.2,
        "cpu_seconds": 0.0,
        "alarms": 1,
    }
    for _ in range(20):
        body = {"rows": 0, "from_ms": 1, "to_ms": 2, "packages": {p: summary for p in packages}}
        factory.store.ledger.append("capture.created", body, line="pump")


def test_status_of_a_line_without_a_package(
    factory: Factory, ask: Ask, show: Callable[..., str]
) -> None:
    store = factory.store
    body = {**store.ledger.find("line")[0].body, "name": "fan"}
    store.ledger.record("line", "c" * 64, body, line="fan")
    run = {"run": "run-2", "reason": "asked"}
    store.ledger.append("run.started", run, line="fan")
    text = show("status", "fan")
    assert "nothing in production" in text
    assert "running" in text
    store.ledger.append(
        "run.finished", {**run, "outcome": "refused", "stop": ["r2 is too low"]}, line="fan"
    )
    text = show("status", "fan")
    assert "r2 is too low" in text
    assert "genba run fan" in text
    failed = {**run, "outcome": "failed", "problem": {"code": "G303", "what": "The disk is full."}}
    store.ledger.append("run.started", run, line="fan")
    store.ledger.append("run.finished", failed, line="fan")
    assert "G303 The disk is full." in show("status", "fan")
    assert len(ask("status")[1]["lines"]) == 2


def test_a_line_that_is_not_there_names_the_nearest(factory: Factory, ask: Ask) -> None:
    code, answer = ask("status", "pmup")
    assert code == 2
    assert answer["problem"]["code"] == "G109"
    assert "did you mean pump" in answer["problem"]["what"]


def test_models_lists_packages_with_roles_and_models_without(
    factory: Factory, ask: Ask, show: Callable[..., str]
) -> None:
    factory.store.ledger.record("model", "d" * 64, {"candidate": "trees"}, line="pump")
    _, answer = ask("models", "pump")
    assert {p["package"]: p["role"] for p in answer["packages"]} == {
        factory.packages[0]: "stable",
        factory.packages[1]: None,
    }
    assert len(answer["models"]) == 2
    text = show("models")
    assert "not packaged" in text
    assert "r2 0.97 [0.96 to 0.98]" in text


@pytest.mark.parametrize(
    ("steps", "roles"),
    [
        ([("canary", 1)], ["stable", "canary"]),
        ([("shadow", 1)], ["stable", "shadow"]),
        ([("canary", 1), ("promote", 1)], ["previous", "stable"]),
        ([("canary", 1), ("withdraw", 1)], ["stable", "taken out"]),
    ],
)
def test_models_names_every_role(
    steps: list[tuple[Any, int]], roles: list[str], factory: Factory, ask: Ask
) -> None:
    for action, which in steps:
        share = 0.1 if action == "canary" else 0.0
        deploy(
            factory.store, "pump", action, factory.packages[which], share=share, reason="r", by="b"
        )
    found = {p["package"]: p["role"] for p in ask("models")[1]["packages"]}
    assert [found[p] for p in factory.packages] == roles


def test_data_lists_versions_and_shows_a_sheet(
    factory: Factory, ask: Ask, show: Callable[..., str]
) -> None:
    assert [d["dataset"] for d in ask("data")[1]["datasets"]] == [factory.dataset]
    assert ask("data", "pump")[1]["datasets"][0]["rejected"] == {"duplicate": 2}
    assert ask("data", factory.dataset[:8])[1]["sheet"]["rows"]["read"] == 102
    text = show("data", factory.dataset)
    assert "quantiles" not in text, "nested statistics are for --json"
    assert "output" in text
    assert ask("data", "nothing")[0] == 2


def test_an_id_may_be_shortened_as_long_as_it_is_one(factory: Factory) -> None:
    store, (one, other) = factory.store, factory.packages
    assert lookup.find_record(store, ("package",), one[:10], "package").id == one
    for text in ("", one[:3], "zzzzzz"):
        with pytest.raises(Problem) as caught:
            lookup.find_record(store, ("package",), text, "package")
        assert caught.value.code == "G109"
    store.ledger.record("model", one[:12] + "e" * 52, {}, line="pump")
    with pytest.raises(Problem) as several:
        lookup.find_record(store, ("package", "model"), one[:12], "thing")
    assert "2 ids" in several.value.what
    assert other != one


def test_trace_walks_from_a_prediction_to_the_rows(
    factory: Factory, ask: Ask, show: Callable[..., str]
) -> None:
    code, found = ask("trace", factory.predictions[1])
    assert code == 0
    assert found["prediction"]["values"]["alarm"] is True
    assert found["prediction"]["bill"]["cpu_seconds"] == pytest.approx(0.01)
    assert found["package"]["id"] == factory.packages[0]
    assert found["model"]["id"] == factory.model
    assert found["run"]["id"] == factory.run
    assert found["run"]["seed"] == 7
    assert found["run"]["checks"] == {"power": {"min": 0.0, "required": False}}
    assert found["run"]["machine"] == {
        "processor": "EPYC",
        "cores": 2.0,
        "instructions": ["avx2", "amx_bf16"],
    }
    assert found["run"]["code"] == software()
    assert found["run"]["bill"]["cpu_seconds"] == pytest.approx(9.0), (
        "a reused stage costs what it cost"
    )
    (dataset,) = found["datasets"]
    assert dataset["id"] == factory.dataset
    assert (dataset["segments"][0]["first_row"], dataset["segments"][0]["last_row"]) == (0, 99)
    text = show("trace", factory.predictions[1])
    for part in (
        "0 to 99",
        "ridge, best of 2",
        "EPYC",
        "J [",
        "power at least 0",
        "by a program",
        "done in",
        f"source {software()['source'][:12]}",
        f"numpy {np.__version__}",
    ):
        assert part in text
    assert f"--prediction {factory.predictions[1]}" in text


def test_trace_starts_anywhere(factory: Factory, ask: Ask, show: Callable[..., str]) -> None:
    for thing in (factory.packages[0], factory.model[:12], factory.dataset, factory.run):
        code, found = ask("trace", thing)
        assert code == 0
        assert found["run"]["id"] == factory.run, thing
        assert "prediction" not in found
        assert thing[:12] in show("trace", thing)


def test_the_newest_prediction_is_called_last(factory: Factory, ask: Ask, home: Path) -> None:
    assert ask("trace", "last")[1]["prediction"]["id"] == factory.predictions[-1]
    code, report = ask("feedback", "pump", "--prediction", "last", "--value", "normal")
    assert (code, report["accepted"]) == (0, 1)
    assert factory.store.feedback.by_prediction(factory.predictions[-1])
    with Store.open(home / "other") as empty, pytest.raises(Problem) as caught:
        lookup.newest_prediction(empty)
    assert caught.value.code == "G109"


def test_trace_of_an_extended_dataset_names_what_it_was_made_from(
    factory: Factory, show: Callable[..., str]
) -> None:
    body = dict(factory.store.ledger.get("dataset", factory.dataset))
    segments = [{**body["segments"][0], "origin": "live"}] * 8
    more = {"parent": factory.dataset, "segments": segments, "rejected": {}}
    inputs = [("parent", factory.dataset)]
    factory.store.ledger.record("dataset", "e" * 64, {**body, **more}, line="pump", inputs=inputs)
    text = " ".join(show("trace", "e" * 64).split())
    assert f"made from {short(factory.dataset)}" in text
    assert "and 2 more" in text
    assert "live" in text


def test_trace_of_something_unknown(factory: Factory, ask: Ask) -> None:
    code, answer = ask("trace", "nothing")
    assert code == 2
    assert answer["problem"]["code"] == "G109"


def test_trace_waits_for_a_prediction_that_is_not_written_yet(
    factory: Factory, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr("genba.ui.cli.trace._WAIT_S", 0.05)
    assert ask("trace", "server-x-99")[0] == 2
    assert waited
    waited.clear()
    assert ask("trace", "else-99")[0] == 2
    assert not waited


def test_feedback_is_joined_and_shown_in_the_trace(
    factory: Factory, ask: Ask, show: Callable[..., str]
) -> None:
    prediction = factory.predictions[1]
    said = ["feedback", "pump", "--prediction", prediction, "--value", "anomaly", "--author", "ann"]
    code, report = ask(*said)
    assert (code, report["accepted"], report["rows"]) == (0, 1, 1)
    assert ask(*said)[1]["duplicate"] == 1
    assert ask("feedback", "pump", prediction, "anomaly", "--author", "ann")[1]["duplicate"] == 1
    assert "anomaly by ann: accepted" in show("trace", prediction)
    assert ask("status")[1]["lines"][0]["feedback"]["accepted"] == 1


def test_feedback_from_a_file_shows_what_was_not_understood(
    factory: Factory, tmp_path: Path, show: Callable[..., str], ask: Ask
) -> None:
    file = tmp_path / "labels.csv"
    rows = [
        f"{factory.predictions[0]},normal,bob",
        *(f"{factory.predictions[2]},what,bob" for _ in range(10)),
    ]
    file.write_text("\n".join(["prediction,value,author", *rows]))
    text = show("feedback", "pump", "--file", str(file))
    assert "1 of 11 rows of feedback kept" in text
    assert "and 2 more" in text
    assert "not understood  " in text
    file.write_text(f"prediction,value,author\n{factory.predictions[2]},what,bob\n")
    assert ask("feedback", "pump", "--file", str(file))[0] == 1


@pytest.mark.parametrize(
    "argv", [[], ["--file", "x.csv", "--value", "normal"], ["--prediction", "last"]]
)
def test_feedback_is_a_file_or_one_thing(argv: list[str], factory: Factory, ask: Ask) -> None:
    code, answer = ask("feedback", "pump", *argv)
    assert code == 2
    assert answer["problem"]["code"] == "G110"


def test_label_shows_what_teaches_most(
    factory: Factory, ask: Ask, show: Callable[..., str]
) -> None:
    code, answer = ask("label", "pump", "--limit", "2")
    assert code == 0
    assert answer["queue"]
    assert answer["queue"][0]["prediction"] in factory.predictions
    shown = show("label", "pump")
    assert answer["queue"][0]["prediction"] in shown
    assert answer["next"][0].endswith(f"{answer['queue'][0]['prediction']} anomaly")
    assert "score 0.90" in shown


def test_marks_of_a_line_without_images_are_explained(
    factory: Factory, tmp_path: Path, show: Callable[..., str]
) -> None:
    (tmp_path / "mask.png").write_bytes(b"")
    for mark in (["--region", "0,0,1,1"], ["--mask", str(tmp_path / "mask.png")]):
        text = show("feedback", "pump", "last", "anomaly", *mark)
        assert "0 of 1 rows of feedback kept" in text
    assert "G830" in text
    assert "G833" in show("feedback", "pump", "last", "anomaly", "--region", "0,0,1,1")


def test_approve_and_refuse(factory: Factory, ask: Ask, show: Callable[..., str]) -> None:
    code, answer = ask("approve", "pump")
    assert code == 1, "nothing waits"
    assert answer["problem"]["code"] == "G501"
    deploy(factory.store, "pump", "canary", factory.packages[1], share=0.1, reason="r", by="b")
    code, answer = ask("approve", "pump", "--comment", "looks good", "--me", "ann")
    assert (code, answer["approved"], answer["package"]) == (0, True, factory.packages[1])
    event = factory.store.ledger.events(kinds=("approval",))[-1]
    assert (event.body["by"], event.body["reason"]) == ("ann", "looks good")
    assert "is refused" in show("approve", "pump", "--no", "--package", factory.packages[1][:10])
    assert factory.store.ledger.events(kinds=("approval",))[-1].body["approved"] is False


def test_rollback_returns_at_once(factory: Factory, ask: Ask) -> None:
    old, new = factory.packages
    assert ask("rollback", "pump")[1]["problem"]["code"] == "G525", "nothing to return to"
    deploy(factory.store, "pump", "canary", new, share=0.1, reason="r", by="b")
    deploy(factory.store, "pump", "promote", new, reason="r", by="b")
    code, answer = ask("rollback", "pump", "--comment", "it smells")
    assert (code, answer["taken_out"], answer["stable"]) == (0, new, old)


def test_rollback_of_a_line_without_a_package(factory: Factory, ask: Ask) -> None:
    body = {**factory.store.ledger.find("line")[0].body, "name": "fan"}
    factory.store.ledger.record("line", "c" * 64, body, line="fan")
    code, answer = ask("rollback", "fan")
    assert (code, answer["problem"]["code"]) == (1, "G502")
