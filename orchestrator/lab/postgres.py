"""Decides how the lab's two PostgreSQL servers are made: TLS, SCRAM, least rights, config outside the data.

The server at home is initialised, the one at the embassy is a base backup taken through the link. Both are
started by their site's process manager only. What a role change rewrites stands in ``continuity.conf``.
"""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any

from orchestrator.errors import PermanentError
from orchestrator.lab import layout
from orchestrator.lab.layout import HOST_NAMES, Lab, SiteName, other, write_file

if TYPE_CHECKING:
    import psycopg

INITDB_SECONDS_MAX = 60
BACKUP_SECONDS_MAX = 60
READY_SECONDS_MAX = 30
POLL_SECONDS = 0.01

CONTROL, REPLICATION, REWIND, AUDITOR = "continuity", "replicator", "rewind", "auditor"
APPLICATION_ROLES = {"population": "population_register", "land": "land_register"}

SETTINGS = """\
data_directory = '{data}'
hba_file = '{config}/pg_hba.conf'
ident_file = '{config}/pg_ident.conf'
listen_addresses = '{address}'
port = {port}
unix_socket_directories = ''
max_connections = 80
shared_buffers = 64MB
dynamic_shared_memory_type = mmap
wal_level = replica
wal_log_hints = on
max_wal_senders = 10
max_replication_slots = 10
wal_keep_size = 64MB
max_slot_wal_keep_size = 2GB
max_wal_size = 512MB
hot_standby = on
hot_standby_feedback = off
recovery_target_timeline = 'latest'
wal_retrieve_retry_interval = 200ms
wal_receiver_timeout = 10s
wal_sender_timeout = 10s
password_encryption = 'scram-sha-256'
ssl = on
ssl_cert_file = '{config}/server.crt'
ssl_key_file = '{config}/server.key'
ssl_min_protocol_version = 'TLSv1.3'
log_line_prefix = '%m [%p] %q%a '
log_checkpoints = on
log_timezone = 'UTC'
timezone = 'UTC'
include_if_exists = 'continuity.conf'
"""

HBA = """\
hostssl all         {control}     127.0.0.0/8 scram-sha-256
hostssl replication {replication} 127.0.0.0/8 scram-sha-256
hostssl postgres    {rewind}      127.0.0.0/8 scram-sha-256
hostssl all         {auditor}     127.0.0.0/8 scram-sha-256
hostssl population  {population}  127.0.0.0/8 scram-sha-256
hostssl land        {land}        127.0.0.0/8 scram-sha-256
"""


def write_configuration(lab: Lab, site: SiteName) -> None:
    """Write a site's server configuration, all of it outside the data directory."""
    paths = lab.site(site)
    write_file(
        paths.config / "postgresql.conf",
        SETTINGS.format(
            data=paths.data, config=paths.config, address=lab.address(site), port=layout.POSTGRES_PORT
        ),
    )
    names = {database: APPLICATION_ROLES[database] for database in ("population", "land")}
    write_file(
        paths.config / "pg_hba.conf",
        HBA.format(control=CONTROL, replication=REPLICATION, rewind=REWIND, auditor=AUDITOR, **names),
    )
    write_file(paths.config / "pg_ident.conf", "")
    passwords = {REPLICATION: "pg-replication", REWIND: "pg-rewind"}
    write_file(
        paths.config / "continuity.pgpass",
        "".join(f"*:*:*:{role}:{lab.secret(secret)}\n" for role, secret in passwords.items()),
    )


def write_role(lab: Lab, site: SiteName, primary: SiteName, *, synchronous: bool) -> None:
    """Write what depends on the role: whom to follow, or whom commits wait for."""
    paths = lab.site(site)
    follower = HOST_NAMES[other(primary)]
    if site == primary:
        names = f"""'ANY 1 ("{follower}")'""" if synchronous else "''"
        text = f"synchronous_commit = on\nsynchronous_standby_names = {names}\n"
    else:
        text = (
            f"primary_conninfo = '{replication_conninfo(lab, site)}'\n"
            f"primary_slot_name = '{follower}'\n"
            "synchronous_commit = on\nsynchronous_standby_names = ''\n"
        )
    write_file(paths.config / "continuity.conf", text)


