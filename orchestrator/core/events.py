"""Decides which facts the log holds; must never decide what follows from them (``run.evolve`` does).

Events change additively only: a field once written keeps its name and meaning, a new one has a
default. ``KIND`` is the name in the log. Bodies are JSON without floats.
"""

# ruff: noqa: PLC0414 - group events are part of this vocabulary, in a file of their own
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from orchestrator.core.group_events import GroupAdopted as GroupAdopted
from orchestrator.core.group_events import GroupClaimed as GroupClaimed
from orchestrator.core.group_events import GroupConflictSeen as GroupConflictSeen
from orchestrator.core.group_events import GroupEvent as GroupEvent
from orchestrator.core.group_events import GroupGranted as GroupGranted
from orchestrator.core.group_events import GroupKeepReserved as GroupKeepReserved
from orchestrator.core.group_events import GroupProtected as GroupProtected
from orchestrator.core.group_events import GroupProtectionLost as GroupProtectionLost
from orchestrator.core.group_events import GroupReleased as GroupReleased
from orchestrator.core.group_events import GroupResolved as GroupResolved
from orchestrator.core.group_events import GroupWithdrawn as GroupWithdrawn
from orchestrator.core.moment import At
from orchestrator.core.values import Json


@dataclass(frozen=True, slots=True)
class RunCreated:
    """``sources``: SHA-256 (hex) of the estate and runbook files the plan was made from, by name.
    ``plan_sha256``: the same of the text of the plan that lies beside the log, and its name there; "" in logs of
    before it was kept, where the plan lies under its digest."""

    KIND: ClassVar[str] = "run.created"
    at: At
    run: str
    operation: str
    digest: str
    by: str
    machine: str
    reason: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    plan_sha256: str = ""


@dataclass(frozen=True, slots=True)
class DriverCameUp:
    KIND: ClassVar[str] = "driver.started"
    at: At
    incarnation: str
    pid: int
    boot: str
    machine: str
    version: str


@dataclass(frozen=True, slots=True)
class RunReady:
    """Preflight is through; people are asked."""

    KIND: ClassVar[str] = "run.ready"
    at: At


@dataclass(frozen=True, slots=True)
class RunAuthorised:
    """The order: from here the clock of RTO figures runs."""

    KIND: ClassVar[str] = "run.authorised"
    at: At
    by: str
    digest: str
    accepted_loss_ms: int
    method: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    KIND: ClassVar[str] = "step.started"
    at: At
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StepSucceeded:
    KIND: ClassVar[str] = "step.succeeded"
    at: At
    step: str
    attempt: int
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepFailed:
    """Surely not done. ``retry_in_ms`` None: no further try without people."""

    KIND: ClassVar[str] = "step.failed"
    at: At
    step: str
    attempt: int
    message: str
    retry_in_ms: int | None = None
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepUnknown:
    KIND: ClassVar[str] = "step.unknown"
    at: At
    step: str
    attempt: int
    message: str


@dataclass(frozen=True, slots=True)
class StepResolved:
    """What a check found, and what became of the step: one append, never two (engine lesson)."""

    KIND: ClassVar[str] = "step.resolved"
    at: At
    step: str
    attempt: int
    number: int
    finding: str
    reason: str = ""
    people: bool = False  # nobody could tell and the step may not be repeated
    again_in_ms: int = 0  # still running: ask again then
    evidence: Mapping[str, Json] = field(default_factory=dict)
    failed: bool = False  # not done, again and again: no further try without people


@dataclass(frozen=True, slots=True)
class StepReopened:
    """A proof or a measurement grew too old: it is taken again."""

    KIND: ClassVar[str] = "step.reopened"
    at: At
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepWaiting:
    KIND: ClassVar[str] = "step.waiting"
    at: At
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StepConfirmed:
    KIND: ClassVar[str] = "step.confirmed"
    at: At
    step: str
    by: str
    text: str


@dataclass(frozen=True, slots=True)
class StepRetried:
    KIND: ClassVar[str] = "step.retried"
    at: At
    step: str
    by: str


