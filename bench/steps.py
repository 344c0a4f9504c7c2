"""Decides what the engine adds to a step: runs of steps that do nothing, on the real log.

Everything is as in production: SQLite with synchronous=FULL, a thread an attempt, observers aside. A chain
has as many steps on its critical path as there are; a wide run has one, and the limit of steps at once.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.figures import Figure, Limit
from bench.trivial import KIND, TABLE
from orchestrator.bootstrap.app import plan_from_text, plan_to_text
from orchestrator.core.events import GroupAdopted, RunCreated
from orchestrator.core.inputs import Authorise, DriverStarted
from orchestrator.core.model import Host, Operation, Site, Stage
from orchestrator.core.plan import Gate, GroupMove, Parts, Plan, PlanLimits, Retry, Role, Step
from orchestrator.core.states import RunState
from orchestrator.engine.clock import SystemClock, now
from orchestrator.engine.dispatch import Surroundings, ThreadDispatcher
from orchestrator.engine.journal import Journal
from orchestrator.engine.loop import come_up, drive
from orchestrator.engine.observe import Aside
from orchestrator.engine.resources import SharedResources
from orchestrator.planning.bind import TableCatalog
from orchestrator.ports import HostConnection
from orchestrator.stores.sqlite import SqliteStore

SECTION = "steps"
STEPS, STEPS_QUICK = 400, 12
TIMES, TIMES_QUICK = 5, 1
MS_PER_STEP_MAX = 2.0
STEP_TIMEOUT_MS = 10_000


class Nothing:
    """No secret and no host: steps that do nothing need none."""

    def value(self, reference: str) -> str:
        raise KeyError(reference)

    def connect(self, host: Host) -> HostConnection:
        raise KeyError(host.name)


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    count, times = (STEPS_QUICK, TIMES_QUICK) if quick else (STEPS, TIMES)
    figures = []
    for shape, plan in (("chain", _plan(count, chained=True)), ("side by side", _plan(count, chained=False))):
        spent = [_drive(folder / f"{shape}-{number}", plan) * 1000 / count for number in range(times)]
        figures.append(
            Figure(
                SECTION,
                f"{count} steps that do nothing, {shape}: each",
                "ms",
                tuple(spent),
                limit=Limit() if quick else Limit(value_max=MS_PER_STEP_MAX),
                note=f"{1000 / sorted(spent)[len(spent) // 2]:.0f} steps/s",
            )
        )
    return figures


def _plan(count: int, *, chained: bool) -> Plan:
    catalog, parts = TableCatalog(TABLE), Parts(sites={n: Site(n) for n in ("home", "embassy")})
    steps: dict[str, Step] = {}
    for number in range(count):
        bound = catalog.bind(KIND, {"number": number}, parts)
        unit = f"service-{number // 20}/part"
        before = (f"service-{(number - 1) // 20}/part/step-{number - 1}",) if chained and number else ()
        step = Step(
            f"{unit}/step-{number}", unit, "bench", "", Stage.START, Role.ORDINARY, "nothing", "to be timed",
            bound, STEP_TIMEOUT_MS, before, (Gate.AUTHORISED,), up=False, best_effort=False, retry=Retry(),
        )  # fmt: skip
        steps[step.id] = step
    group = GroupMove("bench", (), "home", 1, 2, (), {})
    digest = ("c" if chained else "d") * 64
    return Plan(
        Operation.FAILOVER, "home", "embassy", {"bench": group}, {}, steps, parts, PlanLimits(), digest
    )


def _drive(folder: Path, plan: Plan) -> float:
    """Seconds from the order to the end of a run, driven as a command drives it."""
    clock = SystemClock()
    seen: list[int] = []
    observer = Aside(lambda run, events: seen.append(len(events)))
    store = SqliteStore(folder / "journal.db")
    journal = Journal(store, plan_from_text, observer)
    journal.append_group(
        "bench", lambda state: GroupAdopted(now(clock), "bench", "home", 1, "protected", "bench", {})
    )
    created = RunCreated(now(clock), "failover-bnch", "failover", plan.digest, "bench", "here", "")
    tracked = journal.create(plan, plan_to_text(plan), created)
    around = Surroundings(SharedResources(), Nothing(), Nothing(), clock)
    dispatcher = ThreadDispatcher(TableCatalog(TABLE), around)
    come_up(journal, tracked, DriverStarted(now(clock), "bench", os.getpid(), "", "here", "0"))
    dispatcher.warm(tracked.run)()
    drive(journal, tracked, dispatcher, clock)  # nothing to look at before the order
    started = time.perf_counter()
    journal.submit(tracked, Authorise(now(clock), "bench", plan.digest, 0, "bench"))
    run = drive(journal, tracked, dispatcher, clock)
    seconds = time.perf_counter() - started
    observer.close()
    store.close()
    if run.state is not RunState.DONE:
        raise AssertionError(f"the run ended as {run.state}: {run.held_causes}")
    return seconds
