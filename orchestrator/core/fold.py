"""Decides how one event changes a run (``evolve``): the only writer of a run's state.

Replay uses this and nothing else, so a newer program never decides an old run's past anew. It must
never look at a clock or decide what comes next.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from orchestrator.core import events
from orchestrator.core.events import RunCreated, RunEvent
from orchestrator.core.index import PlanIndex
from orchestrator.core.inputs import At
from orchestrator.core.plan import Plan, Role, Step
from orchestrator.core.run import Loss, Lost, Run, StepRun, UnitRun, start, with_run, with_step
from orchestrator.core.states import BUSY, SATISFIED, RunState, StepState
from orchestrator.core.transitions import run_after, step_after

PROOF_ROLES = frozenset({Role.FENCE, Role.LOSS, Role.VERIFY})
"""Roles whose evidence ages and is voided by a pause, a resume or a crash."""


def fold(plan: Plan, history: Iterable[RunEvent], index: PlanIndex | None = None) -> Run:
    """The run that a stream's events make. The first must be ``run.created``."""
    iterator = iter(history)
    created = next(iterator)
    if not isinstance(created, RunCreated):
        raise ValueError(f"a run's stream begins with run.created, not {created.KIND}")
    run = start(plan, created, index)
    for event in iterator:
        run = evolve(run, event)
    return run


def evolve(run: Run, event: RunEvent) -> Run:
    """Fold one event. Raises InvariantBroken for an event that no row of the tables allows."""
    match event:
        case (
            events.StepStarted()
            | events.StepSucceeded()
            | events.StepFailed()
            | events.StepUnknown()
            | events.StepResolved()
            | events.StepReopened()
            | events.StepWaiting()
            | events.StepConfirmed()
            | events.StepRetried()
            | events.StepSkipped()
            | events.StepMarkAsked()
            | events.StepMarked()
            | events.StepUndoStarted()
            | events.StepUndone()
            | events.StepUndoFailed()
        ):
            return _evolve_step(run, event)
        case events.StaleResult():
            return with_run(run, last=event.at)
        case _:
            return _evolve_run(run, event)


