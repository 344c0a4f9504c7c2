"""Decides what people are shown of a split brain before they choose: the rows and documents that the losing site
alone holds.

Both sites' servers are read and compared by key, value by value, documents by name and hash; nothing is changed
at either. What
was found lies beside the log, readable by its owner only: it holds what citizens were told is theirs.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orchestrator.bootstrap.documents import list_documents
from orchestrator.core.model import group_of
from orchestrator.core.values import Json
from orchestrator.engine.clock import now
from orchestrator.engine.journal import moment
from orchestrator.errors import ContinuityError, InputError, PermanentError, TransientError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.drivers.postgresql_copy import Reader
    from orchestrator.drivers.postgresql_divergence import Tally
    from orchestrator.drivers.postgresql_member import Member
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

    tally: Tally
    documents: dict[str, Json] = field(default_factory=dict)
    unseen: list[Json] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return self.tally.lines

    @property
    def is_listed(self) -> bool:
        return bool(self.tally.tables or self.documents)


def diverged(app: App, group: str, keep: str) -> Diverged:
    """Compare every database and all documents of a group between ``keep`` and each other site that holds a copy.

    Where no server runs, a copy of what lies there is read. Where not even that can be had, that is said; the
    data directory is kept whole when it is rejoined, so what it holds can be compared then.
    """
    estate = app.loaded.estate
    if keep not in estate.sites:
        raise InputError(f"--keep {keep}: no such site; sites: {', '.join(estate.sites)}")
    from orchestrator.drivers.postgresql_divergence import Tally

    databases = _databases(app, group)
    at = now(app.clock)
    name = f"diverged-{group}-{moment(at).replace(':', '')}.jsonl"
    path = app.settings.log_folder / name
    found = _Found(Tally())
    app.settings.log_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{name}.", encoding="utf-8") as handle:
        with app.context(f"resolve-{group}", STEP, COMPARE_SECONDS) as context:
            for cluster, names in databases.items():
                for site in estate.clusters[cluster].members:
                    if site != keep:
                        _compare(context, cluster, names, (site, keep), found, handle)
            lines, found.documents, unseen = list_documents(context, app, group, keep, handle)
        found.tally.lines += lines
        found.unseen += unseen
        handle.flush()
        os.fsync(handle.fileno())
        digest = hashlib.sha256(Path(handle.name).read_bytes()).hexdigest()
        if found.is_listed:
            os.link(handle.name, path)
    place = str(path) if found.is_listed else ""
    evidence: dict[str, Json] = {
        "keep": keep,
        "tables": found.tally.tables,
        "documents": found.documents,
        "unseen": found.unseen,
        "rows": found.tally.rows,
        "list": place,
        "sha256": digest if place else "",
    }
    if place:
        found.lines.append(f"{found.tally.rows} rows{_documents_text(found.documents)} in {path}")
    elif not databases and not found.unseen:
        found.lines.append(f"{group}: no database and no documents are declared for it: nothing to compare")
    return Diverged(tuple(found.lines), evidence, place)


def _documents_text(counts: Mapping[str, Any]) -> str:
    count = sum(int(found["only"]) + int(found["differ"]) for found in counts.values())
    return f" and {count} documents" if counts else ""


def _databases(app: App, group: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Cluster → database → the tables that its runbooks name, none for all."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for runbook in app.loaded.runbooks.values():
        if group_of(app.loaded.estate, runbook.name) != group:
            continue
        for component in runbook.components.values():
            cluster = getattr(component, "cluster", None)
            if cluster is not None:
                database = str(getattr(component, "database", ""))
                declared: tuple[str, ...] = getattr(component, "reconcile", ())
                of_cluster = found.setdefault(str(cluster), {})
                of_cluster[database] = tuple(dict.fromkeys((*of_cluster.get(database, ()), *declared)))
    return {cluster: dict(sorted(names.items())) for cluster, names in sorted(found.items())}


def _compare(
    context: Context[Any],
    cluster: str,
    databases: Mapping[str, tuple[str, ...]],
    sites: tuple[str, str],
    found: _Found,
    handle: IO[str],
) -> None:
    """Compare a cluster's databases at one losing site with those of the site whose history stands."""
    import psycopg

    from orchestrator.drivers import postgresql, postgresql_divergence
    from orchestrator.drivers.postgresql_divergence import Place

    waiting = dict(databases)
    asked = sites[1]
    try:
        at = _serving(context, cluster, sites[1])
        asked = sites[0]
        with _losing(context, cluster, asked, found) as ask:
            while waiting:
                database, declared = next(iter(waiting.items()))
                with postgresql.lease(context, at, database) as kept, ask(database) as lost:
                    place = Place(cluster, database, *sites)
                    postgresql_divergence.compare(lost, kept, place, declared, found.tally, handle.write)
                del waiting[database]
    except (ContinuityError, TimeoutError, psycopg.Error) as error:
        for database in waiting:
            found.unseen.append({"cluster": cluster, "database": database, "site": asked})
            found.lines.append(
                f"{cluster}/{database} at {asked}: not seen ({postgresql.error_text(error)}): what differs there"
                " is not known; its data directory is kept whole when it is rejoined"
            )


@contextmanager
def _losing(context: Context[Any], cluster: str, site: str, found: _Found) -> Iterator[Reader]:
    """Gives sessions at the losing side: at its server, or at a copy of what lies there when none runs."""
    from orchestrator.drivers import postgresql, postgresql_copy
    from orchestrator.drivers.postgresql_member import members

    try:
        at = _serving(context, cluster, site)
    except TransientError as error:
        stopped = members(context.parts, cluster, (site,))[0]
        here = postgresql_copy.Stopped(stopped, stopped.data_directory)
        try:
            with postgresql_copy.reading(context, here) as ask:
                found.lines.append(
                    f"{cluster} at {site}: no server answers; a copy of {here.data} on {stopped.host.name} was read"
                )
                yield ask
        except (PermanentError, TransientError) as problem:
            raise PermanentError(f"{error}; {problem}") from problem
        return
    yield lambda database: postgresql.lease(context, at, database)


def _serving(context: Context[Any], cluster: str, site: str) -> Member:
    """The member at a site that takes writes, else one that answers. TransientError when none does."""
    from orchestrator.drivers import postgresql
    from orchestrator.drivers.postgresql_member import members

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
