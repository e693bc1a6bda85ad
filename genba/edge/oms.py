"""Whether a folder is byte for byte what somebody signed: the OpenSSF Model Signing format, v1.0.

`model.sig` is a Sigstore bundle: a DSSE envelope (github.com/secure-systems-lab/dsse, v1.0.0)
around an in-toto Statement v1 whose predicate lists every file with its sha256. The signature is
ECDSA over P-256 with a plain key, so nothing here needs a network. The command of OpenSSF
(`model_signing verify key`) reads the same file. This reader is stricter: a bundle and a
statement have one way to be written, nothing in the folder is ignored, and no link is followed.
"""

import base64
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from genba.core.digest import digest_file, is_digest
from genba.core.problem import Problem

SIGNATURE_FILE: Final = "model.sig"
CURVE: Final = "secp256r1"
_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_MOST_BYTES: Final = 4 << 20  # of a bundle: some ten thousand files
_DEEPEST: Final = 32  # folders within folders
_SHA256: Final = "sha256"

FindKey = Callable[[str], EllipticCurvePublicKey]


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """What a valid signature says of a folder that is exactly so."""

    root: str  # sha256 over all digests in order: the name of this content
    fingerprint: str  # of the key, see `fingerprint`
    files: Mapping[str, str]  # path below the folder, with "/" -> sha256


def fingerprint(key: EllipticCurvePublicKey) -> str:
    """Return the sha256 of a public key's PEM, as the bundle names a key."""
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def statement(name: str, files: Mapping[str, str]) -> bytes:
    """Return the in-toto statement over a folder.

    Args:
        name: Of the folder; informative.
        files: sha256 by path.

    Example:
        >>> json.loads(statement("m", {"a": "0" * 64}))["subject"][0]["name"]
        'm'
    """
    order = sorted(files, key=lambda path: PurePosixPath(path).parts)
    body = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {_SHA256: root_digest(files[p] for p in order)}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": _SHA256,
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_FILE],
            },
            "resources": [
                {"name": path, "algorithm": _SHA256, "digest": files[path]} for path in order
            ],
        },
    }
    return json.dumps(body, indent=2, ensure_ascii=False).encode()


def bundle(payload: bytes, signature: bytes, hint: str) -> bytes:
    """Return a signed statement as `model.sig` holds it, in the one way it is written.

    Args:
        payload: The statement.
        signature: Of `message(payload)`, ASN.1 DER.
        hint: Fingerprint of the key.
    """
    body = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(body, separators=(",", ":")).encode()


def message(payload: bytes) -> bytes:
    """Return the bytes that are signed: DSSE's pre-authentication encoding."""
    head = f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} "
    return head.encode() + payload