def replication_conninfo(lab: Lab, site: SiteName) -> str:
    """How the server at ``site`` follows the other one: through the link."""
    config = lab.site(site).config
    return (
        f"host={lab.way_to(other(site))} port={layout.POSTGRES_PORT} user={REPLICATION} "
        f"passfile={config}/continuity.pgpass sslmode=verify-full sslrootcert={config}/ca.pem "
        f"application_name={HOST_NAMES[site]}"
    )


def initialise(lab: Lab, site: SiteName) -> None:
    """Make the data directory of the first server: checksums on, locale C, one superuser."""
    paths = lab.site(site)
    password = paths.config / "initial-password"
    write_file(password, lab.secret("pg-control") + "\n")
    run(
        lab,
        [
            *("initdb", "--pgdata", str(paths.data), "--username", CONTROL, "--pwfile", str(password)),
            *(
                "--auth",
                "scram-sha-256",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
                "--data-checksums",
                "--no-sync",
            ),
        ],
        INITDB_SECONDS_MAX,
    )
    password.unlink()


def base_backup(lab: Lab, site: SiteName) -> None:
    """Make the data directory of the second server from the first, through the link, with its slot."""
    paths = lab.site(site)
    run(
        lab,
        [
            *("pg_basebackup", "--dbname", replication_conninfo(lab, site), "--pgdata", str(paths.data)),
            *("--wal-method", "stream", "--checkpoint", "fast", "--create-slot", "--slot", HOST_NAMES[site]),
            "--no-sync",
        ],
        BACKUP_SECONDS_MAX,
    )
    (paths.data / "standby.signal").touch(mode=0o600)


def run(lab: Lab, argv: list[str], seconds_max: float) -> str:
    """Run one of the lab's PostgreSQL tools. PermanentError carries what it said."""
    try:
        done = subprocess.run(
            [str(lab.bin / argv[0]), *argv[1:]],
            capture_output=True,
            text=True,
            timeout=seconds_max,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
    except subprocess.TimeoutExpired as error:
        raise PermanentError(f"{argv[0]}: not done after {seconds_max:g} s") from error
    if done.returncode:
        raise PermanentError(
            f"{argv[0]}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}"
        )
    return done.stdout


def connect(lab: Lab, site: SiteName, database: str, **more: Any) -> psycopg.Connection[Any]:
    """A session of the control role at a site, met at the site itself. psycopg.OperationalError if none."""
    import psycopg

    return psycopg.connect(
        host=lab.address(site),
        port=layout.POSTGRES_PORT,
        dbname=database,
        user=CONTROL,
        password=lab.secret("pg-control"),
        sslmode="verify-full",
        sslrootcert=str(lab.ca),
        application_name="lab",
        connect_timeout=2,
        autocommit=True,
        **more,
    )


def wait_ready(lab: Lab, site: SiteName, database: str = "postgres") -> psycopg.Connection[Any]:
    """A session at a server that is coming up. PermanentError with the end of its log when it does not."""
    import psycopg

    deadline = time.monotonic() + READY_SECONDS_MAX
    while True:
        try:
            return connect(lab, site, database)
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                log = lab.site(site).logs / "postgresql.log"
                end = log.read_text(encoding="utf-8", errors="replace")[-800:] if log.exists() else "no log"
                raise PermanentError(f"PostgreSQL at {site} does not answer: {error}\n{end}") from error
        time.sleep(POLL_SECONDS)


def wait_streaming(lab: Lab, primary: SiteName) -> None:
    """Wait until the other server streams and has replayed what the primary has written so far."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    with connect(lab, primary, "postgres") as session:
        (wanted,) = session.execute("SELECT pg_current_wal_lsn()::text").fetchone() or ("0/0",)
        while True:
            row = session.execute(
                "SELECT 1 FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"
                " AND replay_lsn >= %s::pg_lsn",
                (HOST_NAMES[other(primary)], wanted),
            ).fetchone()
            if row:
                return
            if time.monotonic() > deadline:
                raise PermanentError(f"nobody follows the PostgreSQL at {primary}")
            time.sleep(POLL_SECONDS)


def wait_told(lab: Lab, primary: SiteName) -> None:
    """Wait until a register of each database at the primary has told the other site that its commits wait: a
    site lost before that would be failed over with a loss above 0, though none was possible."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    for database in APPLICATION_ROLES:
        with connect(lab, other(primary), database) as session:
            while session.execute("SELECT waits FROM continuity.heartbeat").fetchone() != (True,):
                if time.monotonic() > deadline:
                    raise PermanentError(f"no heartbeat of {database} from {primary} says that commits wait")
                time.sleep(POLL_SECONDS)
