"""Decides what the evidence of the reachable sites says about a group, before people confirm it.

Group state comes from evidence, not from one machine's file (semantics 3.1): epoch rows, roles and
replication are compared. Where they disagree, nothing is concluded and people must name the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.core.claims import Claimed, contradictions, newest
from orchestrator.core.events import GroupAdopted, GroupResolved
from orchestrator.core.groups import GroupState, label
from orchestrator.core.model import group_of
from orchestrator.engine.clock import now
from orchestrator.errors import InputError, RefusedError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.bootstrap.observe import Looked


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
    seen = evidence_now(app)
    return [_conclude(app, name, [each for each in seen if each.group == name]) for name in wanted]


def _conclude(app: App, group: str, seen: list[Looked]) -> Conclusion:
    from orchestrator.bootstrap.observe import CLAIMS, INSPECT

    clusters = {each.unit: each.evidence for each in seen if each.kind == INSPECT}
    claims = [claim for each in seen if each.kind == CLAIMS for claim in _claims(each.evidence)]
    doubts = [text for each in seen if each.kind == CLAIMS for text in each.evidence.get("silent", ())]
    evidence = {each.unit: each.evidence for each in seen}
    top, named = newest(claims)
    if clusters:
        of_rows = _of_clusters(clusters)
        doubts = [*of_rows.doubts, *doubts]
        doubts += contradictions(claims, of_rows.epoch, of_rows.active) if of_rows.active else []
        epoch = max(of_rows.epoch, top)
        is_known = of_rows.active and not contradictions(claims, of_rows.epoch, of_rows.active)
        active = of_rows.active if is_known else ""
        return Conclusion(group, active, epoch, of_rows.protection, evidence, tuple(doubts))
    home = next((s.name for s in app.loaded.estate.sites.values() if s.role == "home"), "")
    if not claims:
        doubts.append("nothing carries a claim of this group: home is assumed, people must know better")
        return Conclusion(group, home, 1, "protected", evidence, tuple(doubts))
    if len(named) > 1:
        doubts.append(f"epoch {top} is claimed for {' and '.join(sorted(named))}")
    active = next(iter(named)) if len(named) == 1 else ""
    protection = "protected" if active == home else "unprotected"
    return Conclusion(group, active, top, protection, evidence, tuple(doubts))


def _claims(evidence: Mapping[str, Any]) -> list[Claimed]:
    return [
        Claimed(found["where"], found["at"], found["epoch"], found["site"], found["run"])
        for found in evidence.get("claims", ())
    ]


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the databases of a group say together. ``active`` "": they do not agree on one site."""

    active: str
    epoch: int
    protection: str
    doubts: tuple[str, ...]


def _of_clusters(clusters: Mapping[str, Mapping[str, Any]]) -> _Rows:
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
    return _Rows(active, max(epochs), "protected" if streaming and active else "unprotected", tuple(doubts))


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
