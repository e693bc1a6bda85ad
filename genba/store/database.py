"""One database behind a URL: transactions that queue up, and errors that say what to do."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, extract, func, make_url, select
from sqlalchemy.exc import DBAPIError, NoSuchModuleError

from genba.core import io
from genba.core.problem import Problem
from genba.store import migrate, postgresql, sqlite, tables

_LOCK_HEAD = select(tables.head.c.seq, tables.head.c.digest).with_for_update()


class Database:
    """An engine with two ways in: `transaction` to write, `read` to look.

    Args:
        url: `sqlite:////path/ledger.db` or `postgresql+psycopg://user@host/name`.

    Example:
        >>> import tempfile
        >>> database = Database(f"sqlite:///{tempfile.mkdtemp()}/ledger.db")
        >>> database.prepare()
        >>> with database.read() as connection:
        ...     connection.execute(select(tables.head.c.seq)).scalar()
        0
    """

    def __init__(self, url: str | URL) -> None:
        self.url = make_url(url)
        self.is_local = self.url.get_backend_name() == "sqlite"
        self.where = str(self.url.database) if self.is_local else self.url.render_as_string()
        self._local = threading.local()
        self._open_engine()

    def _open_engine(self) -> None:
        try:
            self._engine: Engine = (
                sqlite.open_engine(Path(self.where)) if self.is_local else create_engine(self.url)
            )
        except (NoSuchModuleError, ModuleNotFoundError) as missing:
            raise Problem(
                "G301",
                f"There is no driver for {self.url.drivername}.",
                where=self.where,
                why=str(missing),
                tries=['pip install "genba[postgres]"', "unset GENBA_DATABASE"],
            ) from missing
        self._writer = self._engine.execution_options(write=True)
        self._quick_writer = self._engine.execution_options(write=True, durable=False)
        self._process = os.getpid()

    def prepare(self, *, create: bool = True) -> None:
        """Create the tables if there are none, and what an earlier Genba did not know of.

        Raises:
            Problem: G301 when there are none and `create` is false, or when they were made by a
                newer Genba.
        """
        found = self._format()
        if found is None and create:
            self._create()
            found = tables.FORMAT
        if found is None:
            raise self._not_a_ledger("There are no Genba tables in it.")
        if found > tables.FORMAT:
            raise self._not_a_ledger(f"Its format is {found}; this Genba knows {tables.FORMAT}.")
        self._complete()

    def _complete(self) -> None:
        """Add the columns that came after the store was made."""
        with self.read() as connection:
            complete = not migrate.missing(connection)
        if complete:
            return
        with self.transaction() as connection:
            self.lock(connection)  # of several processes that open it at once, one adds them
            migrate.add_columns(connection)

    def _format(self) -> int | None:
        if self.is_local and not Path(self.where).exists():
            return None
        with self.read() as connection:
            if not self._engine.dialect.has_table(connection, "head"):
                return None
            return connection.execute(select(tables.head.c.format)).scalar()

    def _create(self) -> None:
        if self.is_local:
            with self._explained():
                sqlite.use_wal(self._engine)
        try:
            self._create_tables()
        except DBAPIError:
            # On a server, two processes may create the tables at once; one of them is enough.
            if self._format() is None:
                raise

    def _create_tables(self) -> None:
        with self.transaction() as connection:
            tables.metadata.create_all(connection)
            if connection.execute(select(tables.head.c.id)).first() is None:
                row = {"id": 1, "seq": 0, "digest": tables.GENESIS, "format": tables.FORMAT}
                connection.execute(tables.head.insert().values(row))

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[Connection]:
        """Open a write transaction: one writer at a time, one commit at the end.

        A transaction opened inside another one of the same thread joins it, so that what several
        calls write becomes one commit, as durable as the outermost.

        Args:
            durable: Whether it must survive a power cut on return. Where the database is a file
                of this machine, a lease need not: the power cut ends its holder as well. It
                survives the death of processes either way, and the next durable commit takes it
                along.

        Raises:
            Problem: G303 disk full, G304 read-only, G306 damaged, G308 busy for half
                a minute.
        """
        joined: Connection | None = getattr(self._local, "connection", None)
        if joined is not None:
            yield joined
            return
        writer = self._writer if durable else self._quick_writer
        with self._explained(), self._connect(writer) as connection:
            transaction = connection.begin()
            self._local.connection = connection
            try:
                yield connection
                io.disk().commit(transaction.commit)
            except BaseException:
                # SQLite has already rolled back by itself when the disk was full.
                with suppress(DBAPIError):
                    transaction.rollback()
                raise
            finally:
                self._local.connection = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection that sees one moment; inside a transaction, the transaction's own."""
        joined: Connection | None = getattr(self._local, "connection", None)
        if joined is not None:
            yield joined
            return
        with self._explained(), self._connect(self._engine) as connection:
            self._local.reads = getattr(self._local, "reads", 0) + 1
            try:
                yield connection
            finally:
                self._local.reads -= 1

    @property
    def busy(self) -> bool:
        """Say whether this thread is inside a transaction or a read."""
        local = self._local
        return getattr(local, "connection", None) is not None or getattr(local, "reads", 0) > 0

    def lock(self, connection: Connection) -> tuple[int, str]:
        """Return the end of the chain and keep other writers out until the commit."""
        seq, digest = connection.execute(_LOCK_HEAD).one()
        return seq, digest

    def now_ms(self, connection: Connection) -> int:
        """Return the time in ms since 1970 UTC by one clock: the server's where there is one."""
        if self.is_local:
            return time.time_ns() // 1_000_000
        seconds = connection.execute(select(extract("epoch", func.clock_timestamp()))).scalar_one()
        return int(float(seconds) * 1000)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _connect(self, engine: Engine) -> Connection:
        if os.getpid() != self._process:
            # A connection must not cross a fork; the child leaves the parent's alone.
            self._engine.dispose(close=False)
            self._process = os.getpid()
        return engine.connect()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with io.explained(Path(self.where).parent):
                yield
        except sqlite.ERRORS as error:
            reported = sqlite.failure if self.is_local else postgresql.failure
            problem = self._problem(reported(error), error)
            if problem is None:
                raise
            raise problem from error

    def _problem(self, failure: str | None, error: Exception) -> Problem | None:
        where = Path(self.where)
        if failure == "away":
            return Problem(
                "G309",
                "The database server cannot be reached.",
                where=self.where,
                why=str(getattr(error, "orig", error)).partition("\n")[0],
                tries=["pg_isready", "repeat the command", "unset GENBA_DATABASE"],
            )
        if failure == "full":
            return io.disk_full(where.parent)
        if failure == "read-only":
            return io.not_writable(where.parent)
        if failure == "busy":
            return Problem(
                "G308",
                f"The ledger was busy for {sqlite.BUSY_S:.0f} seconds.",
                where=self.where,
                why="Another process holds its lock; it is stopped or the disk is very slow.",
                tries=[f"fuser -v {self.where}", "repeat the command"],
            )
        if failure in ("damaged", "io"):
            return Problem(
                "G306",
                "The ledger's file is damaged or the disk cannot read it.",
                where=self.where,
                why=str(getattr(error, "orig", error)),
                tries=["genba doctor --verify", "dmesg | tail", "bring back a copy of the home"],
            )
        return None

    def _not_a_ledger(self, why: str) -> Problem:
        return Problem(
            "G301",
            "There is no store to open here.",
            where=self.where,
            why=why,
            tries=["genba init", "pip install --upgrade genba", "export GENBA_HOME=PATH"],
        )
