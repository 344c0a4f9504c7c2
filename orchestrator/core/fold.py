"""Decides how one event changes a run (``evolve``): with ``fold_steps`` the only writer of a run's state.

Replay uses this and nothing else, so a newer program never decides an old run's past anew. Folding the
events of a run's stream gives the run, on every machine and for ever. It must never look at a clock or
decide what comes next.
"""

# ruff: noqa: PLC0414 - the questions about a run's steps are part of this vocabulary
from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from orchestrator.core import events
from orchestrator.core.events import RunCreated, RunEvent
from orchestrator.core.fold_steps import MILLISECOND_NS, evolve_step, set_step
from orchestrator.core.index import PROOF_ROLES as PROOF_ROLES
from orchestrator.core.index import PlanIndex
from orchestrator.core.moment import At
from orchestrator.core.plan import Plan
from orchestrator.core.run import Loss, Lost, Run, StepRun, UnitRun, start, with_run, with_step
from orchestrator.core.run import counts_as_met as counts_as_met
from orchestrator.core.run import has_ended as has_ended
from orchestrator.core.run import promoted as promoted
from orchestrator.core.states import StepState
from orchestrator.core.transitions import run_after, step_after


def fold(plan: Plan, history: Iterable[RunEvent], index: PlanIndex | None = None) -> Run:
    """The run that a stream's events make. The first must be ``run.created``."""
    iterator = iter(history)
    created = next(iterator, None)
    if not isinstance(created, RunCreated):
        raise ValueError(f"a run's stream begins with run.created, not {getattr(created, 'KIND', 'nothing')}")
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
            return evolve_step(run, event)
        case events.StaleResult() | events.TimerFired():
            return with_run(run, last=event.at)
        case events.LossStated():
            loss = Loss(event.milliseconds, event.bytes, event.rows_bound, event.basis, event.at)
            return with_run(run, losses={**run.losses, event.unit: loss}, last=event.at)
        case events.GateAccepted():
            return _gate_accepted(run, event)
        case events.SiteDeclaredLost():
            lost = Lost(event.by, event.reason, event.at, event.lost_at_ns)
            return with_run(run, lost_sites={**run.lost_sites, event.site: lost}, last=event.at)
        case events.DriverCameUp():
            return _driver_came_up(run, event)
        case events.RunCreated():
            raise ValueError("run.created stands only at the beginning of a stream")
        case _:
            return _evolve_run(run, event)


_NOT_HELD = {"held_causes": (), "held_steps": (), "held_choices": ()}


def _evolve_run(
    run: Run,
    event: events.RunReady
    | events.RunAuthorised
    | events.RunHeld
    | events.RunGoesOn
    | events.RunPaused
    | events.RunResumed
    | events.AbortAsked
    | events.RunFinished,
) -> Run:
    """Events that change the state of the run as a whole."""
    at = event.at
    match event:
        case events.RunReady():
            return with_run(run, state=run_after(run.state, event.KIND), last=at)
        case events.RunAuthorised():
            return with_run(
                run, state=run_after(run.state, event.KIND), last=at, authorised=at, authorised_by=event.by,
                accepted_loss_ms=event.accepted_loss_ms,
            )  # fmt: skip
        case events.RunHeld():
            return with_run(
                run, state=run_after(run.state, event.KIND), before_hold=run.phase, last=at,
                held_causes=event.causes, held_steps=event.steps, held_choices=event.choices,
            )  # fmt: skip
        case events.RunGoesOn():
            state = run_after(run.state, f"{event.KIND}/{run.before_hold}")
            return with_run(run, state=state, last=at, **_NOT_HELD)
        case events.RunPaused():
            state = run_after(run.state, event.KIND)
            return with_run(_void(run, at), state=state, before_hold=run.phase, last=at, **_NOT_HELD)
        case events.RunResumed():
            state = run_after(run.state, f"{event.KIND}/{run.before_hold}")
            run = with_run(_void(run, at), state=state, last=at, fencing=at if run.fencing else None)
            accepted = event.accepted_loss_ms
            return run if accepted is None else with_run(run, accepted_loss_ms=accepted)
        case events.AbortAsked():
            return with_run(
                run, state=run_after(run.state, event.KIND), last=at,
                leave_closed=run.leave_closed or event.leave_closed, **_NOT_HELD,
            )  # fmt: skip
        case events.RunFinished():
            state = run_after(run.state, f"{event.KIND}/{event.outcome}")
            return with_run(
                run, state=state, last=at, debts=event.debts, exposures=event.exposures, **_NOT_HELD
            )
        case _:
            assert_never(event)


