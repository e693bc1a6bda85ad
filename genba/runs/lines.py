"""Which version of a line is in force."""

from genba.store.home import Store
from genba.store.ledger import Record


def newest_line(store: Store, name: str) -> Record | None:
    """Return the line as it was run last; None when this home does not know it.

    A line that is changed and changed back has its first record again, so the order of the records
    does not say which one holds. The order of the runs does.

    Args:
        store: Where runs are recorded.
        name: Of the line.
    """
    started = store.ledger.events(line=name, kinds=("run.started",))
    record = store.ledger.lookup(str(started[-1].body.get("line_digest"))) if started else None
    if record is not None and record.kind == "line":
        return record
    return next(iter(store.ledger.find("line", line=name, limit=1)), None)
