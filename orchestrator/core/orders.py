"""Decides what must be going on now, from the state of a run alone; must never be stored."""

from __future__ import annotations

from orchestrator.core.effects import Cancel, Check, Effect, Execute, UndoStep, WakeAt
from orchestrator.core.guards import budget_end_ns
from orchestrator.core.run import Run
from orchestrator.core.states import RunState, StepState

FENCE_BUDGET_TIMER = "fence-budget"


def orders(run: Run) -> list[Effect]:
    """Every effect that a run in this state wants, in a fixed order. Equal orders are one order."""
    if run.is_final:
        return []
    wanted: list[Effect] = []
    fence_busy = False
    fences = frozenset(run.index.fences)
    for name in sorted(run.active):
        unit = run.units[name]
        for step in unit.busy:
            state = unit.steps[step]
            if state.state is StepState.RUNNING:
                wanted.append(Execute(step, state.attempt))
                if run.state is RunState.ABORTING:
                    wanted.append(Cancel(step, state.attempt))
            elif state.state in (StepState.UNKNOWN, StepState.MARKING):
                wanted.append(Check(step, state.attempt, state.number, state.due_mono_ns))
            elif state.state is StepState.BACKOFF and run.state is not RunState.ABORTING:
                wanted.append(WakeAt(f"retry {step}", state.due_mono_ns))
            elif state.state is StepState.UNDOING:
                wanted.append(UndoStep(step, state.number))
            fence_busy = fence_busy or step in fences
    end = budget_end_ns(run)
    if fence_busy and end is not None and run.state is RunState.RUNNING and end > run.last.mono_ns:
        wanted.append(WakeAt(FENCE_BUDGET_TIMER, end))
    return wanted
