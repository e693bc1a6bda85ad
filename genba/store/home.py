"""The store of one factory: a directory, or a directory and a database server."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, Connection

from genba.core import io
from genba.core.digest import is_digest
from genba.core.ids import check_name
from genba.core.problem import Problem
from genba.store.attempts import Attempts
from genba.store.blobs import Blobs
from genba.store.database import Database
from genba.store.feedback import FeedbackTable
from genba.store.ledger import Ledger


def home_path(path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the home directory: the one given, else $GENBA_HOME, else ./.genba.

    Example:
        >>> home_path(environment={"GENBA_HOME": "/srv/genba"}).as_posix()
        '/srv/genba'
    """
    return (path or Path(environment.get("GENBA_HOME") or ".genba")).absolute()


class Store:
    """Blobs, ledger, attempts and feedback of one home.

    Example:
        >>> import tempfile
        >>> with Store.open(Path(tempfile.mkdtemp()) / "home") as store:
        ...     store.ledger.head()[0]
        0
    """

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self.database = database
        self.blobs = Blobs(path / "blobs")
        self.ledger = Ledger(database)
        self.attempts = Attempts(database)
        self.feedback = FeedbackTable(database)

    @classmethod
    def open(cls, path: Path | None = None, *, url: str | None = None, create: bool = True) -> Self:
        """Open a home, and make it if there is none.

        Args:
            path: The home directory; $GENBA_HOME or ./.genba if not given.
            url: Database; $GENBA_DATABASE or `ledger.db` in the home if not given.
            create: Make the home and its tables when there are none.

        Raises:
            Problem: G301 when there is no store and `create` is false, or a newer Genba made it;
                G303 when the disk is full, G304 when the home may not be written to.
        """
        home = home_path(path)
        if create:
            io.make_dirs_durable(home)
        elif not home.is_dir():
            raise Problem(
                "G301",
                f"There is no Genba home at {home}.",
                where=str(home),
                why="Nothing was run here yet, or GENBA_HOME names another directory.",
                tries=["genba run LINE", "export GENBA_HOME=PATH"],
            )
        default = URL.create("sqlite", database=str(home / "ledger.db"))
        database = Database(url or os.environ.get("GENBA_DATABASE") or default)
        database.prepare(create=create)
        store = cls(home, database)
        if create:
            store.blobs.sweep()
        return store

    def transaction(self, *, durable: bool = True) -> AbstractContextManager[Connection]:
        """Group everything that is written to the ledger inside the block into one commit.

        Args:
            durable: Whether it must survive a power cut on return; see `Database.transaction`.
        """
        return self.database.transaction(durable=durable)

    def work_dir(self, name: str) -> Path:
        """Return a directory for work in progress, made if missing.

        Args:
            name: A stage key or a plain name; anything else is refused.

        Raises:
            Problem: G104 when the name could be a path.
        """
        if not is_digest(name):
            check_name(name, "work directory")
        directory = self.path / "work" / name
        io.make_dirs_durable(directory)
        return directory

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the database."""
        self.close()
