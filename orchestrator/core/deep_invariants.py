"""Decides what must be true of a whole run at any moment: walks over every step, for tests and the simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.core.effects import Check, Execute, UndoStep
from orchestrator.core.orders import orders
from orchestrator.core.plan import Role
from orchestrator.core.run import Run, counts_as_met, has_ended
from orchestrator.core.states import BUSY, TAKES_ROOM, RunState, StepState

S = StepState
COUNTERS = ("unfinished", "preflight_left", "fences_busy", "fences_pending", "in_flight", "urgent_in_flight")


def counters_are_true(run: Run) -> list[str]:
    """The counters and lists that evolve keeps equal what a walk over the steps finds."""
    out = []
    found = dict.fromkeys(COUNTERS, 0)
    for name, unit in run.units.items():
        for step_id, state in unit.steps.items():
            step = run.plan.steps[step_id]
            unmet = sum(
                1 for need in step.needs if not counts_as_met(run.plan.steps[need], run.step(need).state)
            )
            if unmet != unit.unmet[step_id]:
                out.append(
                    f"counters-are-true: {step_id} counts {unit.unmet[step_id]} unmet needs, has {unmet}"
                )
            if (step_id in unit.ready) != (state.state is S.PENDING and unmet == 0):
                out.append(f"counters-are-true: {step_id} is {state.state} and listed ready wrongly")
            if (step_id in unit.busy) != (state.state in BUSY):
                out.append(f"counters-are-true: {step_id} is {state.state} and listed busy wrongly")
            is_fence = step.role is Role.FENCE
            found["unfinished"] += not has_ended(step, state.state)
            found["preflight_left"] += step_id in run.index.preflight_set and not has_ended(step, state.state)
            found["fences_busy"] += is_fence and state.state in BUSY
            found["fences_pending"] += is_fence and state.state is S.PENDING
            found["in_flight"] += state.state in TAKES_ROOM
            found["urgent_in_flight"] += state.state in TAKES_ROOM and step_id in run.index.urgent
        if (name in run.active) != bool(unit.ready or unit.busy):
            out.append(f"counters-are-true: unit {name} is listed active wrongly")
    out += [
        f"counters-are-true: {name} is {getattr(run, name)}, {value} found"
        for name, value in found.items()
        if getattr(run, name) != value
    ]
    return out


def held_says_why(run: Run) -> list[str]:
    """A held run names a cause and a command."""
    if run.state is RunState.HELD and not (run.held_causes and run.held_choices):
        return ["held-says-why: no cause or no choice"]
    return []


def orders_follow_states(run: Run) -> list[str]:
    """What runs is executed, what is unknown is only looked at, what is being undone is undone."""
    wanted = {Execute: S.RUNNING, UndoStep: S.UNDOING}
    given = {
        order.step: type(order) for order in orders(run) if isinstance(order, Execute | Check | UndoStep)
    }
    out = []
    for unit in run.units.values():
        for step, state in unit.steps.items():
            right = {s: kind for kind, s in wanted.items()} | {S.UNKNOWN: Check, S.MARKING: Check}
            if not run.is_final and given.get(step) is not right.get(state.state):
                out.append(f"orders-follow-states: {step} is {state.state}, ordered: {given.get(step)}")
    return out


DEEP: Mapping[str, Callable[[Run], list[str]]] = {
    "counters-are-true": counters_are_true,
    "held-says-why": held_says_why,
    "orders-follow-states": orders_follow_states,
}
