"""Decides how a decision is built: each event is folded as it is emitted, so that the decided run
is the fold of its events by construction; never decides what to emit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.core import events
from orchestrator.core.events import GroupEvent, RunEvent
from orchestrator.core.fold import evolve
from orchestrator.core.fold_steps import contradicted
from orchestrator.core.inputs import At
from orchestrator.core.plan import Role
from orchestrator.core.run import Run, kept_groups, moved_groups, satisfied
from orchestrator.core.states import StepState


@dataclass(frozen=True, slots=True)
class Decision:
    """One input's answer. ``events`` go to the run's stream and ``groups`` to the groups' streams,
    all in ONE transaction, and only then are the orders of ``run`` carried out."""

    run: Run
    events: tuple[RunEvent, ...]
    groups: tuple[GroupEvent, ...]


@dataclass(slots=True)
class Draft:
    """A decision in the making."""

    run: Run
    at: At
    events: list[RunEvent] = field(default_factory=list)
    groups: list[GroupEvent] = field(default_factory=list)

    def emit(self, event: RunEvent) -> None:
        before = self.run
        self.run = evolve(before, event)
        self.events.append(event)
        self.groups.extend(_mirror(before, self.run, event))

    def decision(self) -> Decision:
        return Decision(self.run, tuple(self.events), tuple(self.groups))


def claims(run: Run) -> tuple[GroupEvent, ...]:
    """What ``run.created`` appends to the streams of its groups, in the same transaction."""
    created = run.created
    return tuple(
        events.GroupClaimed(created.at, move.name, run.id, created.by, created.machine, move.epoch_next)
        for move in run.plan.groups.values()
    )


def _mirror(before: Run, after: Run, event: RunEvent) -> list[GroupEvent]:
    """The facts about groups that an event of the run implies."""
    match event:
        case events.StepStarted():
            return _withdrawn(before, event)
        case events.StepSucceeded() | events.StepResolved() | events.StepConfirmed() | events.StepMarked():
            return _step_met(before, after, event.step, event.at)
        case events.StepUndoStarted():
            return _protection_lost(before, after, event)
        case events.RunFinished():
            return _released(after, event)
        case _:
            return []


def _withdrawn(before: Run, event: events.StepStarted) -> list[GroupEvent]:
    step = before.plan.steps[event.step]
    if step.role is not Role.PROMOTE:
        return []
    first = all(before.step(other).attempt == 0 for other in before.index.promotes[step.group])
    return [events.GroupWithdrawn(event.at, step.group, before.id)] if first else []


def _step_met(before: Run, after: Run, step_id: str, at: At) -> list[GroupEvent]:
    step = after.plan.steps[step_id]
    if step.role is Role.EPOCH:
        epochs = after.index.epochs[step.group]
        if satisfied(after, epochs) and not satisfied(before, epochs):
            move = after.plan.groups[step.group]
            protection = "unprotected" if move.units else "protected"
            target = after.plan.target
            return [events.GroupGranted(at, move.name, after.id, target, move.epoch_next, protection)]
    elif step.role is Role.PROTECT:
        granted = group_granted(after, step.group)
        sides = after.index.protects_after if granted else after.index.protects_before
        steps = sides.get(step.group, ())
        if steps and _seen(after, steps) and not _seen(before, steps):
            return [events.GroupProtected(at, step.group, after.id)]
    return []


def _protection_lost(before: Run, after: Run, event: events.StepUndoStarted) -> list[GroupEvent]:
    """What this run had protected is so no longer as soon as its replication is about to be taken back."""
    step = before.plan.steps[event.step]
    if step.role is not Role.PROTECT:
        return []
    for sides in (before.index.protects_before, before.index.protects_after):
        steps = sides.get(step.group, ())
        if step.id in steps and _seen(before, steps) and not _seen(after, steps):
            return [events.GroupProtectionLost(event.at, step.group, f"{before.id} was taken back")]
    return []


def _seen(run: Run, steps: Iterable[str]) -> bool:
    """Did every one of these steps take effect, as far as anyone looked? Skipped is not protected."""
    return all(
        state.state is StepState.SUCCEEDED or (state.state is StepState.MARKED and not contradicted(state))
        for state in map(run.step, steps)
    )


def group_granted(run: Run, group: str) -> bool:
    """Is the group's new epoch committed at the target? False for a plan that grants none."""
    epochs = run.index.epochs.get(group, ())
    return bool(epochs) and satisfied(run, epochs)


def _released(run: Run, event: events.RunFinished) -> list[GroupEvent]:
    """Groups end each in their own state."""
    out: list[GroupEvent] = []
    for name, move in run.plan.groups.items():
        promotes = [run.step(step) for step in run.index.promotes.get(name, ())]
        withdrawn = any(state.attempt > 0 for state in promotes)
        taken_back = withdrawn and not any(state.state is StepState.SUCCEEDED for state in promotes)
        if taken_back and not run.leave_closed:
            out.append(
                events.GroupGranted(event.at, name, run.id, move.active, move.epoch_seen, "unprotected")
            )
        outcome, left = event.outcome, ""
        if outcome == "partial":
            is_kept = name in kept_groups(run)
            outcome = "done" if name in moved_groups(run) else "partial" if is_kept else "aborted"
            left = run.plan.source if outcome == "partial" and group_granted(run, name) else ""
        out.append(events.GroupReleased(event.at, name, run.id, outcome, left))
    return out
