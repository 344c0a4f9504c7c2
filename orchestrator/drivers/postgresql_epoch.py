"""Decides how the right to write is kept in a database: the row of ``continuity.writer``; must never lower an epoch.

The row says (epoch, site, run, durability). A replica carries its primary's row: the number alone
proves nothing, the site in it does. Each database that a service writes to has its own row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.core.values import Json
from orchestrator.drivers.postgresql import Session, quote, rows
from orchestrator.errors import RefusedError

if TYPE_CHECKING:
    from orchestrator.drivers.postgresql_member import Member
    from orchestrator.ports import Context

RUN = "${run}"  # stands for the run's id wherever people see the statement

TABLES = """
CREATE SCHEMA IF NOT EXISTS continuity;
CREATE TABLE IF NOT EXISTS continuity.writer (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    epoch bigint NOT NULL,
    site text NOT NULL,
    run text NOT NULL,
    durability text NOT NULL CHECK (durability IN ('remote', 'local')));
CREATE TABLE IF NOT EXISTS continuity.canary (
    site text PRIMARY KEY, run text, at timestamptz, epoch bigint);
CREATE TABLE IF NOT EXISTS continuity.heartbeat (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"), at timestamptz NOT NULL, waits boolean);
ALTER TABLE continuity.heartbeat ADD COLUMN IF NOT EXISTS waits boolean;
INSERT INTO continuity.heartbeat (at) VALUES (clock_timestamp()) ON CONFLICT DO NOTHING;
"""

BEAT = (
    "UPDATE continuity.heartbeat SET at = clock_timestamp(),"
    " waits = current_setting('synchronous_standby_names') <> ''"
    " AND current_setting('synchronous_commit') NOT IN ('off', 'local')"
)
"""What the service that writes says each second: that it lives, and whether its commits wait abroad."""


@dataclass(frozen=True, slots=True)
class Writer:
    """The row of one database: who holds the right to write there, and how durable commits are."""

    epoch: int
    site: str
    run: str
    durability: str

    def evidence(self) -> dict[str, Json]:
        return dict(asdict(self))


def install_tables(session: Session, *, epoch: int, site: str, run: str, durability: str) -> Writer:
    """Make schema, tables and the row where they are missing. An existing row is left as it is.

    ``session``: a role that may create schemas, at a server that takes writes.
    """
    values = f"({epoch}, {quote(site)}, {quote(run)}, {quote(durability)})"
    rows(
        session,
        f"BEGIN; {TABLES} INSERT INTO continuity.writer (epoch, site, run, durability) VALUES {values}"
        " ON CONFLICT DO NOTHING; COMMIT",
    )
    found = read(session)
    assert found is not None
    return found


def install(
    context: Context[Any], cluster: str, site: str, databases: Sequence[str], *, epoch: int = 1
) -> Mapping[str, Writer]:
    """Make the epoch rows of a cluster whose primary stands at ``site`` (``continuity epoch install``).

    RefusedError when no member there takes writes or a row names another site; TransientError when
    none answers. Nothing is changed in a database that has its row.
    """
    from orchestrator.drivers.postgresql import lease, value
    from orchestrator.drivers.postgresql_member import members

    found: dict[str, Writer] = {}
    for member in members(context.parts, cluster, (site,)):
        with lease(context, member) as session:
            if value(session, "SELECT pg_is_in_recovery()"):
                continue
            synchronous = bool(value(session, "SELECT current_setting('synchronous_standby_names') <> ''"))
        durability = "remote" if synchronous else "local"
        for database in databases:
            with lease(context, member, database) as session:
                writer = install_tables(
                    session, epoch=epoch, site=site, run=context.run, durability=durability
                )
            if writer.site != site:
                raise RefusedError(f"{cluster}/{database}: the row names {writer.site}, not {site}")
            found[database] = writer
        return found
    raise RefusedError(
        f"{cluster}: no member at {site} takes writes", ("install at the site that is active",)
    )


def read(session: Session) -> Writer | None:
    """The row of the session's database; None when schema, table or row is missing."""
    import psycopg

    try:
        found = rows(session, "SELECT epoch, site, run, durability FROM continuity.writer")
    except psycopg.errors.UndefinedTable:
        return None
    return Writer(int(found[0][0]), *found[0][1:]) if found else None


def guard(epoch: int, site: str) -> str:
    """The condition under which a row is the one that was expected."""
    return f"epoch = {epoch} AND site = {quote(site)}"


def swap_statement(*, epoch: int, site: str, durability: str, expect_epoch: int, expect_site: str) -> str:
    """Compare and set, in a session whose default is read-only and while nobody follows yet.

    ``${run}`` stands for the run's id.
    """
    if epoch <= expect_epoch:
        raise RefusedError(f"epoch {epoch} is not above epoch {expect_epoch}")
    return (
        "BEGIN; SET TRANSACTION READ WRITE; SET LOCAL synchronous_commit = local;"
        f" UPDATE continuity.writer SET epoch = {epoch}, site = {quote(site)}, run = '{RUN}',"
        f" durability = {quote(durability)} WHERE {guard(expect_epoch, expect_site)}"
        " RETURNING epoch; COMMIT"
    )


def grant(context: Context[Any], member: Member, database: str, wanted: Writer) -> None:
    """Give the right to write to a server that takes writes already; a row that says so already is left.

    RefusedError where the row is gone, or another right that is not lower stands there; what psycopg raises
    while the statement is under way leaves its outcome unknown: read the row again.
    """
    from orchestrator.drivers.postgresql import lease

    where = f"{member.cluster.name}/{database} at {member.host.name}"
    with lease(context, member, database) as session:
        before = read(session)
        if before is None:
            raise RefusedError(f"{where}: no epoch row", (f"continuity epoch install {member.cluster.name}",))
        if before == wanted:
            return
        statement = swap_statement(
            epoch=wanted.epoch, site=wanted.site, durability=wanted.durability,
            expect_epoch=before.epoch, expect_site=before.site,
        )  # fmt: skip
        context.record(f"{database}: {statement}")
        if rows(session, with_run(statement, wanted.run)):
            return
        after = read(session)
    if after != wanted:
        told = f"epoch {after.epoch} of {after.site} (run {after.run})" if after else "no row"
        raise RefusedError(f"{where}: somebody else has changed the row meanwhile: {told}")


def with_run(statement: str, run: str) -> str:
    """The statement as it is sent."""
    return statement.replace(f"'{RUN}'", quote(run))
