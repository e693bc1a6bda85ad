"""Who made a package: an Ed25519 signature of its id. Needs the `cryptography` library.

The id covers every byte, so signing the id signs the package. An id alone proves that nothing
changed since it was written down; a signature proves who wrote it.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from genba.core.codec import decode, encode
from genba.core.digest import canonical_json
from genba.core.problem import Problem
from genba.edge.package import SIGNATURE_FILE, LoadedPackage, load_directory

_FORMAT: Final = "genba-package-1"  # signed as well, so the signature fits nothing else


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageSignature:
    """A signature of a package id."""

    package: str
    public_key: str  # hexadecimal, 32 bytes
    signature: str  # hexadecimal, 64 bytes

    def is_valid(self) -> bool:
        """Say whether the signature fits the public key and the package id."""
        try:
            key = Ed25519PublicKey.from_public_bytes(_from_hex(self.public_key))
            key.verify(_from_hex(self.signature), _message(self.package))
        except (InvalidSignature, ValueError):
            return False
        return True


def sign(package_id: str, public_key: str, signer: Callable[[bytes], str]) -> PackageSignature:
    """Sign a package id.

    Args:
        package_id: What to sign.
        public_key: Of the signer, hexadecimal.
        signer: Signs a message and returns hexadecimal, as `genba.store.signing.Signer.sign`.
    """
    return PackageSignature(
        package=package_id, public_key=public_key, signature=signer(_message(package_id))
    )


def verify(signature: PackageSignature, package_id: str, trusted: Collection[str] | None) -> None:
    """Check a signature.

    Args:
        signature: What came with the package.
        package_id: The package that was loaded.
        trusted: Public keys that may sign, hexadecimal; any valid signature will do when None.

    Raises:
        Problem: G605 when it is of another package, not valid, or by a key that is not trusted.
    """
    if signature.package != package_id:
        raise refusal(package_id, "It is the signature of another package.")
    if not signature.is_valid():
        raise refusal(package_id, "It does not fit its public key.")
    if trusted is not None and signature.public_key not in trusted:
        raise refusal(package_id, f"The key {signature.public_key[:16]}… is not trusted here.")


def open_package(
    folder: Path, *, expect: str | None = None, trusted: Collection[str] | None = None
) -> LoadedPackage:
    """Load a package from a folder, verify every byte, and its signature when there is one.

    Args:
        folder: Holds `manifest.json`, the files it names, and perhaps `signature.json`.
        expect: The package id that was asked for.
        trusted: Public keys that may sign; a package without a signature is then refused.

    Raises:
        Problem: G605 for a signature that is missing or wrong; and as for `load_directory`.
    """
    package = load_directory(folder, expect=expect)
    path = folder / SIGNATURE_FILE
    if path.is_file():
        verify(_read(path, package.id), package.id, trusted)
    elif trusted is not None:
        raise refusal(package.id, "It has no signature, and here only signed packages may run.")
    return package


def encode_signature(signature: PackageSignature) -> bytes:
    """Return the signature as it is written to `signature.json`."""
    return canonical_json(encode(signature))


def refusal(package_id: str, why: str) -> Problem:
    """Return the Problem of a signature that is not accepted, and why."""
    return Problem(
        "G605",
        f"The signature of package {package_id[:12]}… is not accepted.",
        where=package_id,
        why=why,
        tries=["fetch the package again from where it was made", "genba explain G605"],
    )


def _read(path: Path, package_id: str) -> PackageSignature:
    data = path.read_bytes()
    try:
        signature = decode(PackageSignature, json.loads(data))
    except (ValueError, Problem) as error:
        raise refusal(package_id, f"{path.name} is damaged.") from error
    if encode_signature(signature) != data:
        raise refusal(package_id, f"{path.name} is not written as Genba writes it.")
    return signature


def _from_hex(text: str) -> bytes:
    """Decode hexadecimal in the one way it is written: lower case, nothing in between."""
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError("not lower-case hexadecimal")
    return data


def _message(package_id: str) -> bytes:
    return canonical_json([_FORMAT, package_id])
