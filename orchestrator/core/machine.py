"""Decides what follows from an input: ``advance(run, input) -> Decision``.

The one entry of the core. A driver's input and all that it implies is ONE decision and one
transaction; only driver inputs start steps, verbs merely change what may start. Every (state,
input) has an answer: an event, nothing, or RefusedError with a text that names what is allowed.
Nothing here performs anything; the engine makes events durable first and then carries out
``orders`` (orders.py).

    run = fold(plan, journal.read(run_id))
    decision = advance(run, input)         # pure
    journal.append(decision)               # durable, compare-and-swap; on conflict: read, fold, again
    for effect in orders(decision.run):    # only now
        dispatcher.ensure(effect)
"""

from __future__ import annotations

from typing import assert_never

from orchestrator.core import events, guards, loss
from orchestrator.core.decision import Decision, Draft
from orchestrator.core.inputs import (
    Abort,
    Accept,
    At,
    Authorise,
    Checked,
    Confirm,
    DeclareLost,
    DriverStarted,
    Ended,
    Input,
    MarkDone,
    Pause,
    Proceed,
    Resume,
    Retry,
    Skip,
    UndoEnded,
    Woke,
)
from orchestrator.core.model import Stage
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded, Unknown
from orchestrator.core.plan import Role, Step
from orchestrator.core.run import Run, StepRun
from orchestrator.core.settle import settle, undo_what_may_be
from orchestrator.core.states import RunState, StepState
from orchestrator.core.verbs import decide_verb

MANUAL = "manual.confirm"
CHECK_AGAIN_MS = 50
CHECK_AGAIN_MS_MAX = 1_000
CHECKS_WHILE_RUNNING_MAX = 600


def advance(run: Run, given: Input) -> Decision:
    """Decide what one input means for a run. Raises RefusedError; then nothing has changed."""
    draft = Draft(run, given.at)
    match given:
        case DriverStarted():
            draft.emit(
                events.DriverCameUp(
                    given.at, given.incarnation, given.pid, given.boot, given.machine, given.version
                )
            )
            return draft.decision()
        case Proceed() | Woke():
            pass
        case Ended():
            _ended(draft, given)
        case Checked():
            _checked(draft, given)
        case UndoEnded():
            _undo_ended(draft, given)
        case (
            Authorise()
            | Pause()
            | Resume()
            | Retry()
            | Skip()
            | MarkDone()
            | Confirm()
            | Accept()
            | DeclareLost()
            | Abort()
        ):
            decide_verb(draft, given)
            settle(draft)
            return draft.decision()
        case _:
            assert_never(given)
    if not draft.run.is_final:
        settle(draft)
        start_what_may(draft)
        undo_what_may_be(draft)
        settle(draft)
    return draft.decision()


# --- results ----------------------------------------------------------------------------------


def _is_current(draft: Draft, step: str, attempt: int, what: str, *states: StepState) -> bool:
    """A result counts only for the attempt and the state it belongs to; else it is recorded."""
    state = draft.run.step(step)
    if state.attempt == attempt and state.state in states:
        return True
    draft.emit(events.StaleResult(draft.at, step, attempt, what))
    return False


def _ended(draft: Draft, given: Ended) -> None:
    outcome = given.outcome
    what = type(outcome).__name__.lower()
    if not _is_current(draft, given.step, given.attempt, what, StepState.RUNNING, StepState.UNKNOWN):
        return
    step = draft.run.plan.steps[given.step]
    state = draft.run.step(given.step)
    match outcome:
        case Succeeded():
            draft.emit(events.StepSucceeded(given.at, step.id, given.attempt, outcome.evidence))
            _state_loss(draft, step)
        case Failed():
            delay = _retry_delay_ms(draft.run, step, state, outcome.retryable)
            draft.emit(
                events.StepFailed(given.at, step.id, given.attempt, outcome.message, delay, outcome.evidence)
            )
        case Unknown() if state.state is StepState.RUNNING:
            draft.emit(events.StepUnknown(given.at, step.id, given.attempt, outcome.message))
        case Unknown():
            pass  # it is unknown already: a check is on its way
        case _:
            assert_never(outcome)


def _retry_delay_ms(run: Run, step: Step, state: StepRun, retryable: bool) -> int | None:
    if not retryable or state.tries >= step.retry.attempts or run.state is RunState.ABORTING:
        return None
    return min(step.retry.delay_ms << (state.tries - 1), step.retry.delay_ms_max)


