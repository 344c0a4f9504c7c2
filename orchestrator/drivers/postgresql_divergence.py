"""Decides how what one server alone holds is told, row by row, to people and to a list; must never change anything.

One code for every way to that server: it may be live, or a copy of a stopped one that was started to be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from orchestrator.core.values import Json
from orchestrator.drivers import postgresql_rows
from orchestrator.drivers.postgresql import Session
from orchestrator.drivers.postgresql_rows import Difference, Table

NAMED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Place:
    """What is compared: one database at the site that lost (``site``) with the same at the one that is kept."""

    cluster: str
    database: str
    site: str
    keep: str

    def __str__(self) -> str:
        return f"{self.cluster}/{self.database}"


@dataclass(slots=True)
class Tally:
    """What has been found so far. ``named``: the first rows by table and key, without their values."""

    lines: list[str] = field(default_factory=list)
    tables: dict[str, Json] = field(default_factory=dict)
    named: list[Json] = field(default_factory=list)
    rows: int = 0


def compare(
    lost: Session,
    kept: Session,
    place: Place,
    declared: tuple[str, ...],
    tally: Tally,
    write: Callable[[str], object],
) -> None:
    """Compare every declared table (none: all); ``write`` takes one JSON line for each row, with its values."""
    with postgresql_rows.snapshot(lost), postgresql_rows.snapshot(kept):
        listed, missing = postgresql_rows.tables(lost, declared)
        tally.lines += [f"{place}: no table {name} at {place.site}" for name in missing]
        for table in listed:
            _compare_table((lost, kept), table, place, tally, write)


def _compare_table(
    sessions: tuple[Session, Session],
    table: Table,
    place: Place,
    tally: Tally,
    write: Callable[[str], object],
) -> None:
    name = f"{place}/{table}"
    if not table.keys:
        tally.lines.append(f"{name}: no primary key: its rows cannot be told apart, not compared")
        tally.tables[f"{name}@{place.site}"] = {"compared": False}
        return
    with (
        closing(postgresql_rows.read(sessions[0], table)) as theirs,
        closing(postgresql_rows.read(sessions[1], table)) as ours,
    ):
        only, differ = _tell(postgresql_rows.differences(theirs, ours), table, place, tally, write)
    tally.tables[f"{name}@{place.site}"] = {"compared": True, "only": only, "differ": differ}
    tally.rows += only + differ
    tally.lines.append(
        f"{name}: {only} rows only at {place.site}, {differ} with other values than at {place.keep}"
    )


def _tell(
    rows: Iterator[Difference], table: Table, place: Place, tally: Tally, write: Callable[[str], object]
) -> tuple[int, int]:
    """(only there, with other values). Values are written as PostgreSQL wrote them."""
    only = differ = 0
    head = {
        "cluster": place.cluster, "database": place.database, "table": str(table), "site": place.site,
        "keep": place.keep,
    }  # fmt: skip
    for row in rows:
        values = json.loads(row.lost.text, parse_float=str)
        key = {name: values[name] for name, _ in table.keys}
        kind = "differs" if row.kept else "only"
        only, differ = (only, differ + 1) if row.kept else (only + 1, differ)
        if len(tally.named) < NAMED_MAX:
            named = f"{place.database}/{table}"
            tally.named.append({"kind": kind, "table": named, "key": json.dumps(key, ensure_ascii=False)})
        told = json.dumps({**head, "kind": kind, "key": key}, ensure_ascii=False)
        kept = row.kept.text if row.kept else "null"
        write(f'{told[:-1]}, "lost": {row.lost.text}, "kept": {kept}}}\n')
    return only, differ
