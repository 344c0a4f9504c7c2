"""Decides what people are shown of a split brain before they choose: the rows and documents that the losing site
alone holds.

Both sites' servers are read and compared by key, value by value, documents by name and hash; nothing is changed
at either. What
was found lies beside the log, readable by its owner only: it holds what citizens were told is theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orchestrator.bootstrap.documents import list_documents
from orchestrator.core.model import group_of
from orchestrator.core.values import Json
from orchestrator.engine.clock import now
from orchestrator.engine.journal import moment
from orchestrator.errors import ContinuityError, InputError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.drivers.postgresql import Session
    from orchestrator.drivers.postgresql_member import Member
    from orchestrator.drivers.postgresql_rows import Difference, Table
    from orchestrator.ports import Context

COMPARE_SECONDS = 3_600.0
STEP = "diverged"


@dataclass(frozen=True, slots=True)
class Diverged:
    """``lines`` for people, ``evidence`` for the log, ``path`` of the list ("" when nothing was compared)."""

    lines: tuple[str, ...]
    evidence: Mapping[str, Json]
    path: str


@dataclass(slots=True)
class _Found:
    """What has been found so far."""

    lines: list[str] = field(default_factory=list)
    tables: dict[str, Json] = field(default_factory=dict)
    documents: dict[str, Json] = field(default_factory=dict)
    unseen: list[Json] = field(default_factory=list)
    rows: int = 0

    @property
    def is_listed(self) -> bool:
        return bool(self.tables or self.documents)


def diverged(app: App, group: str, keep: str) -> Diverged:
    """Compare every database and all documents of a group between ``keep`` and each other site that holds a copy.

    A server that does not answer is said to be unseen; its data directory is kept whole when it is
    rejoined, so what it holds can be compared then.
    """
    estate = app.loaded.estate
    if keep not in estate.sites:
        raise InputError(f"--keep {keep}: no such site; sites: {', '.join(estate.sites)}")
    databases = _databases(app, group)
    at = now(app.clock)
    name = f"diverged-{group}-{moment(at).replace(':', '')}.jsonl"
    path = app.settings.log_folder / name
    found = _Found()
    app.settings.log_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{name}.", encoding="utf-8") as handle:
        with app.context(f"resolve-{group}", STEP, COMPARE_SECONDS) as context:
            for (cluster, database), declared in databases.items():
                for site in estate.clusters[cluster].members:
                    if site != keep:
                        _compare(context, (cluster, database, declared), (site, keep), found, handle)
            lines, found.documents, unseen = list_documents(context, app, group, keep, handle)
        found.lines += lines
        found.unseen += unseen
        handle.flush()
        os.fsync(handle.fileno())
        digest = hashlib.sha256(Path(handle.name).read_bytes()).hexdigest()
        if found.is_listed:
            os.link(handle.name, path)
    place = str(path) if found.is_listed else ""
    evidence: dict[str, Json] = {
        "keep": keep,
        "tables": found.tables,
        "documents": found.documents,
        "unseen": found.unseen,
        "rows": found.rows,
        "list": place,
        "sha256": digest if place else "",
    }
    if place:
        found.lines.append(f"{found.rows} rows{_documents_text(found.documents)} in {path}")
    elif not databases and not found.unseen:
        found.lines.append(f"{group}: no database and no documents are declared for it: nothing to compare")
    return Diverged(tuple(found.lines), evidence, place)


def _documents_text(counts: Mapping[str, Any]) -> str:
    count = sum(int(found["only"]) + int(found["differ"]) for found in counts.values())
    return f" and {count} documents" if counts else ""


def _databases(app: App, group: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """(cluster, database) → the tables that its runbooks name, none for all."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for runbook in app.loaded.runbooks.values():
        if group_of(app.loaded.estate, runbook.name) != group:
            continue
        for component in runbook.components.values():
            cluster = getattr(component, "cluster", None)
            if cluster is not None:
                place = (str(cluster), str(getattr(component, "database", "")))
                declared: tuple[str, ...] = getattr(component, "reconcile", ())
                found[place] = tuple(dict.fromkeys((*found.get(place, ()), *declared)))
    return dict(sorted(found.items()))