@dataclass(frozen=True, slots=True)
class StepSkipped:
    KIND: ClassVar[str] = "step.skipped"
    at: At
    step: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepMarkAsked:
    KIND: ClassVar[str] = "step.mark-asked"
    at: At
    step: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepMarked:
    """People's word stands. ``contradiction``: the check did not find the effect."""

    KIND: ClassVar[str] = "step.marked"
    at: At
    step: str
    finding: str
    reason: str
    contradiction: bool


@dataclass(frozen=True, slots=True)
class StepUndoStarted:
    KIND: ClassVar[str] = "step.undo-started"
    at: At
    step: str
    number: int


@dataclass(frozen=True, slots=True)
class StepUndone:
    KIND: ClassVar[str] = "step.undone"
    at: At
    step: str
    number: int
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepUndoFailed:
    KIND: ClassVar[str] = "step.undo-failed"
    at: At
    step: str
    number: int
    message: str


@dataclass(frozen=True, slots=True)
class StaleResult:
    """A result whose attempt is not the current one: recorded, and nothing else."""

    KIND: ClassVar[str] = "step.stale-result"
    at: At
    step: str
    attempt: int
    what: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer that the run had ordered is over; what follows from it stands in the same decision."""

    KIND: ClassVar[str] = "timer.fired"
    at: At
    name: str


@dataclass(frozen=True, slots=True)
class LossStated:
    """The data loss the run is about to accept for one unit (semantics 4). None = unknown."""

    KIND: ClassVar[str] = "loss.stated"
    at: At
    unit: str
    milliseconds: int | None
    bytes: int | None
    rows_bound: int | None
    basis: str


@dataclass(frozen=True, slots=True)
class GateAccepted:
    KIND: ClassVar[str] = "gate.accepted"
    at: At
    gate: str
    by: str
    reason: str
    limit_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SiteDeclaredLost:
    KIND: ClassVar[str] = "site.declared-lost"
    at: At
    site: str
    by: str
    reason: str
    lost_at_ns: int


@dataclass(frozen=True, slots=True)
class RunHeld:
    """``causes``: one line each; ``steps``: the steps they speak of; ``choices``: what may be done."""

    KIND: ClassVar[str] = "run.held"
    at: At
    causes: tuple[str, ...]
    steps: tuple[str, ...]
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunGoesOn:
    """What held the run is gone."""

    KIND: ClassVar[str] = "run.goes-on"
    at: At


@dataclass(frozen=True, slots=True)
class RunPaused:
    KIND: ClassVar[str] = "run.paused"
    at: At
    by: str


@dataclass(frozen=True, slots=True)
class RunResumed:
    KIND: ClassVar[str] = "run.resumed"
    at: At
    by: str
    accepted_loss_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AbortAsked:
    KIND: ClassVar[str] = "run.abort-asked"
    at: At
    by: str
    reason: str
    leave_closed: bool


@dataclass(frozen=True, slots=True)
class RunFinished:
    """``outcome``: done, partial or aborted. ``debts``: best-effort steps still owed."""

    KIND: ClassVar[str] = "run.finished"
    at: At
    outcome: str
    debts: tuple[str, ...] = ()
    exposures: tuple[str, ...] = ()


RunEvent: TypeAlias = (
    RunCreated
    | DriverCameUp
    | RunReady
    | RunAuthorised
    | StepStarted
    | StepSucceeded
    | StepFailed
    | StepUnknown
    | StepResolved
    | StepReopened
    | StepWaiting
    | StepConfirmed
    | StepRetried
    | StepSkipped
    | StepMarkAsked
    | StepMarked
    | StepUndoStarted
    | StepUndone
    | StepUndoFailed
    | StaleResult
    | TimerFired
    | LossStated
    | GateAccepted
    | SiteDeclaredLost
    | RunHeld
    | RunGoesOn
    | RunPaused
    | RunResumed
    | AbortAsked
    | RunFinished
)

Event: TypeAlias = RunEvent | GroupEvent

EVENT_KINDS: Mapping[str, type] = {
    kind.KIND: kind for union in (RunEvent, GroupEvent) for kind in union.__args__
}
