"""Signed checkpoints of the ledger, and who would like to get around them."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from genba.core.problem import Problem
from genba.store import signing
from genba.store.home import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def test_checkpoints_are_signed_kept_and_verified(store: Store) -> None:
    store.ledger.append("note", {"n": 1})
    first = signing.write_checkpoint(store)
    store.ledger.append("note", {"n": 2})
    second = signing.write_checkpoint(store)

    assert signing.read_checkpoints(store) == [first, second]
    assert (first.seq, second.seq) == (1, 2)
    assert first.is_valid()
    assert (store.path / "signing-key.pem").stat().st_mode & 0o777 == 0o600
    assert signing.verify(store).ok
    assert signing.verify(store, elsewhere=[first]).ok


def test_a_store_without_checkpoints_needs_no_key(store: Store) -> None:
    assert signing.verify(store).ok
    assert not (store.path / "signing-key.pem").exists()


def rewind(store: Store, seq: int) -> None:
    """Cut the end off, and set the head back, as somebody would who owns the disk."""
    connection = sqlite3.connect(store.path / "ledger.db")
    connection.executescript(
        "DROP TRIGGER event_no_delete;"
        f"DELETE FROM event WHERE seq > {seq};"
        f"UPDATE head SET seq = {seq}, digest = (SELECT digest FROM event WHERE seq = {seq})"
    )
    connection.close()


def test_a_rewound_ledger_is_found_by_its_own_checkpoint(store: Store) -> None:
    for n in range(3):
        store.ledger.append("note", {"n": n})
    checkpoint = signing.write_checkpoint(store)
    rewind(store, 2)

    assert store.ledger.verify().ok
    assert signing.verify(store).first_bad == 3
    (store.path / "checkpoints" / f"{3:012d}.json").unlink()
    assert signing.verify(store).ok  # whoever owns the disk can do that as well, but
    assert not signing.verify(store, elsewhere=[checkpoint]).ok


@pytest.mark.parametrize(
    "change",
    [{"digest": "f" * 64}, {"seq": 7}, {"public_key": "00" * 32}, {"signature": "zz"}],
)
def test_a_forged_checkpoint_is_found(store: Store, change: dict[str, Any]) -> None:
    store.ledger.append("note", {})
    signing.write_checkpoint(store)
    path = next((store.path / "checkpoints").iterdir())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    report = signing.verify(store)
    assert not report.ok
    assert "not validly signed" in report.reason


def test_a_checkpoint_signed_with_another_key_is_found(store: Store, tmp_path: Path) -> None:
    store.ledger.append("note", {})
    signing.write_checkpoint(store)
    other = signing.Signer(tmp_path).checkpoint(*store.ledger.head(), time_ms=1)
    path = next((store.path / "checkpoints").iterdir())
    path.write_text(json.dumps({**json.loads(path.read_text()), "signature": other.signature}))

    assert not signing.verify(store).ok


def test_a_checkpoint_that_cannot_be_read_is_found(store: Store) -> None:
    store.ledger.append("note", {})
    signing.write_checkpoint(store)
    next((store.path / "checkpoints").iterdir()).write_text("{")

    assert signing.verify(store).first_bad == 1


def test_a_signing_key_that_others_may_read_is_refused(store: Store) -> None:
    signing.write_checkpoint(store)
    (store.path / "signing-key.pem").chmod(0o644)

    with pytest.raises(Problem, match="Others may read") as caught:
        signing.write_checkpoint(store)
    assert caught.value.code == "G307"


def test_a_signing_key_of_another_kind_is_refused(store: Store) -> None:
    key = generate_private_key(public_exponent=65537, key_size=2048)
    path = store.path / "signing-key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)

    with pytest.raises(Problem, match="Ed25519") as caught:
        signing.Signer(store.path)
    assert caught.value.code == "G307"