def root_digest(digests: Iterator[str]) -> str:
    """Return the sha256 over digests, in the order in which a statement lists them."""
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(bytes.fromhex(digest))
    return whole.hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder but its signature, by path.

    Raises:
        Problem: G670 for a link, for what is neither file nor folder, for a name that is not
            UTF-8, and for a folder without a file in it, which no signature could cover.
    """
    return {path: digest_file(folder / path) for path in _names(folder)}


def _names(folder: Path) -> list[str]:
    """Return the path of every file below a folder but its signature; no byte of them is read."""
    if not folder.is_dir():
        raise altered(folder, f"{folder} is not a folder.")
    found: list[str] = []
    _gather(folder, "", found)
    return [path for path in found if path != SIGNATURE_FILE]


def verify(folder: Path, find_key: FindKey) -> Signed:
    """Check that a folder holds exactly the files that were signed, and who signed them.

    Args:
        folder: With `model.sig` in it.
        find_key: Returns the key of a fingerprint, or raises the Problem of one that may not sign.

    Raises:
        Problem: G671 when there is no signature or it is not valid, G670 when a file is not the
            signed one, missing, or not signed; and what `find_key` raises.
    """
    payload, key_print = _signed_payload(folder, find_key)
    signed = _read_statement(folder, payload)
    present = set(_names(folder))
    # Names first: whoever may add a file could add one that takes hours to read.
    for path in sorted(signed.keys() ^ present):
        why = "is missing" if path in signed else "was not signed"
        raise altered(folder, f"{path} {why}.")
    for path in sorted(present):
        if signed[path] != digest_file(folder / path):
            raise altered(folder, f"{path} is not what was signed.")
    return Signed(root=root_digest(iter(signed.values())), fingerprint=key_print, files=signed)


def altered(folder: Path, why: str) -> Problem:
    """Return the Problem of a release that is not what was signed."""
    return Problem(
        "G670",
        "The release was altered or is not whole; nothing of it was loaded.",
        where=str(folder),
        why=why,
        tries=["fetch the release again from where it was made", "genba explain G670"],
    )


def unsigned(folder: Path, why: str) -> Problem:
    """Return the Problem of a release without a valid signature."""
    return Problem(
        "G671",
        "The release has no valid signature; nothing of it was loaded.",
        where=str(folder / SIGNATURE_FILE),
        why=why,
        tries=["fetch the release again from where it was made", "genba explain G671"],
    )


def _signed_payload(folder: Path, find_key: FindKey) -> tuple[bytes, str]:
    """Return the statement and the fingerprint of the key, once the signature is known to fit."""
    data = _read_bundle(folder)
    try:
        body = json.loads(data)
        envelope = body["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        hint = body["verificationMaterial"]["publicKey"]["hint"]
        canonical = bundle(payload, signature, hint)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise unsigned(folder, f"It cannot be read: {type(error).__name__}.") from error
    if canonical != data:
        raise unsigned(folder, "It is not written as OMS v1.0 bundles are.")
    if not is_digest(hint):
        raise unsigned(folder, "It does not name its key.")
    key = find_key(hint)
    if key.curve.name != CURVE or fingerprint(key) != hint:
        raise unsigned(folder, "It is not by the key it names.")
    try:
        key.verify(signature, message(payload), ECDSA(SHA256()))
    except InvalidSignature as error:
        raise unsigned(folder, f"It does not fit the key {hint[:16]}….") from error
    return payload, hint


def _read_bundle(folder: Path) -> bytes:
    path = folder / SIGNATURE_FILE
    try:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode):
            raise unsigned(folder, f"{SIGNATURE_FILE} is no plain file.")
        if facts.st_size > _MOST_BYTES:
            raise unsigned(folder, f"{SIGNATURE_FILE} has {facts.st_size:,} bytes.")
        return path.read_bytes()
    except OSError as error:
        raise unsigned(folder, f"{SIGNATURE_FILE} is missing.") from error


def _read_statement(folder: Path, payload: bytes) -> dict[str, str]:
    """Return the signed sha256 by path; what its own key signed is still not believed blindly."""
    try:
        body: Any = json.loads(payload)
        subjects, predicate = body["subject"], body["predicate"]
        serialization, resources = predicate["serialization"], predicate["resources"]
        _require(body["_type"] == _STATEMENT, "it is no in-toto Statement v1")
        _require(body["predicateType"] == _PREDICATE, "its predicate is not OMS v1.0")
        _require(serialization["method"] == "files", "it does not list files")
        _require(serialization["hash_type"] == _SHA256, "its digests are not sha256")
        _require(serialization["allow_symlinks"] is False, "it allows links")
        files = {_path(r["name"]): r["digest"] for r in resources}
        _require(len(files) == len(resources) > 0, "it lists a file twice, or none")
        _require(all(r["algorithm"] == _SHA256 for r in resources), "its digests are not sha256")
        _require(all(map(is_digest, files.values())), "a digest is none")
        _require(len(subjects) == 1, "it is about more than one thing")
        root = root_digest(iter(files.values()))
        _require(subjects[0]["digest"] == {_SHA256: root}, "its root digest does not fit its files")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise unsigned(folder, f"What was signed is no list of files: {error}.") from error
    return files


def _path(name: Any) -> str:
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and "\\" not in part for part in parts)
    _require(plain and "\0" not in name and name != SIGNATURE_FILE, f"{name!r} is no path")
    return str(name)


def _require(fact: bool, what: str) -> None:
    if not fact:
        raise ValueError(what)


def _gather(folder: Path, prefix: str, found: list[str]) -> None:
    before = len(found)
    if prefix.count("/") > _DEEPEST:
        raise altered(folder, f"{prefix[:40]}… lies {_DEEPEST} folders deep.")
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            path = f"{prefix}{entry.name}"
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                _gather(Path(entry.path), f"{path}/", found)
            elif not stat.S_ISREG(mode):
                raise altered(folder, f"{path} is neither a file nor a folder.")
            elif not path.isprintable():  # a byte that is no UTF-8 arrives as a lone surrogate
                raise altered(folder, f"{path!r} is no name.")
            else:
                found.append(path)
    if len(found) == before:
        raise altered(folder, f"{prefix or folder} is an empty folder.")
