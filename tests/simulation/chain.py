"""One run whose driver is killed at every point it comes to, and whose successor is killed once more while
it recovers: simulated parts, a real log in one SQLite file, real processes, SIGKILL.

Run as a program: ``python -m tests.simulation.chain SETTING FOLDER``; prints one JSON document. The night
itself is played in memory, drivers' deaths included. Each of its drivers is first run as a process of its
own, forked from that night: it takes the run's lock, reads the log from the file, and dies where the twin
in memory will die. The next one begins by comparing the file with the twin's log, to the byte.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import traceback
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.core.log import GENESIS, Append, Recorded, link, sha256_of
from orchestrator.core.plan import Plan, Role
from orchestrator.core.run import Run
from orchestrator.core.values import canonical
from orchestrator.engine import lock
from orchestrator.engine.journal import Journal, Tracked
from orchestrator.engine.loop import stands_still
from orchestrator.planning.codec import plan_from_json, plan_to_json
from orchestrator.sim.calls import always_done, never_seen
from orchestrator.sim.dispatch import NothingGoesOn
from orchestrator.sim.estate import plan_of
from orchestrator.sim.faults import AGAIN_AND_AGAIN, MANUAL, Book, Planned, StepFault
from orchestrator.sim.harness import Night, night
from orchestrator.sim.judge import judge
from orchestrator.sim.kinds import KINDS
from orchestrator.sim.nights import why_stuck
from orchestrator.sim.operators import People
from orchestrator.sim.store import DriverKilled, DriversStore
from orchestrator.sim.surroundings import cannot_tell
from orchestrator.stores.codec import EVENT_SCHEMA, encode
from orchestrator.stores.sqlite import SqliteStore

LAPS_MAX = 200
SEEDS = 4
KILLS_A_LAP = 30  # each driver reads the whole log: it must not grow too long
DRIVERS_MAX, TURNS_MAX = 4_000, 2_000
DRIVER_SECONDS_MAX = 30
LOSS_ACCEPTED = -1
NEVER = 1_000_000
BLOCKED_MS = 3_000  # so long that whoever looks finds it alive
REPLICATORS = ("files.start-replicator", "files.stop-replicator")
LEFT, BROKEN = 0, 1
PEOPLE_PREFER = ("confirm", "accept", "mark-done", "retry", "skip")
LAPS: dict[str, StepFault | None] = {
    "nothing goes wrong": None,
    "refused": StepFault.REFUSED,
    "no answer, nothing done": StepFault.TIMES_OUT,
    "done, and no answer": StepFault.RESULT_LOST,
    "blocked, done later": StepFault.COMMITS_LATE,
    "nobody can tell": StepFault.BLIND,
    "taken back": StepFault.UNDO_FAILS,
}


@dataclass(slots=True)
class Memory:
    """What is known of a setting's points, over all laps."""

    announced: set[str] = field(default_factory=set)
    killed: set[str] = field(default_factory=set)
    second: dict[str, str] = field(default_factory=dict)  # point → where its successor was killed
    problems: list[str] = field(default_factory=list)
    laps: int = 0
    drivers: int = 0


class LongEnough(BaseException):
    """The log of this lap has grown long: the next lap goes on with the points that are left."""


