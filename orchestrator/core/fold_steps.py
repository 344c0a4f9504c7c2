"""Decides how one event changes a step, and keeps the run's counters and lists true while it does; must
never look at a clock, at another plan, or at what comes next.
"""

from __future__ import annotations

from typing import TypeAlias, assert_never

from orchestrator.core import events
from orchestrator.core.model import ProofKind
from orchestrator.core.moment import At
from orchestrator.core.outcomes import FindingKind
from orchestrator.core.plan import Role, Step
from orchestrator.core.run import Run, StepRun, UnitRun, counts_as_met, has_ended, with_run, with_step
from orchestrator.core.states import BUSY, TAKES_ROOM, StepState
from orchestrator.core.transitions import step_after

MILLISECOND_NS = 1_000_000

StepEvent: TypeAlias = (
    events.StepStarted
    | events.StepSucceeded
    | events.StepFailed
    | events.StepUnknown
    | events.StepResolved
    | events.StepReopened
    | events.StepWaiting
    | events.StepConfirmed
    | events.StepRetried
    | events.StepSkipped
    | events.StepMarkAsked
    | events.StepMarked
    | events.StepUndoStarted
    | events.StepUndone
    | events.StepUndoFailed
)


def trigger_of(step: Step, event: events.RunEvent) -> str:
    """The row of the table that an event takes: its kind, with a variant where it can lead to several."""
    if isinstance(event, events.StepFailed):
        return f"{event.KIND}/{'final' if event.retry_in_ms is None else 'retry'}"
    if isinstance(event, events.StepReopened):
        return f"{event.KIND}/{'look' if step.action.mutates else 'again'}"
    if isinstance(event, events.StepResolved):
        if event.finding in ("done", "running"):
            return f"{event.KIND}/{event.finding}"
        return f"{event.KIND}/{'people' if event.people else 'failed' if event.failed else 'again'}"
    return event.KIND


def evolve_step(run: Run, event: StepEvent) -> Run:
    """Fold one event of a step. Raises InvariantBroken where the table has no row."""
    step = run.plan.steps[event.step]
    old = run.units[step.unit].steps[step.id]
    state = step_after(old.state, trigger_of(step, event), step.id)
    new = _changed(step, old, state, event)
    run = set_step(run, step, new, event.at)
    if step.role is Role.FENCE and isinstance(event, events.StepRetried):
        return with_run(run, fencing=event.at)  # people ordered another try: it has a budget of its own
    return run


def _changed(step: Step, old: StepRun, state: StepState, event: StepEvent) -> StepRun:
    at = event.at
    match event:
        case events.StepStarted():
            return with_step(
                old, state=state, attempt=event.attempt, tries=old.tries + 1, since=at, started=at,
                due_mono_ns=0, wait_ms=0, proof_at=None, proof_since=None, message="",
            )  # fmt: skip
        case events.StepSucceeded():
            return with_step(
                old, state=state, since=at, proof_at=at, proof_since=at, may_be_done=False,
                evidence=event.evidence, message="",
            )  # fmt: skip
        case events.StepFailed():
            wait_ms = event.retry_in_ms or 0
            return with_step(
                old, state=state, since=at, message=event.message, evidence=event.evidence, wait_ms=wait_ms,
                due_mono_ns=at.mono_ns + wait_ms * MILLISECOND_NS,
            )  # fmt: skip
        case events.StepResolved():
            return _resolved(step, old, state, event)
        case events.StepWaiting():
            return with_step(old, state=state, since=at, started=at, attempt=event.attempt)
        case events.StepUndoStarted():
            return with_step(old, state=state, since=at, number=event.number, proof_at=None, proof_since=None)
        case events.StepUndone():
            return with_step(old, state=state, since=at, evidence=event.evidence, message="")
        case events.StepUnknown() | events.StepReopened() | events.StepRetried() | events.StepMarkAsked():
            return _asked(old, state, event)
        case events.StepConfirmed() | events.StepSkipped() | events.StepMarked() | events.StepUndoFailed():
            return _told(old, state, event)
        case _:
            assert_never(event)


def _resolved(step: Step, old: StepRun, state: StepState, event: events.StepResolved) -> StepRun:
    """A check's answer. A demoted proof that still holds has held all the time: its signal lies on the
    server itself. Any other may have lapsed in between, so it counts from now."""
    at = event.at
    if state is StepState.SUCCEEDED:
        since = (old.proof_since if step.proves is ProofKind.DEMOTED else None) or at
        return with_step(
            old, state=state, since=at, proof_at=at, proof_since=since, may_be_done=False,
            evidence=event.evidence, message="",
        )  # fmt: skip
    if state is StepState.UNKNOWN:
        due = at.mono_ns + event.again_in_ms * MILLISECOND_NS
        return with_step(old, state=state, number=event.number + 1, message=event.reason, due_mono_ns=due)
    is_lost = state is StepState.PENDING and event.finding == FindingKind.CANNOT_TELL
    may_be_done = is_lost or (old.may_be_done and event.finding != FindingKind.NOT_DONE)
    return with_step(
        old, state=state, since=at, message=event.reason, proof_since=None, may_be_done=may_be_done
    )


