"""What this home has recorded about who signed a package."""

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.edge.signature import PackageSignature, refusal, verify
from genba.store.home import Store


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
