"""What this home has recorded about who signed a package."""

from pathlib import Path
from typing import Final

from genba.core.codec import decode, encode
from genba.core.io import write_durable
from genba.core.problem import Problem
from genba.edge.signature import PackageSignature, refusal, sign, verify
from genba.store.home import Store
from genba.store.signing import Signer

_TRUSTED_FILE: Final = "trusted-signers"


def sign_package(store: Store, line: str, package_id: str) -> None:
    """Sign a package with the key of this home and record it; twice changes nothing."""
    signer = Signer(store.path)
    store.ledger.append(
        "package.signed",
        encode(sign(package_id, signer.public_key, signer.sign)),
        line=line,
        subject=package_id,
        key=f"signed:{package_id}:{signer.public_key}",
    )


def check_own(store: Store, package_id: str) -> None:
    """Refuse a package that this home has not signed.

    Raises:
        Problem: G605 when there is no signature, or one that is not valid or not by this home.
    """
    signature = find_signature(store, package_id)
    if signature is None:
        raise refusal(package_id, "It has no signature, and here only signed packages may run.")
    known = (Signer(store.path).public_key, *trusted(store.path))
    if signature.public_key not in known:
        raise refusal(package_id, "It was signed with a key that is not the one of this home.")


def trust(home: Path, public_key: str) -> None:
    """Let packages run in a home that another one signed; for a home that is carried elsewhere."""
    known = dict.fromkeys((*trusted(home), public_key))
    write_durable(home / _TRUSTED_FILE, "".join(f"{key}\n" for key in known).encode())


def trusted(home: Path) -> tuple[str, ...]:
    """Return the public keys of other homes whose packages may run in this one."""
    try:
        return tuple((home / _TRUSTED_FILE).read_text(encoding="ascii").split())
    except FileNotFoundError:
        return ()


def find_signature(store: Store, package_id: str) -> PackageSignature | None:
    """Return the signature of a package that was recorded first, or None when nobody signed it.

    Every signature that was recorded must be valid: one that is not says that somebody wrote to
    the ledger what no factory did.

    Args:
        store: Where the ledger is.
        package_id: Which package.

    Raises:
        Problem: G605 when a signature was recorded and is not valid.
    """
    signed = store.ledger.events(kinds=("package.signed",))
    found = [_read(e.body, package_id) for e in signed if e.subject == package_id]
    for signature in found:
        verify(signature, package_id, None)
    return found[0] if found else None


def _read(body: object, package_id: str) -> PackageSignature:
    try:
        return decode(PackageSignature, body)
    except Problem as problem:
        raise refusal(package_id, "What was recorded of it is damaged.") from problem
