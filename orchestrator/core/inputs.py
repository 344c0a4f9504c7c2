"""Decides what may be told to the machine; must never say what follows from it.

Driver inputs come from the one process that holds the run's lock; verbs come from any process.
Every input carries ``at``: the shell stamps it, the core never reads a clock.
"""

# ruff: noqa: PLC0414 - a moment is part of this vocabulary
from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.core.moment import At as At
from orchestrator.core.outcomes import Finding, Outcome

# --- driver inputs ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DriverStarted:
    """A driver's first input: what an earlier one left running becomes unknown."""

    at: At
    incarnation: str
    pid: int
    boot: str
    machine: str
    version: str


@dataclass(frozen=True, slots=True)
class Proceed:
    """Start whatever may start now."""

    at: At


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt ended in this process."""

    at: At
    step: str
    attempt: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Checked:
    """A check answered. ``number`` tells repeated questions about one attempt apart."""

    at: At
    step: str
    attempt: int
    number: int
    finding: Finding


@dataclass(frozen=True, slots=True)
class UndoEnded:
    at: At
    step: str
    number: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Woke:
    """A timer that the run ordered is due."""

    at: At
    name: str


DriverInput: TypeAlias = DriverStarted | Proceed | Ended | Checked | UndoEnded | Woke


# --- verbs ------------------------------------------------------------------------------------

LOSS_UNKNOWN = -1
"""As an accepted limit: people accept a loss that nobody can bound."""
LOSS_WITHIN_RPO = -2
"""As an accepted limit: of each group the strictest RPO of its own services, and nobody else's."""


@dataclass(frozen=True, slots=True)
class Authorise:
    """People confirmed the plan with this digest. ``accepted_loss_ms``: a limit, LOSS_UNKNOWN or LOSS_WITHIN_RPO."""

    at: At
    by: str
    digest: str
    accepted_loss_ms: int
    method: str = "typed"


@dataclass(frozen=True, slots=True)
class Pause:
    at: At
    by: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Goes on. ``accepted_loss_ms`` None: nothing is accepted anew."""

    at: At
    by: str
    accepted_loss_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """``step`` empty: every step that failed or that nobody could decide."""

    at: At
    by: str
    step: str = ""


@dataclass(frozen=True, slots=True)
class Skip:
    at: At
    by: str
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class MarkDone:
    at: At
    by: str
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """Answers a step that waits for people."""

    at: At
    by: str
    step: str
    text: str


@dataclass(frozen=True, slots=True)
class Accept:
    """People accept what a gate found. ``gate``: ``loss`` (with a limit) or a verify step's id."""

    at: At
    by: str
    gate: str
    reason: str
    limit_ms: int | None = None


@dataclass(frozen=True, slots=True)
class DeclareLost:
    """People declare a site lost: the weakest fence proof. ``lost_at_ns``: when, if they know."""

    at: At
    by: str
    site: str
    reason: str
    lost_at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Abort:
    """``leave_closed``: end although no site is proven to write."""

    at: At
    by: str
    reason: str
    leave_closed: bool = False


Verb: TypeAlias = (
    Authorise | Pause | Resume | Retry | Skip | MarkDone | Confirm | Accept | DeclareLost | Abort
)
Input: TypeAlias = DriverInput | Verb
