"""Decides what is worth knowing about a server before its copy is promoted, and what mends it; must never
cost more with more data: catalogues and settings are read, tables are not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.values import duration_text, size_text
from orchestrator.drivers.postgresql import Session, quote, quote_name, value
from orchestrator.drivers.postgresql_epoch import BEAT, Writer
from orchestrator.drivers.postgresql_facts import HEARTBEAT_NS_MAX, Beat, Facts, writer_and_beat
from orchestrator.drivers.postgresql_upstream import SET_BOUND

MILLISECOND_NS = 1_000_000
NAMES_MAX = 20  # of one sort in one finding
AGENTS = {
    "patroni": "Patroni",
    "repmgr": "repmgr",
    "pg_auto": "pg_auto_failover",
    "cnpg": "CloudNativePG",
    "stolon": "stolon",
}
"""Who else promotes and demotes servers, by how its sessions are named."""
NOT_LOWER = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)

SERVER = f"""
SELECT json_build_object(
    'collations', (SELECT coalesce(json_agg(json_build_array(
            datname, coalesce(datcollversion, 'none'),
            coalesce(pg_database_collation_actual_version(oid), 'none'))), '[]')
        FROM pg_database WHERE datallowconn
        AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)),
    'prepared', (SELECT coalesce(json_agg(json_build_array(database, gid)), '[]') FROM
        (SELECT database, gid FROM pg_prepared_xacts ORDER BY prepared LIMIT {NAMES_MAX}) AS one),
    'subscriptions', (SELECT coalesce(json_agg(json_build_array(datname, subname)), '[]')
        FROM pg_subscription JOIN pg_database ON pg_database.oid = subdbid WHERE subenabled),
    'sessions', (SELECT coalesce(json_agg(DISTINCT application_name), '[]') FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND application_name <> ''),
    'slots', (SELECT coalesce(json_agg(json_build_array(slot_name, plugin, database)), '[]')
        FROM pg_replication_slots WHERE slot_type = 'logical' AND NOT temporary),
    'holding', (SELECT coalesce(json_agg(json_build_array(slot_name, coalesce(wal_status, ''), coalesce(
            pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_insert_lsn() END, restart_lsn), 0)::bigint)), '[]') FROM pg_replication_slots
        WHERE slot_type = 'physical' AND NOT temporary AND NOT active
        AND (restart_lsn IS NOT NULL OR wal_status = 'lost')),
    'bound', (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
    'streaming', (SELECT coalesce(json_agg(application_name), '[]') FROM pg_stat_replication
        WHERE state = 'streaming'),
    'settings', (SELECT json_object_agg(name, setting::bigint) FROM pg_settings
        WHERE name IN ({", ".join(quote(name) for name in NOT_LOWER)})),
    'libraries', current_setting('shared_preload_libraries'),
    'rate', (SELECT coalesce(ceil(sum((tup_inserted + tup_updated + tup_deleted) / greatest(1, extract(
            epoch FROM clock_timestamp() - coalesce(stats_reset, version.modification))))), 0)::bigint
        FROM pg_stat_database, pg_stat_file('PG_VERSION') AS version))
"""
DATABASE = f"""
SELECT json_build_object(
    'unlogged', (SELECT coalesce(json_agg(name), '[]') FROM (SELECT oid::regclass::text AS name FROM pg_class
        WHERE relpersistence = 'u' AND relkind = 'r' ORDER BY oid LIMIT {NAMES_MAX}) AS one),
    'servers', (SELECT coalesce(json_agg(json_build_array(srvname, substr(option, 6))), '[]')
        FROM pg_foreign_server, unnest(srvoptions) AS option WHERE starts_with(option, 'host=')),
    'collations', (SELECT coalesce(json_agg(json_build_array(
            oid::regcollation::text, collversion, pg_collation_actual_version(oid))), '[]')
        FROM pg_collation WHERE oid IN (SELECT refobjid FROM pg_depend
            WHERE refclassid = 'pg_collation'::regclass AND deptype = 'n')
        AND collversion <> pg_collation_actual_version(oid)),
    'missing', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension
        WHERE NOT EXISTS (SELECT FROM pg_available_extensions AS there WHERE there.name = extname)),
    'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension))