_StepEvent = (
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


def _evolve_step(run: Run, event: _StepEvent) -> Run:  # noqa: C901 - one arm per event kind
    step = run.plan.steps[event.step]
    old = run.units[step.unit].steps[step.id]
    at, trigger = event.at, event.KIND
    match event:
        case events.StepStarted():
            state = step_after(old.state, trigger, step.id)
            new = with_step(
                old,
                state=state,
                attempt=event.attempt,
                tries=old.tries + 1,
                since=at,
                started=at,
                due_mono_ns=0,
                wait_ms=0,
                proof_at=None,
                message="",
            )
        case events.StepSucceeded():
            state = step_after(old.state, trigger, step.id)
            new = with_step(old, state=state, since=at, proof_at=at, evidence=event.evidence, message="")
        case events.StepFailed():
            retry = event.retry_in_ms
            state = step_after(old.state, f"{trigger}/{'final' if retry is None else 'retry'}", step.id)
            new = with_step(
                old,
                state=state,
                since=at,
                message=event.message,
                evidence=event.evidence,
                wait_ms=retry or 0,
                due_mono_ns=at.mono_ns + (retry or 0) * 1_000_000,
            )
        case events.StepUnknown():
            state = step_after(old.state, trigger, step.id)
            new = with_step(
                old,
                state=state,
                since=at,
                message=event.message,
                number=old.number + 1,
                due_mono_ns=at.mono_ns,
            )
        case events.StepResolved():
            new = _resolved(old, event)
        case events.StepReopened():
            again = "again" if _is_read_only(step) else "look"
            state = step_after(old.state, f"{trigger}/{again}", step.id)
            new = with_step(
                old,
                state=state,
                since=at,
                proof_at=None,
                reason=event.reason,
                tries=0,
                number=old.number + 1,
                due_mono_ns=at.mono_ns,
            )
        case events.StepRetried():
            state = step_after(old.state, trigger, step.id)
            new = with_step(
                old,
                state=state,
                since=at,
                tries=0,
                number=old.number + 1,
                due_mono_ns=at.mono_ns,
                reason=f"retry ordered by {event.by}",
            )
        case events.StepMarkAsked():
            state = step_after(old.state, trigger, step.id)
            new = with_step(
                old,
                state=state,
                since=at,
                number=old.number + 1,
                due_mono_ns=at.mono_ns,
                reason=f"{event.by}: {event.reason}",
            )
        case events.StepConfirmed():
            state = step_after(old.state, trigger, step.id)
            new = with_step(old, state=state, since=at, reason=f"{event.by}: {event.text}")
        case events.StepSkipped():
            state = step_after(old.state, trigger, step.id)
            new = with_step(old, state=state, since=at, reason=f"{event.by}: {event.reason}")
        case events.StepWaiting():
            new = with_step(
                old,
                state=step_after(old.state, trigger, step.id),
                since=at,
                started=at,
                attempt=event.attempt,
            )
        case events.StepMarked():
            new = with_step(
                old,
                state=step_after(old.state, trigger, step.id),
                since=at,
                message=event.reason if event.contradiction else "",
            )
        case events.StepUndoStarted():
            new = with_step(
                old,
                state=step_after(old.state, trigger, step.id),
                since=at,
                number=event.number,
                proof_at=None,
            )
        case events.StepUndone():
            new = with_step(
                old, state=step_after(old.state, trigger, step.id), since=at, evidence=event.evidence
            )
        case events.StepUndoFailed():
            new = with_step(
                old, state=step_after(old.state, trigger, step.id), since=at, message=event.message
            )
        case _:
            assert_never(event)
    return set_step(run, step, new, at)


def _resolved(old: StepRun, event: events.StepResolved) -> StepRun:
    """A check's answer. Attempts that a crash ended do not count against the retry policy."""
    at = event.at
    if event.finding == "done":
        state = step_after(old.state, "step.resolved/done", event.step)
        return with_step(old, state=state, since=at, proof_at=at, evidence=event.evidence, message="")
    if event.finding == "running":
        state = step_after(old.state, "step.resolved/running", event.step)
        return with_step(
            old,
            state=state,
            number=event.number + 1,
            message=event.reason,
            due_mono_ns=at.mono_ns + event.again_in_ms * 1_000_000,
        )
    variant = "people" if event.people else "again"
    state = step_after(old.state, f"step.resolved/{variant}", event.step)
    return with_step(old, state=state, since=at, tries=max(0, old.tries - 1), message=event.reason)


def _evolve_run(run: Run, event: RunEvent) -> Run:
    at = event.at
    match event:
        case events.DriverCameUp():
            run = _void(run, at)
            run = _lose_running(run, at)
            fencing = at if run.fencing else None
            return with_run(run, driver=event.incarnation, drivers=run.drivers + 1, last=at, fencing=fencing)
        case events.RunReady():
            return with_run(run, state=run_after(run.state, event.KIND), last=at)
        case events.RunAuthorised():
            return with_run(
                run,
                state=run_after(run.state, event.KIND),
                last=at,
                authorised=at,
                authorised_by=event.by,
                accepted_loss_ms=event.accepted_loss_ms,
            )
        case events.RunHeld():
            return with_run(
                run,
                state=run_after(run.state, event.KIND),
                before_hold=run.before_hold if run.state is RunState.HELD else run.state,
                last=at,
                held_causes=event.causes,
                held_steps=event.steps,
                held_choices=event.choices,
            )
        case events.RunGoesOn():
            return with_run(
                run,
                state=run_after(run.state, f"{event.KIND}/{run.before_hold}"),
                last=at,
                held_causes=(),
                held_steps=(),
                held_choices=(),
            )
        case events.RunPaused():
            before = run.before_hold if run.state is RunState.HELD else run.state
            return with_run(
                _void(run, at),
                state=run_after(run.state, event.KIND),
                before_hold=before,
                last=at,
                held_causes=(),
                held_steps=(),
                held_choices=(),
            )
        case events.RunResumed():
            state = run_after(run.state, f"{event.KIND}/{run.before_hold}")
            fencing = at if run.fencing else None
            return with_run(
                _void(run, at),
                state=state,
                last=at,
                accepted_loss_ms=event.accepted_loss_ms,
                fencing=fencing,
            )
        case events.LossStated():
            loss = Loss(event.milliseconds, event.bytes, event.rows_bound, event.basis, at)
            return with_run(run, losses={**run.losses, event.unit: loss}, last=at)
        case events.GateAccepted():
            return _gate_accepted(run, event)
        case events.SiteDeclaredLost():
            lost = Lost(event.by, event.reason, at, event.lost_at_ns)
            return with_run(run, lost_sites={**run.lost_sites, event.site: lost}, last=at)
        case events.AbortAsked():
            return with_run(
                run,
                state=run_after(run.state, event.KIND),
                last=at,
                held_causes=(),
                held_steps=(),
                held_choices=(),
                leave_closed=run.leave_closed or event.leave_closed,
            )
        case events.RunFinished():
            return with_run(
                run,
                state=run_after(run.state, f"{event.KIND}/{event.outcome}"),
                last=at,
                debts=event.debts,
                exposures=event.exposures,
                held_causes=(),
                held_steps=(),
                held_choices=(),
            )
        case events.RunCreated():
            raise ValueError("run.created stands only at the beginning of a stream")
        case _:
            raise TypeError(f"not an event of a run: {event!r}")


def _gate_accepted(run: Run, event: events.GateAccepted) -> Run:
    run = with_run(run, accepted_gates=run.accepted_gates | {event.gate}, last=event.at)
    if event.gate == "loss":
        return with_run(run, accepted_loss_ms=event.limit_ms)
    step = run.plan.steps[event.gate]
    old = run.step(event.gate)
    state = step_after(old.state, event.KIND, step.id)
    new = with_step(old, state=state, since=event.at, proof_at=event.at, reason=f"{event.by}: {event.reason}")
    return set_step(run, step, new, event.at)


def promoted(run: Run) -> bool:
    """Has any promotion ever been sent? (A promotion that was surely refused is pending again.)"""
    return any(
        run.step(step).state not in (StepState.PENDING, StepState.FAILED, StepState.BACKOFF)
        for steps in run.index.promotes.values()
        for step in steps
    )


def _void(run: Run, at: At) -> Run:
    """Proofs that age are void; so is the accepted loss, until a promotion was sent."""
    for name, unit in run.units.items():
        stale = [
            step
            for step, state in unit.steps.items()
            if state.proof_at is not None
            and run.plan.steps[step].role in PROOF_ROLES
            and state.state is StepState.SUCCEEDED
        ]
        if stale:
            steps = dict(unit.steps)
            for step in stale:
                steps[step] = with_step(steps[step], proof_at=None)
            units = dict(run.units)
            units[name] = UnitRun(steps, unit.unmet, unit.ready, unit.busy)
            run = with_run(run, units=units)
    return run if promoted(run) else with_run(run, accepted_loss_ms=None)


def _lose_running(run: Run, at: At) -> Run:
    """What the last driver left running is unknown; timers are armed anew with their whole rest."""
    for name in run.active:
        for step_id in run.units[name].busy:
            step, old = run.plan.steps[step_id], run.step(step_id)
            if old.state is StepState.RUNNING:
                state = step_after(old.state, "driver.started", step_id)
                run = set_step(
                    run,
                    step,
                    with_step(
                        old,
                        state=state,
                        since=at,
                        number=old.number + 1,
                        due_mono_ns=at.mono_ns,
                        message="the driver that ran it is gone",
                    ),
                    at,
                )
            elif old.state is StepState.BACKOFF:
                due = at.mono_ns + old.wait_ms * 1_000_000
                run = set_step(run, step, with_step(old, due_mono_ns=due), at)
            elif old.state is StepState.UNKNOWN:
                run = set_step(run, step, with_step(old, due_mono_ns=at.mono_ns), at)
    return run


def _is_read_only(step: Step) -> bool:
    return not step.action.mutates


def counts_as_met(step: Step, state: StepState) -> bool:
    """For the steps that need it: satisfied, or a best effort that has ended."""
    return state in SATISFIED or (step.best_effort and state in (StepState.FAILED, StepState.UNDECIDED))


def has_ended(step: Step, state: StepState) -> bool:
    """Does the run wait for nothing more of this step? A fence may end without proof (3.7)."""
    return (
        counts_as_met(step, state)
        or state is StepState.UNDONE
        or (step.role is Role.FENCE and state in (StepState.FAILED, StepState.UNDECIDED))
    )


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
    units = dict(run.units)
    units[step.unit] = UnitRun(steps, unit.unmet, ready, busy)
    touched = {step.unit}
    change = counts_as_met(step, new.state) - counts_as_met(step, old.state)
    if change:
        for dependent in run.index.dependents[step.id]:
            touched.add(_adjust(run, units, dependent, -change))
    active = run.active
    for name in touched:
        is_active = bool(units[name].ready or units[name].busy)
        if is_active != (name in active):
            active = active | {name} if is_active else active - {name}
    fencing = run.fencing
    if step.role is Role.FENCE and new.state in BUSY and not _fences_are_busy(run):
        fencing = at
    ended = has_ended(step, new.state) - has_ended(step, old.state)
    in_preflight = ended if step.id in run.index.preflight_set else 0
    return with_run(
        run,
        units=units,
        active=active,
        last=at,
        unfinished=run.unfinished - ended,
        preflight_left=run.preflight_left - in_preflight,
        fencing=fencing,
    )


def _fences_are_busy(run: Run) -> bool:
    return any(run.step(fence).state in BUSY for fence in run.index.fences)


def _adjust(run: Run, units: dict[str, UnitRun], step: str, change: int) -> str:
    name = run.plan.steps[step].unit
    unit = units[name]
    count = unit.unmet[step] + change
    unmet = {**unit.unmet, step: count}
    pending = unit.steps[step].state is StepState.PENDING
    units[name] = UnitRun(unit.steps, unmet, _listed(unit.ready, step, pending and count == 0), unit.busy)
    return name


def _listed(names: tuple[str, ...], name: str, wanted: bool) -> tuple[str, ...]:
    if wanted:
        return names if name in names else (*names, name)
    return tuple(other for other in names if other != name) if name in names else names
