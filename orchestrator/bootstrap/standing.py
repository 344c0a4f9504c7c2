"""Decides what the log must still learn of the sites before it is believed: a history that went on where
nobody looks any more, and a standby that is gone. Nothing is changed at any site.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.bootstrap.documents import Apart, documents_apart
from orchestrator.core.events import GroupConflictSeen, GroupProtectionLost
from orchestrator.core.groups import adopt_command, resolve_command
from orchestrator.core.values import Json
from orchestrator.engine.clock import now
from orchestrator.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.core.groups import GroupState
    from orchestrator.drivers.postgresql_foreign import Foreign
    from orchestrator.drivers.postgresql_member import Member
    from orchestrator.ports import Context

STEP = "standing"
LOOK_SECONDS = 2.0
Clusters = Mapping[str, tuple[str, Mapping[str, Any]]]  # cluster → (its group, what its sites say)


@dataclass(frozen=True, slots=True)
class Left:
    """A server that lies stopped and went on after another had been promoted."""

    group: str
    unit: str
    site: str
    old: Foreign


def writing_sites(found: Mapping[str, Any]) -> list[str]:
    """The sites of an inspection that take writes."""
    return [site for site, seen in (found.get("sites") or {}).items() if seen.get("serves_writes")]


def told(app: App, group: str, seen: str) -> str:
    """A second history as people are told of it: what they decided already, else what they decide now."""
    from orchestrator.bootstrap.following import next_commands

    state = app.journal.group(group)
    if state.is_resolved and not state.conflict:
        return f"resolved (keep {state.active}); {seen}; next: {next_commands(app, state)[0]}"
    if state.claim:
        return f"SPLIT BRAIN: {seen}; run {state.claim} ends first: continuity status {state.claim}"
    return f"SPLIT BRAIN: {seen}; people decide: {resolve_command(group)}"


def how_to_adopt(app: App, group: str) -> str:
    """What sets the log right by the evidence; a run that has claimed the group stands before it."""
    claim = app.journal.group(group).claim
    if claim:
        return f"run {claim} ends first: continuity status {claim}"
    return f"next: {adopt_command(group)}"


def towards_adopt(app: App, group: str) -> str:
    """The same as one command, as it can be typed now."""
    claim = app.journal.group(group).claim if app.has_log else ""
    return f"continuity status {claim}" if claim else adopt_command(group)


def journal_conflict(app: App, group: str, evidence: Mapping[str, Json]) -> None:
    """Write into the log that a second site takes or took writes, unless it knows or people have resolved it."""
    at = now(app.clock)

    def decide(state: GroupState) -> GroupConflictSeen | None:
        known = state.conflict or state.is_resolved or not state.adopted
        return None if known else GroupConflictSeen(at, group, evidence)

    app.journal.append_group(group, decide)


def journal_left(app: App, clusters: Clusters) -> list[Left]:
    """Find what went on where no server runs now, and write it into the log as the split brain that it was."""
    found = [left for unit, (group, seen) in clusters.items() for left in _left(app, group, unit, seen)]
    for left in found:
        journal_conflict(app, left.group, {"cluster": left.unit, "stopped": left.site, **left.old.evidence()})
    return found


def journal_apart(app: App) -> list[Apart]:
    """Find documents that a site published after it had lost the right to, and write it into the log; returns
    all that a site holds alone, also what had only not arrived when the other took over."""
    found = documents_apart(app)
    for apart in found:
        if apart.found.is_second:
            journal_conflict(app, apart.group, apart.evidence())
    return found


def _left(app: App, group: str, unit: str, found: Mapping[str, Any]) -> Iterator[Left]:
    from orchestrator.drivers.postgresql_member import member, members

    active = writing_sites(found)
    if len(active) != 1:
        return
    sites = [site for site in found["sites"] if site != active[0]]
    with app.context("observe", STEP, LOOK_SECONDS) as context:
        primary = member(context.parts, unit, found["sites"][active[0]]["host"])
        for at in members(context.parts, unit, sites) if sites else ():
            old = _lies_stopped(context, primary, at)
            if old is not None and old.commits:
                yield Left(group, unit, at.host.site, old)


def _lies_stopped(context: Context[Any], primary: Member, at: Member) -> Foreign | None:
    """None too where the host or the primary does not answer: that is no evidence of anything."""
    import psycopg

    from orchestrator.drivers import postgresql, postgresql_server, postgresql_upstream
    from orchestrator.drivers.postgresql_foreign import foreign

    try:
        seen = postgresql_server.look(context, at)
        if not seen["exists"] or seen["postmaster"] is not None:
            return None
        with postgresql.lease(context, primary) as session:
            history = postgresql_upstream.history(session, primary.host.name)
            return foreign(context, session, at, at.data_directory, seen["control"], history)
    except (TransientError, PermanentError, TimeoutError, psycopg.Error):
        return None


def journal_unprotected(app: App, clusters: Clusters) -> dict[str, str]:
    """Group → why it is no longer protected: its active primary says that no standby streams from it."""
    found = {}
    for unit, (group, seen) in clusters.items():
        state = app.journal.group(group)
        here = (seen.get("sites") or {}).get(state.active) or {}
        if not here.get("serves_writes") or here.get("streaming") or state.claim:
            continue
        if state.protection == "protected":
            found[group] = f"no standby streams from {unit} at {state.active}"
            _lost(app, group, found[group])
    return found


def _lost(app: App, group: str, reason: str) -> None:
    at = now(app.clock)

    def decide(state: GroupState) -> GroupProtectionLost | None:
        is_known = state.protection != "protected" or state.claim or not state.adopted
        return None if is_known else GroupProtectionLost(at, group, reason)

    app.journal.append_group(group, decide)


def log_behind(app: App, clusters: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, list[str]]:
    """Group → what the rows at its sites know that this log does not: it was cut off, or is an old copy.

    A group that a run has claimed is left out: its rows are ahead of its grant for a moment.
    """
    from orchestrator.core.claims import Claimed, contradictions

    found: dict[str, list[str]] = {}
    for unit, (group, seen) in clusters.items():
        state = app.journal.group(group)
        if state.claim or not state.adopted:
            continue
        rights = [
            Claimed(f"{database} of {unit} at {site}", site, row["epoch"], row["site"], row.get("run", ""))
            for site, there in (seen.get("sites") or {}).items()
            for database, row in (there.get("writers") or {}).items()
        ]
        against = contradictions(rights, state.epoch, state.active, state.taken_back)
        if against:
            found.setdefault(group, []).extend(against)
    return found
