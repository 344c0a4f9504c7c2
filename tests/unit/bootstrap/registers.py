"""The group of registers, and the histories that tests give it."""

from __future__ import annotations

from typing import Any

from orchestrator.bootstrap.app import App
from orchestrator.core import events
from orchestrator.core.groups import GroupState
from orchestrator.core.moment import At

GROUP = "registers"
AT = At(1, 1)
HOME = events.GroupAdopted(AT, GROUP, "home", 1, "protected", "ann")
CLAIMED = events.GroupClaimed(AT, GROUP, "r1", "ann", "laptop", 2)
ABROAD = (
    HOME,
    CLAIMED,
    events.GroupGranted(AT, GROUP, "r1", "embassy", 2, "protected"),
    events.GroupReleased(AT, GROUP, "r1", "done"),
)
SPLIT = (*ABROAD, events.GroupConflictSeen(AT, GROUP))


def known(app: App, *history: Any) -> GroupState:
    """The group after these events, which the log now holds."""
    for event in history:
        app.journal.append_group(GROUP, lambda _, event=event: event)
    return app.journal.group(GROUP)