class Chain(Night):
    """A night whose drivers die at points."""

    __slots__ = ("head", "is_process", "kills", "length", "log", "memory", "points_left", "recovering")

    memory: Memory
    log: Path
    is_process: bool  # is this the driver's own process, and not the twin in memory?
    recovering: str  # the point whose recovery is going on and has not been killed yet
    points_left: int
    kills: int
    length: int  # of the log when the last driver ended
    head: str

    def come_to(self, name: str) -> None:
        """A driver has come to a point of its run."""
        memory = self.memory
        memory.announced.add(name)
        is_new = name not in memory.killed
        if self.recovering:
            self._count_down(name)
        if not is_new and not (self.recovering and self.points_left == 1):
            return
        if self.recovering:
            memory.second[self.recovering] = name
        self.recovering = name if is_new else ""
        if self.is_process:
            os.kill(os.getpid(), signal.SIGKILL)
        if is_new:
            memory.killed.add(name)
            self.kills += 1
            self.points_left = 0
        raise DriverKilled(name)

    def _count_down(self, name: str) -> None:
        """A recovery is killed before or after its first append, or at one of the next two points, which
        a run that is over no longer has, nor one that waits for people, who may end it: then right behind that."""
        run = self.journal(of_driver=False).load(self.run_id).run
        if not self.points_left:
            self.points_left = 1 + zlib.crc32(self.recovering.encode()) % (2 if run.is_final else 4)
        elif name.startswith("after") and (run.is_final or stands_still(run)):
            self.points_left = 1
        else:
            self.points_left -= 1

    def _people(self, tracked: Tracked) -> People:
        people = super()._people(tracked)
        people.quiet_after = NEVER
        return people

    def _one_driver(self) -> Run | None:
        """First as a process, then its twin in memory, with which the world goes on."""
        if self.kills >= KILLS_A_LAP and not self.recovering:
            raise LongEnough
        self.memory.drivers += 1
        child = os.fork()
        if child == 0:
            code = BROKEN
            try:
                self._become_process()
                super()._one_driver()
                code = LEFT
            finally:
                if code == BROKEN:
                    traceback.print_exc()
                os._exit(code)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        run = super()._one_driver()
        wanted = -signal.SIGKILL if run is None else LEFT
        if ended != wanted:
            self.world.blame("process-equals-twin", f"the process ended {ended}, its twin {wanted}")
            raise NothingGoesOn
        self.head = head_after(self.head, new := self.store.read_all(self.length))
        self.length += len(new)
        return run

    def _become_process(self) -> None:
        """Take the lock and the file as any driver would, and compare what lies there with the twin's log."""
        signal.alarm(DRIVER_SECONDS_MAX)
        self.is_process = True
        lock.acquire(self.log.parent, f"process-{self.run_id}")
        store = SqliteStore(self.log)
        last = store.read_all(self.length - 1)
        if [(record.seq, record.hash) for record in last] != [(self.length, self.head)] * bool(self.length):
            raise AssertionError(f"the file ends {last}, the twin's log {self.length} {self.head}")
        for record in self.store.read_all(self.length):  # what people did while no driver lived
            store.append([Append(record.stream, record.stream_seq - 1, (record.event,))])
        if self.length == 0:
            text = plan_text(self.setting)
            store.put_plan(sha256_of(text), text)
        self.store.inner = store

    def journal(self, *, of_driver: bool) -> Journal:
        """In a driver's process as in production, without the invariants that walk the whole run."""
        if not (of_driver and self.is_process):
            return super().journal(of_driver=of_driver)
        store = DriversStore(self.store, self.book, self.plan)
        return Journal(store, self._plan_from_text, at_point=self.at_point)

    def _plan_text(self) -> str:
        return plan_text(self.setting)

    def _plan_from_text(self, text: str) -> Plan:
        """A process reads the plan that lies beside the log; the twin has it still."""
        return plan_from_json(json.loads(text)) if self.is_process else self.plans[text]


@cache
def plan_text(setting: str) -> str:
    return canonical(plan_to_json(plan_of(setting)))


def head_after(last: str, records: Sequence[Recorded]) -> str:
    """The hash that the last of these records must have in a durable log that ended ``last``."""
    for r in records:
        body, at = encode(r.event), r.event.at.utc_ns
        last = link(last, r.seq, r.stream, r.stream_seq, r.event.KIND, at, body, EVENT_SCHEMA)
    return last


