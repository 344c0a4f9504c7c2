"""Decides what ``continuity status`` costs from a cold start, beside an interpreter that imports what it
cannot do without. The two take turns; each is a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench import estates
from bench.figures import Figure, Limit
from bench.histories import live_through
from orchestrator.bootstrap.app import plan_to_text
from orchestrator.bootstrap.catalog import catalog
from orchestrator.core.events import GroupAdopted, GroupClaimed
from orchestrator.core.inputs import At
from orchestrator.core.log import Append
from orchestrator.core.model import Operation
from orchestrator.engine.journal import GROUP, RUN
from orchestrator.planning.compile import compile_plan
from orchestrator.runbook.parse import load_estate
from orchestrator.settings import Settings
from orchestrator.stores.sqlite import SqliteStore

SECTION = "status"
SERVICES = 4  # as many as the lab has
TIMES, TIMES_QUICK = 40, 1
RATIO_MAX = 1.3
MS_MAX = 150.0
FLOOR = "import typer, sqlite3"
COMMAND_SECONDS_MAX = 30


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    estate = _estate_with_a_run(folder)
    times = TIMES_QUICK if quick else TIMES
    status = [*_command(), "status", "--estate", str(estate)]
    bare, floor = [sys.executable, "-c", "pass"], [sys.executable, "-c", FLOOR]
    for argv in (status, floor, bare):
        _milliseconds(argv)
    spent: dict[str, list[float]] = {"status": [], "floor": [], "bare": []}
    for _ in range(times):
        spent["status"].append(_milliseconds(status))
        spent["floor"].append(_milliseconds(floor))
        spent["bare"].append(_milliseconds(bare))
    limit = Limit() if quick else Limit(RATIO_MAX, MS_MAX)
    return [
        Figure(
            SECTION,
            "continuity status, cold",
            "ms",
            tuple(spent["status"]),
            "python: import typer, sqlite3",
            tuple(spent["floor"]),
            limit,
        ),
        Figure(SECTION, "python alone", "ms", tuple(spent["bare"])),
    ]


def _command() -> list[str]:
    beside = Path(sys.executable).with_name("continuity")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "orchestrator"]


def _milliseconds(argv: list[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith("CONTINUITY_")},
    )
    spent = (time.perf_counter() - started) * 1000
    if done.returncode:
        raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    return spent


def _estate_with_a_run(folder: Path) -> Path:
    """An estate whose log holds what a failover of a few services leaves: groups and one whole run."""
    estate = estates.write(folder / "estate", SERVICES)
    plan = compile_plan(
        (loaded := load_estate(estate)).estate,
        loaded.runbooks,
        Operation.FAILOVER,
        states=estates.states(SERVICES),
        catalog=catalog(),
    ).plan
    store = SqliteStore(Settings(estate).log)
    store.put_plan(plan.digest, plan_to_text(plan))
    run, events = live_through(plan)
    begin = At(events[0].at.utc_ns - 1, 0)
    for name, move in plan.groups.items():
        adopted = GroupAdopted(begin, name, plan.source, move.epoch_seen, "protected", "bench", {})
        claimed = GroupClaimed(begin, name, run.id, "bench", "here", move.epoch_next)
        store.append([Append(GROUP + name, 0, (adopted, claimed))])
    for number, event in enumerate(events):
        store.append([Append(RUN + run.id, number, (event,))])
    store.close()
    return estate
