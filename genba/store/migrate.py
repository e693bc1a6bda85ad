"""Stores made by an earlier Genba, brought up to date when they are opened.

Only columns that may be null are ever added, so an older Genba goes on with the same store: it
names the columns it knows, and what it writes has nothing in the others.
"""

from sqlalchemy import Column, Connection, Table, inspect, text

from genba.store import tables


def missing(connection: Connection) -> list[tuple[Table, Column[object]]]:
    """Return the columns that the tables of this version have and those of the store have not."""
    found = inspect(connection)
    return [
        (table, column)
        for table in tables.metadata.sorted_tables
        for known in [{c["name"] for c in found.get_columns(table.name)}]
        for column in table.columns
        if column.name not in known
    ]


def add_columns(connection: Connection) -> None:
    """Add what is missing; to be called inside a transaction that keeps other writers out."""
    for table, column in missing(connection):
        kind = column.type.compile(connection.dialect)
        # Names and types are those of tables.py; nothing that a user wrote gets here.
        connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))
