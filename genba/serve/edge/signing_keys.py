"""Keys of the repository for devices: those that a person holds, and the one that is at hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # public all the same

from genba.core import io
from genba.core.problem import Problem

_SECRET_MODE: Final = 0o600


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """Keys that a person holds while publishing."""

    root: tuple[CryptoSigner, ...]
    targets: tuple[CryptoSigner, ...]
    threshold: int = 1  # of root


def offline_keys(folder: Path, *, make: bool = False) -> Keys:
    """Read the keys that a person holds: every `root*.pem` and `targets*.pem` of a folder.

    Of several root keys more than half must sign; of several targets keys, one.

    Args:
        folder: Of the keys.
        make: Make one of each where there is none.

    Raises:
        Problem: G679 when one is missing, or cannot be used.
    """
    found: dict[str, tuple[CryptoSigner, ...]] = {}
    for role in ("root", "targets"):
        if make and not list(folder.glob(f"{role}*.pem")):
            io.make_dirs_durable(folder)
            io.create_durable(folder / f"{role}.pem", new_key(), mode=_SECRET_MODE)
        paths = sorted(folder.glob(f"{role}*.pem")) or [folder / f"{role}.pem"]
        found[role] = tuple(map(read_key, paths))
    most = len(found["root"]) // 2 + 1
    return Keys(root=found["root"], targets=found["targets"], threshold=most)


def new_key() -> bytes:
    """Return a new private key, ECDSA on P-256, as PEM."""
    pem: bytes = CryptoSigner.generate_ecdsa().private_bytes
    return pem


def read_key(path: Path) -> CryptoSigner:
    """Read a private key.

    Raises:
        Problem: G679 when there is none, others may read it, or it cannot be used.
    """
    try:
        mode = path.stat().st_mode & 0o777
        key: Any = load_pem_private_key(path.read_bytes(), password=None)
        if mode & 0o077:
            raise ValueError(f"others may read it: its mode is {mode:o}")
        return CryptoSigner(key)
    except (OSError, ValueError, TypeError) as error:
        raise Problem(
            "G679",
            f"The key in {path} cannot be used.",
            where=str(path),
            why=str(error),
            tries=[f"chmod 600 {path}", f"ls -l {path}", "genba explain G679"],
        ) from error
