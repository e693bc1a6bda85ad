"""A ledger of its own for the tests of the store."""

from pathlib import Path

from genba.store.database import Database
from genba.store.ledger import Ledger


def open_ledger(path: Path) -> Ledger:
    database = Database(f"sqlite:///{path / 'ledger.db'}")
    database.prepare()
    return Ledger(database)
