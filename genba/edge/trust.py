"""Which keys a device trusts, and which it never trusts again; plain files that a person can read.

`trusted/FINGERPRINT.pem` holds a public key; several may be trusted at the same time, so that a
key can be replaced without a gap. `revoked` lists fingerprints: a revoked key stays revoked, also
when somebody adds it once more. A key must arrive on another way than the releases it signs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from genba.core.digest import is_digest
from genba.core.io import make_dirs_durable, write_durable
from genba.core.problem import Problem
from genba.edge.oms import CURVE, fingerprint

_KEYS: Final = "trusted"
_REVOKED: Final = "revoked"
_SHORTEST: Final = 16  # digits of a fingerprint that name a key


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """The keys of a device."""

    keys: Mapping[str, EllipticCurvePublicKey]  # by fingerprint; revoked ones are among them
    revoked: frozenset[str] = frozenset()

    @classmethod
    def at(cls, state: Path) -> "Trust":
        """Read the keys of a device.

        Args:
            state: Its folder; nothing is trusted where there is none.

        Raises:
            Problem: G678 when a file in it is not what its name says.
        """
        return cls(keys=_read_keys(state), revoked=_read_revoked(state))

    @property
    def usable(self) -> tuple[str, ...]:
        """The fingerprints of the keys that may sign, sorted."""
        return tuple(sorted(self.keys.keys() - self.revoked))

    def find(self, wanted: str) -> EllipticCurvePublicKey:
        """Return the key of a fingerprint.

        Raises:
            Problem: G673 when it was revoked, G672 when it is not trusted here.
        """
        if wanted in self.revoked:
            raise revoked(wanted)
        if wanted in self.keys:
            return self.keys[wanted]
        known = ", ".join(f"{key[:16]}…" for key in self.usable)
        raise Problem(
            "G672",
            f"The release is signed with the key {wanted[:16]}…, which is not trusted here.",
            where=wanted,
            why=f"Trusted: {known}." if known else "No key is trusted here yet.",
            tries=["genba-edge trust KEY.pem  # the factory's, got on another way", "genba keys"],
        )


def add_key(state: Path, pem: bytes, *, expect: str | None = None) -> str:
    """Trust a public key.

    Args:
        state: The device's folder; made if missing.
        pem: The key.
        expect: What its fingerprint must be, as somebody was told it; all of it, or its start.

    Returns:
        Its fingerprint.

    Raises:
        Problem: G672 when it is no public key on P-256 or not the expected one, G673 when it was
            revoked, G678 when the device's files are damaged, G303 or G304 when they cannot be
            written.
    """
    key = _public_key(pem)
    if key is None:
        raise Problem(
            "G672",
            "This is no public key of an edge release.",
            why="It must be an ECDSA key on the curve P-256, in PEM. A private key stays at home.",
            tries=["genba-edge trust edge-key.pub.pem", "openssl ec -in KEY.pem -pubout"],
        )
    name = fingerprint(key)
    if expect is not None and not _named(name, expect):
        raise Problem(
            "G672",
            f"This key has the fingerprint {name[:16]}…, not {expect[:16]}….",
            where=name,
            why="It is not the key that you were told of; somebody may have exchanged it.",
            tries=["get the key from the factory once more", "genba explain G672"],
        )
    if name in _read_revoked(state):
        raise revoked(name)
    make_dirs_durable(state / _KEYS)
    plain = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_durable(state / _KEYS / f"{name}.pem", plain)
    return name


def revoke_key(state: Path, start: str) -> str:
    """Never trust a key again.

    Args:
        state: The device's folder; made if missing.
        start: The fingerprint, or its first 16 digits or more where the key is trusted here.

    Returns:
        The fingerprint.

    Raises:
        Problem: G672 when it names no key; as `add_key`.
    """
    wanted = start.lower().removesuffix("…")
    wanted = next((name for name in _read_keys(state) if _named(name, wanted)), wanted)
    if not is_digest(wanted):
        raise Problem(
            "G672",
            f"{start} is no fingerprint of a key.",
            why=f"A fingerprint has 64 digits; of a key trusted here, {_SHORTEST} are enough.",
            tries=["genba-edge trust  # lists the keys"],
        )
    lines = sorted(_read_revoked(state) | {wanted})
    make_dirs_durable(state)
    write_durable(state / _REVOKED, "".join(f"{line}\n" for line in lines).encode())
    return wanted


def revoked(name: str) -> Problem:
    """Return the Problem of a key that was revoked."""
    return Problem(
        "G673",
        f"The key {name[:16]}… was revoked; nothing that it signed is accepted.",
        where=name,
        why="A key is revoked when others may have it. It stays revoked on this device.",
        tries=["genba export edge LINE --to DIR --key NEW.pem", "genba-edge trust NEW.pub.pem"],
    )


def damaged(path: Path, why: str) -> Problem:
    """Return the Problem of a file of the device's own that cannot be believed."""
    return Problem(
        "G678",
        f"{path} is damaged.",
        where=str(path),
        why=why,
        tries=[f"mv {path} {path}.damaged", "genba-edge trust KEY.pem", "genba explain G678"],
    )


def _named(name: str, start: str) -> bool:
    start = start.lower().removesuffix("…")
    return len(start) >= _SHORTEST and name.startswith(start)


def _read_keys(state: Path) -> dict[str, EllipticCurvePublicKey]:
    found = {}
    for path in sorted((state / _KEYS).glob("*.pem")):
        key = _public_key(path.read_bytes())
        if key is None or fingerprint(key) != path.stem:
            raise damaged(path, "It does not hold the key that its name says.")
        found[path.stem] = key
    return found


def _read_revoked(state: Path) -> frozenset[str]:
    path = state / _REVOKED
    try:
        lines = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return frozenset()
    except ValueError as error:
        raise damaged(path, str(error)) from error
    if not all(map(is_digest, lines)):
        raise damaged(path, "It holds more than fingerprints, one in a line.")
    return frozenset(lines)


def _public_key(pem: bytes) -> EllipticCurvePublicKey | None:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    good = isinstance(key, EllipticCurvePublicKey) and key.curve.name == CURVE
    return key if good and isinstance(key, EllipticCurvePublicKey) else None
