"""Decides how the old primary is quietened before it is stopped: ``postgresql.freeze`` and ``.checkpoint``.

A freeze is no fence: a superuser or a session can undo it. It makes new transactions read-only and
waits until nothing that writes is in flight, so that a planned switchover leaves no outcome unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json
from orchestrator.drivers import postgresql, postgresql_settings
from orchestrator.drivers.postgresql import Session
from orchestrator.drivers.postgresql_member import Member, member
from orchestrator.ports import Context, Description

FROZEN: dict[str, str | None] = {"default_transaction_read_only": "on"}
LIFTED: dict[str, str | None] = {"default_transaction_read_only": None}
WRITERS = (
    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()),"
    " (SELECT count(*) FROM pg_prepared_xacts)"
)
BEGUN_BEFORE = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state <> 'idle'"
    " AND backend_xid IS NULL AND pid <> pg_backend_pid()"
    " AND xact_start < pg_conf_load_time() + interval '10 ms'"
)
"""Transactions that began before the freeze and have not written yet: they still may."""
READ_ONLY = "SELECT current_setting('default_transaction_read_only') = 'on', pg_is_in_recovery()"
POLL_SECONDS = 0.001
BEGUN_SECONDS_MAX = (
    0.5  # for those that have not written: a report that runs for an hour must not hold the move
)


@dataclass(frozen=True, slots=True)
class FreezeParams:
    cluster: ClusterRef
    host: HostRef
    databases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointParams:
    cluster: ClusterRef
    host: HostRef


class Freeze:
    """New transactions are read-only, and no transaction that writes is left."""

    kind: ClassVar[str] = "postgresql.freeze"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = FreezeParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: FreezeParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        return Description(
            (*postgresql_settings.statements(FROZEN), BEGUN_BEFORE, WRITERS),
            (at.touch,),
            Undo.UNDO,
            postgresql_settings.statements(LIFTED),
        )

    def load(self, context: Context[FreezeParams]) -> None:
        postgresql.warm(context, _member(context))

    def check(self, context: Context[FreezeParams]) -> Finding:
        def work() -> Finding:
            with postgresql.lease(context, _member(context), looking=True, new=True) as session:
                read_only, _ = postgresql.row(session, READ_ONLY)
                open_to = postgresql_settings.lets_write(session)
                left = _Left(*postgresql.row(session, WRITERS))
            if read_only and not open_to and not left:
                return Finding(FindingKind.DONE, "", left.evidence())
            state = "takes writes" if open_to or not read_only else "read-only"
            return Finding(FindingKind.NOT_DONE, f"{state}, {left}")

        return postgresql.found(work)

    def execute(self, context: Context[FreezeParams]) -> Outcome:
        def work() -> Outcome:
            with postgresql.lease(context, _member(context)) as session:
                postgresql_settings.change(context, session, FROZEN)
                context.record(BEGUN_BEFORE)
                _wait_for_those_begun(context, session)
                open_to = postgresql_settings.lets_write(session)
                context.record(WRITERS)
                left = _wait_quiet(context, session)
                lsn = postgresql.value(
                    session,
                    "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()::text END",
                )
            if open_to:
                return Failed(f"not frozen for everybody: {'; '.join(open_to)}", evidence=left.evidence())
            if left:
                return Failed(str(left), evidence=left.evidence())
            return Succeeded({**left.evidence(), "lsn": lsn})

        return postgresql.settle(work)

    def undo(self, context: Context[FreezeParams]) -> Outcome:
        def work() -> Outcome:
            with postgresql.lease(context, _member(context)) as session:
                postgresql_settings.change(context, session, LIFTED)
            with postgresql.lease(context, _member(context), looking=True, new=True) as session:
                read_only, standby = postgresql.row(session, READ_ONLY)
            if read_only:
                return Failed("new sessions are still read-only")
            return Succeeded({"standby": standby})

        return postgresql.settle(work)


def _wait_for_those_begun(context: Context[FreezeParams], session: Session) -> None:
    """Give what began before the freeze a moment to write or end."""
    end = context.clock.monotonic() + min(BEGUN_SECONDS_MAX, context.seconds_left() / 4)
    while postgresql.value(session, BEGUN_BEFORE):
        if context.clock.monotonic() >= end or context.cancelled.wait(POLL_SECONDS):
            return


@dataclass(frozen=True, slots=True)
class _Left:
    """Transactions that write: of sessions, and prepared ones, which end only when people end them."""

    active: int
    prepared: int

    def __bool__(self) -> bool:
        return bool(self.active or self.prepared)

    def __str__(self) -> str:
        return f"{self.active} transactions still write, {self.prepared} are prepared"

    def evidence(self) -> dict[str, Json]:
        return {"writers_left": self.active, "prepared_left": self.prepared}


def _wait_quiet(context: Context[FreezeParams], session: Session) -> _Left:
    """Wait until no other transaction writes, as long as the step's time allows; what is left."""
    end = context.deadline - min(0.5, context.seconds_left() / 4)
    while True:
        left = _Left(*postgresql.row(session, WRITERS))
        if not left.active or context.clock.monotonic() >= end or context.cancelled.wait(POLL_SECONDS):
            return left


class Checkpoint:
    """A checkpoint ahead of time, so that none of it stands on the critical path."""

    kind: ClassVar[str] = "postgresql.checkpoint"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = CheckpointParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: CheckpointParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        return Description(("CHECKPOINT",), (at.touch,), Undo.NONE_NEEDED)

    def load(self, context: Context[CheckpointParams]) -> None:
        postgresql.warm(context, _member(context))

    def check(self, context: Context[CheckpointParams]) -> Finding:
        def work() -> Finding:
            with postgresql.lease(context, _member(context), looking=True) as session:
                if postgresql.is_alive(session, context):
                    return Finding(FindingKind.RUNNING, "the checkpoint is being written")
            return Finding(FindingKind.NOT_DONE, "a checkpoint of this attempt leaves no name")

        return postgresql.found(work)

    def execute(self, context: Context[CheckpointParams]) -> Outcome:
        def work() -> Outcome:
            with postgresql.lease(context, _member(context)) as session:
                context.record("CHECKPOINT")
                postgresql.rows(session, "CHECKPOINT")
                timeline = postgresql.value(session, "SELECT timeline_id FROM pg_control_checkpoint()")
            return Succeeded({"timeline": int(timeline)})

        return postgresql.settle(work)

    def undo(self, context: Context[CheckpointParams]) -> Outcome:
        return Succeeded()


def _member(context: Context[Any]) -> Member:
    return member(context.parts, context.params.cluster, context.params.host)