"""


@dataclass(frozen=True, slots=True)
class Remark:
    """What was found, and the command that mends it."""

    text: str
    mend: str


@dataclass(frozen=True, slots=True)
class ServerState:
    """Of a whole server. Pairs are (database, name); collations (database, recorded, actual).

    ``write_rate_rows_per_s``: the average since its statistics began. ``holding``: physical slots that nobody
    uses and that keep log, as (name, status, bytes); ``is_bounded``: such a slot cannot fill the disk.
    """

    collations: tuple[tuple[str, str, str], ...]
    prepared: tuple[tuple[str, str], ...]
    subscriptions: tuple[tuple[str, str], ...]
    sessions: tuple[str, ...]
    slots: tuple[tuple[str, str, str], ...]
    holding: tuple[tuple[str, str, int], ...]
    is_bounded: bool
    streaming: tuple[str, ...]
    settings: Mapping[str, int]
    libraries: tuple[str, ...]
    write_rate_rows_per_s: int

    @property
    def agents(self) -> list[str]:
        """Who else manages this server."""
        names = [name.lower() for name in self.sessions]
        return [agent for start, agent in AGENTS.items() if any(name.startswith(start) for name in names)]


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """Of one database. ``servers``: foreign servers and the host each one names."""

    name: str
    writer: Writer | None
    beat: Beat | None
    unlogged: tuple[str, ...]
    servers: tuple[tuple[str, str], ...]
    collations: tuple[tuple[str, str, str], ...]
    missing: tuple[str, ...]
    extensions: tuple[str, ...]

    @property
    def heartbeat_ns(self) -> int | None:
        return None if self.beat is None else self.beat.at_ns


def server_state(session: Session) -> ServerState:
    """Look once, with one statement."""
    found: Any = value(session, SERVER)
    return ServerState(
        _pairs(found["collations"]),
        _pairs(found["prepared"]),
        _pairs(found["subscriptions"]),
        tuple(found["sessions"]),
        _pairs(found["slots"]),
        _pairs(found["holding"]),
        found["bound"] >= 0,
        tuple(found["streaming"]),
        found["settings"],
        tuple(filter(None, (name.strip() for name in found["libraries"].split(",")))),
        int(found["rate"]),
    )


def database_state(session: Session, name: str) -> DatabaseState:
    """Look once into the session's database."""
    writer, beat = writer_and_beat(session)
    found: Any = value(session, DATABASE)
    return DatabaseState(
        name,
        writer,
        beat,
        tuple(found["unlogged"]),
        _pairs(found["servers"]),
        _pairs(found["collations"]),
        tuple(found["missing"]),
        tuple(found["extensions"]),
    )


def _pairs(found: Sequence[Sequence[str]]) -> Any:
    return tuple(tuple(entry) for entry in found)


# --- what is worth saying ---------------------------------------------------------------------


def of_rows(cluster: str, databases: Collection[DatabaseState]) -> Iterator[Remark]:
    """Epoch rows and heartbeat, as the side that was asked carries them."""
    for database in databases:
        if database.writer is None:
            yield Remark(f"{database.name}: no epoch row", f"continuity epoch install {cluster}")
    if databases and all(database.heartbeat_ns is None for database in databases):
        yield Remark(
            "no heartbeat row: an idle register would look lost, and the loss be unknown",
            f"continuity epoch install {cluster}, and {BEAT} each second by the service that writes",
        )


