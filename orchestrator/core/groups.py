"""Decides what a service group is in: folds the events of a group's stream, and says what may never
become of one; decides nothing else.

Names such as ``embassy_active_unprotected`` are labels derived from the five facts, never stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from orchestrator.core import events
from orchestrator.core.events import GroupEvent


@dataclass(frozen=True, slots=True)
class Keeping:
    """A decision for ``site`` that is under way: ``epoch`` is reserved for it under the name ``id``."""

    id: str
    site: str
    epoch: int


@dataclass(frozen=True, slots=True)
class GroupState:
    """``active`` "" = no site holds the epoch. ``claim``: the run that has claimed the group, or "".

    ``reserved``: the highest epoch that any run of this log has reserved; it is never used by another.
    ``taken_back``: the runs that reserved one and were not granted it. What they wrote beside names,
    routes and documents still stands there, because an undo gives the state back and never the epoch.
    ``is_resolved``: people have decided whose history stands, and the losing side, which may still run, has
    not been brought back yet: seeing it again is no new conflict.
    ``holder``: who was last given ``epoch``, also while no site may write. ``keeping``: people keep a site that
    does not hold the epoch, and its new one is not confirmed yet. ``left``: the site that lost the epoch by such
    a decision, or by a run that people ended as it is; names and routes lead there until a failover to
    ``active`` has moved them.
    """

    name: str
    active: str = ""
    epoch: int = 0
    protection: str = "unknown"  # protected | unprotected | unknown
    claim: str = ""
    conflict: bool = False
    is_resolved: bool = False
    adopted: bool = False
    claim_by: str = ""
    claim_machine: str = ""
    claim_utc_ns: int = 0
    last_finish_utc_ns: int = 0
    reserved: int = 0
    taken_back: tuple[str, ...] = ()
    holder: str = ""
    keeping: Keeping | None = None
    left: str = ""


def label(state: GroupState) -> str:
    """The name people use for a state."""
    if not state.adopted:
        return "not-adopted"
    if state.conflict:
        return "split_brain"
    if not state.active:
        return "no_active_site"
    return f"{state.active}_active_{state.protection}"


def adopt_command(group: str) -> str:
    """How people let the evidence set the log right, as they type it: it is shown, and confirmed."""
    return f"continuity adopt {group} --by NAME"


def resolve_command(group: str) -> str:
    """How people end a split brain, as they type it."""
    return f"continuity resolve {group} --keep SITE --by NAME --reason TEXT"


def evolve_group(state: GroupState, event: GroupEvent) -> GroupState:
    """Fold one event of the group's stream."""
    match event:
        case events.GroupAdopted():
            return replace(
                state,
                active=event.active,
                epoch=event.epoch,
                holder=event.active,
                left=state.left if event.active == state.active else "",
                protection=event.protection,
                conflict=False,
                is_resolved=state.is_resolved
                and (event.active, event.protection) == (state.active, "unprotected"),
                adopted=True,
                reserved=max(state.reserved, event.epoch),
                taken_back=() if event.epoch >= state.reserved else state.taken_back,
            )
        case events.GroupClaimed():
            return replace(
                state,
                claim=event.run,
                claim_by=event.by,
                claim_machine=event.machine,
                claim_utc_ns=event.at.utc_ns,
                reserved=max(state.reserved, event.epoch_next),
            )
        case events.GroupWithdrawn():
            return replace(state, active="", protection="unprotected")
        case events.GroupGranted():
            return replace(
                state,
                active=event.site,
                epoch=event.epoch,
                holder=event.site,
                left="",
                protection=event.protection,
                taken_back=() if event.epoch >= state.reserved else state.taken_back,
            )
        case events.GroupProtected():
            return replace(state, protection="protected", is_resolved=False)
        case events.GroupProtectionLost():
            return replace(state, protection="unprotected")
        case events.GroupReleased():
            return replace(
                state,
                claim="",
                claim_by="",
                claim_machine="",
                claim_utc_ns=0,
                last_finish_utc_ns=event.at.utc_ns,
                left=event.left or state.left,
                taken_back=(*state.taken_back, event.run)
                if state.reserved > state.epoch
                else state.taken_back,
            )
        case events.GroupConflictSeen():
            return replace(state, conflict=True)
        case events.GroupKeepReserved():
            return replace(
                state,
                keeping=Keeping(event.id, event.keep, event.epoch),
                reserved=max(state.reserved, event.epoch),
            )
        case events.GroupResolved():
            return _resolved(state, event)
        case _:
            assert_never(event)


def _resolved(state: GroupState, event: events.GroupResolved) -> GroupState:
    epoch = event.epoch or state.epoch
    return replace(
        state,
        conflict=False,
        is_resolved=True,
        active=event.keep,
        epoch=epoch,
        holder=event.keep,
        keeping=None,
        left=state.active if event.epoch and state.active != event.keep else state.left,
        protection="unprotected",
        reserved=max(state.reserved, epoch),
        taken_back=() if event.epoch and epoch >= state.reserved else state.taken_back,
    )


def fold_group(name: str, history: Iterable[GroupEvent]) -> GroupState:
    state = GroupState(name)
    for event in history:
        state = evolve_group(state, event)
    return state


def check_group(before: GroupState, after: GroupState, run: str) -> list[str]:
    """What must be true when run ``run`` changes a group: epochs only grow, one site holds the right to
    write, and only the run that claimed the group changes it."""
    out = breaks(before, after)
    if run != before.claim:
        out.append(f"only-the-claimant: {before.name} is claimed by {before.claim or 'nobody'}, not {run}")
    return out


def breaks(before: GroupState, after: GroupState) -> list[str]:
    """What must be true of every event of a group, whoever appends it: epochs only grow, and one that a site
    was given is never another's, also where no site was active in between; and while a run has claimed the group,
    people decide nothing about whose history stands: that run would go on under the epoch it was given."""
    out = []
    if after.epoch < before.epoch:
        out.append(f"epochs-only-grow: {before.name} falls from {before.epoch} to {after.epoch}")
    holder = before.holder or before.active
    if after.active and holder not in ("", after.active) and after.epoch == before.epoch:
        out.append(f"one-site-per-epoch: {before.name} goes to {after.active} within epoch {after.epoch}")
    decided = after.keeping != before.keeping or (before.conflict and not after.conflict)
    if before.claim and (decided or (after.is_resolved and not before.is_resolved)):
        out.append(f"a-held-group-is-not-resolved: {before.name} is claimed by run {before.claim}")
    return out


def breaks_of(name: str, history: Iterable[GroupEvent]) -> list[str]:
    """The same of a whole stream."""
    state, out = GroupState(name), []
    for event in history:
        after = evolve_group(state, event)
        out += breaks(state, after)
        state = after
    return out
