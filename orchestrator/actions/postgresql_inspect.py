"""Decides what is seen of a whole cluster before anything is ordered: ``postgresql.inspect``.

Every member at both sites, side by side and within the step's time. A side that does not answer is a
fact and no failure (it is why people fail over); the side whose data the operation needs must answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from orchestrator.core.claims import CONTRADICTIONS, Claimed, contradictions
from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json, SiteRef
from orchestrator.drivers import postgresql, postgresql_facts, postgresql_findings, postgresql_server
from orchestrator.drivers.postgresql_epoch import Writer
from orchestrator.drivers.postgresql_facts import Facts
from orchestrator.drivers.postgresql_findings import DatabaseState, Remark, ServerState
from orchestrator.drivers.postgresql_member import Member, lsn_number, members
from orchestrator.errors import InputError, PermanentError, TransientError
from orchestrator.ports import Context, Description

LAST_SHARE = 0.1  # of the step's time is left to put together what was seen
LAST_SECONDS_MAX = 0.2
SYSTEM = "Database system identifier"


@dataclass(frozen=True, slots=True)
class InspectParams:
    """``host``: the member whose copy the operation would promote (or bring back, at ``target``).

    ``expect_*``: what the log knows of the group; a row that is newer stands against it, unless a run wrote it
    that was ``taken_back``. Without an epoch nothing is compared.
    """

    cluster: ClusterRef
    host: HostRef
    databases: tuple[str, ...]
    source: SiteRef
    target: SiteRef
    expect_site: SiteRef = ""
    expect_epoch: int = 0
    taken_back: tuple[str, ...] = ()


@dataclass(slots=True)
class _Look:
    """What is known of one member so far; filled by the threads that ask it."""

    at: Member
    error: str = "no answer in time"
    unasked: str = ""  # why it could not even be asked: that is said as it is, not as a site that is gone
    facts: Facts | None = None
    offset_ns: int = 0  # how far its clock is ahead of this machine's
    server: ServerState | None = None
    databases: tuple[DatabaseState, ...] = ()
    system_on_disk: str = ""
    remarks: list[Remark] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return self.facts is not None and self.server is not None


class Inspect:
    """Read-only; asked again at will."""

    kind: ClassVar[str] = "postgresql.inspect"
    version: ClassVar[int] = 2
    params: ClassVar[type[Any]] = InspectParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: InspectParams, parts: Parts) -> Description:
        everybody = members(parts, params.cluster, (params.source, params.target))
        commands = tuple(text for at in everybody for text in _texts(at, params.databases))
        touches = tuple(touch for at in everybody for touch in at.touches)
        return Description(commands, touches, Undo.NONE_NEEDED)

    def load(self, context: Context[InspectParams]) -> None:
        import psycopg  # noqa: F401

    def check(self, context: Context[InspectParams]) -> Finding:
        outcome = self.execute(context)
        if isinstance(outcome, Succeeded):
            return Finding(FindingKind.DONE, "", outcome.evidence)
        return Finding(FindingKind.NOT_DONE, getattr(outcome, "message", ""))

    def execute(self, context: Context[InspectParams]) -> Outcome:
        params = context.params
        looks = _look_at_all(context)
        sites = {site: _site(looks, site) for site in dict.fromkeys((params.source, params.target)) if site}
        remarks = [{"text": remark.text, "mend": remark.mend} for remark in _remarks(context, looks)]
        evidence: dict[str, Json] = {"sites": sites, "findings": remarks}
        agents = {agent for look in looks if look.server for agent in look.server.agents}
        if agents:
            names = ", ".join(sorted(agents))
            return Failed(
                f"{names} manages {params.cluster}: it would promote and demote servers behind this run;"
                f" end it first, or take the cluster out of this estate",
                evidence=evidence,
            )
        if unasked := sorted({look.unasked for look in looks if look.unasked}):
            text = (
                f"{params.cluster} could not be asked, which says nothing of its sites: {'; '.join(unasked)}"
            )
            return Failed(text, evidence=evidence)
        if against := _against_the_log(params, looks):
            return Failed("; ".join(against), evidence={**evidence, CONTRADICTIONS: list(against)})
        for site in _needed(context):
            if not sites[site]["reachable"]:
                return Failed(_unreachable(context, site, sites[site]), retryable=True, evidence=evidence)
        return Succeeded(evidence)

    def undo(self, context: Context[InspectParams]) -> Outcome:
        return Succeeded()


def _texts(at: Member, databases: tuple[str, ...]) -> tuple[str, ...]:
    return (
        f"{at.endpoint}: SELECT role, positions, settings, what follows it",
        *(
            f"{at.endpoint} {name}: SELECT epoch row, heartbeat, what a promotion would wake"
            for name in databases
        ),
        f"{at.host.name}: {at.tool('pg_controldata')} -D {at.data_directory}",
    )


def _against_the_log(params: InspectParams, looks: Sequence[_Look]) -> list[str]:
    """Rows that know a newer right than the log of this machine, or the same epoch of another site."""
    if not params.expect_epoch:
        return []
    rights = [
        Claimed(f"{database.name} at {look.at.host.name}", look.at.host.site, *_right(database.writer))
        for look in looks
        for database in look.databases
        if database.writer
    ]
    return contradictions(rights, params.expect_epoch, params.expect_site, params.taken_back)


def _right(writer: Writer) -> tuple[int, str, str]:
    return writer.epoch, writer.site, writer.run


def _needed(context: Context[InspectParams]) -> tuple[str, ...]:
    """The sites without whose answer the operation is pointless."""
    params = context.params
    match context.operation:
        case Operation.SWITCHOVER:
            return (params.target, params.source)
        case Operation.REPROTECT | Operation.FAILBACK:
            return (params.source,)
        case _:
            return (params.target,) if params.target else ()


def _unreachable(context: Context[InspectParams], site: str, seen: Mapping[str, Json]) -> str:
    hint = ""
    if context.operation is Operation.SWITCHOVER and site == context.params.source:
        hint = f"; a switchover needs it, for a lost {site} there is: continuity failover"
    return f"{context.params.cluster}: no member at {site} answers ({seen['error']}){hint}"


# --- asking -----------------------------------------------------------------------------------


def _look_at_all(context: Context[InspectParams]) -> list[_Look]:
    """Ask every member in threads of their own; who has not answered when the time is over has not."""
    params = context.params
    looks = [_Look(at) for at in members(context.parts, params.cluster, (params.source, params.target))]
    for look in looks:
        for text in _texts(look.at, params.databases):
            context.record(text)
    left = context.seconds_left()
    end = context.deadline - min(LAST_SECONDS_MAX, left * LAST_SHARE)
    threads = [
        threading.Thread(target=work, args=(context, look), daemon=True, name=f"inspect {look.at.host.name}")
        for look in looks
        for work in (_ask_server, _ask_host)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - context.clock.monotonic()))
    return looks


def _ask_server(context: Context[InspectParams], look: _Look) -> None:
    import psycopg

    try:
        with postgresql.lease(context, look.at) as session:
            asked_ns = context.clock.utc_ns()
            facts = postgresql_facts.facts(session)
            offset_ns = facts.now_ns - (asked_ns + context.clock.utc_ns()) // 2
            server = postgresql_findings.server_state(session)
        databases = []
        for name in context.params.databases:
            with postgresql.lease(context, look.at, name) as session:
                databases.append(postgresql_findings.database_state(session, name))
    except InputError as error:  # a secret that is not where the estate says
        look.unasked = look.error = str(error)
        return
    except (TransientError, PermanentError, TimeoutError, psycopg.Error) as error:
        look.error = postgresql.error_text(error)
        return
    look.databases, look.server, look.error = tuple(databases), server, ""
    look.offset_ns = offset_ns
    look.facts = facts  # last: it says that the rest is there


def _ask_host(context: Context[InspectParams], look: _Look) -> None:
    """Can this host give the proof that its server has stopped? Nothing is said of one out of reach."""
    at = look.at
    try:
        seen = postgresql_server.look(context, at)
    except (TransientError, TimeoutError):
        return
    except InputError as error:
        look.unasked = str(error)
        return
    except PermanentError as error:
        look.remarks.append(
            Remark(
                f"{at.host.name}: a stop could not be proven: {error}",
                f"bin-directory and data-directory of {at.cluster.name} in the estate",
            )
        )
        return
    if not seen["exists"]:
        look.remarks.append(
            Remark(
                f"{at.host.name}: {at.data_directory} holds no database: a stop could not be proven",
                f"data-directory of {at.cluster.name} in the estate",
            )
        )
        return
    look.system_on_disk = seen["control"].get(SYSTEM, "")


# --- putting together -------------------------------------------------------------------------


def _best(looks: list[_Look], site: str) -> _Look | None:
    """A site's primary, else the member that has most of the log; None when nobody there answers."""
    here = [look for look in looks if look.at.host.site == site and look.is_complete]

    def rank(look: _Look) -> tuple[bool, int]:
        assert look.facts is not None
        return (not look.facts.in_recovery, lsn_number(look.facts.held_lsn or "0/0"))

    return max(here, key=rank, default=None)


