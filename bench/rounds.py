"""Decides how one round goes: a new lab under load, a crash, and the moves of one side on it.

Both sides get the same: a lab of their own, four writers at the front door from outside, synchronous commit,
the whole estate moved. The figures come from the writers' ledger as the independent checker reads it, on one
monotonic clock; a side only says when its order was given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from orchestrator.lab import adoption, claims, faults, sites, traffic
from orchestrator.lab.layout import Lab, SiteName

ROOT = Path(__file__).resolve().parents[1]
ACKS_BEFORE, ACKS_AFTER = 600, 200
DETECTION_SECONDS = 0.3
ACKS_SECONDS_MAX = 60.0
MOVE_SECONDS_MAX = 120.0
POLL_SECONDS = 0.02
TABLE = "persons"
OURS, BY_HAND = "continuity", "by hand"


class Side(Protocol):
    """Who makes the moves. Each move is a process that ends with one JSON object of moments on stdout."""

    @property
    def name(self) -> str: ...
    def argv(self, move: str, lab: Lab, target: SiteName, epoch: int) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Ours:
    name: str = OURS

    def argv(self, move: str, lab: Lab, target: SiteName, epoch: int) -> Sequence[str]:
        operation = {"rejoin": "reprotect"}.get(move, move)
        return [sys.executable, "-m", "bench.ours", operation, lab.folder]


@dataclass(frozen=True, slots=True)
class ByHand:
    name: str = BY_HAND

    def argv(self, move: str, lab: Lab, target: SiteName, epoch: int) -> Sequence[str]:
        return [sys.executable, "-m", "bench.by_hand", move, lab.folder, target, str(epoch)]


@dataclass(frozen=True, slots=True)
class Moved:
    """A move that was made. ``moments`` in nanoseconds of CLOCK_MONOTONIC, with ``order`` and ``command``."""

    epoch: int
    target: SiteName
    moments: Mapping[str, int]


@dataclass(slots=True)
class Round:
    """What one round gave: seconds by name, counts by name, moments after each order in milliseconds."""

    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)


def play(side: Side, moves: Sequence[str]) -> Round:
    """Play one round. ``moves``: failover, rejoin, switchover; in this order, each may be left out."""
    with _lab() as lab:
        running = traffic.start(lab, traffic.Load())
        _wait_acks(running.ledger, 1, ACKS_BEFORE)
        site: SiteName = "home"
        made: dict[str, Moved] = {}
        epoch = 1
        for move in moves:
            if move == "failover":
                faults.break_it(lab, "home-crash")
                time.sleep(DETECTION_SECONDS)
                site, epoch = "embassy", epoch + 1
            elif move == "rejoin":
                faults.heal(lab)
            elif move == "switchover":
                site, epoch = ("embassy" if site == "home" else "home"), epoch + 1
            made[move] = _move(side, move, lab, site, epoch)
            if move != "rejoin":
                _wait_acks(running.ledger, epoch, ACKS_AFTER)
        traffic.stop(lab)
        report = traffic.check(lab, site)
        return _result(made, report, running.ledger)


@contextmanager
def _lab() -> Iterator[Lab]:
    """A lab in a CONTINUITY_HOME of its own; nothing of it is left, however the round ends."""
    with tempfile.TemporaryDirectory(prefix="ctyb", dir="/tmp", ignore_cleanup_errors=True) as home:
        before = os.environ.get("CONTINUITY_HOME")
        os.environ["CONTINUITY_HOME"] = home
        try:
            yield sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)
        finally:
            for lab in claims.labs():
                claims.remove(lab)
            if before is None:
                del os.environ["CONTINUITY_HOME"]
            else:
                os.environ["CONTINUITY_HOME"] = before


def _move(side: Side, move: str, lab: Lab, target: SiteName, epoch: int) -> Moved:
    command = time.monotonic_ns()
    done = subprocess.run(
        list(side.argv(move, lab, target, epoch)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=MOVE_SECONDS_MAX,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        said = (done.stdout[-1500:] + done.stderr[-1500:]).strip()
        raise RuntimeError(f"{side.name}: {move}: exit {done.returncode}\n{said}")
    moments: dict[str, int] = json.loads(done.stdout.strip().splitlines()[-1])
    return Moved(epoch, target, {"command": command, **moments})


def _wait_acks(ledger: Path, epoch: int, count: int) -> None:
    wanted = f'"epoch":{epoch},'
    deadline = time.monotonic() + ACKS_SECONDS_MAX
    while True:
        text = ledger.read_text(encoding="utf-8") if ledger.exists() else ""
        if text.count(wanted) >= count:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {count} acknowledgements at epoch {epoch} within {ACKS_SECONDS_MAX:g} s")
        time.sleep(POLL_SECONDS)


# --- figures ------------------------------------------------------------------------------------


def _result(made: Mapping[str, Moved], report: Mapping[str, Any], ledger: Path) -> Round:
    if not report["verified"]:
        raise RuntimeError(f"the ledger does not hold: {report}")
    found = Round()
    found.counts["acked"] = report["acked"]
    found.counts["lost"] = report["lost"]
    for move, moved in made.items():
        order = moved.moments["order"]
        found.phases[move] = {
            name: (at - order) / 1e6 for name, at in moved.moments.items() if name not in ("own", "inputs")
        }
        if move == "rejoin":
            found.seconds["rejoin"] = (moved.moments["protected"] - order) / 1e9
            continue
        first = _acks(report, moved.epoch)["first_verified_ns"]
        last = _acks(report, moved.epoch - 1)["last_ack_ns"]
        if first is None:
            raise RuntimeError(f"no acknowledgement of epoch {moved.epoch} was found again")
        found.seconds[f"{move}.order_to_write"] = (first - order) / 1e9
        found.seconds[f"{move}.command_to_write"] = (first - moved.moments["command"]) / 1e9
        found.seconds[f"{move}.outage"] = (first - last) / 1e9
        found.seconds[f"{move}.whole"] = (moved.moments["done"] - order) / 1e9
        if "own" in moved.moments:
            found.seconds[f"{move}.own"] = moved.moments["own"] / 1e9
            found.counts[f"{move}.inputs"] = moved.moments["inputs"]
        if move == "switchover":
            found.counts["switchover.failed"] = _failed_since(ledger, moved.moments["command"])
    return found


def _acks(report: Mapping[str, Any], epoch: int) -> Mapping[str, Any]:
    of_epoch = [
        each for each in report["by_epoch"].values() if each["table"] == TABLE and each["epoch"] == epoch
    ]
    if len(of_epoch) != 1:
        raise RuntimeError(f"epoch {epoch} was acknowledged at {len(of_epoch)} sites")
    entry: Mapping[str, Any] = of_epoch[0]
    return entry


def _failed_since(ledger: Path, moment: int) -> int:
    """Requests that ended after ``moment`` and were not acknowledged."""
    entries = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    return sum(entry["t"] in ("refused", "unknown") and entry["at_ns"] >= moment for entry in entries)
