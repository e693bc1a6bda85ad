"""Signed heads of the ledger: written after runs and deployments, looked at by the doctor."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from genba.stages.deploy import deploy
from genba.store import signing
from genba.store.home import Store
from genba.ui.cli.app import run_command

Factory = Any  # the fixture's type lives in conftest, which pytest imports by file
Ask = Callable[..., tuple[int, dict[str, Any]]]


def found(answer: dict[str, Any]) -> dict[str, str]:
    (ledger,) = (f for f in answer["findings"] if f["name"] == "ledger")
    return {"state": ledger["state"], "found": ledger["found"]}


def rewind(home: Path, seq: int) -> None:
    """Cut the end off and set the head back, as somebody can who owns the disk."""
    connection = sqlite3.connect(home / "ledger.db")
    connection.executescript(
        "DROP TRIGGER event_no_delete; DROP TRIGGER record_no_delete; DROP TRIGGER edge_no_delete;"
        f"DELETE FROM edge WHERE dst IN (SELECT id FROM record WHERE seq > {seq});"
        f"DELETE FROM record WHERE seq > {seq}; DELETE FROM event WHERE seq > {seq};"
        f"UPDATE head SET seq = {seq}, digest = (SELECT digest FROM event WHERE seq = {seq})"
    )
    connection.close()


def test_the_doctor_finds_a_ledger_that_was_set_back(factory: Factory, ask: Ask) -> None:
    store = factory.store
    seq, _ = store.ledger.head()
    signing.write_checkpoint(store)
    code, answer = ask("doctor", "--verify")
    assert (code, found(answer)["state"]) == (0, "good")
    assert "1 signed head" in found(answer)["found"]

    rewind(store.path, seq - 1)
    assert store.ledger.verify().ok  # the chain alone shows nothing
    code, answer = ask("doctor", "--verify")
    assert code == 3
    assert found(answer)["state"] == "bad"
    assert f"event {seq} was pinned" in found(answer)["found"]


def test_a_rollback_is_signed(factory: Factory) -> None:
    second = factory.packages[1]
    for action in ("shadow", "promote"):
        deploy(factory.store, "pump", action, second, reason="it is better", by="a test")
    before = signing.read_checkpoints(factory.store)
    assert run_command(["rollback", "pump", "--home", str(factory.store.path)]) == 0
    (checkpoint,) = [c for c in signing.read_checkpoints(factory.store) if c not in before]
    assert (checkpoint.seq, checkpoint.digest) == factory.store.ledger.head()


def test_two_processes_that_need_the_first_key_agree_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []
    generate = Ed25519PrivateKey.generate

    def while_another_is_quicker() -> Ed25519PrivateKey:
        monkeypatch.setattr(Ed25519PrivateKey, "generate", generate)
        keys.append(signing.Signer(tmp_path).public_key)
        return generate()

    monkeypatch.setattr(Ed25519PrivateKey, "generate", while_another_is_quicker)
    keys.append(signing.Signer(tmp_path).public_key)

    assert len(set(keys)) == 1
    with Store.open(tmp_path) as store:
        store.ledger.append("note", {})
        assert signing.write_checkpoint(store).public_key == keys[0]
        assert signing.verify(store).ok
    assert not list(tmp_path.glob(".*.tmp"))