def book_of(plan: Plan, fault: StepFault | None) -> Book:
    """Every step meets the lap's fault on its first attempt."""
    book = Book(accepted_loss_ms=LOSS_ACCEPTED, prefers=PEOPLE_PREFER, late_ms=BLOCKED_MS)
    stops = {Role.VERIFY} if plan.source else {Role.PROTECT}  # the run comes as far as these
    if fault is StepFault.UNDO_FAILS:
        book.abort_after, book.prefers = list(plan.steps)[-1], ()
    for step in plan.steps.values():
        if fault is StepFault.UNDO_FAILS and step.role in stops:
            book.steps[step.id] = [Planned(StepFault.FAILS, 0, AGAIN_AND_AGAIN)]
        elif fault is not None and step.action.kind != MANUAL:
            book.steps[step.id] = [Planned(fault, 0)]
    return book


def run_lap(setting: str, folder: Path, name: str, memory: Memory, seed: int = 0) -> bool:
    """One run from its beginning to its end. Did no driver die in it?"""
    base, plan = night(seed, folder, setting), plan_of(setting)
    base.world.controller_up = bool(seed % 2)  # else home is switched off before it can be asked anything
    what = Chain(
        0, setting, plan, base.rng, base.world, base.store, book_of(plan, LAPS[name]), folder,
        f"lap{memory.laps}",
    )  # fmt: skip
    what.memory, what.log, what.is_process = memory, folder / f"{memory.laps}.db", False
    what.recovering, what.points_left, what.kills, what.length, what.head = "", 0, 0, 0, GENESIS
    what.at_point, what.drivers_max, what.turns_max = what.come_to, DRIVERS_MAX, TURNS_MAX
    memory.laps += 1
    try:
        run = what.go()
        judge(what.world, run, what.journal(of_driver=False).groups())
        wanted = ("aborted", "partial") if LAPS[name] is StepFault.UNDO_FAILS else ("done",)
        if run.state not in wanted:
            memory.problems.append(f"{name}: the run ended {run.state}")
    except LongEnough:
        pass
    except NothingGoesOn:
        memory.problems.append(f"{name}: nothing goes on: {why_stuck(what)}")
    memory.problems += [f"{name}: {text}" for text in what.world.broken.values()]
    if what.recovering:
        memory.problems.append(
            f"{name}: the run was over before the recovery of {what.recovering} was killed"
        )
    store = SqliteStore(what.log)
    memory.problems += [f"{name}: {text}" for text in store.verify()]
    store.close()
    return what.kills == 0


def laps(setting: str, folder: Path) -> Memory:
    """Every kind of lap, until one comes through without a kill."""
    plan_from_json(json.loads(plan_text(setting)))  # whatever is made once is made before the first fork
    gc.freeze()
    memory = Memory()
    for name in LAPS:
        for seed in range(SEEDS):
            for _ in range(LAPS_MAX):
                if memory.problems or run_lap(setting, folder, name, memory, seed):
                    break
    return memory


def expected(plan: Plan) -> Iterator[str]:
    """The points that runs of this plan must come to, whatever else they come to."""
    for name in ("DriverStarted", "Proceed"):
        yield from _both(name)
    for step in plan.steps.values():
        if step.action.kind == MANUAL:
            continue
        yield f"effect {step.id}"
        for outcome in ("Succeeded", "Failed", "Unknown"):
            yield from _both(f"Ended {step.id} {outcome}")
        check = KINDS[step.action.kind].check
        findings = {never_seen: ["not-done"], always_done: ["done"], cannot_tell: []}
        # what is only read is there as soon as it is looked at; replicators run, or not, before they are told
        is_always_there = not step.action.mutates or step.action.kind in REPLICATORS
        seen = ["done"] if is_always_there else ["done", "not-done"]
        for finding in ("running", "cannot-tell", *findings.get(check, seen)):
            yield from _both(f"Checked {step.id} {finding}")


def _both(point: str) -> Iterator[str]:
    return (f"{when} {point}" for when in ("before", "after"))


def main(setting: str, folder: str) -> None:
    memory = laps(setting, Path(folder))
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    told: dict[str, Any] = {
        "expected": sorted(expected(plan_of(setting))), "announced": sorted(memory.announced), "killed": sorted(memory.killed), "second": memory.second,
        "problems": memory.problems, "laps": memory.laps, "drivers": memory.drivers,
        "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in used)),
    }  # fmt: skip
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
