"""Decides whether a promoted server can go on alone: ``postgresql.aftercare``. Read-only.

It looks at what fails days after a failover: an archiver that does nothing, slots that keep log for
followers that never come, followers without a slot, a disk that fills. The cost does not grow with data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json, size_text
from orchestrator.drivers import postgresql, postgresql_follower, postgresql_host, postgresql_server
from orchestrator.drivers.postgresql import Session
from orchestrator.drivers.postgresql_member import Member, member
from orchestrator.drivers.postgresql_upstream import BOUND, HELD, SET_BOUND, Held, drop_text, held, slot_text
from orchestrator.ports import Context, Description

ARCHIVER = (
    "SELECT current_setting('archive_mode'), archived_count, failed_count,"
    " coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false), last_failed_wal"
    " FROM pg_stat_archiver"
)
LOG_RATE = (
    "SELECT greatest("
    "wal_bytes / greatest(1, extract(epoch FROM clock_timestamp() - stats_reset)),"
    " pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') / greatest(3600, extract(epoch FROM clock_timestamp())"
    " - ((system_identifier >> 32) & 4294967295))) * 3600"
    " FROM pg_stat_wal, pg_control_system()"
)
"""Bytes an hour: since its statistics began, or over the cluster's whole life if that is more. A server that
was a standby until now has written nothing, and the identifier holds the second in which initdb ran."""
MEGABYTE = 1024 * 1024
DECLARED_ABSENT = "declared absent"


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
        wanted = DECLARED_ABSENT if params.archiver_absent else "must work"
        asked = (f"{ARCHIVER}  -- {wanted}", BOUND, _one_line(HELD), LOG_RATE)
        commands = (*asked, f"free space of {at.data_directory}/pg_wal")
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
                slots = held(session)
                bound = int(postgresql.value(session, BOUND)) * MEGABYTE
                rate = int(postgresql.value(session, LOG_RATE))
            free = int(_free(context))
            findings += _of_slots(context, slots, bound)
            findings += _of_room(slots, bound, free, rate)
            waiting = [bound - (slot.bytes or 0) for slot in slots if slot.holds and not slot.active]
            evidence: dict[str, Json] = {
                "archiver": archiver,
                "slots": [slot.evidence() for slot in slots],
                "log_bytes_per_hour": rate,
                "log_free_bytes": free,
                "hours_until_log_is_full": _hours(free, rate),
                "slots_hold_bytes_max": bound if bound >= 0 else None,
                "hours_until_a_slot_is_lost": _hours(min(waiting), rate) if waiting and bound >= 0 else None,
                "findings": list(findings),
            }
            if archiver == DECLARED_ABSENT:  # no failure, and nobody may believe that there is a backup
                site, cluster = _member(context).host.site, context.params.cluster
                evidence["unprotected"] = f"no backup at {site}: the archiver of {cluster} is declared absent"
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
            return DECLARED_ABSENT, []
        mend = "set archive_mode and archive_command here, or declare it: archiver-absent-at in estate.yaml"
        return "absent", [{"text": "unprotected: no backup: nothing is archived here", "mend": mend}]
    if is_failing:
        text = f"the archiver fails ({failed} times, last {last_failed}): no backup, and the log is kept"
        return "failing", [{"text": text, "mend": "look at archive_command in the server's log"}]
    return f"works ({archived} files)", []


def _of_slots(
    context: Context[AftercareParams], slots: tuple[Held, ...], bound: int
) -> list[dict[str, Json]]:
    """Slots that fill the disk, members that have none, and slots of nobody."""
    findings: list[dict[str, Json]] = []
    unbounded = [slot.name for slot in slots if slot.active or slot.holds] if bound < 0 else []
    if unbounded:
        text = f"slots without a bound ({', '.join(unbounded)}): a follower that never comes fills the disk"
        findings.append({"text": text, "mend": SET_BOUND})
    others = {other.slot: other for other in postgresql_follower.others(context.parts, _member(context))}
    good = {slot.name for slot in slots if slot.active or slot.holds}
    for name, other in others.items():
        if name not in good:
            text = f"no slot keeps the log for {other.host.name}: a rejoin may have to clone it anew"
            findings.append({"text": text, "mend": slot_text(other)})
    for slot in slots:
        if slot.name not in others and slot.holds and not slot.active:
            text = f"slot {slot.name} keeps {size_text(slot.bytes or 0)} of log for nobody of this cluster"
            findings.append({"text": text, "mend": drop_text(slot.name)})
    return findings


def _of_room(slots: tuple[Held, ...], bound: int, free: int, rate: int) -> list[dict[str, Json]]:
    """Followers that stay away may keep more log than there is room for."""
    waiting = [slot for slot in slots if slot.holds and not slot.active]
    more = max((bound - (slot.bytes or 0) for slot in waiting), default=0)
    if bound < 0 or more <= free:
        return []
    names = ", ".join(slot.name for slot in waiting)
    hours = _hours(free, rate)
    when = "" if hours is None else f": full in {hours} h"
    text = f"slots of followers that stay away ({names}) may keep {size_text(more)}, {size_text(free)} are free{when}"
    return [{"text": text, "mend": SET_BOUND.replace("10GB", f"{max(1, free // 2 // MEGABYTE)}MB")}]


def _hours(bytes_left: int, bytes_per_hour: int) -> int | None:
    """Whole hours until that much log is written at the rate seen so far."""
    if bytes_per_hour <= 0:
        return None
    return max(0, bytes_left) // bytes_per_hour


def _one_line(statement: str) -> str:
    return " ".join(statement.split())
