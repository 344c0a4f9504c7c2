"""Decides what a step is expected to take: p90 of its last 20 successes in this log, else unknown."""

from __future__ import annotations

from orchestrator.core import events
from orchestrator.core.plan import Plan
from orchestrator.engine.journal import RUN, Journal
from orchestrator.errors import NewerPlanError

SUCCESSES_KEPT = 20
RUNS_READ_MAX = 50


def expected_ms(journal: Journal | None, plan: Plan) -> dict[str, int | None]:
    """Step id → milliseconds, None where this log has never seen it succeed on the same way."""
    seen: dict[str, list[int]] = {}
    if journal is not None:
        for run in journal.runs()[-RUNS_READ_MAX:]:
            _read(journal, run, plan, seen)
    return {step: _p90(seen.get(step, [])[-SUCCESSES_KEPT:]) for step in plan.steps}


def _read(journal: Journal, run: str, plan: Plan, seen: dict[str, list[int]]) -> None:
    records = journal.store.read(RUN + run)
    created = records[0].event
    if not isinstance(created, events.RunCreated):
        return
    try:
        other = journal.plan_of(created)
    except NewerPlanError:
        return  # what this program cannot read tells it no durations
    if (other.source, other.target) != (plan.source, plan.target):
        return
    started: dict[tuple[str, int], int] = {}
    for record in records:
        event = record.event
        if isinstance(event, events.DriverCameUp):
            started.clear()  # its clock may have begun anew, and what outlived a driver took longer than it takes
        elif isinstance(event, events.StepStarted):
            started[event.step, event.attempt] = event.at.mono_ns
        elif isinstance(event, events.StepSucceeded):
            begin = started.get((event.step, event.attempt))
            if begin is not None:
                seen.setdefault(event.step, []).append(max(1, (event.at.mono_ns - begin) // 1_000_000))


def _p90(values: list[int]) -> int | None:
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-len(ordered) * 9 // 10) - 1)]
