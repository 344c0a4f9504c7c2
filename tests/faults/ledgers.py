"""What clients were told, read from the ledgers of the load and of the probes of home."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.lab import layout, postgres, processes, supervise
from orchestrator.lab.layout import Lab, write_file

WAYS = ("front", "inside", "sql")
PROBE_SECONDS_MAX = 1.5  # how long a client of home waits for an answer
PROBE_PAUSE_SECONDS = 0.15
READ_SECONDS = 0.05
"""An answer that was sent before a proof may be read by the client after it: on a busy machine this much."""


@dataclass(frozen=True, slots=True)
class Told:
    """One write that a client tried: when it was begun and answered, by whom, and over which way."""

    table: str
    key: str
    begun_ns: int
    outcome: str = "open"
    ended_ns: int = 0
    site: str = ""
    way: str = "clients"


class Reader:
    """Reads ledgers that still grow; what was read once is not read again. ``paths`` may grow as well."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._ends: dict[Path, int] = {}
        self._told: dict[str, Told] = {}

    def read(self) -> list[Told]:
        """Every write so far; a last line that is only half there is left for the next time."""
        for path in self.paths:
            if path.exists():
                with path.open("rb") as ledger:
                    ledger.seek(self._ends.get(path, 0))
                    text = ledger.read()
                whole = text[: text.rfind(b"\n") + 1]
                self._ends[path] = self._ends.get(path, 0) + len(whole)
                for line in whole.splitlines():
                    self._take(json.loads(line))
        return list(self._told.values())

    def _take(self, entry: dict[str, Any]) -> None:
        if entry["t"] == "intent":
            self._told[entry["id"]] = Told(entry["table"], entry["id"], entry["at_ns"])
        elif entry["t"] in ("acked", "refused", "unknown"):
            begun = self._told[entry["id"]]
            way = entry["to"] if entry["to"] in WAYS else "clients"
            site = entry.get("site", "")
            self._told[entry["id"]] = Told(
                begun.table, begun.key, begun.begun_ns, entry["t"], entry["at_ns"], site, way
            )

    def count(self, is_counted: Callable[[Told], bool]) -> int:
        return sum(map(is_counted, self.read()))


def acked_at(told: Sequence[Told], site: str) -> list[Told]:
    """Acknowledged writes of a site, in the order in which clients learnt of them."""
    return sorted((t for t in told if t.outcome == "acked" and t.site == site), key=lambda t: t.ended_ns)


def after(told: Sequence[Told], proof_ns: int) -> list[Told]:
    """What home acknowledged after a proof that it cannot write: this must be empty for every strong proof.

    A write that was begun after it counts whenever it was answered; one that was begun before it counts
    when its answer came too late to have been on its way.
    """
    late_ns = proof_ns + int(READ_SECONDS * 1e9)
    return [t for t in acked_at(told, "home") if t.begun_ns > proof_ns or t.ended_ns > late_ns]


def start_probes(lab: Lab) -> Path:
    """Clients that try to write at home on every way until the lab's load is stopped. Their ledger."""
    folder = lab.load_folder
    folder.mkdir(mode=0o700, exist_ok=True)
    number = 1 + max((int(path.name.split("-")[0]) for path in folder.glob("*-*.json")), default=0)
    ledger = folder / f"{number:03}-probe.jsonl"
    home = lab.address("home")
    config = {
        "ledger": str(ledger),
        "host": layout.SERVICE_HOSTS["population-register"],
        "front": [home, layout.FRONT_PORT],
        "inside": [home, layout.POPULATION_PORT],
        "conninfo": f"host={home} port={layout.POSTGRES_PORT} dbname=population "
        f"user={postgres.APPLICATION_ROLES['population']} password={lab.secret('pg-population')} "
        f"sslmode=verify-full sslrootcert={lab.ca} connect_timeout=2",
        "timeout_seconds": PROBE_SECONDS_MAX,
        "pause_seconds": PROBE_PAUSE_SECONDS,
    }
    path = folder / f"{number:03}-probe.json"
    write_file(path, json.dumps(config, indent=1) + "\n")
    processes.spawn(
        [sys.executable, "-S", str(Path(__file__).with_name("prober.py")), str(path)],
        environment={**supervise.environment(lab, "load"), "PYTHONPATH": _packages()},
        folder=folder,
        out=folder / f"{number:03}-probe.log",
    )
    return ledger


def _packages() -> str:
    import psycopg

    return str(Path(psycopg.__file__).resolve().parents[1])


def now_ns() -> int:
    return time.monotonic_ns()
