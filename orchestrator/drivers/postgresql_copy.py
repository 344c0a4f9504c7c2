"""Decides how what a stopped server holds is read: a copy of its whole data directory recovers, answers us alone
and is removed. Must never start, change or hold back the data themselves.

The copy listens on no network, only on a socket of its own; it knows no standby, archive or upstream, loads no
extension's worker, and takes no writes. It ends by itself when its time is over, whoever started it is alive
or not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from orchestrator.core.values import Json, size_text
from orchestrator.drivers import (
    postgresql,
    postgresql_copy_host,
    postgresql_host,
    postgresql_keep_host,
    postgresql_server,
)
from orchestrator.drivers.postgresql import Session, Sessions
from orchestrator.drivers.postgresql_member import Member, parse_control_data
from orchestrator.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from orchestrator.ports import Completed, Context, HostConnection

ROOM_LEFT_BYTES = 256 * 1024 * 1024  # the copy's own log and what must stay free for the server beside it
SERVE_SECONDS_MAX = 3_600  # it ends by then, also when nobody is left who could end it
STOP_SECONDS_MAX = 10.0
END_SECONDS = 5
POLL_SECONDS = 0.05
PORT = 5432  # only a part of the socket's name
SLOTS_MAX = 1_000
LOGIN_TRIGGERS_SINCE = 17
ERROR_CHARACTERS = 600

SETTINGS = """\
data_directory = '{data}'
hba_file = '{folder}/pg_hba.conf'
ident_file = '{folder}/pg_ident.conf'
listen_addresses = ''
unix_socket_directories = '@socket@'
unix_socket_permissions = 0700
port = {port}
ssl = off
fsync = off
restart_after_crash = off
default_transaction_read_only = on
autovacuum = off
archive_mode = off
restore_command = ''
primary_conninfo = ''
synchronous_standby_names = ''
shared_preload_libraries = ''
session_preload_libraries = ''
local_preload_libraries = ''
max_logical_replication_workers = 0
max_wal_senders = 0
max_replication_slots = {slots}
wal_level = {wal_level}
max_connections = {connections}
max_prepared_transactions = {prepared}
max_locks_per_transaction = {locks}
max_worker_processes = {workers}
shared_buffers = 64MB
huge_pages = off
dynamic_shared_memory_type = mmap
jit = off
logging_collector = off
"""


Reader: TypeAlias = "Callable[[str], AbstractContextManager[Session]]"


@dataclass(frozen=True, slots=True)
class Stopped:
    """A data directory in which no server runs. ``kept``: where the folders that it links to were kept
    with it, as ``kept``/KEY."""

    member: Member
    data: str
    kept: str = ""

    @property
    def folder(self) -> str:
        """Where the copy is made: beside the evidence, under a name that says that it may be removed."""
        return f"{self.member.evidence_directory}/reading-{self.member.host.name}.partial"

    @property
    def copy(self) -> str:
        return f"{self.folder}/data"

    @property
    def lock(self) -> str:
        return f"{self.member.cluster.name}.reading"


def texts(stopped: Stopped) -> list[str]:
    """The commands of a reading, for people."""
    host = stopped.member.host.name
    return [
        f"cp -a --reflink=auto {stopped.data} {stopped.copy}",
        f"{host}: write {stopped.folder}/postgresql.conf, pg_hba.conf; remove standby.signal in the copy",
        " ".join(_serve_argv(stopped)),
        f"{host}: end it and remove {stopped.folder}",
    ]


@contextmanager
def reading(context: Context[Any], stopped: Stopped) -> Iterator[Reader]:
    """Gives sessions of a database at the copy, which is gone when the block ends.

    PermanentError: it cannot be read, and why (no room, no recovery). TimeoutError: not within the step's time.
    """
    remove(context, stopped)
    _must_fit(context, stopped)
    try:
        version = _copy(context, stopped)
        socket = _prepare(context, stopped, version)
        with _serving(context, stopped) as problem:

            @contextmanager
            def ask(database: str) -> Iterator[Session]:
                session = _take(context, Sessions(_parameters(context, stopped, socket, database)), problem)
                try:
                    yield session
                finally:
                    session.close()

            with ask("postgres"):
                pass  # it has recovered
            yield ask
    finally:
        remove(context, stopped)


def remove(context: Context[Any], stopped: Stopped) -> None:
    """End a server that reads there, also one of an attempt that was interrupted, and remove its copy."""
    here: dict[str, Json] = {"data_directory": stopped.copy}
    if _call(context, stopped, postgresql_host.signal_postmaster, {**here, "signal": "INT"})["sent"]:
        connection = _connection(context, stopped)
        gone = connection.call(postgresql_host.wait_gone, here, timeout_seconds=STOP_SECONDS_MAX)
        if not gone["gone"]:
            raise TransientError(f"{stopped.copy}: {', '.join(gone['processes'])} still read there")
    deadline = context.clock.monotonic() + STOP_SECONDS_MAX
    while _connection(context, stopped).is_running(stopped.lock):
        if context.clock.monotonic() >= deadline:
            raise TransientError(f"an earlier command still works in {stopped.folder}")
        context.cancelled.wait(POLL_SECONDS)
    _call(context, stopped, postgresql_copy_host.remove, {"folder": stopped.folder})


# --- the copy -----------------------------------------------------------------------------------


def _must_fit(context: Context[Any], stopped: Stopped) -> None:
    arguments: dict[str, Json] = {"data": stopped.data, "new": stopped.folder, "kept": stopped.folder}
    missing = missing_room(_call(context, stopped, postgresql_keep_host.room, arguments))
    if missing:
        raise PermanentError(f"no room for a copy of {stopped.data} beside {stopped.folder}: {missing}")


def missing_room(room: Mapping[str, Any]) -> str:
    """Why a copy does not fit, or "": what remains free must do for the server beside it."""
    needed = ROOM_LEFT_BYTES + (0 if room["shares"] else int(room["used_bytes"]))
    if needed <= room["free_bytes"]:
        return ""
    return f"it takes {size_text(needed)}, {size_text(room['free_bytes'])} are free"


def _copy(context: Context[Any], stopped: Stopped) -> int:
    """Copy everything while no server runs there; the major version of the data."""
    version = _must_stand_still(context, stopped)
    beside = stopped.member.data_directory.rstrip("/").rpartition("/")[0]
    made: dict[str, Json] = {"path": f"{stopped.folder}/outside", "beside": beside}
    _call(context, stopped, postgresql_host.make_folder, {"path": stopped.folder, "beside": beside})
    _call(context, stopped, postgresql_host.make_folder, made)
    _run(context, stopped, ("cp", "-a", "--reflink=auto", stopped.data, stopped.copy))
    for key, folder in _outside(context, stopped).items():
        _run(context, stopped, ("cp", "-a", "--reflink=auto", folder, f"{stopped.folder}/outside/{key}"))
    _must_stand_still(context, stopped)
    return version


def _must_stand_still(context: Context[Any], stopped: Stopped) -> int:
    arguments: dict[str, Json] = {"data_directory": stopped.data, "control_tool": ""}
    seen = _call(context, stopped, postgresql_host.look, arguments)
    if not seen["exists"]:
        raise PermanentError(f"{stopped.member.host.name}: {stopped.data} holds no database")
    if seen["postmaster"] is not None or seen["processes"]:
        raise TransientError(
            f"{stopped.member.host.name}: a server works in {stopped.data}: it is asked itself"
        )
    return int(str(seen["version"]).partition(".")[0])


def _outside(context: Context[Any], stopped: Stopped) -> Mapping[str, str]:
    arguments: dict[str, Json] = {"data": stopped.data, "kept": stopped.kept or stopped.folder}
    return dict(_call(context, stopped, postgresql_copy_host.links, arguments)["outside"])


def _prepare(context: Context[Any], stopped: Stopped, version: int) -> str:
    arguments: dict[str, Json] = {
        "data_directory": stopped.copy, "control_tool": stopped.member.tool("pg_controldata"),
    }  # fmt: skip
    control = parse_control_data(_call(context, stopped, postgresql_host.look, arguments)["control"])
    text = SETTINGS.format(
        data=stopped.copy, folder=stopped.folder, port=PORT, slots=SLOTS_MAX,
        wal_level=control["wal_level setting"], connections=control["max_connections setting"],
        prepared=control["max_prepared_xacts setting"], locks=control["max_locks_per_xact setting"],
        workers=control["max_worker_processes setting"],
    )  # fmt: skip
    if version >= LOGIN_TRIGGERS_SINCE:
        text += "event_triggers = off\n"
    user = stopped.member.cluster.roles["control"].user
    files: dict[str, Json] = {
        f"{stopped.folder}/postgresql.conf": text,
        f"{stopped.folder}/pg_hba.conf": f'local all "{user}" scram-sha-256\n',
        f"{stopped.folder}/pg_ident.conf": "",
    }
    outside: dict[str, Json] = {key: f"{stopped.folder}/outside/{key}" for key in _outside(context, stopped)}
    context.record(f"{stopped.member.host.name}: write {', '.join(files)}")
    prepared: dict[str, Json] = {
        "data": stopped.copy, "folder": stopped.folder, "outside": outside, "files": files,
    }  # fmt: skip
    return str(_call(context, stopped, postgresql_copy_host.prepare, prepared)["socket"])


# --- its server ---------------------------------------------------------------------------------


def _serve_argv(stopped: Stopped) -> tuple[str, ...]:
    return (
        *("timeout", "--signal=INT", f"--kill-after={END_SECONDS}", str(SERVE_SECONDS_MAX)),
        *(stopped.member.tool("postgres"), "-D", stopped.copy),
        *("-c", f"config_file={stopped.folder}/postgresql.conf"),
    )


@contextmanager
def _serving(context: Context[Any], stopped: Stopped) -> Iterator[Callable[[], str]]:
    """The copy's server runs while the block does; gives a question: why has it ended, "" while it runs."""
    argv = _serve_argv(stopped)
    context.record(" ".join(argv))
    ended: list[str] = []
    cancelled = threading.Event()

    def serve() -> None:
        try:
            done = _connection(context, stopped).run(
                argv,
                timeout_seconds=context.seconds_left() + END_SECONDS,
                lock=stopped.lock,
                cancelled=cancelled,
            )
            ended.append(_short(done))
        except (TransientError, PermanentError, TimeoutError) as error:
            ended.append(str(error))

    thread = threading.Thread(target=serve, daemon=True, name=stopped.lock)
    thread.start()
    try:
        yield lambda: ended[0] if ended else ""
    finally:
        with suppress(TransientError, PermanentError, TimeoutError):
            here: dict[str, Json] = {"data_directory": stopped.copy, "signal": "INT"}
            _call(context, stopped, postgresql_host.signal_postmaster, here)
            thread.join(STOP_SECONDS_MAX)
        cancelled.set()
        thread.join(STOP_SECONDS_MAX)


