"""Decides what the evidence of the reachable sites says about a group, before people confirm it.

Group state comes from evidence, not from one machine's file (semantics 3.1): epoch rows, roles and
replication are compared. Where they disagree, nothing is concluded and people must name the site.
What the log knows already is never taken back by silence: epochs only grow, a group that nothing
speaks of stays where it is, and a split brain is ended by ``resolve`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.core.abort import ways_to_end
from orchestrator.core.claims import Claimed, contradictions, newest
from orchestrator.core.events import GroupAdopted, GroupResolved
from orchestrator.core.groups import GroupState, check_group, evolve_group, label, resolve_command
from orchestrator.core.model import group_of
from orchestrator.engine.clock import now
from orchestrator.errors import InputError, RefusedError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.bootstrap.observe import Looked


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What the evidence says of one group. ``active`` "" = it does not say.

    ``epoch``: the highest that the log or anything else knows. ``named``: the sites that the newest of
    the evidence names. ``writers``: the sites that take writes now, by cluster, where they are several.
    ``known``: the group as the log has it. ``unseen``: what could not be looked at, and why.
    """

    group: str
    active: str
    epoch: int
    protection: str
    evidence: Mapping[str, Any]
    doubts: tuple[str, ...]
    named: frozenset[str] = frozenset()
    writers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    known: GroupState = field(default_factory=lambda: GroupState(""))
    unseen: Mapping[str, str] = field(default_factory=dict)


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
    states = app.journal.groups() if app.has_log else {}
    found = []
    for name in wanted:
        state, mine = states.get(name, GroupState(name)), [each for each in seen if each.group == name]
        unseen = {each.unit: each.message for each in mine if not each.evidence}
        found.append(replace(_conclude(app, state, mine), known=state, unseen=unseen))
    return found


def _conclude(app: App, known: GroupState, seen: list[Looked]) -> Conclusion:
    from orchestrator.bootstrap.expected import INSPECT
    from orchestrator.bootstrap.observe import CLAIMS

    clusters = {each.unit: each.evidence for each in seen if each.kind == INSPECT}
    claims = [claim for each in seen if each.kind == CLAIMS for claim in _claims(each.evidence)]
    doubts = [text for each in seen if each.kind == CLAIMS for text in each.evidence.get("silent", ())]
    evidence = {each.unit: each.evidence for each in seen}
    claims = [claim for claim in claims if claim.run not in known.taken_back]
    top, named = newest(claims)
    if clusters:
        rows = _of_clusters(clusters)
        against = contradictions(claims, rows.epoch, rows.active) if rows.active else []
        newest_named = named if top > rows.epoch else rows.named
        return Conclusion(
            known.name, "" if against else rows.active, max(rows.epoch, top, known.epoch), rows.protection,
            evidence, (*rows.doubts, *doubts, *against), newest_named, _several(clusters),
        )  # fmt: skip
    home = next((s.name for s in app.loaded.estate.sites.values() if s.role == "home"), "")
    if not claims and known.adopted:
        doubts.append("nothing carries a claim of this group: it stays as the log knows it")
        return Conclusion(known.name, known.active, known.epoch, known.protection, evidence, tuple(doubts))
    if not claims:
        doubts.append("nothing carries a claim of this group: home is assumed, people must know better")
        return Conclusion(known.name, home, 1, "protected", evidence, tuple(doubts))
    if len(named) > 1:
        doubts.append(f"epoch {top} is claimed for {' and '.join(sorted(named))}")
    active = next(iter(named)) if len(named) == 1 else ""
    if active == known.active:
        protection = known.protection
    else:
        protection = "protected" if active == home else "unprotected"
    return Conclusion(known.name, active, max(top, known.epoch), protection, evidence, tuple(doubts), named)


