"""Decides how load and checker are started: as programs by path, apart from everything they judge.

Each load has a ledger of its own in ``LAB/load``; the checker reads all of them unless it is told which.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import PermanentError, RefusedError, WrongWordsError
from orchestrator.lab import layout, postgres, processes, schema, supervise
from orchestrator.lab.layout import DATABASES, SERVICE_HOSTS, SITES, Lab, SiteName, other, write_file

BEGIN_SECONDS_MAX = 10.0
END_SECONDS_MAX = 10.0
CHECK_SECONDS_MAX = 120.0
POLL_SECONDS = 0.02
TIMEOUT_SECONDS = {"population-register": 2.0, "land-register": 8.0}  # a cold one takes longer to come up


@dataclass(frozen=True, slots=True)
class Load:
    """One load on one register. ``seconds`` 0: until it is stopped; ``pause_ms`` between a writer's requests.
    ``timeout_seconds`` 0: as long as that register's clients have patience."""

    service: str = "population-register"
    writers: int = 4
    seconds: float = 0.0
    pause_ms: int = 3
    value_bytes: int = 100
    timeout_seconds: float = 0.0

    @property
    def patience_seconds(self) -> float:
        return self.timeout_seconds or TIMEOUT_SECONDS[self.service]


@dataclass(slots=True)
class Running:
    """A load that was started here. ``process`` writes its summary to ``summary`` when it ends."""

    load: Load
    ledger: Path
    summary: Path
    process: subprocess.Popen[bytes]


def must_take_load(service: str) -> None:
    if service not in DATABASES:
        raise WrongWordsError(f"{service} takes no load", tuple(DATABASES))


def start(lab: Lab, load: Load) -> Running:
    """Start a load; it goes on when this process ends. It hears ``stop`` from the moment this returns.

    WrongWordsError for a service that takes no writes; PermanentError when the load does not begin.
    """
    must_take_load(load.service)
    table = schema.TABLES[DATABASES[load.service]]
    folder = lab.load_folder
    folder.mkdir(mode=0o700, exist_ok=True)
    number = 1 + max((int(path.name.split("-")[0]) for path in folder.glob("*-*.json")), default=0)
    ledger, summary = folder / f"{number:03}-{table}.jsonl", folder / f"{number:03}-{table}.summary"
    config = {
        "host": SERVICE_HOSTS[load.service],
        "port": layout.FRONT_PORT,
        "name_servers": [[lab.address(site), layout.DNS_PORT] for site in reversed(SITES)],
        "table": table,
        "ledger": str(ledger),
        "writers": load.writers,
        "seconds": load.seconds,
        "pause_seconds": load.pause_ms / 1000,
        "value_bytes": load.value_bytes,
        "timeout_seconds": load.patience_seconds,
    }
    path = folder / f"{number:03}-{table}.json"
    write_file(path, json.dumps(config, indent=1) + "\n")
    process = processes.spawn(
        [sys.executable, "-S", str(Path(__file__).with_name("load.py")), str(path)],
        environment=supervise.environment(lab, "load"),
        folder=folder,
        out=summary,
        errors=folder / f"{number:03}-{table}.log",
    )
    _wait_begun(process, ledger)
    return Running(load, ledger, summary, process)


def _wait_begun(process: subprocess.Popen[bytes], ledger: Path) -> None:
    """Until its ledger is there: earlier than that an order to end would kill it without a word."""
    deadline = time.monotonic() + BEGIN_SECONDS_MAX
    while not ledger.exists():
        if process.poll() is not None:
            log = ledger.with_suffix(".log").read_text(encoding="utf-8", errors="replace")[-500:]
            raise PermanentError(f"the load did not begin: {log}")
        if time.monotonic() > deadline:
            raise PermanentError(f"the load did not begin within {BEGIN_SECONDS_MAX:g} s")
        time.sleep(POLL_SECONDS)


def wait(running: Running) -> dict[str, Any]:
    """Wait until a load with an end has ended. Returns its summary."""
    running.process.wait(running.load.seconds + running.load.patience_seconds + END_SECONDS_MAX)
    return _summary(running.summary)


def stop(lab: Lab) -> list[dict[str, Any]]:
    """End every load of a lab after the requests under way. Returns the summaries, oldest first."""
    before = time.time()
    found = processes.of_part(lab.mark("load"), lab.load_folder)
    for process in found.values():
        processes.send(process, signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS_MAX
    while left := processes.of_part(lab.mark("load"), lab.load_folder):
        if time.monotonic() > deadline:
            pids = ", ".join(map(str, left))
            raise PermanentError(f"the load does not end within {END_SECONDS_MAX:g} s: pid {pids}")
        time.sleep(POLL_SECONDS)
    if not found:
        return []
    written = [
        path for path in sorted(lab.load_folder.glob("*.summary")) if os.stat(path).st_mtime >= before - 1
    ]
    return [_summary(path) for path in written]


def _summary(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        log = path.with_suffix(".log").read_text(encoding="utf-8", errors="replace")[-500:]
        raise PermanentError(f"the load ended without a summary: {log}") from error
    return {"ledger": str(path.with_suffix(".jsonl")), **found}


def ledgers(lab: Lab) -> list[Path]:
    return sorted(lab.load_folder.glob("*.jsonl"))


def check(
    lab: Lab, survivor: SiteName, chosen: list[Path] | None = None, lost_max: int = 0
) -> dict[str, Any]:
    """What the independent checker says of the ledgers and the site that survived (the active one).

    ``lost_max``: how many rows may be lost, as it was stated beforehand. Its figures are as ``check.py`` explains; ``verified`` is its word, never ours.
    """
    paths = ledgers(lab) if chosen is None else chosen
    if not paths:
        raise RefusedError("there is no ledger to check", ("continuity lab load --seconds 10",))
    config = {
        "ledgers": [str(path) for path in paths],
        "survivor": _conninfo(lab, survivor),
        "other": _conninfo(lab, other(survivor)),
        "databases": {schema.TABLES[database]: database for database in DATABASES.values()},
        "lost_max": lost_max,
    }
    path = lab.load_folder / "check.config"
    write_file(path, json.dumps(config, indent=1) + "\n")
    environment = {**supervise.environment(lab, "load"), "PGPASSFILE": str(_passfile(lab))}
    environment.pop("PYTHONPATH")  # it must not be able to import anything of the project
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("check.py")), str(path)],
        env=environment,
        cwd=lab.load_folder,
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS_MAX,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise PermanentError(f"the checker said nothing: {done.stderr.strip()[-500:]}") from error
    return {"survivor": survivor, "ledgers": [str(ledger) for ledger in paths], **report}


def _passfile(lab: Lab) -> Path:
    path = lab.load_folder / "pgpass"
    write_file(path, f"*:*:*:{postgres.AUDITOR}:{lab.secret('pg-auditor')}\n")
    return path


def _conninfo(lab: Lab, site: SiteName) -> str:
    return (
        f"host={lab.address(site)} port={layout.POSTGRES_PORT} user={postgres.AUDITOR} connect_timeout=2 "
        f"sslmode=verify-full sslrootcert={lab.ca} options='-c statement_timeout=60000'"
    )
