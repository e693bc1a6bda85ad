"""How a device knows its factory: an enrolment that a person brings, and a key made here.

The enrolment is a file of `genba edge enrol`. It has the address and the API key of this device,
the root of trust for updates, and the public keys that sign releases. The key with which the device
signs what it reports never leaves it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from genba.core import io
from genba.core.codec import decode, encode
from genba.core.digest import canonical_json
from genba.core.ids import check_name
from genba.core.problem import Problem
from genba.edge.agent.record import FOLDER
from genba.edge.trust import add_key

FILE: Final = "enrolment.json"
REPORT_FORMAT: Final = "genba-device-1"  # signed as well, so the signature fits nothing else
_KEY_FILE: Final = "device-key.pem"
_SECRET: Final = 0o600


@dataclass(frozen=True, kw_only=True, slots=True)
class Enrolment:
    """What a device was given."""

    format: int = 1
    device: str
    line: str
    url: str = ""  # of the factory; "" for a device that is updated by hand
    key: str = ""  # of its API
    root: str = ""  # TUF root metadata, as it was signed
    release_keys: tuple[str, ...] = ()  # public keys of releases, PEM
    certificate: str = ""  # PEM of who vouches for the factory's TLS; "" for the system's


def enrol(state: Path, data: bytes) -> Enrolment:
    """Take an enrolment on this device, or another one in the place of the one it had.

    Args:
        state: The folder of the device.
        data: The file.

    Raises:
        Problem: G687 when it is none, or for another line than what runs here; as
            `genba.edge.trust.add_key`.
    """
    given = _read(data, "the file")
    folder = state / FOLDER
    io.make_dirs_durable(folder)
    if (folder / FILE).is_file():
        before = read(state)
        if (before.device, before.line) != (given.device, given.line):
            raise not_enrolled(f"It is already {before.device}, for the line {before.line}.")
    for pem in given.release_keys:
        add_key(state, pem.encode())
    if not (folder / _KEY_FILE).is_file():
        pem_bytes = Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        io.create_durable(folder / _KEY_FILE, pem_bytes, mode=_SECRET)
    io.write_durable(folder / FILE, canonical_json(encode(given)), mode=_SECRET)
    return given


def read(state: Path) -> Enrolment:
    """Return the enrolment of this device.

    Raises:
        Problem: G687 when there is none.
    """
    try:
        return _read((state / FOLDER / FILE).read_bytes(), str(state / FOLDER / FILE))
    except FileNotFoundError:
        raise not_enrolled(f"There is no {FILE} in {state / FOLDER}.") from None


def sign_report(state: Path, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report with the signature of this device."""
    data = (state / FOLDER / _KEY_FILE).read_bytes()
    key: Any = load_pem_private_key(data, password=None)
    message = canonical_json([REPORT_FORMAT, body])
    return {
        "body": dict(body),
        "public_key": key.public_key().public_bytes_raw().hex(),
        "signature": key.sign(message).hex(),
    }


def not_enrolled(why: str) -> Problem:
    """Return the Problem of a device that does not know its factory."""
    return Problem(
        "G687",
        "This device cannot be run by an agent as it is.",
        why=why,
        tries=[
            "genba edge enrol DEVICE --line LINE --to enrolment.json  # at the factory",
            "genba-edge agent --enrol enrolment.json",
            "genba explain G687",
        ],
    )


def _read(data: bytes, where: str) -> Enrolment:
    try:
        body: Any = json.loads(data)
        given = decode(Enrolment, body)
        check_name(given.device, "device")
        check_name(given.line, "line")
    except ValueError as error:
        raise not_enrolled(f"{where} is no enrolment: {error}.") from error
    except Problem as problem:
        raise not_enrolled(f"{where} is no enrolment: {problem.what}") from problem
    if given.format != 1:
        raise not_enrolled(f"{where} has format {given.format}; this version reads 1.")
    return given
