"""Decides which rows of a table one of two servers holds alone, or with other values; must never change any.

Both sides are read in one order, by key, in small portions, each from one snapshot: memory does not
grow with the table. Keys that are no integers are ordered as bytes, because two hosts may disagree
about the order of text. Rows are compared as the JSON text that PostgreSQL makes of them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.drivers.postgresql import Session, quote, quote_name, rows

ROWS_PER_FETCH = 200
SNAPSHOT = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
FORM = (
    "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'iso_8601';"
    " SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1; SET LOCAL search_path = pg_catalog"
)
INTEGERS = ("int2", "int4", "int8")

Key: TypeAlias = "tuple[int | bytes, ...]"


@dataclass(frozen=True, slots=True)
class Table:
    """``keys``: the columns of its primary key with the names of their types; empty when it has none."""

    schema: str
    name: str
    keys: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Row:
    """``text``: the row as JSON."""

    key: Key
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A row of the losing side; ``kept``: what the other side holds under its key, None for nothing."""

    lost: Row
    kept: Row | None


def parse_table(text: str) -> tuple[str, str]:
    """``schema.table`` or ``table`` (of the schema public)."""
    schema, _, name = text.rpartition(".")
    return schema or "public", name


@contextmanager
def snapshot(session: Session) -> Iterator[Session]:
    """All that is read inside is of one moment, and written the same way at any server."""
    rows(session, SNAPSHOT)
    rows(session, FORM)
    try:
        yield session
    finally:
        rows(session, "ROLLBACK")


def tables(session: Session, declared: tuple[str, ...]) -> tuple[list[Table], list[str]]:
    """(the declared tables, or all that are no system's and not ours; the declared that do not exist)."""
    found = rows(
        session,
        "SELECT nspname, relname, coalesce(keys, '{}'), coalesce(types, '{}') FROM pg_class"
        " JOIN pg_namespace ON pg_namespace.oid = relnamespace LEFT JOIN LATERAL ("
        "  SELECT array_agg(attname::text ORDER BY place), array_agg(typname::text ORDER BY place)"
        "  FROM pg_index, unnest(indkey) WITH ORDINALITY AS columns (number, place)"
        "  JOIN pg_attribute ON attnum = number JOIN pg_type ON pg_type.oid = atttypid"
        "  WHERE indrelid = pg_class.oid AND attrelid = pg_class.oid AND indisprimary"
        " ) AS primary_key (keys, types) ON true"
        " WHERE relkind IN ('r', 'p') AND NOT relispartition AND relpersistence = 'p'"
        " AND nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('information_schema', 'continuity')"
        " ORDER BY nspname, relname",
    )
    known = {(schema, name): tuple(zip(keys, types, strict=True)) for schema, name, keys, types in found}
    wanted = [parse_table(text) for text in declared] or list(known)
    missing = [f"{schema}.{name}" for schema, name in wanted if (schema, name) not in known]
    return [Table(*place, known[place]) for place in wanted if place in known], missing


def read_text(table: Table) -> str:
    """The statement that reads a table in the order of its key."""
    ordered = [
        f"{quote_name(name)}::bigint"
        if kind in INTEGERS
        else f"pg_catalog.convert_to({quote_name(name)}::text, 'UTF8')"
        for name, kind in table.keys
    ]
    place = f"{quote_name(table.schema)}.{quote_name(table.name)}"
    return (
        f"SELECT {', '.join(ordered)}, pg_catalog.row_to_json(whole.*)::text FROM {place} AS whole"
        f" ORDER BY {', '.join(ordered)}"
    )


def read(session: Session, table: Table) -> Generator[Row, None, None]:
    """Every row by key, inside a snapshot. Nothing for a table that is not there."""
    if not rows(session, f"SELECT WHERE to_regclass({quote(_regclass(table))}) IS NOT NULL"):
        return
    rows(session, f"DECLARE reading NO SCROLL CURSOR FOR {read_text(table)}")
    try:
        while portion := rows(session, f"FETCH {ROWS_PER_FETCH} FROM reading"):
            for *key, text in portion:
                yield Row(tuple(key), text)
    finally:
        rows(session, "CLOSE reading")


def _regclass(table: Table) -> str:
    return f"{quote_name(table.schema)}.{quote_name(table.name)}"


def differences(lost: Iterator[Row], kept: Iterator[Row]) -> Iterator[Difference]:
    """Rows of ``lost`` that ``kept`` has not, or has with other values. Both in the order of their keys."""
    other = next(kept, None)
    for row in lost:
        while other is not None and other.key < row.key:
            other = next(kept, None)
        if other is None or other.key != row.key:
            yield Difference(row, None)
        elif other.text != row.text:
            yield Difference(row, other)
