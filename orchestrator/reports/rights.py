"""Decides what a run's record says of the right to write: what the log granted, never what the plan meant to.

A run reserves the next epoch of its groups when it begins; most that are taken back or end early never use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core import events
from orchestrator.core.plan import GroupMove
from orchestrator.core.run import Run
from orchestrator.engine.journal import GROUP, Journal, moment


def rights_document(journal: Journal, run: Run) -> dict[str, dict[str, Any]]:
    """Group → the epoch before this run and since, and what became of the one that was reserved."""
    return {name: _right(journal, run, move) for name, move in run.plan.groups.items()}


def _right(journal: Journal, run: Run, move: GroupMove) -> dict[str, Any]:
    holder, epoch, granted = move.active, move.epoch_seen, None
    for entry in journal.store.read(GROUP + move.name):
        match entry.event:
            case events.GroupWithdrawn(run=run.id):
                holder = ""
            case events.GroupGranted(run=run.id) as granting:
                holder, epoch = granting.site, granting.epoch
                granted = granting if epoch == move.epoch_next else granted
    is_reserved = move.epoch_next > move.epoch_seen
    return {
        "services": list(move.services),
        "epoch_before": move.epoch_seen,
        "active_before": move.active or None,
        "epoch": epoch,
        "active": holder or None,
        "epoch_reserved": move.epoch_next if is_reserved else None,
        "granted": None if not is_reserved else granted is not None,
        "granted_at": moment(granted.at) if granted and is_reserved else None,
    }


def right_text(right: Mapping[str, Any], *, is_over: bool) -> str:
    """The same as people read it: a right that nobody was given is not told as one that changed."""
    of = f" of {right['active']}" if right["active"] else ""
    if right["granted"]:
        return f"epoch {right['epoch_before']} → {right['epoch']}{of}, granted at {right['granted_at']}"
    text = f"epoch {right['epoch']}{of}, as before this run"
    if not right["active"] and right["active_before"]:
        text = f"epoch {right['epoch']}; the right to write was withdrawn from {right['active_before']}: no site holds it"
    if right["granted"] is None:
        return text
    return f"{text}; epoch {right['epoch_reserved']} {'was reserved and never granted' if is_over else 'is reserved, not granted yet'}"
