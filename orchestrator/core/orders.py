"""Decides what must be going on now, from the state of a run alone; must never be stored."""

from __future__ import annotations

from orchestrator.core.effects import Cancel, Check, Effect, Execute, UndoStep, WakeAt
from orchestrator.core.guards import budget_end_ns, gives_way_until_ns
from orchestrator.core.run import Run
from orchestrator.core.states import RunState, StepState

FENCE_BUDGET_TIMER = "fence-budget"
GIVE_WAY_TIMER = "give-way"


def orders(run: Run) -> list[Effect]:
    """Every effect that a run in this state wants, in a fixed order. Equal orders are one order.

    A timer that is over is not ordered again: its moment has passed in the log (``run.last``).
    """
    if run.is_final:
        return []
    wanted: list[Effect] = []
    is_aborting = run.state is RunState.ABORTING
    may_start = run.state in (RunState.PREFLIGHT, RunState.RUNNING)
    for name in sorted(run.active):
        unit = run.units[name]
        for step in unit.busy:
            state = unit.steps[step]
            match state.state:
                case StepState.RUNNING:
                    wanted.append(Execute(step, state.attempt))
                    if is_aborting:
                        wanted.append(Cancel(step, state.attempt))
                case StepState.UNKNOWN | StepState.MARKING:
                    wanted.append(Check(step, state.attempt, state.number, state.due_mono_ns))
                case StepState.UNDOING:
                    wanted.append(UndoStep(step, state.number))
                case StepState.BACKOFF if may_start and state.due_mono_ns > run.last.mono_ns:
                    wanted.append(WakeAt(f"retry {step}", state.due_mono_ns))
                case _:
                    pass  # waits for people, or for what is not a matter of time
    end = budget_end_ns(run)
    if run.fences_busy and end is not None and run.state is RunState.RUNNING and end > run.last.mono_ns:
        wanted.append(WakeAt(FENCE_BUDGET_TIMER, end))
    gives_way_until = gives_way_until_ns(run, run.last)
    if gives_way_until is not None and run.state is RunState.RUNNING:
        wanted.append(WakeAt(GIVE_WAY_TIMER, gives_way_until))
    return wanted