def _site(looks: list[_Look], site: str) -> dict[str, Json]:
    """What one site says: its leading member's facts, and each member in a word."""
    members_here: dict[str, Json] = {
        look.at.host.name: _member_evidence(look) for look in looks if look.at.host.site == site
    }
    best = _best(looks, site)
    if best is None or best.facts is None or best.server is None:
        errors = "; ".join(look.error for look in looks if look.at.host.site == site) or "no member declared"
        return {"reachable": False, "error": errors, "members": members_here}
    facts, server = best.facts, best.server
    followers = {look.at.host.name for look in looks if look.at.host.site != site}
    streaming = (
        facts.receiver_status == "streaming" if facts.in_recovery else bool(followers & set(server.streaming))
    )
    beats = [database.heartbeat_ns for database in best.databases if database.heartbeat_ns is not None]
    clock_offset_ms = round(
        best.offset_ns / 1_000_000
    )  # its commits carry its clock, a proof has this machine's
    return {
        **facts.evidence(),
        "reachable": True,
        "error": "",
        "host": best.at.host.name,
        "serves_writes": not facts.in_recovery and not facts.read_only,
        "receive_lsn": facts.held_lsn if facts.in_recovery else None,
        "streaming": streaming,
        "heartbeat_ns": max(beats, default=None),
        "clock_offset_ms": clock_offset_ms,
        "waits": postgresql_facts.waited(facts, [database.beat for database in best.databases]),
        "backlog_bytes": facts.backlog_bytes,
        "write_rate_rows_per_s": None if facts.in_recovery else server.write_rate_rows_per_s,
        "writers": {
            database.name: database.writer.evidence() for database in best.databases if database.writer
        },
        "members": members_here,
    }


