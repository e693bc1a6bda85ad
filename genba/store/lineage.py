"""The walk over "was made from": from a package back to the rows."""

from collections import deque
from dataclasses import dataclass

from genba.store.ledger import Edge, Ledger, Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """Everything that one id was made from, nearest first."""

    start: str
    ids: tuple[str, ...]  # without `start`
    edges: tuple[Edge, ...]
    records: tuple[Record, ...]  # of `start` and `ids`, those the ledger knows


def ancestors(ledger: Ledger, id: str) -> Lineage:
    """Walk from a thing to everything it was made from, nearest first.

    Example:
        >>> import tempfile
        >>> from genba.store.database import Database
        >>> database = Database(f"sqlite:///{tempfile.mkdtemp()}/ledger.db")
        >>> database.prepare()
        >>> ledger = Ledger(database)
        >>> _ = ledger.record("dataset", "d1", {})
        >>> _ = ledger.record("model", "m1", {}, inputs=[("dataset", "d1")])
        >>> _ = ledger.record("package", "p1", {}, inputs=[("model", "m1")])
        >>> ancestors(ledger, "p1").ids
        ('m1', 'd1')
    """
    seen, edges = {id: None}, []
    queue = deque([id])
    while queue:
        here = queue.popleft()
        for edge in ledger.parents(here):
            edges.append(edge)
            if edge.src not in seen:
                seen[edge.src] = None
                queue.append(edge.src)
    found = [ledger.lookup(i) for i in seen]
    return Lineage(
        start=id,
        ids=tuple(seen)[1:],
        edges=tuple(edges),
        records=tuple(record for record in found if record is not None),
    )
