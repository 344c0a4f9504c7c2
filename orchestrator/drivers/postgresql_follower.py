"""Decides how a server is made to follow a primary and when it does; must never start one that could write.

The order is the safety: the slot, then standby.signal, then what to follow, then the start. Each may
be done again, so whoever was interrupted begins at the top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.core.plan import Parts
from orchestrator.core.values import Json
from orchestrator.drivers import (
    postgresql,
    postgresql_host,
    postgresql_server,
    postgresql_settings,
    postgresql_upstream,
    supervisor,
)
from orchestrator.drivers.postgresql_history import History
from orchestrator.drivers.postgresql_member import Member, lsn_number, members
from orchestrator.drivers.postgresql_upstream import Stream
from orchestrator.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from orchestrator.ports import Context

POLL_SECONDS = 0.01
LOOK_SECONDS = 0.25  # between looks at the follower itself while it does not stream
CONNECT_SECONDS = 1.0
MARGIN_SECONDS_MAX = 0.5
STALL_SECONDS_MAX = 600.0  # nothing moves: recovery of a big log moves nothing that can be seen from outside
ENDED = ("stopped", "exited", "fatal")

REPLAYED = """
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text,
    (SELECT received_tli FROM pg_stat_wal_receiver),
    (SELECT ('x' || max(substr(name, 1, 8)))::bit(32)::int FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$')
"""


@dataclass(frozen=True, slots=True)
class Followed:
    """How a wait ended. ``stream`` None: it does not follow, and ``problem`` says why.

    ``has_left``: it is up, and its history is not the primary's.
    """

    stream: Stream | None
    problem: str = ""
    has_left: bool = False
    timeline: int = 0


def files_text(follower: Member, data: str = "") -> str:
    return (
        f"{follower.host.name}: write {data or follower.data_directory}/standby.signal,"
        " take our settings out of postgresql.auto.conf"
    )


def role_text(follower: Member) -> str:
    return f"write {follower.role_file} at {follower.host.name}"


def reload_text(follower: Member) -> str:
    return f"{follower.host.name}: kill -HUP the postmaster of {follower.data_directory}"


def texts(source: Member, follower: Member) -> tuple[str, ...]:
    """What ``follow`` does with a stopped server, for people."""
    return (
        postgresql_upstream.slot_text(follower),
        files_text(follower),
        role_text(follower),
        postgresql_server.start_text(follower),
        postgresql_upstream.streams_text(follower),
    )


def others(parts: Parts, follower: Member) -> tuple[Member, ...]:
    """Every other member of the cluster."""
    found = members(parts, follower.cluster.name)
    return tuple(member for member in found if member.host.name != follower.host.name)


def follow(context: Context[Any], source: Member, follower: Member, history: History) -> Followed:
    """Make a stopped or following server follow ``source`` and wait until it streams.

    Whether its data may follow is for the caller to have judged. PermanentError when it runs as a primary.
    """
    is_up = is_running(context, follower)
    has_sessions = is_up and _is_standby_with_sessions(context, follower)
    with postgresql.lease(context, source) as session:
        postgresql_upstream.keep_slot(context, session, follower)
    if has_sessions:
        _point(context, source, follower)
    else:
        prepare_files(context, follower)
        write_role(context, source, follower)
        if is_up:
            _read_files_again(context, follower)
        else:
            postgresql_server.start(context, follower)
    followed = wait_streaming(context, source, follower, history)
    if followed.stream is not None:
        free_slots(context, follower)
    return followed


def load(context: Context[Any], source: Member, follower: Member) -> None:
    """What following will need, before the order: a session at the primary, and every secret."""
    postgresql.warm(context, source)
    need_secrets(context, follower)


def need_secrets(context: Context[Any], follower: Member) -> None:
    """InputError when one is not where the estate says: nothing was told or sent yet."""
    postgresql_server.follower_passwords(context, follower)
    supervisor.need_password(postgresql_server.manager_of(follower), context.secrets)


def is_running(context: Context[Any], follower: Member) -> bool:
    seen = postgresql_server.look(context, follower, control=False)
    return bool(seen["postmaster"])


def prepare_files(context: Context[Any], follower: Member, data: str = "") -> None:
    """standby.signal, before anything else may look; and none of the settings of its old role."""
    context.record(files_text(follower, data))
    arguments: dict[str, Json] = {"data_directory": data or follower.data_directory}
    postgresql_server.call(context, follower, postgresql_host.become_standby_files, arguments)


def write_role(context: Context[Any], source: Member, follower: Member) -> None:
    """Whom to follow and by which secret: pg_rewind and base backups leave the other side's here."""
    postgresql_server.write_role(
        context,
        follower,
        postgresql_settings.standby_file(source, follower),
        passwords=postgresql_server.follower_passwords(context, follower),
    )


def is_standby(context: Context[Any], follower: Member) -> bool:
    """Is what runs there a standby, or about to become one?"""
    try:
        _is_standby_with_sessions(context, follower)
    except (PermanentError, TransientError):
        return False
    return True


def _is_standby_with_sessions(context: Context[Any], follower: Member) -> bool:
    """False for one that still starts, perhaps for ever: it may wait for a primary that is gone.

    PermanentError for a primary, TransientError for one that starts and may become one.
    """
    try:
        with postgresql.lease(context, follower, limit=_soon(context)) as session:
            if not postgresql.value(session, "SELECT pg_is_in_recovery()"):
                raise PermanentError(f"{follower.host.name} runs as a primary: it must be stopped first")
        return True
    except TransientError:
        if not postgresql_server.look(context, follower, control=False)["standby_signal"]:
            raise
        return False


def _point(context: Context[Any], source: Member, follower: Member) -> None:
    """Have a running standby follow ``source``, without a restart."""
    write_role(context, source, follower)
    with postgresql.lease(context, follower) as session:
        own: dict[str, str | None] = dict.fromkeys(postgresql_host.OWN_SETTINGS)
        postgresql_settings.change(context, session, own)


def _read_files_again(context: Context[Any], follower: Member) -> None:
    context.record(reload_text(follower))
    arguments: dict[str, Json] = {"data_directory": follower.data_directory, "signal": "HUP"}
    postgresql_server.call(context, follower, postgresql_host.signal_postmaster, arguments)


def _soon(context: Context[Any]) -> postgresql.Limit:
    limit = postgresql.limit_of(context)
    return postgresql.Limit(
        min(limit.deadline, limit.monotonic() + CONNECT_SECONDS), limit.monotonic, limit.cancelled
    )


def wait_streaming(context: Context[Any], source: Member, follower: Member, history: History) -> Followed:
    """Wait until the primary sees the follower stream past its own present position, on its timeline."""
    context.record(postgresql_upstream.streams_text(follower))
    left = context.seconds_left()
    margin = min(MARGIN_SECONDS_MAX, left / 4)
    now = context.clock.monotonic
    end = now() + left - margin
    looked = moved = now()
    problem, before = "nobody streams through its slot", None
    with postgresql.lease(context, source) as session:
        while True:
            stream = postgresql_upstream.stream(session, follower)
            if stream is not None and (stream.flush_lsn, stream.replay_lsn) != before:
                before, moved = (stream.flush_lsn, stream.replay_lsn), now()
            if stream is not None and stream.has_flushed(history.lsn):
                problem, has_left, timeline = _look(context, follower, history)
                if not problem:
                    return Followed(stream, timeline=timeline)
            elif now() >= looked + LOOK_SECONDS:
                problem, has_left, _ = _look(context, follower, history)
                if has_left:
                    return Followed(None, problem, has_left=True)
                looked = now()
            over = now() >= min(end, moved + STALL_SECONDS_MAX)
            if over or context.cancelled.wait(POLL_SECONDS):
                return Followed(None, f"it does not stream from {source.host.name}: {problem}")


def _look(context: Context[Any], follower: Member, history: History) -> tuple[str, bool, int]:
    """(why it does not follow or "", did its history leave the primary's, the timeline that it receives)."""
    import psycopg

    unit = supervisor.state(postgresql_server.manager_of(follower), follower.cluster.unit, context.secrets)
    if unit.name in ENDED:
        raise PermanentError(
            f"{follower.host.name}: {follower.cluster.unit} ended ({unit.name}); its own log says why"
        )
    try:
        with postgresql.lease(context, follower, limit=_soon(context)) as session:
            standby, replayed, received, newest = postgresql.row(session, REPLAYED)
    except (TransientError, TimeoutError, psycopg.Error) as error:
        return f"{follower.host.name}: {postgresql.error_text(error)}", False, 0
    if not standby:
        raise PermanentError(f"{follower.host.name} runs as a primary")
    if received == history.timeline:
        return "", False, received
    fork = history.forks.get(newest)
    if replayed and fork and lsn_number(replayed) > lsn_number(fork):
        return (
            f"up, and following nobody: it is at {replayed} on timeline {newest}, which was left at {fork}",
            True,
            newest,
        )
    return f"it receives timeline {received}, the primary writes {history.timeline}", False, newest


def free_slots(context: Context[Any], follower: Member) -> None:
    """What it held back for others as a primary, it holds no more; each slot is there for the way back."""
    names = others(context.parts, follower)
    if not names:
        return
    text = postgresql_upstream.free_slots_text(names)
    context.record(text)
    with postgresql.lease(context, follower) as session:
        postgresql.rows(session, text)


def streaming(context: Context[Any], source: Member, follower: Member) -> tuple[Stream, int] | None:
    """The follower's stream and timeline, if it streams what the primary writes; one look."""
    with postgresql.lease(context, source, looking=True) as session:
        stream = postgresql_upstream.stream(session, follower)
        if stream is None or stream.state != "streaming":
            return None
        history = postgresql_upstream.history(session, source.host.name)
    with postgresql.lease(context, follower, looking=True, limit=_soon(context)) as session:
        standby, _, received, _ = postgresql.row(session, REPLAYED)
    return (stream, received) if standby and received == history.timeline else None


def evidence(follower: Member, source: Member, stream: Stream, timeline: int) -> Mapping[str, Json]:
    """What is journalled of a server that follows."""
    return {
        "host": follower.host.name,
        "site": follower.host.site,
        "source": source.host.name,
        "slot": follower.slot,
        "timeline": timeline,
        **stream.evidence(),
    }