def _member_evidence(look: _Look) -> dict[str, Json]:
    if look.facts is None:
        return {"reachable": False, "error": look.error}
    return {
        "reachable": True,
        "role": look.facts.role,
        "lsn": look.facts.held_lsn,
        "timeline": look.facts.timeline,
        "replay": look.facts.pause_state,
    }


def _remarks(context: Context[InspectParams], looks: list[_Look]) -> Iterator[Remark]:
    params = context.params
    home, target = _best(looks, params.source), _best(looks, params.target)
    leading = target or home
    if leading is not None:
        yield from postgresql_findings.of_rows(params.cluster, leading.databases)
    cluster = context.parts.clusters[params.cluster]
    for look in (home, target):
        if look is not None and look.facts and look.server and not look.facts.in_recovery:
            yield from postgresql_findings.of_primary(
                cluster.name, look.facts, look.server, look.databases, cluster.durability
            )
    if target is not None and target.facts and target.server and target.facts.in_recovery:
        addresses = [h.address for h in context.parts.hosts.values() if h.site == params.source]
        endpoint = target.at.endpoint
        yield from postgresql_findings.of_target(endpoint, target.server, target.databases, addresses)
        yield from _of_replay(target.facts, endpoint)
        if home is not None and home.server:
            yield from postgresql_findings.of_pair(home.server, target.server, endpoint)
    for look in looks:
        yield from _of_slots(context, look)
        yield from look.remarks
        system = look.facts.system_id if look.facts else ""
        if system and look.system_on_disk and system != look.system_on_disk:
            yield Remark(
                f"{look.at.host.name}: {look.at.data_directory} is of system {look.system_on_disk}, the server"
                f" that answers of {system}: a stop could not be proven",
                f"data-directory of {params.cluster} in the estate",
            )


def _of_replay(facts: Facts, endpoint: str) -> Iterator[Remark]:
    if facts.is_paused:
        yield Remark(
            f"{endpoint}: replay is {facts.pause_state}", f"{endpoint}: SELECT pg_wal_replay_resume()"
        )
    if facts.is_delayed:
        yield Remark(
            f"{endpoint}: replay is delayed by {facts.apply_delay} on purpose",
            f"{endpoint}: ALTER SYSTEM SET recovery_min_apply_delay = 0; SELECT pg_reload_conf()",
        )


def _of_slots(context: Context[InspectParams], look: _Look) -> Iterator[Remark]:
    """What is kept for the side that this operation brings back is no news."""
    if look.facts is None or look.server is None:
        return
    others = [other for other in members(context.parts, context.params.cluster) if other != look.at]
    comes_back = (
        context.params.target if context.operation in (Operation.REPROTECT, Operation.FAILBACK) else ""
    )
    awaited = {other.slot for other in others if other.host.site == comes_back}
    server = replace(
        look.server,
        holding=tuple(slot for slot in look.server.holding if slot[1] == "lost" or slot[0] not in awaited),
    )
    followers = {other.slot: other.host.name for other in others}
    yield from postgresql_findings.of_slots(
        look.at.endpoint, server, followers, standby=look.facts.in_recovery
    )
