"""Decides how it is seen that the active side takes writes and the old side refuses them:
``postgresql.canary`` and ``postgresql.refuses``. Only rows of ``continuity.canary`` are ever written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json, Milliseconds
from orchestrator.drivers import postgresql, postgresql_epoch
from orchestrator.drivers.postgresql import quote
from orchestrator.drivers.postgresql_member import Member, member
from orchestrator.errors import TransientError
from orchestrator.ports import Context, Description

POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class CanaryParams:
    cluster: ClusterRef
    host: HostRef
    database: str
    within_ms: Milliseconds = 5_000


class Canary:
    """Write a row through the service's own database path at the active member and read it back."""

    kind: ClassVar[str] = "postgresql.canary"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = CanaryParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: CanaryParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        commands = tuple(f"{params.database}: {text}" for text in (write_statement(at), read_statement(at)))
        return Description(commands, (at.touch,), Undo.NONE_NEEDED)

    def load(self, context: Context[CanaryParams]) -> None:
        postgresql.warm(context, _member(context), (context.params.database,))

    def check(self, context: Context[CanaryParams]) -> Finding:
        def work() -> Finding:
            at = _member(context)
            with postgresql.lease(context, at, context.params.database, looking=True) as session:
                if postgresql.is_alive(session, context):
                    return Finding(FindingKind.RUNNING, "the canary is being written")
                found = postgresql.rows(session, postgresql_epoch.with_run(read_statement(at), context.run))
            if found:
                return Finding(FindingKind.DONE, "", {"epoch": int(found[0][0]), "site": at.host.site})
            return Finding(FindingKind.NOT_DONE, "no canary of this run is there")

        return postgresql.found(work)

    def execute(self, context: Context[CanaryParams]) -> Outcome:
        began = time.monotonic()
        end = min(context.clock.monotonic() + context.params.within_ms / 1000, context.deadline)
        while True:
            outcome = postgresql.settle(lambda: _write(context, began))
            again = isinstance(outcome, Failed) and outcome.retryable and context.clock.monotonic() < end
            if not again or context.cancelled.wait(POLL_SECONDS):
                return outcome

    def undo(self, context: Context[CanaryParams]) -> Outcome:
        return Succeeded()


def write_statement(at: Member) -> str:
    """Writes only where the epoch row names the member's own site."""
    return (
        f"INSERT INTO continuity.canary (site, run, at, epoch) SELECT site, '{postgresql_epoch.RUN}',"
        f" clock_timestamp(), epoch FROM continuity.writer WHERE site = {quote(at.host.site)}"
        " ON CONFLICT (site) DO UPDATE SET run = excluded.run, at = excluded.at, epoch = excluded.epoch"
        " RETURNING epoch, pg_current_wal_insert_lsn()::text"
    )


def read_statement(at: Member) -> str:
    return (
        "SELECT epoch FROM continuity.canary"
        f" WHERE site = {quote(at.host.site)} AND run = '{postgresql_epoch.RUN}'"
    )


def _write(context: Context[CanaryParams], began: float) -> Outcome:
    import psycopg

    at, database = _member(context), context.params.database
    with postgresql.lease(context, at, database) as session:
        context.record(f"{database}: {write_statement(at)}")
        try:
            written = postgresql.rows(session, postgresql_epoch.with_run(write_statement(at), context.run))
        except psycopg.errors.ReadOnlySqlTransaction as error:
            return Failed(f"the active side refuses writes: {postgresql.error_text(error)}", retryable=True)
        if not written:
            return Failed(f"{database}: the epoch row does not name {at.host.site}", retryable=True)
        context.record(f"{database}: {read_statement(at)}")
        found = postgresql.rows(session, postgresql_epoch.with_run(read_statement(at), context.run))
    if not found or found[0][0] != written[0][0]:
        return Failed("the canary that was acknowledged cannot be read back")
    milliseconds = int((time.monotonic() - began) * 1000)
    return Succeeded(
        {"epoch": int(written[0][0]), "lsn": written[0][1], "site": at.host.site, "took_ms": milliseconds}
    )


def _member(context: Context[Any]) -> Member:
    return member(context.parts, context.params.cluster, context.params.host)


# --- refuses ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RefusesParams:
    cluster: ClusterRef
    host: HostRef
    database: str


ATTEMPT = (
    "BEGIN; SET TRANSACTION READ WRITE; INSERT INTO continuity.canary (site, run, at, epoch)"
    f" VALUES ('refuses', '{postgresql_epoch.RUN}', clock_timestamp(), 0)"
    " ON CONFLICT (site) DO UPDATE SET run = excluded.run; ROLLBACK"
)


class Refuses:
    """A write at the old side must be refused, even to a session that overrides a read-only default;
    it is rolled back in any case.

    A side that cannot be reached is not observed: the journalled fence proof stands for it, and the
    evidence says so (``observed`` false).
    """

    kind: ClassVar[str] = "postgresql.refuses"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = RefusesParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: RefusesParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        return Description((f"{params.database}: {ATTEMPT}",), (at.touch,), Undo.NONE_NEEDED)

    def load(self, context: Context[RefusesParams]) -> None:
        import psycopg  # noqa: F401

    def check(self, context: Context[RefusesParams]) -> Finding:
        outcome = self.execute(context)
        if isinstance(outcome, Succeeded):
            return Finding(FindingKind.DONE, "", outcome.evidence)
        return Finding(FindingKind.NOT_DONE, outcome.message)

    def execute(self, context: Context[RefusesParams]) -> Outcome:
        def work() -> Outcome:
            import psycopg

            params = context.params
            evidence: dict[str, Json] = {"host": params.host, "observed": True}
            try:
                with postgresql.lease(context, _member(context), params.database) as session:
                    context.record(f"{params.database}: {ATTEMPT}")
                    try:
                        postgresql.rows(session, postgresql_epoch.with_run(ATTEMPT, context.run))
                    except (
                        psycopg.errors.ReadOnlySqlTransaction,
                        psycopg.errors.FeatureNotSupported,
                    ) as error:
                        session.rollback()
                        return Succeeded({**evidence, "detail": postgresql.error_text(error)})
            except TransientError as error:
                unseen: dict[str, Json] = {"host": params.host, "observed": False, "detail": str(error)}
                return Succeeded(unseen)
            return Failed(f"{params.host} takes writes", evidence=evidence)

        return postgresql.settle(work)

    def undo(self, context: Context[RefusesParams]) -> Outcome:
        return Succeeded()
