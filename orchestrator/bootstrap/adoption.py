"""Decides what the evidence of the reachable sites says about a group, before people confirm it.

Group state comes from evidence, not from one machine's file (semantics 3.1): epoch rows, roles and
replication are compared. Where they disagree, nothing is concluded and people must name the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.core.events import GroupAdopted, GroupResolved
from orchestrator.core.groups import GroupState, label
from orchestrator.core.model import group_of
from orchestrator.engine.clock import now
from orchestrator.errors import InputError, RefusedError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What the evidence says of one group. ``active`` "" = it does not say."""

    group: str
    active: str
    epoch: int
    protection: str
    evidence: Mapping[str, Any]
    doubts: tuple[str, ...]


def groups_of(app: App) -> list[str]:
    """Every group of the estate's runbooks, declared or of one service."""
    return list(dict.fromkeys(group_of(app.loaded.estate, name) for name in app.loaded.runbooks))


def conclude(app: App, wanted: list[str]) -> list[Conclusion]:
    """Read the evidence and conclude for each wanted group."""
    from orchestrator.bootstrap.observe import evidence_now

    known = groups_of(app)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"no group {', '.join(unknown)} in this estate; it has: {', '.join(known)}")
    by_group: dict[str, dict[str, Mapping[str, Any]]] = {}
    for unit, (group, found) in evidence_now(app).items():
        by_group.setdefault(group, {})[unit] = found
    return [_conclude(app, name, by_group.get(name, {})) for name in wanted]


def _conclude(app: App, group: str, clusters: Mapping[str, Mapping[str, Any]]) -> Conclusion:
    home = next((s.name for s in app.loaded.estate.sites.values() if s.role == "home"), "")
    if not clusters:
        return Conclusion(group, home, 1, "protected", {}, ())
    doubts: list[str] = []
    writers: set[str] = set()
    named: set[str] = set()
    epochs = [0]
    streaming = True
    for unit, found in clusters.items():
        sites = found.get("sites") or {}
        primaries = [name for name, seen in sites.items() if seen.get("role") == "primary"]
        writers.update(primaries)
        for name, seen in sites.items():
            if not seen.get("reachable"):
                doubts.append(f"{unit}: {name} does not answer ({seen.get('error') or 'no answer'})")
            for row in (seen.get("writers") or {}).values():
                named.add(row["site"])
                epochs.append(row["epoch"])
        if len(primaries) > 1:
            doubts.append(f"{unit}: {' and '.join(primaries)} both take writes")
        streaming = streaming and any(seen.get("streaming") for seen in sites.values())
    if writers != named:
        doubts.append(
            f"epoch rows name {', '.join(sorted(named)) or 'no site'}, primaries are at "
            f"{', '.join(sorted(writers)) or 'no site'}"
        )
    active = writers.pop() if len(writers) == 1 and writers == named else ""
    protection = "protected" if streaming and active else "unprotected"
    return Conclusion(group, active, max(epochs), protection, dict(clusters), tuple(doubts))


def adopt(app: App, conclusion: Conclusion, by: str, active: str | None) -> GroupState:
    """Write the group's first event (or a new one, after a disagreement)."""
    site = active or conclusion.active
    if not site:
        raise RefusedError(
            f"group {conclusion.group}: the evidence does not say which site writes: "
            + "; ".join(conclusion.doubts),
            (f"continuity adopt {conclusion.group} --active SITE --by NAME",),
        )
    at = now(app.clock)
    event = GroupAdopted(
        at, conclusion.group, site, max(1, conclusion.epoch), conclusion.protection, by,
        {**conclusion.evidence, "doubts": list(conclusion.doubts)},
    )  # fmt: skip

    def decide(state: GroupState) -> GroupAdopted:
        if state.claim:
            raise RefusedError(
                f"group {state.name} is held by run {state.claim}", (f"continuity status {state.claim}",)
            )
        return event

    return app.journal.append_group(conclusion.group, decide)


def adopt_all(app: App, by: str) -> list[GroupState]:
    """Adopt every group as the evidence says (a lab's first state). RefusedError where it doubts."""
    return [adopt(app, conclusion, by, None) for conclusion in conclude(app, groups_of(app))]


def resolve(app: App, group: str, keep: str, by: str, reason: str, evidence: Mapping[str, Any]) -> GroupState:
    """People decide whose history stands after a split brain; the other's is kept as evidence."""
    at = now(app.clock)

    def decide(state: GroupState) -> GroupResolved:
        if not state.conflict:
            raise RefusedError(f"group {group} is {label(state)}: there is nothing to resolve")
        if keep not in app.loaded.estate.sites:
            raise InputError(f"--keep {keep}: no such site; sites: {', '.join(app.loaded.estate.sites)}")
        return GroupResolved(at, group, keep, by, reason, evidence)

    return app.journal.append_group(group, decide)
