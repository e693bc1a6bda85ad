"""`genba doctor`: what it looks at, and that it finds what was damaged."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.ui.cli import doctor

Factory = Any  # the fixture's type lives in conftest, which pytest imports by file
Ask = Callable[..., tuple[int, dict[str, Any]]]


def test_doctor_looks_at_machine_disk_libraries_and_kinds(
    ask: Ask, show: Callable[..., str]
) -> None:
    code, answer = ask("doctor")
    assert code == 0, [f for f in answer["findings"] if f["state"] == "bad"]
    found = {f["name"]: f for f in answer["findings"]}
    assert {
        "python",
        "memory",
        "disk",
        "durable write",
        "numpy",
        "[postgres]",
        "tasks",
        "engines",
    } <= set(found)
    assert "sensor.anomaly" in found["tasks"]["found"]
    assert "This machine is fit" in show("doctor")


def test_doctor_names_what_is_missing_and_what_is_broken(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(kind: str, name: str) -> None:
        if name == "onnxruntime":
            raise Problem("G901", "It needs a library.", tries=["pip install onnxruntime"])
        if kind == "task":
            raise AttributeError("no such class")

    monkeypatch.setattr(doctor, "resolve", resolve)
    monkeypatch.setattr(doctor, "_LIBRARIES", ("numpy", "not-a-library"))
    monkeypatch.setattr(doctor, "_LEAST_DISK", 1 << 60)
    monkeypatch.setattr(doctor, "_SLOW_SYNC_MS", -1.0)
    code, answer = ask("doctor")
    assert code == 3
    found = {f["name"]: f for f in answer["findings"]}
    assert found["engines"]["state"] == "note"
    assert found["engines"]["tries"] == ["pip install onnxruntime"]
    assert found["tasks"]["state"] == "bad"
    assert "AttributeError" in found["tasks"]["found"]
    assert found["not-a-library"]["state"] == "bad"
    assert (found["disk"]["state"], found["durable write"]["state"]) == ("note", "note")


def test_doctor_verify_finds_a_changed_blob_and_a_changed_event(factory: Factory, ask: Ask) -> None:
    code, answer = ask("doctor", "--verify")
    assert code == 0
    found = {f["name"]: f for f in answer["findings"]}
    assert "every digest as written" in found["ledger"]["found"]
    assert "whole" in found["blobs"]["found"]
    path = factory.store.blobs.path(factory.packages[0])
    path.chmod(0o644)
    path.write_bytes(b"altered")
    with sqlite3.connect(factory.store.path / "ledger.db") as connection:  # who owns the disk can
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in triggers.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE event SET body = '{}' WHERE seq = 3")
    connection.close()
    code, answer = ask("doctor", "--verify")
    assert code == 3
    found = {f["name"]: f for f in answer["findings"]}
    assert "event 3" in found["ledger"]["found"]
    assert "1 of 5 are damaged" in found["blobs"]["found"]


def test_doctor_says_when_the_home_cannot_be_written(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path) -> float:
        raise Problem("G304", "Genba may not write here.", tries=["ls -ld ."])

    monkeypatch.setattr(doctor, "_sync_ms", refused)
    code, answer = ask("doctor")
    assert code == 3
    assert {f["name"]: f["state"] for f in answer["findings"]}["home"] == "bad"
