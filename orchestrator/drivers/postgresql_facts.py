"""Decides what one look at a PostgreSQL server tells: role, positions, freshness; must never cost more with more data.

One statement each. Times are UTC nanoseconds, LSNs text, identifiers text: evidence holds no floats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.core.values import Json
from orchestrator.drivers.postgresql import Session, lease, row, rows
from orchestrator.drivers.postgresql_epoch import Writer, read
from orchestrator.drivers.postgresql_member import Member, bytes_between, highest

if TYPE_CHECKING:
    from orchestrator.ports import Context

FACTS = """
SELECT pg_is_in_recovery(),
    (SELECT system_identifier::text FROM pg_control_system()),
    CASE WHEN pg_is_in_recovery()
        THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                      (SELECT timeline_id FROM pg_control_checkpoint()))::int
        ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
    CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END,
    pg_last_wal_receive_lsn()::text, pg_last_wal_replay_lsn()::text,
    CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() ELSE 'not paused' END,
    current_setting('recovery_min_apply_delay'),
    (SELECT status FROM pg_stat_wal_receiver),
    (SELECT latest_end_lsn::text FROM pg_stat_wal_receiver),
    (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000000)::bigint,
    (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint,
    current_setting('default_transaction_read_only') = 'on',
    current_setting('synchronous_standby_names'), current_setting('synchronous_commit'),
    current_setting('server_version_num')::int,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
    (SELECT next_xid FROM pg_control_checkpoint()),
    (SELECT (extract(epoch FROM checkpoint_time) * 1000000000)::bigint FROM pg_control_checkpoint())
"""
# The full transaction id of the next checkpoint is written EPOCH:XID.

HEARTBEAT = """
SELECT (extract(epoch FROM at) * 1000000000)::bigint, xmin::text::bigint,
    (to_jsonb(heartbeat) ->> 'waits')::boolean FROM continuity.heartbeat"""
# Through jsonb: a table that was made before the column says nothing, and that is no error.
HEARTBEAT_NS_MAX = 5_000_000_000  # it is written each second


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server said of itself. ``lsn``: flushed, of a primary. ``replayed_*`` of a standby.

    ``xid`` is the next transaction id as this server knows it (a replica's moves with replay).
    """

    in_recovery: bool
    system_id: str
    timeline: int
    lsn: str | None
    received_lsn: str | None
    replay_lsn: str | None
    pause_state: str
    apply_delay: str
    receiver_status: str | None
    home_lsn: str | None
    last_commit_ns: int | None
    now_ns: int
    read_only: bool
    synchronous_standby_names: str
    synchronous_commit: str
    version: int
    xid: int
    checkpoint_xid: int
    checkpoint_ns: int

    @property
    def role(self) -> str:
        return "standby" if self.in_recovery else "primary"

    @property
    def waits(self) -> bool:
        """Do commits here wait for the other side, as the server is set?"""
        return bool(self.synchronous_standby_names) and self.synchronous_commit not in ("off", "local")

    @property
    def is_paused(self) -> bool:
        return self.pause_state != "not paused"

    @property
    def is_delayed(self) -> bool:
        return self.apply_delay not in ("0", "0ms")

    @property
    def backlog_bytes(self) -> int:
        """Received and not yet replayed."""
        return bytes_between(self.held_lsn, self.replay_lsn) or 0

    @property
    def held_lsn(self) -> str | None:
        """How far this server has the log: a standby that was restarted has received nothing yet."""
        return self.lsn or highest(self.received_lsn, self.replay_lsn)

    def evidence(self) -> dict[str, Json]:
        return {
            "role": self.role,
            "system_id": self.system_id,
            "timeline": self.timeline,
            "lsn": self.held_lsn,
            "received_lsn": self.received_lsn,
            "replay_lsn": self.replay_lsn,
            "home_lsn": self.home_lsn,
            "replay": self.pause_state,
            "apply_delay": self.apply_delay,
            "receiver": self.receiver_status or "",
            "last_commit_ns": self.last_commit_ns,
            "read_only": self.read_only,
            "synchronous_standby_names": self.synchronous_standby_names,
            "version": self.version,
            "xid": self.xid,
            "seen_ns": self.now_ns,
        }


def facts(session: Session) -> Facts:
    """Look once."""
    found = row(session, FACTS)
    checkpoint_epoch, _, checkpoint_xid = str(found[17]).partition(":")
    xid = (int(checkpoint_epoch) << 32) + int(checkpoint_xid)
    values: list[Any] = [*found[:17], xid, found[18]]
    return Facts(*values)


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat row: when it was written, the low 32 bits of the transaction that wrote it, and whether
    commits waited for the other side then; False where it does not say."""

    at_ns: int
    xid_low: int
    waits: bool


def heartbeat(session: Session) -> Beat | None:
    """The heartbeat row of this database; None when there is none."""
    import psycopg

    try:
        found = rows(session, HEARTBEAT)
    except psycopg.errors.UndefinedTable:
        return None
    return _beat(*found[0]) if found else None


def _beat(at_ns: Any, xid: Any, waits: bool | None) -> Beat | None:
    return None if at_ns is None else Beat(int(at_ns), int(xid), bool(waits))


ROW_AND_BEAT = f"""
SELECT writer.epoch, writer.site, writer.run, writer.durability, beat.*
FROM (SELECT 1) AS one LEFT JOIN continuity.writer ON true LEFT JOIN ({HEARTBEAT}) AS beat ON true
"""


def writer_and_beat(session: Session) -> tuple[Writer | None, Beat | None]:
    """The epoch row and the heartbeat of this database, in one look where both tables are there."""
    import psycopg

    try:
        epoch, site, run, durability, *beat = row(session, ROW_AND_BEAT)
    except psycopg.errors.UndefinedTable:
        return read(session), heartbeat(session)
    writer = None if epoch is None else Writer(int(epoch), site, run, durability)
    return writer, _beat(*beat)


def heartbeat_ns(session: Session) -> int | None:
    """When the heartbeat row of this database was last written; None when there is none."""
    beat = heartbeat(session)
    return None if beat is None else beat.at_ns


def waited(seen: Facts, beats: Sequence[Beat | None]) -> bool:
    """Is it proven to this server that acknowledged commits waited for the other side? A primary tells by its
    settings. A standby knows by the last beat of every database that arrived, none of them older than
    the commits that came after it allow: the epoch row alone is a promise that people may have broken."""
    if not seen.in_recovery:
        return seen.waits
    if seen.last_commit_ns is None or not beats:
        return False
    oldest_ns = seen.last_commit_ns - HEARTBEAT_NS_MAX
    return all(beat is not None and beat.waits and beat.at_ns >= oldest_ns for beat in beats)


def inspected(evidence: Mapping[str, Mapping[str, Json]]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """(site, facts) of every side that the preflight inspection of this unit reached."""
    for step in evidence.values():
        sites = step.get("sites")
        if isinstance(sites, Mapping):
            for site, seen in sites.items():
                if isinstance(seen, Mapping) and seen.get("reachable"):
                    yield site, seen


def writers(context: Context[Any], member: Member, databases: Sequence[str]) -> dict[str, Writer | None]:
    """The epoch row of each database at a member, asked in checks as well."""
    found: dict[str, Writer | None] = {}
    for database in databases:
        with lease(context, member, database, looking=True) as session:
            found[database] = read(session)
    return found


def writer_problems(found: Mapping[str, Writer | None], cluster: str, *, epoch: int, site: str) -> list[str]:
    """What stands against the rows carrying this epoch and site; empty when nothing."""
    problems = []
    for database, writer in found.items():
        if writer is None:
            problems.append(f"{database}: no epoch row (continuity epoch install {cluster})")
        elif (writer.epoch, writer.site) != (epoch, site):
            problems.append(
                f"{database}: epoch {writer.epoch} at {writer.site} (run {writer.run}), not epoch {epoch} at {site}"
            )
    return problems
