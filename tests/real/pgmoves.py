"""Moves of the two real servers that tests start from: a planned and an unplanned change of the primary.

Made by hand, with nothing of what is tested: stop, promote, epoch row, checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from orchestrator.drivers import supervisor
from tests.action_context import GivenSecrets
from tests.real import pgharness
from tests.real.pgharness import DATABASES, HOSTS, PORT, SECRETS, Pair, until

SHARED_MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 4 << 30


@contextlib.contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder in the machine's memory, if there is room for some servers, and else ``otherwise``."""
    if not SHARED_MEMORY.is_dir() or shutil.disk_usage(SHARED_MEMORY).free < MEMORY_BYTES_MIN:
        yield otherwise
        return
    folder = Path(tempfile.mkdtemp(prefix="continuity-", dir=SHARED_MEMORY))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def hold(pair: Pair, site: str) -> None:
    """The site's manager starts PostgreSQL only when it is told to."""
    path = pair.folder / site / "s.conf"
    text = path.read_text().replace("autostart=true", "autostart=false")
    path.write_text(text.replace("autorestart=unexpected", "autorestart=false"))


def stop(pair: Pair, site: str) -> None:
    supervisor.stop(pair.manager(site), "postgresql", GivenSecrets(SECRETS), 20)
    until(lambda: not pair.processes(site), "processes are left after a stop")


def start_unit(pair: Pair, site: str) -> None:
    supervisor.start(pair.manager(site), "postgresql", GivenSecrets(SECRETS), 20)


def start(pair: Pair, site: str) -> None:
    start_unit(pair, site)
    pair.wait_ready(site)


def refusal(pair: Pair, site: str) -> str:
    """What the server at ``site`` says to somebody who wants a session, "" when it grants one."""
    try:
        pair.connect(site).close()
    except psycopg.OperationalError as error:
        return str(error)
    return ""


