"""Decides what the demo does: real loss of home under load, failover, judgement, failback, judgement.

It works as a person would: through the command ``continuity``, started as a process of its own, and through
the lab's own words. It must never make a figure up: what it states comes from the ledgers, from the independent
checker and from the journal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from orchestrator.errors import PermanentError
from orchestrator.lab import (
    adoption,
    claims,
    detect,
    evidence,
    faults,
    figures,
    schema,
    sites,
    supervise,
    traffic,
)
from orchestrator.lab.layout import DATABASES, MARK, Lab, SiteName
from orchestrator.lab.tail import Tail

WRITES_BEFORE = 1_000
WRITES_AFTER = 200
WRITES_SECONDS_MAX = 60.0
OPERATION_SECONDS_MAX = 120.0
POLL_SECONDS = 0.02
BY = "the demo"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """``keep``: the lab stays up when the demo is over."""

    durability: Literal["remote", "local"] = "remote"
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Commanded:
    """A command of continuity that has ended. ``started_ns``: monotonic, before its process existed."""

    run: str
    started_ns: int


def run(wanted: Wanted, say: Say) -> dict[str, Any]:
    """Do all of it. Returns the document; the lab is gone afterwards, whatever happens, unless it is kept.

    ContinuityError when a part of it could not be done; what had been seen lies in the reports then.
    """
    begun = time.monotonic()
    lab = sites.up(sites.Wanted(durability=wanted.durability, owned=True), say, adoption.adopt)
    reports = evidence.folder_for(lab)
    try:
        document = _show(lab, round(time.monotonic() - begun, 2), reports, say)
        document["reports"] = str(reports)
        document["seconds"] = round(time.monotonic() - begun, 2)
        evidence.write(reports / "demo.json", {"schema": figures.SCHEMA, **document})
        evidence.keep_log(lab, reports)
    except BaseException:
        evidence.keep_all(lab, reports)
        say(f"what was seen until then: {reports}")
        sites.down(lab)
        raise
    if wanted.keep:
        claims.register(replace(lab, owner_pid=0, owner_started=0))
        say(f"lab {lab.number} stays up; end it: continuity lab down --lab {lab.number}")
    else:
        sites.down(lab)
        say(f"lab {lab.number} is gone")
    return document


def _show(lab: Lab, up_seconds: float, reports: Path, say: Say) -> dict[str, Any]:
    say(f"lab {lab.number} is up after {up_seconds:.1f} s; clients begin to write at the front door")
    loads = _start_load(lab)
    tail = _wait_for_writes(loads, "home", WRITES_BEFORE)
    say(f"{tail.acked()} writes are acknowledged; now every process at home is killed")
    broken_ns = time.monotonic_ns()
    faults.break_it(lab, "home-crash")
    noticed_ns = detect.wait_for_an_outage(lab)
    detection = (noticed_ns - broken_ns) / 1e9
    say(f"noticed from outside after {detection:.2f} s; a person orders: continuity failover")
    over = _operate(lab, "failover", say)
    _wait_for_writes(loads, "embassy", WRITES_AFTER)
    failover = _judge(lab, over, loads, "embassy", reports, say)
    failover["detection_seconds"] = round(detection, 4)

    say("home gets its power back; clients go on writing; a person orders: continuity failback")
    faults.heal(lab)
    loads = _start_load(lab)
    _wait_for_writes(loads, "embassy", WRITES_AFTER)
    back = _operate(lab, "failback", say)
    _wait_for_writes(loads, "home", WRITES_AFTER)
    failback = _judge(lab, back, loads, "home", reports, say)
    failback["detection_seconds"] = None  # nothing failed: it was planned

    say("once more all that was ever acknowledged, against home")
    final = traffic.check(lab, "home", lost_max=failover["lost_acknowledged_writes"])
    evidence.write(reports / "final-check.json", final)
    return {
        "lab": {"number": lab.number, "durability": lab.durability, "up_seconds": up_seconds},
        "verified": bool(failover["verified"] and failback["verified"] and final["verified"]),
        "failover": failover,
        "failback": failback,
        "final_check": figures.judgement(final),
    }


def _start_load(lab: Lab) -> list[traffic.Running]:
    return [
        traffic.start(lab, traffic.Load("population-register", writers=4)),
        traffic.start(lab, traffic.Load("land-register", writers=1, pause_ms=20)),
    ]


def _wait_for_writes(loads: list[traffic.Running], site: SiteName, wanted: int) -> Tail:
    """Wait until so many writes are acknowledged by a site, by each register at least one."""
    tail = Tail(load.ledger for load in loads)
    deadline = time.monotonic() + WRITES_SECONDS_MAX
    tables = [schema.TABLES[database] for database in DATABASES.values()]
    while True:
        tail.look()
        if tail.acked(site=site) >= wanted and all(tail.acked(table, site) for table in tables):
            return tail
        if time.monotonic() > deadline:
            seen = ", ".join(f"{table}: {tail.acked(table, site)}" for table in tables)
            raise PermanentError(
                f"the {site} acknowledged too few writes in {WRITES_SECONDS_MAX:g} s "
                f"({seen}; {wanted} were to come)"
            )
        time.sleep(POLL_SECONDS)


def _judge(
    lab: Lab, done: Commanded, loads: list[traffic.Running], at: SiteName, reports: Path, say: Say
) -> dict[str, Any]:
    """End the load and let the independent checker compare its ledgers with the site that serves now."""
    traffic.stop(lab)
    recorded = evidence.read_run(lab, done.run)
    bound = figures.stated_loss(recorded)["rows_bound"]
    found = traffic.check(lab, at, [load.ledger for load in loads], lost_max=bound or 0)
    stated = figures.operation(recorded, found, done.started_ns, at)
    name = str(recorded.document["operation"])
    stated["report"] = str(evidence.write(reports / f"{name}.json", recorded.document))
    evidence.write(reports / f"{name}-check.json", found)
    word = "verified" if stated["verified"] else "NOT VERIFIED"
    say(f"{name}: {found['acked']} acknowledged writes compared with the {at}: {found['lost']} lost, {word}")
    return stated


def _operate(lab: Lab, operation: str, say: Say) -> Commanded:
    """Run ``continuity OPERATION --yes`` as a person would, as a process that ends with the lab at the latest."""
    argv = [sys.executable, "-m", "orchestrator", operation, "--yes", "--by", BY]
    argv += ["--estate", str(lab.estate), "--output", "json"]
    own = supervise.environment(lab, "operator")
    environment = {**os.environ, "PYTHONPATH": own["PYTHONPATH"], MARK: own[MARK]}
    started_ns = time.monotonic_ns()
    with subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        listening = threading.Thread(target=_pass_on, args=(process.stderr, say), daemon=True)
        listening.start()
        watchdog = threading.Timer(OPERATION_SECONDS_MAX, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            answer = process.stdout.read()
            code = process.wait()
        finally:
            watchdog.cancel()
            process.kill()
            listening.join()
    return Commanded(_run_of(operation, code, answer), started_ns)


def _pass_on(lines: Any, say: Say) -> None:
    for line in lines:
        say("  " + line.rstrip("\n"))


def _run_of(operation: str, code: int, answer: str) -> str:
    try:
        said: dict[str, Any] = json.loads(answer)
    except ValueError as error:
        raise PermanentError(f"continuity {operation}: exit code {code}, and no answer") from error
    if code == 0 and said.get("outcome") == "done":
        return str(said["run"])
    why = said.get("message") or "; ".join((said.get("held") or {}).get("causes", ())) or said.get("outcome")
    raise PermanentError(f"continuity {operation} ended with exit code {code}: {why or 'see its output'}")
