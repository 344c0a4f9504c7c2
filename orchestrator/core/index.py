"""Decides the look-ups that a plan allows; computed once per plan, never stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.core.model import ProofKind, Stage
from orchestrator.core.plan import (
    AT_ONCE,
    BEFORE_PROMOTION,
    MANUAL,
    URGENCY_LAST,
    Plan,
    Role,
    Step,
    Undo,
    accepted_with,
    tiers_of_units,
    urgencies,
)


@dataclass(frozen=True, slots=True)
class PlanIndex:
    """``dependents``: step → steps that need it. ``unmet``: per unit, step → number of its needs.
    ``decisive``: group → the steps after which it cannot be taken back (its promotions; its epoch
    where nothing is promoted)."""

    units: Mapping[str, tuple[str, ...]]
    rank: Mapping[str, int]  # unit → its place where not all can go on at once: by tier, then by name
    urgency: Mapping[str, int]  # step → how soon the first write needs it (``plan.urgencies``)
    urgent: frozenset[str]  # steps, after what is begun at once, that the first write waits for
    leading: frozenset[str]  # of these, those with which the way to it begins
    yielding: frozenset[str]  # steps that give way to urgent ones
    dependents: Mapping[str, tuple[str, ...]]
    unmet: Mapping[str, Mapping[str, int]]
    preflight: tuple[str, ...]
    preflight_set: frozenset[str]
    fences: tuple[str, ...]
    covering: Mapping[tuple[str, str], tuple[str, ...]]  # (unit, old host) → fences that speak for it
    before_end: Mapping[str, tuple[str, ...]]  # rejoin or commit step → fences that must have ended
    rejoins: Mapping[str, tuple[str, ...]]  # fence → steps that bring back what it fenced
    epochs: Mapping[str, tuple[str, ...]]  # group → its EPOCH steps
    promotes: Mapping[str, tuple[str, ...]]  # group → its PROMOTE steps
    decisive: Mapping[str, tuple[str, ...]]
    decisive_steps: tuple[str, ...]
    loss: Mapping[str, tuple[str, ...]]  # unit → its LOSS steps
    accepted_with: Mapping[str, tuple[str, ...]]  # unit → units whose loss is accepted before it is promoted
    verifies: Mapping[str, tuple[str, ...]]  # unit → its VERIFY steps
    proofs: tuple[str, ...]  # steps whose evidence ages: fences, data checks, measurements
    protects_before: Mapping[str, tuple[str, ...]]  # group → PROTECT steps before its epoch
    protects_after: Mapping[str, tuple[str, ...]]
    by_group: Mapping[str, tuple[str, ...]]
    undoable: tuple[str, ...]  # steps with an undo, last first
    undone_first: Mapping[str, tuple[str, ...]]  # step → steps whose undo comes before its own
    undone_after: Mapping[str, tuple[str, ...]]  # the same, the other way round
    order: tuple[str, ...]


PROOF_ROLES = frozenset({Role.FENCE, Role.LOSS, Role.VERIFY})
"""Roles whose evidence ages and is voided by a pause, a resume or a crash."""

_BEFORE_FENCE = frozenset({Stage.PREFLIGHT, Stage.AUTHORISE, Stage.FREEZE, Stage.DRAIN})


def index_of(plan: Plan) -> PlanIndex:
    """Build the look-ups of a plan in one pass over its steps (they stand in topological order)."""
    units: dict[str, list[str]] = {}
    dependents: dict[str, list[str]] = {step: [] for step in plan.steps}
    unmet: dict[str, dict[str, int]] = {}
    by_role: dict[Role, dict[str, list[str]]] = {role: {} for role in Role}
    protects: dict[bool, dict[str, list[str]]] = {False: {}, True: {}}
    by_group: dict[str, list[str]] = {}
    past_epoch: dict[str, bool] = {}
    for step in plan.steps.values():
        units.setdefault(step.unit, []).append(step.id)
        unmet.setdefault(step.unit, {})[step.id] = len(step.needs)
        by_group.setdefault(step.group, []).append(step.id)
        for need in step.needs:
            dependents[need].append(step.id)
        past_epoch[step.id] = step.role is Role.EPOCH or any(past_epoch[n] for n in step.needs)
        by_unit = step.role in (Role.LOSS, Role.VERIFY)
        by_role[step.role].setdefault(step.unit if by_unit else step.group, []).append(step.id)
        if step.role is Role.PROTECT:
            protects[past_epoch[step.id]].setdefault(step.group, []).append(step.id)
    preflight = [step.id for step in plan.steps.values() if step.stage is Stage.PREFLIGHT]
    promotes, epochs = _frozen(by_role[Role.PROMOTE]), _frozen(by_role[Role.EPOCH])
    decisive = {name: promotes.get(name) or epochs.get(name, ()) for name in by_group}
    fences = [step for step in plan.steps.values() if step.role is Role.FENCE]
    covering = _covering(plan, fences)
    of_group = _fences_of_groups(plan, fences, covering)
    before_end = _before_end(plan, of_group)
    rejoins: dict[str, list[str]] = {}
    for end, waited_for in before_end.items():
        if plan.steps[end].role is Role.REJOIN:
            for fence in waited_for:
                rejoins.setdefault(fence, []).append(end)
    undone_first = _undone_first(plan, dependents, of_group)
    tiers, urgency = tiers_of_units(plan), urgencies(plan)
    urgent = _urgent(plan, urgency)
    undone_after: dict[str, list[str]] = {}
    for later, first in undone_first.items():
        for step_id in first:
            undone_after.setdefault(step_id, []).append(later)
    return PlanIndex(
        units=_frozen(units),
        urgency=urgency,
        urgent=frozenset(urgent),
        leading=frozenset(name for name in urgent if plan.steps[name].stage in BEFORE_PROMOTION),
        yielding=_yielding(plan, urgency),
        rank={unit: place for place, unit in enumerate(sorted(units, key=lambda unit: (tiers[unit], unit)))},
        dependents=_frozen(dependents),
        unmet=unmet,
        preflight=tuple(preflight),
        preflight_set=frozenset(preflight),
        fences=tuple(step.id for step in fences),
        covering=covering,
        before_end=before_end,
        rejoins=_frozen(rejoins),
        epochs=epochs,
        promotes=promotes,
        decisive=decisive,
        decisive_steps=tuple(step for steps in decisive.values() for step in steps),
        loss=_frozen(by_role[Role.LOSS]),
        accepted_with=accepted_with(plan),
        verifies=_frozen(by_role[Role.VERIFY]),
        proofs=tuple(step.id for step in plan.steps.values() if step.role in PROOF_ROLES),
        protects_before=_frozen(protects[False]),
        protects_after=_frozen(protects[True]),
        by_group=_frozen(by_group),
        undoable=tuple(s.id for s in reversed(list(plan.steps.values())) if s.action.undo is Undo.UNDO),
        undone_first=undone_first,
        undone_after=_frozen(undone_after),
        order=tuple(plan.steps),
    )


def _urgent(plan: Plan, urgency: Mapping[str, int]) -> list[str]:
    """What the first write waits for, without what is begun at once: a rejoin before it takes its own time."""
    return [
        name
        for name, step in plan.steps.items()
        if urgency[name] < URGENCY_LAST and step.stage is not Stage.AUTHORISE
    ]


def _yielding(plan: Plan, urgency: Mapping[str, int]) -> frozenset[str]:
    """Fences have one budget, a preflight has no write to wait for, and asking people takes nothing from anybody."""
    return frozenset(
        name
        for name, step in plan.steps.items()
        if urgency[name] == URGENCY_LAST
        and step.role not in AT_ONCE
        and step.stage is not Stage.PREFLIGHT
        and step.action.kind != MANUAL
    )


def _frozen(lists: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(values) for key, values in lists.items()}


def fence_covers(plan: Plan, fence: Step, unit: str, host: str) -> bool:
    """Does this fence's proof speak for ``unit`` on ``host``? A demoted proof is the unit's own."""
    return host in fence.fences and (fence.proves is not ProofKind.DEMOTED or fence.unit == unit)


def _covering(plan: Plan, fences: Iterable[Step]) -> dict[tuple[str, str], tuple[str, ...]]:
    by_host: dict[str, list[Step]] = {}
    for fence in fences:
        for host in fence.fences:
            by_host.setdefault(host, []).append(fence)
    return {
        (unit, host): tuple(f.id for f in by_host.get(host, ()) if fence_covers(plan, f, unit, host))
        for move in plan.groups.values()
        for unit, hosts in move.fence_hosts.items()
        for host in hosts
    }


def _fences_of_groups(
    plan: Plan, fences: Iterable[Step], covering: Mapping[tuple[str, str], tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Group → its own fences and those of others that speak for its members."""
    found: dict[str, dict[str, None]] = {name: {} for name in plan.groups}
    for fence in fences:
        found.setdefault(fence.group, {})[fence.id] = None
    for name, move in plan.groups.items():
        for unit, hosts in move.fence_hosts.items():
            for host in hosts:
                found[name].update(dict.fromkeys(covering[unit, host]))
    return {name: tuple(steps) for name, steps in found.items()}