def _several(clusters: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The sites that take writes, of each cluster where they are more than one."""
    from orchestrator.bootstrap.standing import writing_sites

    found = {unit: tuple(writing_sites(seen)) for unit, seen in clusters.items()}
    return {unit: sites for unit, sites in found.items() if len(sites) > 1}


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
    named: frozenset[str]  # by the rows of the highest epoch


def _of_clusters(clusters: Mapping[str, Mapping[str, Any]]) -> _Rows:
    doubts: list[str] = []
    writers: set[str] = set()
    rows: set[tuple[int, str]] = set()
    streaming = True
    for unit, found in clusters.items():
        sites = found.get("sites") or {}
        primaries = [name for name, seen in sites.items() if seen.get("role") == "primary"]
        writers.update(primaries)
        for name, seen in sites.items():
            if not seen.get("reachable"):
                doubts.append(f"{unit}: {name} does not answer ({seen.get('error') or 'no answer'})")
            for row in (seen.get("writers") or {}).values():
                rows.add((row["epoch"], row["site"]))
        if len(primaries) > 1:
            doubts.append(f"{unit}: {' and '.join(primaries)} both take writes")
        streaming = streaming and any(seen.get("streaming") for seen in sites.values())
    named = {site for _, site in rows}
    epoch = max((number for number, _ in rows), default=0)
    if writers != named:
        doubts.append(
            f"epoch rows name {', '.join(sorted(named)) or 'no site'}, primaries are at "
            f"{', '.join(sorted(writers)) or 'no site'}"
        )
    active = writers.pop() if len(writers) == 1 and writers == named else ""
    protection = "protected" if streaming and active else "unprotected"
    newest_named = frozenset(site for number, site in rows if number == epoch)
    return _Rows(active, epoch, protection, tuple(doubts), newest_named)


def adopt(app: App, conclusion: Conclusion, by: str, active: str | None) -> GroupState:
    """Write the group's first event (or a new one, after a disagreement).

    RefusedError where the evidence does not say and people did not either, and where it would override
    what the log knows: a split brain, a later epoch, an active site that nothing but people contradicts.
    """
    from orchestrator.bootstrap.standing import journal_conflict

    if active is not None and active not in app.loaded.estate.sites:
        raise InputError(f"--active {active}: no such site; sites: {', '.join(app.loaded.estate.sites)}")
    name = conclusion.group
    for unit, sites in conclusion.writers.items():
        journal_conflict(app, name, {"cluster": unit, "writers": list(sites)})
    at = now(app.clock)

    def decide(state: GroupState) -> GroupAdopted:
        _must_be_adoptable(app, state)
        site = active or conclusion.active
        _must_be_said(conclusion, state, site, active)
        event = GroupAdopted(
            at, name, site, max(1, conclusion.epoch, state.epoch), conclusion.protection, by,
            {**conclusion.evidence, "doubts": list(conclusion.doubts)},
        )  # fmt: skip
        broken = check_group(state, evolve_group(state, event), state.claim) if state.adopted else []
        if broken:
            raise RefusedError("; ".join(broken), ("continuity status", f"continuity failover --to {site}"))
        return event

    state = app.journal.append_group(name, decide)
    for unit, sites in conclusion.writers.items():  # of a group that this log had never seen
        journal_conflict(app, name, {"cluster": unit, "writers": list(sites)})
    return app.journal.group(name) if conclusion.writers else state


def must_be_free(app: App, state: GroupState) -> None:
    """RefusedError while a run has claimed the group: it would go on under the epoch that it was given."""
    if state.claim:
        run = app.journal.load(state.claim).run
        raise RefusedError(
            f"group {state.name} is claimed by run {run.id}, which is {run.state.value}: that run ends first, people "
            "decide then",
            ways_to_end(run),
        )


def _must_be_adoptable(app: App, state: GroupState) -> None:
    must_be_free(app, state)
    if state.conflict:
        raise RefusedError(
            f"group {state.name} is split_brain: people decide first whose history stands",
            (resolve_command(state.name),),
        )


def _must_be_said(conclusion: Conclusion, state: GroupState, site: str, active: str | None) -> None:
    """The site comes from the evidence, or from people where the evidence leaves it open."""
    if not site:
        raise RefusedError(
            f"group {conclusion.group}: the evidence does not say which site writes: "
            + "; ".join(conclusion.doubts),
            (f"continuity adopt {conclusion.group} --active SITE --by NAME",),
        )
    if active and not state.adopted and conclusion.named and active not in conclusion.named:
        raise RefusedError(
            f"group {conclusion.group}: the newest evidence (epoch {conclusion.epoch}) names"
            f" {' and '.join(sorted(conclusion.named))}, nothing names {active}: adopt it as it is, a run moves it",
            (f"continuity adopt {conclusion.group} --by NAME", f"continuity failover --to {active}"),
        )
    if active and state.adopted and active != state.active and active not in conclusion.named:
        seen = " and ".join(sorted(conclusion.named)) or "no site"
        raise RefusedError(
            f"group {state.name} is {label(state)} in this log, and nothing names {active} (the newest evidence"
            f" names {seen}): it is moved by a run",
            (f"continuity switchover --to {active}", f"continuity failover --to {active}"),
        )


def adopt_all(app: App, by: str) -> list[GroupState]:
    """Adopt every group as the evidence says (a lab's first state). RefusedError where it doubts."""
    return [adopt(app, conclusion, by, None) for conclusion in conclude(app, groups_of(app))]


def must_be_in_conflict(app: App, group: str, keep: str | None) -> GroupState:
    """Before anything is compared, which may take long: is there something to resolve, and is ``keep`` a site?
    None: nobody has said yet which."""
    known = groups_of(app)
    if group not in known:
        raise InputError(f"no group {group} in this estate; it has: {', '.join(known)}")
    state = app.journal.group(group) if app.has_log else GroupState(group)
    _must_be_in_conflict(app, state, keep)
    return state


def _must_be_in_conflict(app: App, state: GroupState, keep: str | None) -> None:
    if keep is not None and keep not in app.loaded.estate.sites:
        raise InputError(f"--keep {keep}: no such site; sites: {', '.join(app.loaded.estate.sites)}")
    must_have_conflict(app, state)


def must_have_conflict(app: App, state: GroupState) -> None:
    """RefusedError where there is nothing for people to decide, or a run has claimed the group."""
    must_be_free(app, state)
    if not state.conflict:
        raise RefusedError(
            f"group {state.name} is {label(state)}: there is nothing to resolve",
            ("continuity status --live",),
        )


def resolve(app: App, group: str, keep: str, by: str, reason: str, evidence: Mapping[str, Any]) -> GroupState:
    """People keep the site that holds the epoch after a split brain; the other's history is kept as evidence.

    A site that does not hold it is kept by ``keeping.keep``: it needs a new one.
    """
    from orchestrator.bootstrap.keeping import must_grant

    at = now(app.clock)

    def decide(state: GroupState) -> GroupResolved:
        _must_be_in_conflict(app, state, keep)
        if must_grant(state, keep):
            raise RefusedError(
                f"group {group}: {keep} does not hold its epoch any more", ("continuity status --live",)
            )
        return GroupResolved(at, group, keep, by, reason, evidence)

    return app.journal.append_group(group, decide)
