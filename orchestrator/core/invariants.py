"""Decides what must be true of every run, after every decision, whatever decided it.

Each predicate has a name that tests and mutants refer to. The cheap ones look only at what a
decision changed and are asked in production too: a broken one stops the run before anything is
appended, with its state saved. The deep ones walk the whole run (tests, simulator).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from orchestrator.core import events, guards
from orchestrator.core.events import RunEvent
from orchestrator.core.fold import counts_as_met, has_ended
from orchestrator.core.plan import CANNOT_BE_SKIPPED, Gate, Role
from orchestrator.core.run import Run
from orchestrator.core.states import BUSY, RunState, StepState


def check(before: Run, after: Run, new: Sequence[RunEvent], *, is_deep: bool = False) -> list[str]:
    """Names and texts of the broken invariants; [] = all hold."""
    broken = [text for rule in CHEAP.values() for text in rule(before, after, new)]
    if is_deep:
        broken += [text for rule in DEEP.values() for text in rule(after)]
    return broken


def no_start_without_needs(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A step starts only when everything it needs is met."""
    out = []
    for event in new:
        if isinstance(event, events.StepStarted):
            for need in after.plan.steps[event.step].needs:
                if not counts_as_met(after.plan.steps[need], after.step(need).state):
                    out.append(f"no-start-without-needs: {event.step} started before {need} was met")
    return out


def no_start_before_authorisation(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """Nothing that changes anything starts before people confirmed."""
    return [
        f"no-start-before-authorisation: {event.step}"
        for event in new
        if isinstance(event, events.StepStarted)
        and after.authorised is None
        and after.plan.steps[event.step].action.mutates
    ]


def no_start_while_stopped(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """Paused, held, aborting and finished runs start nothing."""
    stopped = {RunState.PAUSED, RunState.ABORTING, RunState.DONE, RunState.ABORTED, RunState.PARTIAL}
    return [
        f"no-start-while-stopped: {event.step} started in a run that is {before.state}"
        for event in new
        if isinstance(event, events.StepStarted) and before.state in stopped
    ]


def no_promote_without_fence(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A promotion starts only with a valid proof for every old member, in the same decision."""
    out = []
    for event in new:
        if isinstance(event, events.StepStarted):
            step = after.plan.steps[event.step]
            if step.role is Role.PROMOTE:
                answer = guards.fenced(after, step, event.at)
                if not isinstance(answer, guards.Open):
                    out.append(f"no-promote-without-fence: {step.id}")
    return out


def no_promote_above_accepted_loss(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A promotion starts only with a stated loss that people accepted."""
    out = []
    for event in new:
        if isinstance(event, events.StepStarted):
            step = after.plan.steps[event.step]
            if step.role is Role.PROMOTE and Gate.LOSS_ACCEPTED in step.gates:
                stated = after.losses.get(step.unit)
                free = stated is not None and stated.milliseconds == 0
                if stated is None or (not free and after.accepted_loss_ms is None):
                    out.append(f"no-promote-above-accepted-loss: {step.id}")
    return out


def nothing_opens_before_epoch(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """Nothing opens to clients before the group's epoch is committed."""
    out = []
    for event in new:
        if isinstance(event, events.StepStarted):
            step = after.plan.steps[event.step]
            if Gate.GRANTED in step.gates and not isinstance(
                guards.granted(after, step, event.at), guards.Open
            ):
                out.append(f"nothing-opens-before-epoch: {step.id}")
    return out


def one_attempt_at_a_time(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A new attempt never starts while the one before is running or unknown."""
    out = []
    state = {
        step: before.step(step).state for e in new if isinstance(e, events.StepStarted) for step in (e.step,)
    }
    for event in new:
        if isinstance(
            event, events.StepResolved | events.StepReopened | events.StepFailed | events.StepRetried
        ):
            state[event.step] = StepState.PENDING
        if isinstance(event, events.StepStarted):
            if state.get(event.step) in (StepState.RUNNING, StepState.UNKNOWN):
                out.append(f"one-attempt-at-a-time: {event.step}")
            if event.attempt != before.step(event.step).attempt + 1:
                out.append(f"one-attempt-at-a-time: {event.step} skipped an attempt number")
    return out


def gates_are_never_skipped(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """Neither skip nor mark-done satisfies a fence, a data check, or a step of the promotion."""
    return [
        f"gates-are-never-skipped: {event.step}"
        for event in new
        if isinstance(event, events.StepSkipped | events.StepMarkAsked)
        and after.plan.steps[event.step].role in CANNOT_BE_SKIPPED
    ]


def done_means_ended(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A finished run has no step whose outcome is unknown."""
    if not any(isinstance(event, events.RunFinished) for event in new):
        return []
    open_states = {StepState.RUNNING, StepState.UNKNOWN, StepState.MARKING, StepState.UNDOING}
    return [
        f"done-means-ended: {step} is {state.state}"
        for unit in after.units.values()
        for step, state in unit.steps.items()
        if state.state in open_states
    ]


CHEAP: Mapping[str, Callable[[Run, Run, Sequence[RunEvent]], list[str]]] = {
    "no-start-without-needs": no_start_without_needs,
    "no-start-before-authorisation": no_start_before_authorisation,
    "no-start-while-stopped": no_start_while_stopped,
    "no-promote-without-fence": no_promote_without_fence,
    "no-promote-above-accepted-loss": no_promote_above_accepted_loss,
    "nothing-opens-before-epoch": nothing_opens_before_epoch,
    "one-attempt-at-a-time": one_attempt_at_a_time,
    "gates-are-never-skipped": gates_are_never_skipped,
    "done-means-ended": done_means_ended,
}


def counters_are_true(run: Run) -> list[str]:
    """The counters and lists that evolve keeps equal what a walk over the steps finds."""

    out = []
    unfinished = preflight = 0
    for name, unit in run.units.items():
        for step_id, state in unit.steps.items():
            step = run.plan.steps[step_id]
            unmet = sum(not counts_as_met(run.plan.steps[n], run.step(n).state) for n in step.needs)
            if unit.unmet[step_id] != unmet:
                out.append(
                    f"counters-are-true: {step_id} counts {unit.unmet[step_id]} unmet needs, has {unmet}"
                )
            if (step_id in unit.ready) != (state.state is StepState.PENDING and unmet == 0):
                out.append(f"counters-are-true: {step_id} is {state.state} and listed ready wrongly")
            if (step_id in unit.busy) != (state.state in BUSY):
                out.append(f"counters-are-true: {step_id} is {state.state} and listed busy wrongly")
            unfinished += not has_ended(step, state.state)
            preflight += step_id in run.index.preflight_set and not has_ended(step, state.state)
        if (name in run.active) != bool(unit.ready or unit.busy):
            out.append(f"counters-are-true: unit {name} is listed active wrongly")
    if (unfinished, preflight) != (run.unfinished, run.preflight_left):
        out.append(f"counters-are-true: {run.unfinished} unfinished counted, {unfinished} found")
    return out


def held_says_why(run: Run) -> list[str]:
    """A held run names a cause and a command."""
    if run.state is RunState.HELD and not (run.held_causes and run.held_choices):
        return ["held-says-why: no cause or no choice"]
    return []


DEEP: Mapping[str, Callable[[Run], list[str]]] = {
    "counters-are-true": counters_are_true,
    "held-says-why": held_says_why,
}
