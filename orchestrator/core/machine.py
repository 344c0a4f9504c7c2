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
from orchestrator.core.abort import is_granted_by_the_log_alone, undo_what_may_be
from orchestrator.core.decision import Decision, Draft
from orchestrator.core.effects import WakeAt
from orchestrator.core.inputs import (
    Abort,
    Accept,
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
from orchestrator.core.orders import orders
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded, Unknown
from orchestrator.core.plan import MANUAL, Role, Step
from orchestrator.core.run import Run, StepRun
from orchestrator.core.settle import candidates, is_due, may_run_now, settle
from orchestrator.core.states import RunState, StepState
from orchestrator.core.verbs import decide_verb

CHECK_AGAIN_MS = 50
CHECK_AGAIN_MS_MAX = 1_000
CHECKS_WHILE_RUNNING_MAX = 600
LOST_ANSWERS_MAX = 5
"""A step whose answer is lost again and again, and which is found not done each time, is tried at least
this often; then people are asked. Attempts that a crash ended do not count."""


NOT_GRANTED = "the run is being aborted: not granted"


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
        case Proceed():
            pass
        case Woke():
            _woke(draft, given)
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
        undo_what_may_be(draft, given.step if isinstance(given, UndoEnded) else "")
        settle(draft)
    return draft.decision()


# --- results ----------------------------------------------------------------------------------


def _woke(draft: Draft, given: Woke) -> None:
    """A timer is told to the log if it is one that the run waits for; then it is not ordered again."""
    ordered = {e.name: e.mono_ns for e in orders(draft.run) if isinstance(e, WakeAt)}
    if ordered.get(given.name, given.at.mono_ns + 1) <= given.at.mono_ns:
        draft.emit(events.TimerFired(given.at, given.name))


def _is_current(draft: Draft, step: str, attempt: int, what: str, *states: StepState) -> bool:
    """A result counts only for the attempt and the state it belongs to; else it is recorded."""
    state = draft.run.step(step)
    if state.attempt == attempt and state.state in states:
        return True
    draft.emit(events.StaleResult(draft.at, step, attempt, what))
    return False


OPEN_FOR_RESULTS = (StepState.RUNNING, StepState.UNKNOWN, StepState.UNDECIDED)
"""The current attempt's own word settles a step, also where a check could not tell."""


def _ended(draft: Draft, given: Ended) -> None:
    outcome = given.outcome
    what = type(outcome).__name__.lower()
    if not _is_current(draft, given.step, given.attempt, what, *OPEN_FOR_RESULTS):
        return
    step = draft.run.plan.steps[given.step]
    state = draft.run.step(given.step)
    match outcome:
        case Succeeded() if _grants_nothing_more(draft.run, step):
            draft.emit(events.StepFailed(given.at, step.id, given.attempt, NOT_GRANTED, None))
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
            pass  # that is known already: a check is on its way, or people are asked
        case _:
            assert_never(outcome)


def _grants_nothing_more(run: Run, step: Step) -> bool:
    return run.phase is RunState.ABORTING and is_granted_by_the_log_alone(step)


def _retry_delay_ms(run: Run, step: Step, state: StepRun, retryable: bool) -> int | None:
    is_over = run.is_final or run.phase is RunState.ABORTING
    if not retryable or state.tries >= step.retry.attempts or is_over:
        return None
    return min(step.retry.delay_ms << max(0, state.tries - 1), step.retry.delay_ms_max)


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
    draft.emit(_resolved(draft.run, step, state, given))
    if draft.run.step(step.id).state is StepState.SUCCEEDED:
        _state_loss(draft, step)


def _resolved(run: Run, step: Step, state: StepRun, given: Checked) -> events.StepResolved:
    """One append says what was found and what becomes of the step, never two."""
    kind, reason = given.finding.kind, given.finding.reason
    people, failed, again_in_ms = False, False, 0
    tries_max = max(step.retry.attempts, LOST_ANSWERS_MAX)
    if _grants_nothing_more(run, step):
        kind, reason = FindingKind.NOT_DONE, NOT_GRANTED
    match kind:
        case FindingKind.DONE:
            pass
        case FindingKind.NOT_DONE:
            failed = state.tries >= tries_max
        case FindingKind.RUNNING:
            people = given.number >= CHECKS_WHILE_RUNNING_MAX
            again_in_ms = min(CHECK_AGAIN_MS << min(given.number, 10), CHECK_AGAIN_MS_MAX)
        case FindingKind.CANNOT_TELL:
            is_over = run.phase is RunState.ABORTING or state.tries >= tries_max
            people = not step.action.idempotent or is_over
        case _:
            assert_never(kind)
    if failed:
        reason = f"not done after {state.tries} lost answers: {reason}"
    if kind is FindingKind.RUNNING and people:
        kind, reason, again_in_ms = FindingKind.CANNOT_TELL, f"still running: {reason}", 0
    return events.StepResolved(
        given.at, step.id, given.attempt, given.number, kind, reason, people, again_in_ms,
        given.finding.evidence, failed,
    )  # fmt: skip


def _state_loss(draft: Draft, step: Step) -> None:
    """A finished LOSS step states the loss in the same decision."""
    if step.role is Role.LOSS:
        proven = guards.proven_since(draft.run, step.unit, step.group)
        fenced_ns = proven.since.utc_ns if proven else None
        word = proven.word if proven else ""
        draft.emit(loss.state_loss(step.unit, draft.run.step(step.id).evidence, fenced_ns, draft.at, word))


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
    """Start every step whose needs are met and whose gates are open, as far as the limit allows.

    Fences go first and wait for no room: their budget runs. Then the lowest tier goes first, and what the first
    write does not wait for comes last, for a moment not at all."""
    if draft.run.state not in (RunState.PREFLIGHT, RunState.RUNNING):
        return
    plan = draft.run.plan
    for fence in _fences_to_start(draft):
        _start_if_open(draft, fence)
    room = plan.limits.parallel_steps - draft.run.in_flight
    if room <= 0:
        return
    yielding: list[str] = []
    for name in sorted(draft.run.active, key=draft.run.index.rank.__getitem__):
        for step_id in candidates(draft.run.units[name], draft.at):
            if step_id in draft.run.index.yielding:
                yielding.append(step_id)
            elif plan.steps[step_id].role is not Role.FENCE:
                room -= _start_if_open(draft, plan.steps[step_id])
                if room <= 0:
                    return
    if guards.gives_way_until_ns(draft.run, draft.at) is None:
        for step_id in yielding:
            room -= _start_if_open(draft, plan.steps[step_id])
            if room <= 0:
                return
    for event in tuple(draft.events):  # evidence that was just reopened is taken again at once
        if isinstance(event, events.StepReopened) and room > 0:
            step = plan.steps[event.step]
            if step.id in draft.run.units[step.unit].ready:
                room -= _start_if_open(draft, step)


def _fences_to_start(draft: Draft) -> list[Step]:
    """Fences that are ready, or due for another try; a run has few of them that are neither done nor late."""
    run, found = draft.run, []
    if run.fences_pending or run.fences_busy:
        for fence in run.index.fences:
            step = run.plan.steps[fence]
            unit = run.units[step.unit]
            state = unit.steps[fence]
            is_due_again = state.state is StepState.BACKOFF and is_due(state.due_mono_ns, draft.at)
            if is_due_again or (state.state is StepState.PENDING and fence in unit.ready):
                found.append(step)
    return found


def _start_if_open(draft: Draft, step: Step) -> int:
    """Start a step, or reopen the evidence that its gates find too old. Returns how much room it takes."""
    if not may_run_now(draft.run, step):
        return 0
    answer = guards.ask(draft.run, step, draft.at)
    match answer:
        case guards.Open():
            return _start(draft, step)
        case guards.Renew():
            for stale in answer.steps:
                if draft.run.step(stale).state is StepState.SUCCEEDED:
                    draft.emit(events.StepReopened(draft.at, stale, answer.reason))
            return 0
        case guards.Wait() | guards.Blocked():
            return 0
        case _:
            assert_never(answer)


def _start(draft: Draft, step: Step) -> int:
    attempt = draft.run.step(step.id).attempt + 1
    if step.action.kind == MANUAL:
        draft.emit(events.StepWaiting(draft.at, step.id, attempt))
        return 0
    draft.emit(events.StepStarted(draft.at, step.id, attempt))
    return 1