def _before_end(plan: Plan, of_group: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Per step that rejoins the old side or commits: the group's fences, but those that come after it
    (a failback first rejoins home and only then fences the embassy)."""
    ends: dict[str, list[str]] = {}
    past_end: dict[str, bool] = {}
    for step in plan.steps.values():
        past_end[step.id] = any(past_end[need] for need in step.needs)
        if step.role is Role.REJOIN or step.stage is Stage.COMMIT:
            ends.setdefault(step.group, []).append(step.id)
            past_end[step.id] = True
    found: dict[str, tuple[str, ...]] = {}
    for group, mine in ends.items():
        fences = of_group.get(group, ())
        after = {fence: _ancestors(plan, fence) if past_end[fence] else _NONE for fence in fences}
        for end in mine:
            found[end] = tuple(fence for fence in fences if end not in after[fence])
    return {end: wanted for end, wanted in found.items() if wanted}


_NONE: frozenset[str] = frozenset()


def _ancestors(plan: Plan, step: str) -> frozenset[str]:
    seen: set[str] = set()
    left = list(plan.steps[step].needs)
    while left:
        need = left.pop()
        if need not in seen:
            seen.add(need)
            left.extend(plan.steps[need].needs)
    return frozenset(seen)


def _undone_first(
    plan: Plan, dependents: Mapping[str, list[str]], of_group: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """An undo waits for the undo of what needs the step. What froze or drained the old side waits for
    its fences too, and a database's own fence for those of its machine: nothing can be asked of a
    server that is still stopped, or of a machine without power."""
    found: dict[str, tuple[str, ...]] = {}
    for step in plan.steps.values():
        if step.action.undo is not Undo.UNDO:
            continue
        first = list(dependents[step.id])
        for other in of_group.get(step.group, ()):
            of_machine = plan.steps[other].proves is not ProofKind.DEMOTED
            is_own = step.role is Role.FENCE and step.proves is ProofKind.DEMOTED
            if step.stage in _BEFORE_FENCE or (is_own and of_machine and other != step.id):
                first.append(other)
        found[step.id] = tuple(
            other for other in dict.fromkeys(first) if plan.steps[other].action.undo is Undo.UNDO
        )
    return found
