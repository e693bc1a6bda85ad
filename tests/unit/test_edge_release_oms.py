"""The OpenSSF Model Signing format: ours is theirs, theirs is ours, and nothing looser is taken."""

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from genba.core.problem import Problem
from genba.edge import oms
from genba.edge.trust import Trust, add_key, revoke_key
from genba.store.oms import EdgeKey, home_key, read_key, sign_folder
from tests.unit.edge_releases import copied

GOLDEN = Path(__file__).parents[1] / "golden" / "oms"
Statement = dict[str, Any]


def code(work: Callable[[], object]) -> str:
    with pytest.raises(Problem) as caught:
        work()
    assert caught.value.tries
    return caught.value.code


def trusting(key: EllipticCurvePrivateKey | EllipticCurvePublicKey) -> oms.FindKey:
    public = key.public_key() if isinstance(key, EllipticCurvePrivateKey) else key
    return Trust(keys={oms.fingerprint(public): public}).find


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, EdgeKey]:
    """A folder with a few files, signed."""
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    for name in ("a", "part/b", "part/.c"):
        (folder / name).write_text(name)
    key = home_key(tmp_path)
    sign_folder(folder, key)
    return folder, key


def test_what_the_peer_signed_is_accepted() -> None:
    """Made once by `model_signing sign key` of model-signing 1.1.1."""
    (key,) = _golden_trust().keys.values()
    found = oms.verify(GOLDEN / "model", trusting(key))
    assert "sub/.hidden/c" in found.files
    payload = json.loads(base64.b64decode(_bundle(GOLDEN / "model")["dsseEnvelope"]["payload"]))
    assert found.root == payload["subject"][0]["digest"]["sha256"]
    # in the order the peer writes them, which is by parts of the path and not by characters
    again = json.loads(oms.statement("model", dict(sorted(found.files.items(), reverse=True))))
    assert again["subject"] == payload["subject"]
    assert [r["name"] for r in again["predicate"]["resources"]] == list(found.files)


def _golden_trust() -> Trust:
    state = Path(os.environ["GENBA_HOME"])
    add_key(state, (GOLDEN / "key.pub.pem").read_bytes())
    return Trust.at(state)


def test_what_the_peer_signed_and_somebody_changed_is_refused(tmp_path: Path) -> None:
    trust = _golden_trust()
    folder = copied(GOLDEN / "model", tmp_path / "model")
    oms.verify(folder, trust.find)
    (folder / "a" / "z").write_text("y")
    assert code(lambda: oms.verify(folder, trust.find)) == "G670"


def _bundle(folder: Path) -> Any:
    return json.loads((folder / oms.SIGNATURE_FILE).read_bytes())


def rewritten(folder: Path, key: EdgeKey, change: Callable[[Statement], object]) -> None:
    """Sign another statement with the right key."""
    payload = json.loads(base64.b64decode(_bundle(folder)["dsseEnvelope"]["payload"]))
    change(payload)
    data = json.dumps(payload).encode()
    _sign(folder, key, data)


def _sign(folder: Path, key: EdgeKey, payload: bytes) -> None:
    signature = key.private.sign(oms.message(payload), ECDSA(SHA256()))
    made = oms.bundle(payload, signature, key.fingerprint)
    (folder / oms.SIGNATURE_FILE).write_bytes(made)


def resource(name: str) -> Callable[[Statement], None]:
    def change(body: Statement) -> None:
        body["predicate"]["resources"][0]["name"] = name

    return change


CHANGES: dict[str, Callable[[Statement], object]] = {
    "type": lambda b: b.update(_type="https://in-toto.io/Statement/v0.1"),
    "predicate": lambda b: b.update(predicateType="https://slsa.dev/provenance/v1"),
    "method": lambda b: b["predicate"]["serialization"].update(method="shards"),
    "hash": lambda b: b["predicate"]["serialization"].update(hash_type="md5"),
    "links": lambda b: b["predicate"]["serialization"].update(allow_symlinks=True),
    "algorithm": lambda b: b["predicate"]["resources"][0].update(algorithm="md5"),
    "digest": lambda b: b["predicate"]["resources"][0].update(digest="00"),
    "digest kind": lambda b: b["predicate"]["resources"][0].update(digest=1),
    "nothing": lambda b: b["predicate"].update(resources=[]),
    "twice": lambda b: b["predicate"]["resources"].append(b["predicate"]["resources"][0]),
    "subjects": lambda b: b["subject"].append(b["subject"][0]),
    "root": lambda b: b["subject"][0]["digest"].update(sha256="0" * 64),
    "more digests": lambda b: b["subject"][0]["digest"].update(md5="0"),
    "no predicate": lambda b: b.pop("predicate"),
    "up": resource("../a"),
    "here": resource("./a"),
    "root path": resource("/a"),
    "backslash": resource("part\\b"),
    "zero": resource("a\0b"),
    "itself": resource("model.sig"),
    "no text": resource(3),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_statement_that_says_something_else(name: str, signed: tuple[Path, EdgeKey]) -> None:
    folder, key = signed
    rewritten(folder, key, CHANGES[name])
    assert code(lambda: oms.verify(folder, trusting(key.private))) == "G671"


@pytest.mark.parametrize("payload", [b"{", b"[]", b"1", b"null", b"\xff", b"[" * 100_000])
def test_a_payload_that_is_no_statement(payload: bytes, signed: tuple[Path, EdgeKey]) -> None:
    folder, key = signed
    _sign(folder, key, payload)
    assert code(lambda: oms.verify(folder, trusting(key.private))) == "G671"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"dsseEnvelope": {"payload": "@", "signatures": []}}',
        b'{"dsseEnvelope": {"payload": 1}}',
    ],
)
def test_a_file_that_is_no_bundle(data: bytes, signed: tuple[Path, EdgeKey]) -> None:
    folder, key = signed
    (folder / oms.SIGNATURE_FILE).write_bytes(data)
    assert code(lambda: oms.verify(folder, trusting(key.private))) == "G671"


