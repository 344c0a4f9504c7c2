"""One pair of real PostgreSQL servers: where it stands, how it is asked, stopped, killed and looked at."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg

from orchestrator.core.model import Cluster, Credentials, Host, Manager, Operation, ReplicationPath, Site, Tls
from orchestrator.core.plan import Parts
from orchestrator.drivers import supervisor
from orchestrator.lab import claims
from orchestrator.ports import Context
from tests.action_context import GivenSecrets, KeptResources, context
from tests.waiting import WAIT_SECONDS_MAX, until

NUDGE_SECONDS = 0.1
WAKE_SECONDS_MAX = 0.2
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


@contextlib.contextmanager
def standing_still(*pids: int) -> Iterator[None]:
    """Processes that get no time at all; one that has ended meanwhile is fine."""
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


_HELD_NETS: dict[str, socket.socket] = {}
"""Home's address of every pair of this process, with the name that keeps other test runs off it."""


def free_net() -> tuple[str, str]:
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
            # A supervisor that has just come up starts its units when it is spoken to, or a second later.
            manager = (self.addresses[site], SUPERVISOR_PORT)
            with contextlib.suppress(OSError), socket.create_connection(manager, WAKE_SECONDS_MAX):
                return False
            return False

        until(answers, f"PostgreSQL at {site} did not come up", seconds_max)

    def wait_following(self, standby: str = "embassy") -> None:
        """A standby that was up before its primary tries again after 5 s, or when its files are reloaded."""
        with self.connect(standby, "postgres") as session:
            streams = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"
            end = time.monotonic() + WAIT_SECONDS_MAX
            while session.execute(streams).fetchone() != (1,):
                assert time.monotonic() < end, f"{standby} follows nobody"
                session.execute("SELECT pg_reload_conf()")
                time.sleep(NUDGE_SECONDS)

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
        """The whole site dies: its supervisor and its PostgreSQL. No pid of it means anything afterwards."""
        process = self.supervisors.pop(site, None)
        if process is not None:
            process.kill()
            process.wait()
        self.kill_database(site)
        claims.forget_server(self.data(site))

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
