"""Signed checkpoints: the head of the chain, signed with the key of this home.

A chain shows that its middle was changed, but whoever owns the disk can rewrite all of it. A
checkpoint that lies elsewhere (another site, a printout) shows that too. The key is Ed25519.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from genba.core import io
from genba.core.codec import decode
from genba.core.digest import canonical_json
from genba.core.problem import Problem
from genba.store.home import Store
from genba.store.ledger import ChainReport

_KEY_FILE: Final = "signing-key.pem"
_SECRET_MODE: Final = 0o600
_FORMAT: Final = "genba-checkpoint-1"  # signed as well, so no signature can be used elsewhere


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The head of a ledger at one moment, signed."""

    seq: int
    digest: str
    time_ms: int
    public_key: str  # hexadecimal, 32 bytes
    signature: str  # hexadecimal, 64 bytes

    def message(self) -> bytes:
        """Return the bytes that are signed."""
        return canonical_json([_FORMAT, self.seq, self.digest, self.time_ms])

    def is_valid(self) -> bool:
        """Say whether the signature fits the public key and the content."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key))
            key.verify(bytes.fromhex(self.signature), self.message())
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """The signing key of a home; made at first use, readable by its owner only."""

    def __init__(self, home: Path) -> None:
        self.path = home / _KEY_FILE
        if not self.path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
            io.create_durable(self.path, pem, mode=_SECRET_MODE)  # one key, whoever is first
        self._key = self._load()
        self.public_key = self._key.public_key().public_bytes_raw().hex()

    def _load(self) -> Ed25519PrivateKey:
        mode = self.path.stat().st_mode & 0o777
        if mode & 0o077:
            raise Problem(
                "G307",
                f"Others may read the signing key: its mode is {mode:o}.",
                where=str(self.path),
                why="Whoever reads it can sign in the name of this factory.",
                tries=[f"chmod 600 {self.path}"],
            )
        key = load_pem_private_key(self.path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise Problem(
                "G307",
                "The signing key is not an Ed25519 key.",
                where=str(self.path),
                tries=[f"mv {self.path} {self.path}.old"],
            )
        return key

    def sign(self, message: bytes) -> str:
        """Return the signature in hexadecimal."""
        return self._key.sign(message).hex()

    def checkpoint(self, seq: int, digest: str, time_ms: int) -> Checkpoint:
        """Return a signed checkpoint."""
        plain = Checkpoint(
            seq=seq, digest=digest, time_ms=time_ms, public_key=self.public_key, signature=""
        )
        return Checkpoint(**{**asdict(plain), "signature": self.sign(plain.message())})


def write_checkpoint(store: Store) -> Checkpoint:
    """Sign the head of the ledger and keep it in the home as `checkpoints/SEQ.json`."""
    seq, digest = store.ledger.head()
    checkpoint = Signer(store.path).checkpoint(seq, digest, time.time_ns() // 1_000_000)
    directory = store.path / "checkpoints"
    io.make_dirs_durable(directory)
    io.write_durable(directory / f"{seq:012d}.json", canonical_json(asdict(checkpoint)))
    return checkpoint


def read_checkpoints(store: Store) -> list[Checkpoint]:
    """Return the checkpoints kept in the home, oldest first, valid or not."""
    paths = sorted((store.path / "checkpoints").glob("*.json"))
    return [_read(path) for path in paths]


def _read(path: Path) -> Checkpoint:
    try:
        content: Any = json.loads(path.read_bytes())
    except ValueError:
        content = {"seq": int(path.stem) if path.stem.isdigit() else 0}
    blank = {"seq": 0, "digest": "", "time_ms": 0, "public_key": "", "signature": ""}
    return decode(Checkpoint, {**blank, **content}, where=path.name)


def verify(store: Store, elsewhere: Iterable[Checkpoint] = ()) -> ChainReport:
    """Verify the chain against its checkpoints.

    Args:
        store: The store.
        elsewhere: Checkpoints kept outside this home, which its owner cannot have rewritten.

    Returns:
        The report; a checkpoint that is not validly signed with this home's key makes it bad.
    """
    own = read_checkpoints(store)
    public_key = Signer(store.path).public_key if own else ""
    forged = [c for c in own if c.public_key != public_key or not c.is_valid()]
    forged += [c for c in elsewhere if not c.is_valid()]
    if forged:
        seq = forged[0].seq
        reason = f"The checkpoint at event {seq} is not validly signed."
        return ChainReport(ok=False, events=store.ledger.head()[0], first_bad=seq, reason=reason)
    return store.ledger.verify((c.seq, c.digest) for c in (*own, *elsewhere))