def test_a_bundle_that_is_too_large_or_no_file(signed: tuple[Path, EdgeKey]) -> None:
    folder, key = signed
    path = folder / oms.SIGNATURE_FILE
    path.write_bytes(b" " * (5 << 20))
    assert code(lambda: oms.verify(folder, trusting(key.private))) == "G671"
    path.unlink()
    path.symlink_to(folder / "a")
    assert code(lambda: oms.verify(folder, trusting(key.private))) == "G671"
    path.unlink()
    assert code(lambda: oms.verify(folder, trusting(key.private))) == "G671"


def test_a_bundle_that_names_no_key_or_another(signed: tuple[Path, EdgeKey]) -> None:
    folder, key = signed
    body = _bundle(folder)
    payload = base64.b64decode(body["dsseEnvelope"]["payload"])
    signature = base64.b64decode(body["dsseEnvelope"]["signatures"][0]["sig"])
    for hint in ("", "0" * 63, "0" * 64):
        (folder / oms.SIGNATURE_FILE).write_bytes(oms.bundle(payload, signature, hint))
        assert code(lambda: oms.verify(folder, lambda _: key.private.public_key())) == "G671"
    other = generate_private_key(SECP384R1()).public_key()
    sign_folder(folder, key)
    assert code(lambda: oms.verify(folder, lambda _: other)) == "G671"


def test_what_cannot_be_signed(tmp_path: Path) -> None:
    key = home_key(tmp_path)
    folder = tmp_path / "folder"
    assert code(lambda: sign_folder(folder, key)) == "G670"
    folder.mkdir()
    assert code(lambda: sign_folder(folder, key)) == "G670"
    (folder / "a\nb").write_text("1")
    assert code(lambda: sign_folder(folder, key)) == "G670"
    (folder / "a\nb").unlink()
    os.close(os.open(os.fsencode(folder) + b"/\xff", os.O_CREAT))
    assert code(lambda: sign_folder(folder, key)) == "G670"


def test_the_key_of_a_home_is_made_once_and_read_by_its_owner_only(tmp_path: Path) -> None:
    first = home_key(tmp_path)
    assert first.made
    assert first.path.stat().st_mode & 0o777 == 0o600
    again = home_key(tmp_path)
    assert not again.made
    assert again.fingerprint == first.fingerprint
    assert (tmp_path / "edge-key.pub.pem").read_bytes() == first.public_pem
    (tmp_path / "edge-key.pub.pem").write_text("another")
    assert home_key(tmp_path).public_pem == (tmp_path / "edge-key.pub.pem").read_bytes()
    first.path.chmod(0o640)
    assert code(lambda: home_key(tmp_path)) == "G307"


def pem(key: Any, locked: bool = False) -> bytes:
    how = BestAvailableEncryption(b"secret") if locked else NoEncryption()
    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    return data


def test_keys_that_cannot_sign(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    assert code(lambda: read_key(path)) == "G679"
    good = home_key(tmp_path).private
    for data in (
        b"no key",
        pem(Ed25519PrivateKey.generate()),
        pem(generate_private_key(SECP384R1())),
        pem(good, locked=True),
        good.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ):
        path.write_bytes(data)
        path.chmod(0o600)
        assert code(lambda: read_key(path)) == "G679"
    path.write_bytes(pem(good))
    assert read_key(path).fingerprint == oms.fingerprint(good.public_key())


def test_trust_is_files(tmp_path: Path) -> None:
    key, state = home_key(tmp_path), tmp_path / "state"
    assert Trust.at(state).usable == ()
    name = add_key(state, key.public_pem, expect=key.fingerprint[:20].upper() + "…")
    assert name == key.fingerprint
    assert Trust.at(state).usable == (name,)
    assert code(lambda: add_key(state, key.public_pem, expect="0" * 64)) == "G672"
    assert code(lambda: add_key(state, key.public_pem, expect=name[:4])) == "G672"
    assert code(lambda: add_key(state, pem(key.private))) == "G672"
    assert code(lambda: add_key(state, b"nothing")) == "G672"
    assert code(lambda: revoke_key(state, name[:8])) == "G672"
    assert code(lambda: revoke_key(state, "pump")) == "G672"
    assert revoke_key(state, "ab" * 32) == "ab" * 32  # also one that was never seen here
    assert revoke_key(state, name[:16]) == name
    assert Trust.at(state).usable == ()
    assert code(lambda: add_key(state, key.public_pem)) == "G673"
    assert code(lambda: Trust.at(state).find(name)) == "G673"
    assert code(lambda: Trust.at(state).find("cd" * 32)) == "G672"


def test_damaged_files_of_the_device(tmp_path: Path) -> None:
    name = add_key(tmp_path, home_key(tmp_path).public_pem)
    path = tmp_path / "trusted" / f"{name}.pem"
    path.rename(path.with_name(f"{'0' * 64}.pem"))
    assert code(lambda: Trust.at(tmp_path)) == "G678"
    path.with_name(f"{'0' * 64}.pem").unlink()
    for content in (b"not a fingerprint\n", b"\xff"):
        (tmp_path / "revoked").write_bytes(content)
        assert code(lambda: Trust.at(tmp_path)) == "G678"


def test_openssl_makes_a_key_that_signs(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(path)],
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl is not here")
    path.chmod(0o600)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("a")
    assert sign_folder(tmp_path / "folder", read_key(path)).files.keys() == {"a"}
