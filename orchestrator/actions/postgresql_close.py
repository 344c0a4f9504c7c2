"""Decides how a standby is closed before it is promoted and opened after: ``postgresql.close`` and ``.open``.

Closed means that no new session can write by default, whatever role the server has. Nothing here
ever promotes, and nothing opens before the epoch is committed (the core's gate).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json
from orchestrator.drivers import postgresql, postgresql_settings
from orchestrator.drivers.postgresql_member import Member, member
from orchestrator.ports import Context, Description

CLOSED: dict[str, str | None] = {
    "default_transaction_read_only": "on",
    "synchronous_standby_names": "",
    "wal_retrieve_retry_interval": "1ms",
}
"""Clients cannot write; the first commit after promotion waits for nobody; and a promotion right
after the primary's death does not wait five seconds for the next try to fetch WAL."""

CLOSED_FACTS = f"{postgresql_settings.settings_text(CLOSED)}, {postgresql_settings.WRITING}"
OPEN_FACTS = (
    "pg_is_in_recovery(), current_setting('transaction_read_only'),"
    " current_setting('wal_retrieve_retry_interval'),"
    " CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()::text END"
)

OPENED: dict[str, str | None] = {"default_transaction_read_only": None, "wal_retrieve_retry_interval": None}
REOPENED: dict[str, str | None] = {**OPENED, "synchronous_standby_names": None}


@dataclass(frozen=True, slots=True)
class CloseParams:
    cluster: ClusterRef
    host: HostRef


@dataclass(frozen=True, slots=True)
class OpenParams:
    cluster: ClusterRef
    host: HostRef


class Close:
    """One reload that makes a standby refuse writes when it becomes a primary."""

    kind: ClassVar[str] = "postgresql.close"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = CloseParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: CloseParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        return Description(
            postgresql_settings.statements(CLOSED),
            (at.touch,),
            Undo.UNDO,
            postgresql_settings.statements(REOPENED),
        )

    def load(self, context: Context[CloseParams]) -> None:
        postgresql.warm(context, _member(context))

    def check(self, context: Context[CloseParams]) -> Finding:
        def work() -> Finding:
            with postgresql.lease(context, _member(context), looking=True, new=True) as session:
                seen, problem = _closed(postgresql.row(session, f"SELECT {CLOSED_FACTS}"))
            if problem:
                return Finding(FindingKind.NOT_DONE, problem)
            return Finding(FindingKind.DONE, "", seen)

        return postgresql.found(work)

    def execute(self, context: Context[CloseParams]) -> Outcome:
        def work() -> Outcome:
            with postgresql.lease(context, _member(context)) as session:
                if not postgresql.value(session, "SELECT pg_is_in_recovery()"):
                    return Failed("not a standby: closing it would stop whoever writes here")
                seen, problem = _closed(postgresql_settings.change(context, session, CLOSED, CLOSED_FACTS))
            return Failed(problem, evidence=seen) if problem else Succeeded(seen)

        return postgresql.settle(work)

    def undo(self, context: Context[CloseParams]) -> Outcome:
        def work() -> Outcome:
            with postgresql.lease(context, _member(context)) as session:
                postgresql_settings.change(context, session, REOPENED)
            return Succeeded()

        return postgresql.settle(work)


class Open:
    """Lifts what ``postgresql.close`` set, once the epoch is committed."""

    kind: ClassVar[str] = "postgresql.open"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = OpenParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: OpenParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        return Description(postgresql_settings.statements(OPENED), (at.touch,), Undo.POINT_OF_NO_RETURN)

    def load(self, context: Context[OpenParams]) -> None:
        postgresql.warm(context, _member(context))

    def check(self, context: Context[OpenParams]) -> Finding:
        def work() -> Finding:
            with postgresql.lease(context, _member(context), looking=True, new=True) as session:
                problem, evidence = _writable(postgresql.row(session, f"SELECT {OPEN_FACTS}"))
            if problem:
                return Finding(FindingKind.NOT_DONE, problem)
            return Finding(FindingKind.DONE, "", evidence)

        return postgresql.found(work)

    def execute(self, context: Context[OpenParams]) -> Outcome:
        def work() -> Outcome:
            with postgresql.lease(context, _member(context)) as session:
                if postgresql.value(session, "SELECT pg_is_in_recovery()"):
                    return Failed("still a standby: it is not opened before it is promoted")
                problem, evidence = _writable(
                    postgresql_settings.change(context, session, OPENED, OPEN_FACTS)
                )
            return Failed(problem) if problem else Succeeded(evidence)

        return postgresql.settle(work)

    def undo(self, context: Context[OpenParams]) -> Outcome:
        return Failed("clients may have written since: going back is a failback")


def _member(context: Context[Any]) -> Member:
    return member(context.parts, context.params.cluster, context.params.host)


def _closed(facts: Sequence[Any]) -> tuple[dict[str, Json], str]:
    """What a session has (``CLOSED_FACTS``), and why that is not closed ("" when it is)."""
    *settings, found = facts
    seen: dict[str, Json] = dict(zip(CLOSED, settings, strict=True))
    if any(seen[name] != setting for name, setting in CLOSED.items()):
        return seen, f"new sessions have {seen}"
    open_to = postgresql_settings.that_let_write(found)
    if open_to:
        return seen, f"not closed for everybody: {'; '.join(open_to)}"
    return seen, ""


def _writable(facts: Sequence[Any]) -> tuple[str, dict[str, Json]]:
    """("", evidence) when the session of these facts (``OPEN_FACTS``) may write, else why it may not."""
    standby, read_only, retry, lsn = facts
    if standby or read_only == "on":
        return f"sessions are read-only ({'standby' if standby else 'closed'})", {}
    if retry == "1ms":
        return "wal_retrieve_retry_interval is still 1ms", {}
    return "", {"read_only": read_only, "lsn": lsn}