def _asked(
    old: StepRun,
    state: StepState,
    event: events.StepUnknown | events.StepReopened | events.StepRetried | events.StepMarkAsked,
) -> StepRun:
    """Somebody has to look, at once: the question gets a number of its own."""
    at = event.at
    asked = with_step(old, state=state, since=at, number=old.number + 1, due_mono_ns=at.mono_ns)
    match event:
        case events.StepUnknown():
            return with_step(asked, message=event.message)
        case events.StepReopened():
            return with_step(asked, tries=0, proof_at=None, may_be_done=False, reason=event.reason)
        case events.StepRetried():
            return with_step(asked, tries=0, reason=f"retry ordered by {event.by}")
        case events.StepMarkAsked():
            return with_step(asked, reason=f"{event.by}: {event.reason}")
        case _:
            assert_never(event)


def _told(
    old: StepRun,
    state: StepState,
    event: events.StepConfirmed | events.StepSkipped | events.StepMarked | events.StepUndoFailed,
) -> StepRun:
    at = event.at
    match event:
        case events.StepConfirmed():
            reason = f"{event.by}: {event.text}"
            return with_step(old, state=state, since=at, proof_at=at, proof_since=at, reason=reason)
        case events.StepSkipped():
            return with_step(old, state=state, since=at, reason=f"{event.by}: {event.reason}")
        case events.StepMarked():
            found = f"the check found {event.finding} {event.reason}".rstrip()
            return with_step(old, state=state, since=at, message=found if event.contradiction else "")
        case events.StepUndoFailed():
            return with_step(old, state=state, since=at, message=event.message)
        case _:
            assert_never(event)


def contradicted(state: StepRun) -> bool:
    """Did the check not find what people marked as done?"""
    return state.state is StepState.MARKED and bool(state.message)


# --- in its place -----------------------------------------------------------------------------


def set_step(run: Run, step: Step, new: StepRun, at: At) -> Run:
    """Put a step's new record in place and keep the counters and lists true."""
    unit = run.units[step.unit]
    old = unit.steps[step.id]
    steps = dict(unit.steps)
    steps[step.id] = new
    ready, busy = unit.ready, unit.busy
    if new.state is not old.state:
        ready = _listed(ready, step.id, new.state is StepState.PENDING and not unit.unmet[step.id])
        busy = _listed(busy, step.id, new.state in BUSY)
    units = {step.unit: UnitRun(steps, unit.unmet, ready, busy)}
    change = counts_as_met(step, new.state) - counts_as_met(step, old.state)
    if change:
        for dependent in run.index.dependents[step.id]:
            _adjust(run, units, dependent, -change)
    active = run.active
    for name, changed in units.items():
        is_active = bool(changed.ready or changed.busy)
        if is_active != (name in active):
            active = active.changed(name, is_in=is_active)
    fencing, fences_busy, fences_pending = run.fencing, run.fences_busy, run.fences_pending
    if step.role is Role.FENCE:
        becomes_busy = (new.state in BUSY) - (old.state in BUSY)
        fencing = at if becomes_busy > 0 and not fences_busy else fencing
        fences_busy += becomes_busy
        fences_pending += (new.state is StepState.PENDING) - (old.state is StepState.PENDING)
    takes_room = (new.state in TAKES_ROOM) - (old.state in TAKES_ROOM)
    urgent_since, urgent_in_flight = run.urgent_since, run.urgent_in_flight
    if takes_room and step.id in run.index.urgent:
        urgent_in_flight += takes_room
        if takes_room > 0 and urgent_since is None and step.id in run.index.leading:
            urgent_since = at
    ended = has_ended(step, new.state) - has_ended(step, old.state)
    in_preflight = ended if step.id in run.index.preflight_set else 0
    return with_run(
        run, units=run.units.replaced(units), active=active, last=at, unfinished=run.unfinished - ended,
        preflight_left=run.preflight_left - in_preflight, fencing=fencing, fences_busy=fences_busy,
        fences_pending=fences_pending, in_flight=run.in_flight + takes_room,
        urgent_in_flight=urgent_in_flight, urgent_since=urgent_since,
    )  # fmt: skip


def _adjust(run: Run, units: dict[str, UnitRun], step: str, change: int) -> None:
    """Count a need of a step as met, or not met any more; its unit's new record goes into ``units``."""
    name = run.plan.steps[step].unit
    unit = units.get(name) or run.units[name]
    count = unit.unmet[step] + change
    unmet = {**unit.unmet, step: count}
    pending = unit.steps[step].state is StepState.PENDING
    units[name] = UnitRun(unit.steps, unmet, _listed(unit.ready, step, pending and count == 0), unit.busy)


def _listed(names: tuple[str, ...], name: str, wanted: bool) -> tuple[str, ...]:
    if wanted:
        return names if name in names else (*names, name)
    return tuple(other for other in names if other != name) if name in names else names
