"""Decides when a run as a whole changes: ready, held, going on, undone, finished.

A failed step blocks what needs it and nothing else: the run goes on with other services and is held
only when nothing is left that can run or end without people.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core import events, guards
from orchestrator.core.decision import Draft
from orchestrator.core.fold import has_ended, promoted
from orchestrator.core.inputs import At
from orchestrator.core.model import Stage
from orchestrator.core.plan import CANNOT_BE_SKIPPED, Role, Step, Undo
from orchestrator.core.run import Run, satisfied, with_run
from orchestrator.core.states import RunState, StepState

UNDOABLE = frozenset({StepState.SUCCEEDED, StepState.MARKED, StepState.UNDECIDED})
IN_FLIGHT = frozenset({StepState.RUNNING, StepState.UNKNOWN, StepState.MARKING})


@dataclass(frozen=True, slots=True)
class Standstill:
    """Why nothing can go on: one cause a line, the steps they speak of, the exact choices."""

    causes: tuple[str, ...]
    steps: tuple[str, ...]
    choices: tuple[str, ...]


def settle(draft: Draft) -> None:
    """Emit what the run as a whole now is; nothing if it merely goes on."""
    run = draft.run
    if run.state is RunState.HELD:
        still = standstill(_as_before(run), draft.at)
        if still is not None:
            if still != Standstill(run.held_causes, run.held_steps, run.held_choices):
                draft.emit(events.RunHeld(draft.at, still.causes, still.steps, still.choices))
            return
        draft.emit(events.RunGoesOn(draft.at))
        run = draft.run
    match run.state:
        case RunState.PREFLIGHT:
            if run.preflight_left == 0:
                draft.emit(events.RunReady(draft.at))
            else:
                _hold_if_still(draft)
        case RunState.RUNNING:
            if run.unfinished == 0:
                draft.emit(events.RunFinished(draft.at, "done", _debts(run), _exposures(run)))
            else:
                _hold_if_still(draft)
        case RunState.ABORTING:
            _settle_abort(draft)
        case _:
            return


def _as_before(run: Run) -> Run:
    return with_run(run, state=run.before_hold)


def _hold_if_still(draft: Draft) -> None:
    still = standstill(draft.run, draft.at)
    if still is not None:
        draft.emit(events.RunHeld(draft.at, still.causes, still.steps, still.choices))


def standstill(run: Run, at: At) -> Standstill | None:
    """None while anything can run or end without people; else why not."""
    if run.state is RunState.ABORTING:
        return _abort_standstill(run)
    if run.state is RunState.RUNNING and run.unfinished == 0:
        return None
    if run.state is RunState.PREFLIGHT and run.preflight_left == 0:
        return None
    causes: list[str] = []
    steps: list[str] = []
    choices: list[str] = []
    over = guards.budget_over(run, at)
    late_fences = False
    for name in sorted(run.active):
        unit = run.units[name]
        for step_id in unit.busy:
            state = unit.steps[step_id].state
            late_fence = over and run.plan.steps[step_id].role is Role.FENCE
            if state is StepState.WAITING:
                causes.append(f"{step_id} waits for people: {run.plan.steps[step_id].title}")
                steps.append(step_id)
                choices.append(f"continuity confirm {run.id} {step_id} --by NAME --text TEXT")
            elif not late_fence:
                return None
            late_fences = late_fences or late_fence
        for step_id in unit.ready:
            step = run.plan.steps[step_id]
            if run.authorised is None and step.stage is not Stage.PREFLIGHT:
                continue
            answer = guards.ask(run, step, at)
            if isinstance(answer, guards.Open | guards.Renew):
                return None
            if isinstance(answer, guards.Blocked):
                causes.append(answer.cause)
                steps.append(step_id)
                choices.extend(answer.choices)
    _add_failed(run, causes, steps, choices)
    if not causes:
        if late_fences:
            return None  # only fences are left: they must have ended before the run does
        causes.append("nothing can start and nothing is running")
        choices.append(f"continuity abort {run.id} --reason TEXT")
    return Standstill(tuple(causes), tuple(steps), tuple(dict.fromkeys(choices)))


def _add_failed(run: Run, causes: list[str], steps: list[str], choices: list[str]) -> None:
    for unit in run.units.values():
        for step_id, state in unit.steps.items():
            step = run.plan.steps[step_id]
            if state.state not in (StepState.FAILED, StepState.UNDECIDED, StepState.UNDO_FAILED):
                continue
            if has_ended(step, state.state):
                continue
            word = "failed" if state.state is StepState.FAILED else state.state.value
            causes.append(f"{step_id} {word}: {state.message or state.reason}")
            steps.append(step_id)
            choices.extend(step_choices(run, step, state.state))


def step_choices(run: Run, step: Step, state: StepState) -> list[str]:
    """The exact commands that can clear a step which holds the run."""
    choices = [f"continuity retry {run.id} {step.id}"]
    if step.role is Role.VERIFY and state is StepState.FAILED:
        choices.append(f"continuity accept {run.id} {step.id} --by NAME --reason TEXT")
    if step.role not in CANNOT_BE_SKIPPED and state is StepState.FAILED:
        choices.append(f"continuity skip {run.id} {step.id} --reason TEXT")
    if step.role not in CANNOT_BE_SKIPPED and state is StepState.UNDECIDED:
        choices.append(f"continuity mark-done {run.id} {step.id} --reason TEXT")
    if not promoted(run):
        choices.append(f"continuity abort {run.id} --reason TEXT")
    return choices


def _debts(run: Run) -> tuple[str, ...]:
    """Best-effort steps that ended without their effect: owed, and listed until done."""
    return tuple(
        step_id
        for step_id, step in run.plan.steps.items()
        if step.best_effort
        and step.role is not Role.FENCE
        and run.step(step_id).state in (StepState.FAILED, StepState.UNDECIDED)
    )


def _exposures(run: Run) -> tuple[str, ...]:
    """Fences that never proved anything: named, because their site may still act."""
    return tuple(
        step_id
        for step_id in run.index.fences
        if run.step(step_id).state in (StepState.FAILED, StepState.UNDECIDED)
    )


# --- abort ------------------------------------------------------------------------------------


def moved_groups(run: Run) -> tuple[str, ...]:
    """Groups whose steps have all ended as planned: an abort leaves them where they are."""
    return tuple(
        name
        for name in run.plan.groups
        if all(has_ended(run.plan.steps[s], run.step(s).state) for s in run.index.by_group[name])
        and satisfied(run, run.index.epochs.get(name, ()))
    )


def undo_what_may_be(draft: Draft) -> None:
    """In an aborting run: undo, in reverse order, what was done; only once nothing is in flight."""
    run = draft.run
    if run.state is not RunState.ABORTING or _in_flight(run):
        return
    kept = set(moved_groups(run))
    for step_id in reversed(run.index.order):
        step, state = run.plan.steps[step_id], draft.run.step(step_id)
        if step.group in kept or step.action.undo is not Undo.UNDO or state.state not in UNDOABLE:
            continue
        if not any(_stands_in_the_way(draft.run, later) for later in run.index.dependents[step_id]):
            draft.emit(events.StepUndoStarted(draft.at, step_id, state.number + 1))


def _stands_in_the_way(run: Run, step_id: str) -> bool:
    step, state = run.plan.steps[step_id], run.step(step_id).state
    if state in (StepState.UNDOING, StepState.UNDO_FAILED):
        return True
    return step.action.undo is Undo.UNDO and state in UNDOABLE


def _in_flight(run: Run) -> bool:
    return any(run.units[n].steps[s].state in IN_FLIGHT for n in run.active for s in run.units[n].busy)


def _left_to_undo(run: Run) -> bool:
    kept = set(moved_groups(run))
    return any(
        run.step(step_id).state in UNDOABLE
        for step_id, step in run.plan.steps.items()
        if step.group not in kept and step.action.undo is Undo.UNDO
    )


def _abort_standstill(run: Run) -> Standstill | None:
    failed = [
        (step_id, state)
        for unit in run.units.values()
        for step_id, state in unit.steps.items()
        if state.state is StepState.UNDO_FAILED
    ]
    undoing = any(
        run.units[n].steps[s].state is StepState.UNDOING for n in run.active for s in run.units[n].busy
    )
    if _in_flight(run) or undoing or (not failed and _left_to_undo(run)):
        return None
    leave = f"continuity abort {run.id} --leave-closed --reason TEXT"
    if failed and not run.leave_closed:
        return Standstill(
            tuple(f"{step_id} could not be undone: {state.message}" for step_id, state in failed),
            tuple(step_id for step_id, _ in failed),
            (*(f"continuity retry {run.id} {step_id}" for step_id, _ in failed), leave),
        )
    closed = [s for s in _closed_for_good(run) if not run.leave_closed]
    if closed:
        return Standstill(
            tuple(f"{step_id} has no undo: its site is not proven to write" for step_id in closed),
            tuple(closed),
            (leave,),
        )
    return None


def _closed_for_good(run: Run) -> list[str]:
    """Fences that took effect and cannot be undone by us: their site may be left without writer."""
    kept = set(moved_groups(run))
    return [
        step_id
        for step_id in run.index.fences
        if run.plan.steps[step_id].group not in kept
        and run.step(step_id).state in (StepState.SUCCEEDED, StepState.MARKED)
        and run.plan.steps[step_id].action.undo is not Undo.UNDO
    ]


def _settle_abort(draft: Draft) -> None:
    still = _abort_standstill(draft.run)
    if still is not None:
        draft.emit(events.RunHeld(draft.at, still.causes, still.steps, still.choices))
        return
    run = draft.run
    undoing = any(
        run.units[n].steps[s].state is StepState.UNDOING for n in run.active for s in run.units[n].busy
    )
    if _in_flight(run) or undoing or (_left_to_undo(run) and not _only_failed_undo(run)):
        return
    outcome = "partial" if moved_groups(run) else "aborted"
    draft.emit(events.RunFinished(draft.at, outcome, _debts(run), _exposures(run)))


def _only_failed_undo(run: Run) -> bool:
    """People said leave-closed while an undo failed: what it stands in the way of stays as it is."""
    return run.leave_closed and any(
        state.state is StepState.UNDO_FAILED for unit in run.units.values() for state in unit.steps.values()
    )