def _gate_accepted(run: Run, event: events.GateAccepted) -> Run:
    if event.gate == "loss":
        return with_run(run, accepted_loss_ms=event.limit_ms, last=event.at)
    step = run.plan.steps[event.gate]
    old = run.step(event.gate)
    state = step_after(old.state, event.KIND, step.id)
    new = with_step(old, state=state, since=event.at, proof_at=event.at, reason=f"{event.by}: {event.reason}")
    return set_step(run, step, new, event.at)


# --- what a crash, a pause or a resume takes away ---------------------------------------------


def _void(run: Run, at: At) -> Run:
    """Proofs that age are void; so is the accepted loss, until a promotion was sent.

    Since when a proof holds is kept for whoever finds it still in place, on the clock of now: after a
    reboot the monotonic clock begins anew.
    """
    changed: dict[str, dict[str, StepRun]] = {}
    for name in run.index.proofs:
        old = run.step(name)
        if old.proof_at is not None or old.proof_since is not None:
            since = At(old.proof_since.utc_ns, at.mono_ns) if old.proof_since else None
            unit = run.plan.steps[name].unit
            changed.setdefault(unit, {})[name] = with_step(old, proof_at=None, proof_since=since)
    if changed:
        units: dict[str, UnitRun] = {}
        for name, steps in changed.items():
            unit_run = run.units[name]
            units[name] = UnitRun({**unit_run.steps, **steps}, unit_run.unmet, unit_run.ready, unit_run.busy)
        run = with_run(run, units=run.units.replaced(units))
    return run if promoted(run) else with_run(run, accepted_loss_ms=None)


def _driver_came_up(run: Run, event: events.DriverCameUp) -> Run:
    at = event.at
    last = run.last
    run = _lose_running(_void(run, at), at, last)
    lost_sites = {
        site: Lost(lost.by, lost.reason, At(lost.at.utc_ns, at.mono_ns), lost.lost_at_ns)
        for site, lost in run.lost_sites.items()
    }
    return with_run(
        run, driver=event.incarnation, drivers=run.drivers + 1, last=at, lost_sites=lost_sites,
        fencing=at if run.fencing else None, urgent_since=None,
    )  # fmt: skip


def _lose_running(run: Run, at: At, last: At) -> Run:
    """What the last driver left running is unknown, and does not count against the retry policy; what
    it was to wait for is waited for again, with the rest that was left."""
    gone = "the driver that ran it is gone"
    for name in sorted(run.active):
        for step_id in run.units[name].busy:
            step, old = run.plan.steps[step_id], run.step(step_id)
            match old.state:
                case StepState.RUNNING:
                    state = step_after(old.state, events.DriverCameUp.KIND, step_id)
                    new = with_step(
                        old, state=state, since=at, tries=max(0, old.tries - 1), number=old.number + 1,
                        due_mono_ns=at.mono_ns, message=gone,
                    )  # fmt: skip
                case StepState.UNDOING:
                    state = step_after(old.state, events.DriverCameUp.KIND, step_id)
                    new = with_step(old, state=state, since=at, message=gone)
                case StepState.BACKOFF:
                    rest = min(max(0, old.due_mono_ns - last.mono_ns), old.wait_ms * MILLISECOND_NS)
                    new = with_step(old, due_mono_ns=at.mono_ns + rest)
                case _:  # to be looked at, or waits for people: at once
                    new = with_step(old, due_mono_ns=at.mono_ns)
            run = set_step(run, step, new, at)
    return run
