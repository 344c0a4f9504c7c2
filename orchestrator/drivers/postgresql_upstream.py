"""Decides what a primary offers to those that follow it and what it says of them; must never touch a follower.

That a follower is up says nothing: one whose history left the primary's tries for ever and logs it
at LOG level only. What counts is a stream through the follower's own slot that has passed a position
of now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.core.values import Json
from orchestrator.drivers import postgresql
from orchestrator.drivers.postgresql import Session, quote
from orchestrator.drivers.postgresql_history import History, parse_history
from orchestrator.drivers.postgresql_member import Member, lsn_number, lsn_text
from orchestrator.errors import PermanentError

if TYPE_CHECKING:
    from orchestrator.ports import Context

UPSTREAM = """
SELECT pg_is_in_recovery(), (SELECT system_identifier::text FROM pg_control_system()),
    CASE WHEN NOT pg_is_in_recovery()
        THEN ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
    CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END,
    CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()::text END,
    (SELECT min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'),
    (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size')
"""
# The timeline is read from the name of a log file: the control file tells the old one until the first
# checkpoint after a promotion ends.
STREAMS = "SELECT state, positions of the stream through slot {slot} FROM pg_stat_replication"


@dataclass(frozen=True, slots=True)
class Stream:
    """One follower as the primary sees it."""

    state: str
    sync_state: str
    sent_lsn: str | None
    flush_lsn: str | None
    replay_lsn: str | None
    primary_lsn: str

    def has_flushed(self, lsn: str) -> bool:
        return self._passed(self.flush_lsn, lsn)

    def has_replayed(self, lsn: str) -> bool:
        return self._passed(self.replay_lsn, lsn)

    def _passed(self, own: str | None, lsn: str) -> bool:
        return self.state == "streaming" and own is not None and lsn_number(own) >= lsn_number(lsn)

    def evidence(self) -> dict[str, Json]:
        return {
            "state": self.state,
            "sync_state": self.sync_state,
            "sent_lsn": self.sent_lsn,
            "flush_lsn": self.flush_lsn,
            "replay_lsn": self.replay_lsn,
            "primary_lsn": self.primary_lsn,
        }


def history(session: Session, host: str) -> History:
    """The log of the primary that the session is at. PermanentError when it is a standby."""
    standby, system_id, timeline, lsn, end, oldest, segment_bytes = postgresql.row(session, UPSTREAM)
    if standby:
        raise PermanentError(f"{host} is a standby: nobody is made to follow it")
    name = f"pg_wal/{timeline:08X}.history"
    text = postgresql.value(session, f"SELECT pg_read_file({quote(name)}, 0, 1048576, true)")
    segment = int(oldest[:8], 16) * ((1 << 32) // segment_bytes) + int(oldest[8:], 16)
    begin = lsn_text(segment * segment_bytes)
    return History(system_id, timeline, lsn, end, parse_history(text or ""), begin)


def size_bytes(session: Session) -> int:
    """How much a copy of the whole cluster takes, without its log."""
    return int(postgresql.value(session, "SELECT sum(pg_database_size(oid))::bigint FROM pg_database"))


def tablespaces(session: Session) -> tuple[str, ...]:
    """Names of the tablespaces that lie outside the data directory."""
    found = postgresql.rows(
        session, "SELECT spcname FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%' ORDER BY 1"
    )
    return tuple(name for (name,) in found)


# --- slots --------------------------------------------------------------------------------------

BOUND = "SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'"
SET_BOUND = "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf()"
HELD = """
SELECT slot_name::text, active, coalesce(wal_status, ''), restart_lsn::text,
    greatest(0, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
        ELSE pg_current_wal_insert_lsn() END, restart_lsn))::bigint
FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary ORDER BY slot_name
"""


SLOT_TRIES_MAX = 5  # of two steps about one slot: each can lose a drop and a making to the other


@dataclass(frozen=True, slots=True)
class Held:
    """A physical slot. ``bytes``: the log behind the present position that it holds back, None for one that
    holds nothing; ``is_lost``: it went past its bound, and the log that it was to hold may be gone."""

    name: str
    active: bool
    status: str
    restart_lsn: str | None
    bytes: int | None

    @property
    def is_lost(self) -> bool:
        return self.status == "lost"

    @property
    def holds(self) -> bool:
        return self.restart_lsn is not None and not self.is_lost

    def evidence(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "active": self.active,
            "status": self.status,
            "restart_lsn": self.restart_lsn,
            "holds_bytes": self.bytes,
        }


def held(session: Session) -> tuple[Held, ...]:
    """Every physical slot of the server, whoever made it."""
    return tuple(Held(*found) for found in postgresql.rows(session, HELD))


def slot_text(follower: Member) -> str:
    """The statement that makes the slot of a follower, which keeps the log that it has not got."""
    return f"SELECT pg_create_physical_replication_slot({quote(follower.slot)}, true)"


def drop_text(slot: str) -> str:
    return f"SELECT pg_drop_replication_slot({quote(slot)})"


def keep_slot(context: Context[Any], session: Session, follower: Member) -> None:
    """Have the follower's slot at the primary, holding back the log from now on at the latest.

    One that holds nothing (made unreserved, or lost because it held too much) is made anew. Another step of
    the run may be about the same slot at this moment: then what it did is looked at again.
    """
    from psycopg import errors

    for _ in range(SLOT_TRIES_MAX - 1):
        try:
            return _keep_slot(context, session, follower)
        except (errors.DuplicateObject, errors.UndefinedObject, errors.ObjectInUse):
            continue
    return _keep_slot(context, session, follower)


def _keep_slot(context: Context[Any], session: Session, follower: Member) -> None:
    found = postgresql.rows(
        session,
        "SELECT slot_type, active, restart_lsn IS NOT NULL AND coalesce(wal_status, '') <> 'lost'"
        f" FROM pg_replication_slots WHERE slot_name = {quote(follower.slot)}",
    )
    if found:
        kind, is_active, holds = found[0]
        if kind != "physical":
            raise PermanentError(f"the slot {follower.slot} is {kind}: it belongs to something else")
        if is_active or holds:
            return
        context.record(drop_text(follower.slot))
        postgresql.rows(session, drop_text(follower.slot))
    context.record(slot_text(follower))
    postgresql.rows(session, slot_text(follower))


def free_slots_text(others: tuple[Member, ...]) -> str:
    """Made anew without holding anything: a slot left from the time as primary keeps the log for ever."""
    names = ", ".join(quote(other.slot) for other in others)
    return (
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active"
        f" AND slot_type = 'physical' AND restart_lsn IS NOT NULL AND slot_name IN ({names});"
        " SELECT pg_create_physical_replication_slot(name, false)"
        f" FROM unnest(ARRAY[{names}]) AS name WHERE name NOT IN (SELECT slot_name FROM pg_replication_slots)"
    )


# --- streaming ----------------------------------------------------------------------------------


def streams_text(follower: Member) -> str:
    return STREAMS.format(slot=follower.slot)


def stream(session: Session, follower: Member) -> Stream | None:
    """What the primary says of the follower's own stream; None when there is none.

    A base backup's stream may use the same slot: it carries another name.
    """
    found = postgresql.rows(
        session,
        "SELECT state, sync_state, sent_lsn::text, flush_lsn::text, replay_lsn::text,"
        " pg_current_wal_flush_lsn()::text"
        " FROM pg_stat_replication AS sender JOIN pg_replication_slots AS slot ON slot.active_pid = sender.pid"
        f" WHERE slot_name = {quote(follower.slot)} AND application_name = {quote(follower.host.name)}",
    )
    return Stream(*found[0]) if found else None
