"""Signing edge releases: a key of the home, and `model.sig` over everything in a folder.

The key is ECDSA on P-256, made at first use and readable by its owner only; another one may be
given, for instance one that is carried to the machine and away again. Nothing here needs a
network. The format is OpenSSF Model Signing v1.0, see `genba.edge.oms`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from genba.core.io import create_durable, write_durable
from genba.core.problem import Problem
from genba.edge.oms import (
    CURVE,
    SIGNATURE_FILE,
    Signed,
    bundle,
    digests,
    fingerprint,
    message,
    statement,
    verify,
)

KEY_FILE: Final = "edge-key.pem"
PUBLIC_FILE: Final = "edge-key.pub.pem"
_SECRET_MODE: Final = 0o600


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeKey:
    """A key that signs edge releases."""

    private: EllipticCurvePrivateKey
    path: Path
    made: bool = False  # just now, at first use

    @property
    def fingerprint(self) -> str:
        """The sha256 of the public key's PEM, as a device names it."""
        return fingerprint(self.private.public_key())

    @property
    def public_pem(self) -> bytes:
        """The public key, as a device is given it."""
        public = self.private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def home_key(home: Path) -> EdgeKey:
    """Return the edge key of a home, made at first use, with its public half beside it.

    Raises:
        Problem: G307 when others may read it, G679 when it cannot sign edge releases, G303 or
            G304 when it cannot be written.
    """
    path = home / KEY_FILE
    made = False
    if not path.exists():
        pem = generate_private_key(SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        made = create_durable(path, pem, mode=_SECRET_MODE)  # one key, whoever is first
    key = EdgeKey(private=read_key(path).private, path=path, made=made)
    public = home / PUBLIC_FILE
    if not public.exists() or public.read_bytes() != key.public_pem:
        write_durable(public, key.public_pem)
    return key


def read_key(path: Path) -> EdgeKey:
    """Read a key that may sign edge releases.

    Raises:
        Problem: G679 when it is missing or no such key, G307 when others may read it.
    """
    try:
        mode, pem = path.stat().st_mode & 0o777, path.read_bytes()
    except OSError as error:
        raise _unusable(path, f"It cannot be read: {error.strerror}.") from error
    if mode & 0o077:
        raise Problem(
            "G307",
            f"Others may read the signing key: its mode is {mode:o}.",
            where=str(path),
            why="Whoever reads it can sign releases that every device of this factory accepts.",
            tries=[f"chmod 600 {path}"],
        )
    try:
        private = load_pem_private_key(pem, password=None)
    except TypeError as error:  # says that a password was not given
        raise _unusable(path, "It is locked with a password.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(path, "It is no private key in PEM.") from error
    if not isinstance(private, EllipticCurvePrivateKey) or private.curve.name != CURVE:
        raise _unusable(path, "It is no ECDSA key on the curve P-256.")
    return EdgeKey(private=private, path=path)


def sign_folder(folder: Path, key: EdgeKey) -> Signed:
    """Sign everything in a folder, and check the signature as a device will.

    Args:
        folder: Complete; an old signature in it is replaced.
        key: The key.

    Raises:
        Problem: G670 when the folder holds a link or something else that cannot be signed.
    """
    payload = statement(folder.absolute().name, digests(folder))
    signature = key.private.sign(message(payload), ECDSA(SHA256()))
    write_durable(folder / SIGNATURE_FILE, bundle(payload, signature, key.fingerprint))
    return verify(folder, lambda _: key.private.public_key())


def _unusable(path: Path, why: str) -> Problem:
    return Problem(
        "G679",
        f"{path} cannot sign edge releases.",
        where=str(path),
        why=why,
        tries=[
            f"openssl ecparam -name prime256v1 -genkey -noout -out {path}",
            f"openssl pkey -in LOCKED.pem -out {path}",
            "genba explain G679",
        ],
    )