def replace_by_backup(pair: Pair, site: str, source: str, *more: str) -> None:
    """A base backup of ``source`` stands where the stopped server's data stood, as a standby."""
    shutil.rmtree(pair.data(site))
    config = pair.config(site)
    conninfo = (
        f"host={pair.addresses[source]} port={PORT} user=replicator passfile={config}/pgpass"
        f" sslmode=verify-full sslrootcert={config}/ca.pem"
    )
    tool = f"{pair.folder}/bin/pg_basebackup"
    done = subprocess.run(
        [tool, "-d", conninfo, "-D", str(pair.data(site)), "-c", "fast", "--no-sync", *more],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    (pair.data(site) / "standby.signal").touch(mode=0o600)


def promote(pair: Pair, site: str, epoch: int = 2, *, checkpoint: bool = True) -> None:
    """The server at ``site`` becomes the primary and its rows say so."""
    pair.ask(site, "SELECT pg_promote(true)")
    for database in DATABASES:
        pair.ask(
            site,
            "UPDATE continuity.writer SET epoch = %s, site = %s, durability = 'local'",
            epoch,
            site,
            database=database,
        )
    if checkpoint:
        pair.ask(site, "CHECKPOINT")


def switch_over(pair: Pair, old: str = "home", new: str = "embassy", epoch: int = 2) -> None:
    """A planned change: the old primary is stopped cleanly and all of it has arrived."""
    lsn = pair.ask(old, "SELECT pg_current_wal_insert_lsn()::text")
    stop(pair, old)
    (pair.data(old) / "standby.signal").touch(mode=0o600)
    until(
        lambda: pair.ask(new, f"SELECT pg_last_wal_replay_lsn() > '{lsn}'"), "the last record did not arrive"
    )
    promote(pair, new, epoch)


def diverge(pair: Pair, rows: int = 50, *, checkpoint: bool = True) -> None:
    """Home writes rows that never arrive, dies, and the embassy goes on. Home's manager is up again,
    and holds its database back."""
    pair.ask("embassy", "ALTER SYSTEM SET primary_conninfo = ''")
    pair.ask("embassy", "SELECT pg_reload_conf()")
    until(
        lambda: not pair.ask("embassy", "SELECT count(*) FROM pg_stat_wal_receiver"),
        "the embassy still follows",
    )
    pair.ask("home", f"INSERT INTO rows SELECT 'home-only-' || n, 'v' FROM generate_series(1, {rows}) AS n")
    lose_home(pair)
    pair.ask("embassy", "ALTER SYSTEM RESET primary_conninfo")
    pair.ask("embassy", "SELECT pg_reload_conf()")
    promote(pair, "embassy", checkpoint=checkpoint)
    pair.ask("embassy", "INSERT INTO rows SELECT 'embassy-' || n, 'v' FROM generate_series(1, 50) AS n")


def make_diverged(template: Pair, folder: Path) -> Pair:
    """A template: home's data as its crash left them, the embassy a primary that was stopped cleanly.

    No checkpoint has been written since the promotion but the one of that stop.
    """
    with pgharness.running(template, folder, synchronous=False) as pair:
        diverge(pair)
        stop(pair, "embassy")
        pair.kill_site("home")
    return pair


@contextlib.contextmanager
def diverged(template: Pair, folder: Path) -> Iterator[Pair]:
    """A copy of it: the embassy serves, home's manager is up and holds its database back."""
    pair = pgharness.copy_template(template, folder, synchronous=False, start=False)
    try:
        hold(pair, "home")
        for site in HOSTS:
            pair.start_site(site)
        pair.wait_ready("embassy")
        until(lambda: manager_answers(pair, "home"), "the manager did not come up")
        yield pair
    finally:
        pair.down()


def restore_home(pair: Pair, template: Pair) -> None:
    """Home's data as the template has them, whatever was done since; nothing is kept of that."""
    stop(pair, "home")
    for folder in (pair.data("home"), pair.folder / "home" / "evidence"):
        shutil.rmtree(folder, ignore_errors=True)
    copied = ["cp", "-a", "--reflink=auto", str(template.data("home")), str(pair.data("home"))]
    assert subprocess.run(copied).returncode == 0
    inactive = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'h1' AND active"
    until(lambda: not pair.ask("embassy", inactive), "home's slot stays in use")
    pair.ask("embassy", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def lose_home(pair: Pair) -> None:
    pair.kill_site("home")
    hold(pair, "home")
    pair.start_site("home")
    until(lambda: manager_answers(pair, "home"), "the manager did not come up")


def manager_answers(pair: Pair, site: str) -> bool:
    from orchestrator.errors import TransientError

    try:
        return pair.unit_state(site).name in ("stopped", "exited")
    except TransientError:
        return False


def wait_for_nobody(pair: Pair, site: str) -> None:
    """The primary at ``site`` is asynchronous, and its rows say so."""
    (pair.config(site) / "continuity.conf").write_text("synchronous_standby_names = ''\n")
    pair.ask(site, "ALTER SYSTEM RESET synchronous_standby_names")
    pair.ask(site, "SELECT pg_reload_conf()")
    until(lambda: pair.ask(site, "SHOW synchronous_standby_names") == "", "still synchronous")
    for database in DATABASES:
        pair.ask(
            site, "UPDATE continuity.writer SET durability = 'local', site = %s", site, database=database
        )


def rows(pair: Pair, site: str, like: str = "%") -> set[str]:
    with pair.connect(site) as session:
        return {row[0] for row in session.execute("SELECT id FROM rows WHERE id LIKE %s", (like,))}


def follows(pair: Pair, primary: str = "embassy", standby: str = "home") -> None:
    """What only home had is gone from it, and what is written at the primary arrives."""
    pair.ask(primary, "INSERT INTO rows VALUES ('after', '') ON CONFLICT DO NOTHING")
    pair.wait_caught_up(primary, standby)
    assert rows(pair, standby) == rows(pair, primary)
    assert not rows(pair, standby, "home-only-%")


def streaming(pair: Pair, primary: str, slot: str) -> Any:
    return pair.ask(
        primary,
        "SELECT state FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid"
        " WHERE slot_name = %s",
        slot,
    )


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its path, with a digest of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