def _short(done: Completed) -> str:
    said = " ".join(f"{done.stdout}\n{done.stderr}"[-ERROR_CHARACTERS:].split())
    return f"exit {done.exit_code}: {said}"


def _take(context: Context[Any], sessions: Sessions, problem: Callable[[], str]) -> Session:
    """A session as soon as the copy has recovered. PermanentError when it never will."""
    limit = postgresql.limit_of(context)
    while True:
        try:
            return sessions.take(postgresql.attempt_name(context), limit, new=True)
        except TransientError as error:
            if problem():
                raise PermanentError(f"the copy does not come up: {problem()}") from error
            limit.check()
        context.cancelled.wait(POLL_SECONDS)


def _parameters(context: Context[Any], stopped: Stopped, socket: str, database: str) -> dict[str, Any]:
    member = stopped.member
    there = replace(member, host=replace(member.host, address=socket))
    given = postgresql.parameters(context, there, database)
    return {**given, "port": PORT, "sslmode": "disable", "sslrootcert": ""}


# --- one thing each -----------------------------------------------------------------------------


def _connection(context: Context[Any], stopped: Stopped) -> HostConnection:
    return context.hosts.connect(stopped.member.host)


def _call(context: Context[Any], stopped: Stopped, script: Any, arguments: Mapping[str, Json]) -> Any:
    return postgresql_server.call(context, stopped.member, script, arguments)


def _run(context: Context[Any], stopped: Stopped, argv: tuple[str, ...]) -> None:
    context.record(" ".join(argv))
    done = _connection(context, stopped).run(
        argv, timeout_seconds=context.seconds_left(), lock=stopped.lock, cancelled=context.cancelled
    )
    if done.exit_code:
        raise PermanentError(f"{stopped.member.host.name}: {argv[0]}: {_short(done)}")