def _compare(
    context: Context[Any],
    what: tuple[str, str, tuple[str, ...]],
    sites: tuple[str, str],
    found: _Found,
    handle: IO[str],
) -> None:
    """Compare one database of one losing site with the site whose history stands."""
    import psycopg

    from orchestrator.drivers import postgresql, postgresql_rows

    cluster, database, _ = what
    asked = sites[0]
    try:
        with ExitStack() as stack:
            sessions = []
            for asked in sites:
                at = _serving(context, cluster, asked)
                session = stack.enter_context(postgresql.lease(context, at, database))
                sessions.append(stack.enter_context(postgresql_rows.snapshot(session)))
            asked = "one of both"
            _compare_tables((sessions[0], sessions[1]), what, sites, found, handle)
    except (ContinuityError, TimeoutError, psycopg.Error) as error:
        found.unseen.append({"cluster": cluster, "database": database, "site": asked})
        found.lines.append(
            f"{cluster}/{database} at {asked}: not seen ({postgresql.error_text(error)}): what differs there"
            " is not known; its data directory is kept whole when it is rejoined"
        )


def _compare_tables(
    sessions: tuple[Session, Session],
    what: tuple[str, str, tuple[str, ...]],
    sites: tuple[str, str],
    found: _Found,
    handle: IO[str],
) -> None:
    from orchestrator.drivers import postgresql_rows

    (lost, kept), (cluster, database, declared), (lost_site, keep) = sessions, what, sites
    place = f"{cluster}/{database}"
    listed, missing = postgresql_rows.tables(lost, declared)
    found.lines += [f"{place}: no table {name} at {lost_site}" for name in missing]
    for table in listed:
        name = f"{place}/{table}"
        if not table.keys:
            found.lines.append(f"{name}: no primary key: its rows cannot be told apart, not compared")
            found.tables[f"{name}@{lost_site}"] = {"compared": False}
            continue
        with (
            closing(postgresql_rows.read(lost, table)) as theirs,
            closing(postgresql_rows.read(kept, table)) as ours,
        ):
            rows = postgresql_rows.differences(theirs, ours)
            only, differ = _write(rows, (cluster, database, table), sites, handle)
        found.tables[f"{name}@{lost_site}"] = {"compared": True, "only": only, "differ": differ}
        found.rows += only + differ
        found.lines.append(
            f"{name}: {only} rows only at {lost_site}, {differ} with other values than at {keep}"
        )


def _serving(context: Context[Any], cluster: str, site: str) -> Member:
    """The member at a site that takes writes, else one that answers. TransientError when none does."""
    from orchestrator.drivers import postgresql
    from orchestrator.drivers.postgresql_member import members
    from orchestrator.errors import TransientError

    standby: Member | None = None
    problem: TransientError | None = None
    for member in members(context.parts, cluster, (site,)):
        try:
            with postgresql.lease(context, member) as session:
                if not postgresql.value(session, "SELECT pg_is_in_recovery()"):
                    return member
                standby = standby or member
        except TransientError as error:
            problem = error
    if standby is None:
        raise problem or TransientError(f"{cluster} has no member at {site}")
    return standby


def _write(
    rows: Iterator[Difference], what: tuple[str, str, Table], sites: tuple[str, str], handle: IO[str]
) -> tuple[int, int]:
    """One JSON line for each row, its values as PostgreSQL wrote them; (only there, other values)."""
    cluster, database, table = what
    only = differ = 0
    head = {"cluster": cluster, "database": database, "table": str(table), "site": sites[0], "keep": sites[1]}
    for row in rows:
        values = json.loads(row.lost.text, parse_float=str)
        key = {name: values[name] for name, _ in table.keys}
        kind = "differs" if row.kept else "only"
        only, differ = (only, differ + 1) if row.kept else (only + 1, differ)
        told = json.dumps({**head, "kind": kind, "key": key}, ensure_ascii=False)
        kept = row.kept.text if row.kept else "null"
        handle.write(f'{told[:-1]}, "lost": {row.lost.text}, "kept": {kept}}}\n')
    return only, differ
