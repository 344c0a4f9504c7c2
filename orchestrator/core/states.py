"""Decides the names of the states of runs and steps; the rows between them stand in transitions."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """``held`` = stopped, waits for people. The last three are final."""

    PREFLIGHT = "preflight"
    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    HELD = "held"
    ABORTING = "aborting"
    DONE = "done"
    PARTIAL = "partial"
    ABORTED = "aborted"


FINAL_RUN_STATES = frozenset({RunState.DONE, RunState.PARTIAL, RunState.ABORTED})


class StepState(StrEnum):
    """``unknown``: nobody knows whether the effect is there, ``check`` is asked. ``undecided``:
    ``check`` could not tell either, people decide. ``marking``: people said it is done, ``check``
    is asked all the same."""

    PENDING = "pending"
    RUNNING = "running"
    UNKNOWN = "unknown"
    BACKOFF = "backoff"
    WAITING = "waiting"
    MARKING = "marking"
    FAILED = "failed"
    UNDECIDED = "undecided"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    MARKED = "marked"
    ACCEPTED = "accepted"
    UNDOING = "undoing"
    UNDO_FAILED = "undo-failed"
    UNDONE = "undone"


SATISFIED = frozenset({StepState.SUCCEEDED, StepState.SKIPPED, StepState.MARKED, StepState.ACCEPTED})
"""States that count as met for the steps that need this one."""

BUSY = frozenset(
    {
        StepState.RUNNING,
        StepState.UNKNOWN,
        StepState.BACKOFF,
        StepState.MARKING,
        StepState.UNDOING,
        StepState.WAITING,
    }
)
"""States from which an order follows, or people are asked."""

TAKES_ROOM = frozenset({StepState.RUNNING, StepState.UNKNOWN})
"""States of a step that has begun and is not known to have ended."""