def _checked(draft: Draft, given: Checked) -> None:
    finding = given.finding
    state = draft.run.step(given.step)
    is_mine = state.number == given.number and _is_current(
        draft, given.step, given.attempt, f"check {finding.kind}", StepState.UNKNOWN, StepState.MARKING
    )
    if not is_mine:
        return
    step = draft.run.plan.steps[given.step]
    if state.state is StepState.MARKING:
        contradiction = finding.kind is not FindingKind.DONE
        draft.emit(events.StepMarked(given.at, step.id, finding.kind, finding.reason, contradiction))
        return
    people, again_in_ms = False, 0
    match finding.kind:
        case FindingKind.DONE | FindingKind.NOT_DONE:
            pass
        case FindingKind.RUNNING:
            if given.number >= CHECKS_WHILE_RUNNING_MAX:
                finding = type(finding)(FindingKind.CANNOT_TELL, f"still running: {finding.reason}")
                people = True
            again_in_ms = min(CHECK_AGAIN_MS << min(given.number, 10), CHECK_AGAIN_MS_MAX)
        case FindingKind.CANNOT_TELL:
            people = not step.action.idempotent or draft.run.state is RunState.ABORTING
        case _:
            assert_never(finding.kind)
    draft.emit(
        events.StepResolved(
            given.at,
            step.id,
            given.attempt,
            given.number,
            finding.kind,
            finding.reason,
            people,
            again_in_ms,
            finding.evidence,
        )
    )
    if finding.kind is FindingKind.DONE:
        _state_loss(draft, step)


def _state_loss(draft: Draft, step: Step) -> None:
    """A finished LOSS step states the loss in the same decision."""
    if step.role is Role.LOSS:
        fenced = guards.fenced_at_utc_ns(draft.run, step.unit, step.group)
        draft.emit(loss.state_loss(step.unit, draft.run.step(step.id).evidence, fenced, draft.at))


def _undo_ended(draft: Draft, given: UndoEnded) -> None:
    state = draft.run.step(given.step)
    if state.state is not StepState.UNDOING or state.number != given.number:
        draft.emit(events.StaleResult(given.at, given.step, given.number, "undo"))
        return
    match given.outcome:
        case Succeeded():
            draft.emit(events.StepUndone(given.at, given.step, given.number, given.outcome.evidence))
        case Failed() | Unknown():
            draft.emit(events.StepUndoFailed(given.at, given.step, given.number, given.outcome.message))
        case _:
            assert_never(given.outcome)


# --- starting ---------------------------------------------------------------------------------


def start_what_may(draft: Draft) -> None:
    """Start every step whose needs are met and whose gates are open, as far as the limit allows."""
    if draft.run.state not in (RunState.PREFLIGHT, RunState.RUNNING):
        return
    room = draft.run.plan.limits.parallel_steps - _busy_count(draft.run)
    for name in sorted(draft.run.active):
        for step_id in _candidates(draft.run, name, draft.at):
            step = draft.run.plan.steps[step_id]
            if not may_run_now(draft.run, step):
                continue
            answer = guards.ask(draft.run, step, draft.at)
            if isinstance(answer, guards.Renew):
                for stale in answer.steps:
                    if draft.run.step(stale).state is StepState.SUCCEEDED:
                        draft.emit(events.StepReopened(draft.at, stale, answer.reason))
            elif isinstance(answer, guards.Open):
                if room <= 0:
                    return
                room -= _start(draft, step)
    _start_reopened(draft, room)


def _start_reopened(draft: Draft, room: int) -> None:
    """Evidence that was just reopened is taken again in the same decision."""
    for event in tuple(draft.events):
        if isinstance(event, events.StepReopened) and room > 0:
            step = draft.run.plan.steps[event.step]
            is_ready = event.step in draft.run.units[step.unit].ready
            if is_ready and isinstance(guards.ask(draft.run, step, draft.at), guards.Open):
                room -= _start(draft, step)


def _start(draft: Draft, step: Step) -> int:
    state = draft.run.step(step.id)
    if step.action.kind == MANUAL:
        draft.emit(events.StepWaiting(draft.at, step.id, state.attempt + 1))
        return 0
    draft.emit(events.StepStarted(draft.at, step.id, state.attempt + 1))
    return 1


def _candidates(run: Run, unit: str, at: At) -> list[str]:
    record = run.units[unit]
    due = [
        step
        for step in record.busy
        if record.steps[step].state is StepState.BACKOFF and record.steps[step].due_mono_ns <= at.mono_ns
    ]
    return [*record.ready, *due]


def may_run_now(run: Run, step: Step) -> bool:
    """Before people confirmed, only preflight runs."""
    return run.authorised is not None or step.stage is Stage.PREFLIGHT


def _busy_count(run: Run) -> int:
    return sum(
        1
        for name in run.active
        for step in run.units[name].busy
        if run.units[name].steps[step].state in (StepState.RUNNING, StepState.UNKNOWN)
    )
