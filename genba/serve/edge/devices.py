"""The devices of a factory: who was enrolled, with which key, and what each said of itself last.

A device signs its reports with a key of its own, made on the device. The first one that comes with
the API key of its enrolment is kept; from then on a report signed with another is refused.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from genba.core import io
from genba.core.codec import decode, encode
from genba.core.digest import canonical_json
from genba.core.ids import check_name
from genba.core.problem import Problem

REPORT_FORMAT: Final = "genba-device-1"  # signed as well, so the signature fits nothing else
_FOLDER: Final = "devices"


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device as its factory knows it."""

    name: str
    line: str
    key: str  # id of its API key
    enrolled_ms: int
    revoked_ms: int | None = None
    public_key: str = ""  # hexadecimal; of its first report
    seen_ms: int | None = None  # by the clock of the factory
    report: Mapping[str, Any] = field(default_factory=dict)  # what it said last


class Devices:
    """The devices of one home.

    Args:
        home: Of the factory.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "edge" / _FOLDER

    def all(self) -> list[Device]:
        """Return every device, by name."""
        return [self._read(path) for path in sorted(self._folder.glob("*.json"))]

    def get(self, name: str) -> Device | None:
        """Return a device; None for one that was never enrolled."""
        path = self._folder / f"{check_name(name, 'device')}.json"
        return self._read(path) if path.is_file() else None

    def save(self, device: Device) -> None:
        """Write what is known of a device, durable on return."""
        io.make_dirs_durable(self._folder)
        body = json.dumps(encode(device), indent=1, ensure_ascii=False, allow_nan=False)
        io.write_durable(self._folder / f"{check_name(device.name, 'device')}.json", body.encode())

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Let one process or thread at a time take in what a device says."""
        io.make_dirs_durable(self._folder)
        path = self._folder / f".{check_name(name, 'device')}.lock"
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _read(self, path: Path) -> Device:
        return decode(Device, json.loads(path.read_bytes()), where=str(path))


def seen(device: Device, signed: Mapping[str, Any], now_ms: int) -> Device:
    """Take in a signed report.

    Args:
        device: Who sent it, by its API key.
        signed: `body`, `public_key` and `signature`, hexadecimal.
        now_ms: ms since 1970 UTC.

    Raises:
        Problem: G689 when it is not signed by the key of this device, or is of another one.
    """
    body, public_key = signed.get("body"), str(signed.get("public_key", ""))
    if not isinstance(body, Mapping):
        raise not_believed(device.name, "It has no body.")
    if device.public_key and public_key != device.public_key:
        raise not_believed(device.name, "It is signed with another key than its first report.")
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        signature = bytes.fromhex(str(signed.get("signature", "")))
        key.verify(signature, canonical_json([REPORT_FORMAT, body]))
    except (InvalidSignature, ValueError) as error:
        raise not_believed(device.name, "Its signature does not hold.") from error
    if body.get("device") != device.name or body.get("line") != device.line:
        raise not_believed(device.name, "It speaks for another device or line.")
    if int(body.get("number") or 0) < int(device.report.get("number") or 0):
        return replace(device, seen_ms=now_ms)  # an older one that was under way for long
    return replace(device, public_key=public_key, seen_ms=now_ms, report=dict(body))


def not_believed(name: str, why: str) -> Problem:
    """Return the Problem of a report that cannot be from who it says."""
    return Problem(
        "G689",
        f"What came in the name of the device {name} is not believed.",
        where=name,
        why=why,
        tries=[f"genba edge revoke {name}", f"genba edge enrol {name} --line LINE"],
    )