def of_primary(
    cluster: str, facts: Facts, server: ServerState, databases: Collection[DatabaseState], durability: str
) -> Iterator[Remark]:
    """What only a primary can tell. ``durability``: what the estate declares for the cluster."""
    beats = [database.heartbeat_ns for database in databases if database.heartbeat_ns is not None]
    if beats and facts.now_ns - max(beats) > HEARTBEAT_NS_MAX:
        age = duration_text((facts.now_ns - max(beats)) // MILLISECOND_NS)
        yield Remark(
            f"the heartbeat is {age} old: the loss would be stated larger by that", f"{BEAT} each second"
        )
    for database, name in server.prepared:
        yield Remark(
            f"{database}: transaction {name} is prepared and holds its locks after a promotion",
            f"{database}: COMMIT PREPARED {quote(name)} or ROLLBACK PREPARED {quote(name)}",
        )
    rows = {database.writer.durability for database in databases if database.writer}
    if rows == {"remote"} and not facts.waits:
        yield Remark(
            "the rows say that commits wait for the other side, and they do not"
            f" (synchronous_standby_names = {facts.synchronous_standby_names!r},"
            f" synchronous_commit = {facts.synchronous_commit})",
            "continuity reprotect",
        )
    elif durability == "remote" and "local" in rows:
        yield Remark("commits do not wait for the other side", "continuity reprotect")
    silent = [database.name for database in databases if not (database.beat and database.beat.waits)]
    if rows == {"remote"} and facts.waits and silent:
        yield Remark(
            f"{', '.join(silent)}: no heartbeat says that commits wait: a failover would not state that nothing is lost",
            f"continuity epoch install {cluster}, and {BEAT} each second by the service that writes",
        )


def of_target(
    endpoint: str, server: ServerState, databases: Collection[DatabaseState], home_addresses: Collection[str]
) -> Iterator[Remark]:
    """What would be wrong, or wake up, once this copy is the primary."""
    for name, recorded, actual in server.collations:
        yield Remark(
            f"{name}: its indexes were sorted by collation version {recorded}, {endpoint} sorts by {actual}",
            f"the same libc and ICU at {endpoint}; else after the promotion REINDEX DATABASE"
            f" {quote_name(name)}; ALTER DATABASE {quote_name(name)} REFRESH COLLATION VERSION",
        )
    for name, subscription in server.subscriptions:
        yield Remark(
            f"{name}: subscription {subscription} would go on at {endpoint}",
            f"{name}: ALTER SUBSCRIPTION {quote_name(subscription)} DISABLE",
        )
    for database in databases:
        yield from _of_database(endpoint, database, home_addresses)


def _of_database(endpoint: str, database: DatabaseState, home_addresses: Collection[str]) -> Iterator[Remark]:
    for table in database.unlogged:
        yield Remark(
            f"{database.name}: {table} is unlogged, it will be empty at {endpoint}",
            f"{database.name}: ALTER TABLE {table} SET LOGGED",
        )
    for name, host in database.servers:
        if host in home_addresses:
            yield Remark(
                f"{database.name}: foreign server {name} points home ({host})",
                f"{database.name}: ALTER SERVER {quote_name(name)} OPTIONS (SET host 'ADDRESS')",
            )
    for name, recorded, actual in database.collations:
        yield Remark(
            f"{database.name}: collation {name} was {recorded}, {endpoint} has {actual}",
            f"the same libc and ICU at {endpoint}; else REINDEX what uses it, then"
            f" ALTER COLLATION {name} REFRESH VERSION",
        )
    for name in database.missing:
        yield Remark(
            f"{database.name}: extension {name} is not installed at {endpoint}", f"install {name} there"
        )
    if "pg_cron" in database.extensions:
        yield Remark(
            f"{database.name}: pg_cron runs its jobs at {endpoint} once that is promoted",
            f"{database.name}: UPDATE cron.job SET active = false WHERE jobid = JOB, for each that must not",
        )


def of_pair(home: ServerState, target: ServerState, endpoint: str) -> Iterator[Remark]:
    """What the target has less of than home."""
    for name in NOT_LOWER:
        here, there = target.settings.get(name, 0), home.settings.get(name, 0)
        if here < there:
            yield Remark(
                f"{endpoint}: {name} = {here}, lower than home's {there}",
                f"{endpoint}: ALTER SYSTEM SET {name} = {there}, and restart it",
            )
    for library in home.libraries:
        if library not in target.libraries:
            yield Remark(
                f"{endpoint}: does not load {library}, which home does",
                f"{endpoint}: add {library} to shared_preload_libraries, and restart it",
            )
    names = {name for name, _, _ in target.slots}
    for name, plugin, database in home.slots:
        if name not in names:
            yield Remark(
                f"{endpoint}: logical slot {name} of {database} is not there: its consumer loses its place",
                f"after the promotion, {database}: SELECT pg_create_logical_replication_slot"
                f"({quote(name)}, {quote(plugin)})",
            )


def of_slots(
    endpoint: str, server: ServerState, followers: Mapping[str, str], *, standby: bool
) -> Iterator[Remark]:
    """Log that is kept for somebody who does not come. ``followers``: slot → the host that may use it here.

    A standby needs no such slot before it is promoted: what it keeps was left over from some earlier move.
    """
    for name, status, held_bytes in server.holding:
        kept = f"{endpoint}: slot {name} keeps {size_text(held_bytes)} of log"
        drop = f"{endpoint}: SELECT pg_drop_replication_slot({quote(name)})"
        if name not in followers or standby:
            yield Remark(f"{kept} for nobody who follows here", drop)
        elif status == "lost":
            text = f"{endpoint}: slot {name} went past max_slot_wal_keep_size: {followers[name]} may need a new clone"
            yield Remark(text, "continuity reprotect")
        else:
            yield Remark(f"{kept} for {followers[name]}, which does not stream", "continuity reprotect")
    if standby and not server.is_bounded:
        yield Remark(
            f"{endpoint}: max_slot_wal_keep_size = -1: after a failover no slot is made for the lost side, and past"
            " wal_keep_size it must be cloned anew",
            f"{endpoint}: {SET_BOUND}",
        )
