"""Everything that is true of PostgreSQL only: how the past is guarded and what it reports."""

from typing import Final

from sqlalchemy import DDL, event
from sqlalchemy.exc import DBAPIError, OperationalError

from genba.store import tables

#: SQLSTATE -> which kind of trouble.
_STATES: Final = {
    "53100": "full",
    "25006": "read-only",
    "42501": "read-only",
    "55P03": "busy",
    "40P01": "busy",
    "XX001": "damaged",
    "XX002": "damaged",
}

_REFUSE: Final = """\
CREATE OR REPLACE FUNCTION genba_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"""


def failure(error: Exception) -> str | None:
    """Say which kind of trouble the server reported, "away" when it cannot be reached, or None."""
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    if state in _STATES:
        return _STATES[state]
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    never = isinstance(error, OperationalError) and state is None
    return "away" if lost or never else None


def _guards() -> None:
    for table in (tables.event, tables.record, tables.edge):
        trigger = (
            f"CREATE TRIGGER {table.name}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON {table.name} FOR EACH STATEMENT EXECUTE FUNCTION genba_append_only()"
        )
        for statement in (_REFUSE, trigger):
            guard = DDL(statement)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
            event.listen(table, "after_create", guard.execute_if(dialect="postgresql"))


_guards()
