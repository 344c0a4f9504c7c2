"""Decides when the last attempt of each step of a run ended, by the entries of the log; what happened to the step
afterwards (another look at it, its undo) is none of the time that it took.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.core import events
from orchestrator.core.log import Recorded
from orchestrator.core.moment import At


def ends_of(entries: Iterable[Recorded]) -> dict[str, At]:
    """Step → when its last attempt ended, or was last heard of while nobody knows whether it did."""
    ends: dict[str, At] = {}
    is_open: set[str] = set()
    for event in (entry.event for entry in entries):
        match event:
            case events.StepStarted() | events.StepWaiting():
                is_open.add(event.step)
                ends.pop(event.step, None)
            case events.StepUnknown() | events.StepResolved(people=True) if event.step in is_open:
                ends[event.step] = event.at  # until somebody knows more
            case events.StepResolved(finding="running"):
                pass
            case (
                events.StepSucceeded()
                | events.StepFailed()
                | events.StepResolved()
                | events.StepConfirmed()
                | events.StepSkipped()
                | events.StepMarked()
            ) if event.step in is_open:
                is_open.remove(event.step)
                ends[event.step] = event.at
    return ends
