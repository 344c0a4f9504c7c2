"""Decides when a run as a whole changes: ready, held, going on, finished.

A failed step blocks what needs it and nothing else: the run goes on with other services and is held
only when nothing is left that can run or end without people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

from orchestrator.core import abort, events, guards
from orchestrator.core.abort import Standstill, abort_standstill
from orchestrator.core.claims import CONTRADICTIONS
from orchestrator.core.decision import Draft
from orchestrator.core.groups import adopt_command
from orchestrator.core.inputs import At
from orchestrator.core.model import Stage
from orchestrator.core.plan import CANNOT_BE_SKIPPED, Role, Step, asked
from orchestrator.core.run import Run, UnitRun, has_ended, kept_groups, moved_groups, with_run
from orchestrator.core.states import RunState, StepState


def settle(draft: Draft) -> None:
    """Emit what the run as a whole now is; nothing if it merely goes on."""
    run = draft.run
    if run.state is RunState.HELD:
        still = standstill(with_run(run, state=run.before_hold), draft.at)
        if still is not None:
            if still != Standstill(run.held_causes, run.held_steps, run.held_choices):
                draft.emit(events.RunHeld(draft.at, still.causes, still.steps, still.choices))
            return
        draft.emit(events.RunGoesOn(draft.at))
        run = draft.run
    match run.state:
        case RunState.PREFLIGHT if run.preflight_left == 0:
            draft.emit(events.RunReady(draft.at))
        case RunState.RUNNING if run.unfinished == 0:
            draft.emit(events.RunFinished(draft.at, "done", debts(run), exposures(run)))
        case RunState.PREFLIGHT | RunState.RUNNING:
            _hold_if_still(draft)
        case RunState.ABORTING:
            _hold_if_still(draft)
            if draft.run.state is RunState.ABORTING and abort.may_end(run):
                left = tuple(dict.fromkeys((*_exposures_of_moved(run), *abort.left_as_it_is(run))))
                draft.emit(events.RunFinished(draft.at, _outcome(run), debts(run), left))
        case (
            RunState.READY
            | RunState.PAUSED
            | RunState.HELD
            | RunState.DONE
            | RunState.PARTIAL
            | RunState.ABORTED
        ):
            return
        case _:
            assert_never(run.state)


def _outcome(run: Run) -> str:
    """How an aborted run ends: by what became of its groups."""
    if not kept_groups(run):
        return "aborted"
    return "done" if len(moved_groups(run)) == len(run.plan.groups) else "partial"


def _hold_if_still(draft: Draft) -> None:
    still = standstill(draft.run, draft.at)
    if still is not None:
        draft.emit(events.RunHeld(draft.at, still.causes, still.steps, still.choices))


# --- standing still ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Causes:
    """What holds a run, as it is found."""

    run: Run
    causes: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    has_late_fences: bool = False

    def add(self, cause: str, step: str, choices: tuple[str, ...]) -> None:
        self.causes.append(cause)
        self.steps.append(step)
        self.choices.extend(choices)


def standstill(run: Run, at: At) -> Standstill | None:
    """None while anything can run or end without people; else why not."""
    if run.state is RunState.ABORTING:
        return abort_standstill(run)
    if run.state is RunState.RUNNING and run.unfinished == 0:
        return None
    if run.state is RunState.PREFLIGHT and run.preflight_left == 0:
        return None
    over = guards.budget_over(run, at)
    if run.in_flight and not over:
        return None
    found = _Causes(run)
    for name in sorted(run.active):
        unit = run.units[name]
        if _has_business(found, unit, at, over) or _can_start(found, unit, at):
            return None
    _add_failed(found)
    if not found.causes:
        if found.has_late_fences:
            return None  # only fences are left: they must have ended before the run does
        what = f"; {'; '.join(found.waits)}" if found.waits else ""
        found.add(f"nothing can start and nothing is running{what}", "", ())
    choices = dict.fromkeys(_choices(found))
    choices.update(dict.fromkeys(abort.choice(run)))
    return Standstill(
        tuple(found.causes),
        tuple(step for step in found.steps if step),
        tuple(choices or (f"continuity status {run.id}",)),
    )


def _choices(found: _Causes) -> Iterator[str]:
    """Each command once: one limit that is enough for every unit; how the run is ended comes last."""
    run, enough = found.run, ""
    for choice in found.choices:
        if choice.startswith(guards.accept_loss(run)):
            enough = enough or guards.enough(run)
            yield f"{guards.accept_loss(run)} --limit {enough} --by NAME --reason TEXT"
        elif not choice.startswith(f"continuity abort {run.id}"):
            yield choice


def adopts(run: Run) -> tuple[str, ...]:
    """Where evidence stands against the log, no step of this run helps: the log is set right by the evidence, and
    that only once this run has ended, because its own claim on the group stands in the way."""
    against = (
        adopt_command(step.group)
        for name, step in run.plan.steps.items()
        if run.step(name).state in (StepState.FAILED, StepState.UNDECIDED) and _is_against(run, name)
    )
    return tuple(dict.fromkeys(against))


def _is_against(run: Run, step: str) -> bool:
    return bool(run.step(step).evidence.get(CONTRADICTIONS))


def _has_business(found: _Causes, unit: UnitRun, at: At, over: bool) -> bool:
    """Is something of this unit going on that will come back by itself? Notes what waits for people.

    A fence that outlives its budget goes on too, but nothing waits for it any more."""
    run = found.run
    for step_id in unit.busy:
        step, state = run.plan.steps[step_id], unit.steps[step_id]
        if state.state is StepState.WAITING:
            confirm = f"continuity confirm {run.id} {step_id} --by NAME --text TEXT"
            found.add(f"{step_id} waits for people: {asked(step)}", step_id, (confirm,))
        elif state.state is StepState.BACKOFF and is_due(state.due_mono_ns, at):
            continue  # to be judged like a step that is ready
        elif over and step.role is Role.FENCE:
            found.has_late_fences = True
        else:
            return True
    return False


def is_due(due_mono_ns: int, at: At) -> bool:
    return due_mono_ns <= at.mono_ns


def candidates(unit: UnitRun, at: At) -> list[str]:
    """Steps of a unit that could start, if their gates are open: ready, or due for another try."""
    if not unit.busy:
        return list(unit.ready)
    backing_off = [s for s in unit.busy if unit.steps[s].state is StepState.BACKOFF]
    return [*unit.ready, *(s for s in backing_off if is_due(unit.steps[s].due_mono_ns, at))]


def may_run_now(run: Run, step: Step) -> bool:
    """Before people confirmed, only preflight runs."""
    return run.authorised is not None or step.stage is Stage.PREFLIGHT


def _can_start(found: _Causes, unit: UnitRun, at: At) -> bool:
    """Can a step of this unit start, or be made to? Notes what stands against it."""
    run = found.run
    for step_id in candidates(unit, at):
        step = run.plan.steps[step_id]
        if not may_run_now(run, step):
            continue
        answer = guards.ask(run, step, at)
        if isinstance(answer, guards.Open | guards.Renew):
            return True
        if isinstance(answer, guards.Blocked):
            found.add(answer.cause, step_id, answer.choices)
        else:
            found.waits.append(f"{step_id} waits for {answer.what}")
    return False


def _add_failed(found: _Causes) -> None:
    run = found.run
    for unit in run.units.values():
        for step_id, state in unit.steps.items():
            if state.state not in (StepState.FAILED, StepState.UNDECIDED):
                continue
            step = run.plan.steps[step_id]
            if not has_ended(step, state.state):
                why = state.message or state.reason
                if _is_against(run, step_id):
                    why += f"; once this run has ended: {adopt_command(step.group)}"
                found.add(f"{step_id} {state.state}: {why}", step_id, _own_choices(run, step, state.state))


def step_choices(run: Run, step: Step, state: StepState) -> list[str]:
    """The exact commands that can clear a step which holds the run, or end the run."""
    return [*_own_choices(run, step, state), *abort.choice(run)]


def _own_choices(run: Run, step: Step, state: StepState) -> tuple[str, ...]:
    choices = [f"continuity retry {run.id} {step.id}"]
    if (
        step.role is Role.VERIFY
        and state is StepState.FAILED
        and not guards.is_all_that_bounds_the_loss(run, step)
    ):
        choices.append(f"continuity accept {run.id} {step.id} --by NAME --reason TEXT")
    if step.role not in CANNOT_BE_SKIPPED and state is StepState.FAILED:
        choices.append(f"continuity skip {run.id} {step.id} --reason TEXT")
    if step.role not in CANNOT_BE_SKIPPED and state is StepState.UNDECIDED:
        choices.append(f"continuity mark-done {run.id} {step.id} --reason TEXT")
    return tuple(choices)


# --- what stays open --------------------------------------------------------------------------


def debts(run: Run) -> tuple[str, ...]:
    """Best-effort steps that ended without their effect: owed, and listed until done; and all that is left of a
    group that is promoted, where people end its run as it is. Nothing is owed for a group that was taken back,
    nor what was only to help before the promotion."""
    is_aborting = run.phase is RunState.ABORTING
    kept = frozenset(kept_groups(run) if is_aborting else run.plan.groups)
    left = kept - frozenset(moved_groups(run)) if is_aborting else frozenset()
    return tuple(
        step_id
        for step_id, step in run.plan.steps.items()
        if step.group in kept
        and step.role not in (Role.EVIDENCE, Role.FENCE, Role.FREEZE, Role.DRAIN)
        and (
            (step.best_effort and run.step(step_id).state in guards.ENDED_WITHOUT_PROOF)
            or (step.group in left and not has_ended(step, run.step(step_id).state))
        )
    )


def exposures(run: Run) -> tuple[str, ...]:
    """Fences that have begun and proved nothing yet, or never: named, because their site may still act."""
    return tuple(
        step_id
        for step_id in run.index.fences
        if run.step(step_id).attempt > 0 and run.step(step_id).state is not StepState.SUCCEEDED
    )


def _exposures_of_moved(run: Run) -> tuple[str, ...]:
    kept = frozenset(kept_groups(run))
    return tuple(step for step in exposures(run) if run.plan.steps[step].group in kept)
