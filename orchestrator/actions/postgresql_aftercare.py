"""Decides whether a promoted server can go on alone: ``postgresql.aftercare``. Read-only.

It looks at what fails days after a failover: an archiver that does nothing, slots that keep log for
followers that never come, a disk that fills. The cost does not grow with data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json
from orchestrator.drivers import postgresql, postgresql_host, postgresql_server
from orchestrator.drivers.postgresql import Session
from orchestrator.drivers.postgresql_member import Member, member
from orchestrator.ports import Context, Description

HOUR_SECONDS = 3600
ARCHIVER = (
    "SELECT current_setting('archive_mode'), archived_count, failed_count,"
    " coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false), last_failed_wal"
    " FROM pg_stat_archiver"
)
SLOTS = (
    "SELECT slot_name::text, active, current_setting('max_slot_wal_keep_size') FROM pg_replication_slots"
    " ORDER BY slot_name"
)
LOG_RATE = (
    "SELECT wal_bytes::bigint, greatest(1, extract(epoch FROM clock_timestamp() - stats_reset))::bigint"
    " FROM pg_stat_wal"
)
UNBOUNDED = "-1"


@dataclass(frozen=True, slots=True)
class AftercareParams:
    """``archiver_absent``: the estate declares that nothing is archived at this site."""

    cluster: ClusterRef
    host: HostRef
    archiver_absent: bool = False


class Aftercare:
    """Look at archiver, slots and the room for the log, and say what will go wrong and when."""

    kind: ClassVar[str] = "postgresql.aftercare"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = AftercareParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: AftercareParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        wanted = "declared absent" if params.archiver_absent else "must work"
        commands = (f"{ARCHIVER}  -- {wanted}", SLOTS, LOG_RATE, f"free space of {at.data_directory}/pg_wal")
        return Description(commands, at.touches, Undo.NONE_NEEDED)

    def load(self, context: Context[AftercareParams]) -> None:
        postgresql.warm(context, _member(context))

    def check(self, context: Context[AftercareParams]) -> Finding:
        outcome = self.execute(context)
        if isinstance(outcome, Succeeded):
            return Finding(FindingKind.DONE, "", outcome.evidence)
        return Finding(FindingKind.NOT_DONE, outcome.message)

    def execute(self, context: Context[AftercareParams]) -> Outcome:
        def work() -> Outcome:
            with postgresql.lease(context, _member(context)) as session:
                archiver, findings = _archiver(session, is_absent=context.params.archiver_absent)
                slots, of_slots = _slots(session)
                written, seconds = postgresql.row(session, LOG_RATE)
            free = int(_free(context))
            findings += of_slots
            evidence: dict[str, Json] = {
                "archiver": archiver,
                "slots": slots,
                "log_bytes_per_hour": int(written) * HOUR_SECONDS // int(seconds),
                "log_free_bytes": free,
                "hours_until_log_is_full": _hours(free, int(written), int(seconds)),
                "findings": list(findings),
            }
            if findings:
                texts = "; ".join(str(finding["text"]) for finding in findings)
                return Failed(texts, evidence=evidence)
            return Succeeded(evidence)

        return postgresql.settle(work)

    def undo(self, context: Context[AftercareParams]) -> Outcome:
        return Succeeded()


def _member(context: Context[Any]) -> Member:
    return member(context.parts, context.params.cluster, context.params.host)


def _free(context: Context[AftercareParams]) -> int:
    at = _member(context)
    found = postgresql_server.call(
        context, at, postgresql_host.log_room, {"data_directory": at.data_directory}
    )
    return int(found["free_bytes"])


def _archiver(session: Session, *, is_absent: bool) -> tuple[str, list[dict[str, Json]]]:
    """What the archiver does, and the findings: without it this site has no backup."""
    mode, archived, failed, is_failing, last_failed = postgresql.row(session, ARCHIVER)
    if mode == "off":
        if is_absent:
            return "declared absent", []
        mend = "set archive_mode and archive_command here, or declare it: archiver-absent-at in estate.yaml"
        return "absent", [{"text": "unprotected: no backup: nothing is archived here", "mend": mend}]
    if is_failing:
        text = f"the archiver fails ({failed} times, last {last_failed}): no backup, and the log is kept"
        return "failing", [{"text": text, "mend": "look at archive_command in the server's log"}]
    return f"works ({archived} files)", []


def _slots(session: Session) -> tuple[list[Json], list[dict[str, Json]]]:
    found = postgresql.rows(session, SLOTS)
    slots: list[Json] = [{"name": name, "active": active} for name, active, _ in found]
    unbounded = [name for name, _, keep in found if keep == UNBOUNDED]
    if not unbounded:
        return slots, []
    text = f"slots without a bound ({', '.join(unbounded)}): a follower that never comes fills the disk"
    return slots, [{"text": text, "mend": "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; then reload"}]


def _hours(free_bytes: int, written_bytes: int, seconds: int) -> int | None:
    """Whole hours until the log fills its disk at the rate seen so far, if all of it is kept."""
    if written_bytes <= 0:
        return None
    return free_bytes * seconds // written_bytes // HOUR_SECONDS
