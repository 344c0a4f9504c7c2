"""Decides what a run is, as a value, and the few questions that its steps' states answer; never how an
event changes it (``fold``) nor what happens next (``machine``).

Two levels, run → unit → steps, so that one event copies one unit and not 20,000 steps. Ready and
busy steps are kept as they arise, because looking for them would cost a walk over every unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from orchestrator.core.events import RunCreated
from orchestrator.core.index import PlanIndex, index_of
from orchestrator.core.moment import At
from orchestrator.core.plan import Plan, Role, Step
from orchestrator.core.shelves import Names, Shelves, names_in, shelved
from orchestrator.core.states import FINAL_RUN_STATES, SATISFIED, RunState, StepState
from orchestrator.core.values import Json


@dataclass(frozen=True, slots=True)
class StepRun:
    """``attempt`` counts every start, ``tries`` those that the retry policy counts. ``since``: the
    moment of the last change. ``due_mono_ns``: when a retry or a further check is due.
    ``proof_at``: when evidence was last taken; None = void, it must be taken again.
    ``proof_since``: since when the proof holds without a break (looked at again, it still held).
    ``may_be_done``: of an attempt before the current one nobody could tell whether it took effect."""

    state: StepState = StepState.PENDING
    attempt: int = 0
    tries: int = 0
    number: int = 0  # of the check or undo that is asked for
    since: At | None = None
    started: At | None = None
    due_mono_ns: int = 0
    wait_ms: int = 0
    proof_at: At | None = None
    proof_since: At | None = None
    may_be_done: bool = False
    evidence: Mapping[str, Json] = field(default_factory=dict)
    message: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UnitRun:
    """``unmet``: step → needs not met yet. ``ready``: pending, all needs met. ``busy``: see states."""

    steps: Mapping[str, StepRun]
    unmet: Mapping[str, int]
    ready: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loss:
    """Stated loss of a unit; None = unknown."""

    milliseconds: int | None
    bytes: int | None
    rows_bound: int | None
    basis: str
    at: At


@dataclass(frozen=True, slots=True)
class Lost:
    """A site that people declared lost. ``at``: when they said so; ``lost_at_ns``: when it was lost."""

    by: str
    reason: str
    at: At
    lost_at_ns: int


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of one plan. ``unfinished``: steps that have not ended (0 = nothing left)."""

    id: str
    plan: Plan
    index: PlanIndex
    state: RunState
    units: Shelves[UnitRun]
    active: Names  # units with a ready or a busy step
    created: RunCreated
    last: At
    driver: str = ""
    drivers: int = 0
    authorised: At | None = None
    authorised_by: str = ""
    accepted_loss_ms: int | None = None
    losses: Mapping[str, Loss] = field(default_factory=dict)
    lost_sites: Mapping[str, Lost] = field(default_factory=dict)
    held_causes: tuple[str, ...] = ()
    held_steps: tuple[str, ...] = ()
    held_choices: tuple[str, ...] = ()
    before_hold: RunState = RunState.PREFLIGHT  # what a held or paused run goes back to
    leave_closed: bool = False
    fencing: At | None = None  # when the fences that are busy now, or were last, began together
    fences_busy: int = 0
    fences_pending: int = 0
    in_flight: int = 0  # steps that run or are unknown: what takes room
    urgent_in_flight: int = 0  # of these, what the first write waits for
    urgent_since: At | None = None  # when this driver began with that
    unfinished: int = 0
    preflight_left: int = 0
    debts: tuple[str, ...] = ()
    exposures: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_RUN_STATES

    @property
    def phase(self) -> RunState:
        """What the run is about: a held or paused run is still in the phase it will go back to."""
        return self.before_hold if self.state in (RunState.HELD, RunState.PAUSED) else self.state

    def step(self, step: str) -> StepRun:
        """The state of one step. KeyError for a step that the plan does not have."""
        return self.units[self.plan.steps[step].unit].steps[step]


# dataclasses.replace looks every field up by name through the dataclass machinery; evolve runs once
# per event over thousands of steps, so the copies are made by these.
_RUN_FIELDS = tuple(f.name for f in fields(Run))
_STEP_FIELDS = tuple(f.name for f in fields(StepRun))


def with_run(run: Run, **changes: Any) -> Run:
    return Run(*[changes[n] if n in changes else getattr(run, n) for n in _RUN_FIELDS])


def with_step(step: StepRun, **changes: Any) -> StepRun:
    return StepRun(*[changes[n] if n in changes else getattr(step, n) for n in _STEP_FIELDS])


def start(plan: Plan, created: RunCreated, index: PlanIndex | None = None) -> Run:
    """A run as ``run.created`` leaves it."""
    index = index or index_of(plan)
    units = {}
    for name, steps in index.units.items():
        unmet = index.unmet[name]
        units[name] = UnitRun(
            steps=dict.fromkeys(steps, _FRESH),
            unmet=unmet,
            ready=tuple(step for step in steps if not unmet[step]),
        )
    shelves = shelved(units)
    return Run(
        id=created.run,
        plan=plan,
        index=index,
        state=RunState.PREFLIGHT,
        units=shelves,
        active=names_in(shelves, lambda unit: bool(unit.ready)),
        created=created,
        last=created.at,
        unfinished=len(plan.steps),
        preflight_left=len(index.preflight),
        fences_pending=len(index.fences),
    )


_FRESH = StepRun()


# --- questions --------------------------------------------------------------------------------


def satisfied(run: Run, steps: Iterable[str]) -> bool:
    """Do all these steps count as met?"""
    return all(run.step(step).state in SATISFIED for step in steps)


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


NOT_SENT = frozenset({StepState.PENDING, StepState.FAILED, StepState.BACKOFF})
"""States of a promotion that was never sent, or surely was refused."""


def promoted(run: Run) -> bool:
    """Has any group's point of no return been passed, as far as anyone can tell?"""
    return any(run.step(step).state not in NOT_SENT for step in run.index.decisive_steps)


def all_promoted(run: Run) -> bool:
    """Has every group's? Then nothing is left that an accepted loss could let pass."""
    return all(run.step(step).state not in NOT_SENT for step in run.index.decisive_steps)


def moved_groups(run: Run) -> tuple[str, ...]:
    """Groups whose steps have all ended as planned: an abort leaves them where they are."""
    return tuple(
        name
        for name in run.plan.groups
        if satisfied(run, run.index.epochs.get(name, ()))
        and all(_ended_as_planned(run, step) for step in run.index.by_group.get(name, ()))
    )


def kept_groups(run: Run) -> tuple[str, ...]:
    """Groups that an abort leaves at the target: those that have moved, and those that are promoted and whose
    rest people leave as it is."""
    moved = frozenset(moved_groups(run))
    return tuple(
        name
        for name in run.plan.groups
        if name in moved
        or any(run.step(step).state in SATISFIED for step in run.index.decisive.get(name, ()))
    )


def _ended_as_planned(run: Run, step: str) -> bool:
    state = run.step(step).state
    return state is not StepState.UNDONE and has_ended(run.plan.steps[step], state)
