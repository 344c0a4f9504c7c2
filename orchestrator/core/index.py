"""Decides the look-ups that a plan allows; computed once per plan, never stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.model import ProofKind, Stage
from orchestrator.core.plan import Plan, Role, Step


@dataclass(frozen=True, slots=True)
class PlanIndex:
    """``dependents``: step → steps that need it. ``unmet``: per unit, step → number of its needs."""

    units: Mapping[str, tuple[str, ...]]
    dependents: Mapping[str, tuple[str, ...]]
    unmet: Mapping[str, Mapping[str, int]]
    preflight: tuple[str, ...]
    preflight_set: frozenset[str]
    fences: tuple[str, ...]
    epochs: Mapping[str, tuple[str, ...]]  # group → its EPOCH steps
    promotes: Mapping[str, tuple[str, ...]]  # group → its PROMOTE steps
    loss: Mapping[str, tuple[str, ...]]  # unit → its LOSS steps
    verifies: Mapping[str, tuple[str, ...]]  # unit → its VERIFY steps
    protects_before: Mapping[str, tuple[str, ...]]  # group → PROTECT steps before its epoch
    protects_after: Mapping[str, tuple[str, ...]]
    by_group: Mapping[str, tuple[str, ...]]
    order: tuple[str, ...]


def index_of(plan: Plan) -> PlanIndex:
    """Build the look-ups of a plan in one pass over its steps (they stand in topological order)."""
    units: dict[str, list[str]] = {}
    dependents: dict[str, list[str]] = {step: [] for step in plan.steps}
    unmet: dict[str, dict[str, int]] = {}
    preflight: list[str] = []
    fences: list[str] = []
    roles: dict[Role, dict[str, list[str]]] = {
        role: {} for role in (Role.EPOCH, Role.PROMOTE, Role.LOSS, Role.VERIFY)
    }
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    by_group: dict[str, list[str]] = {}
    past_epoch: dict[str, bool] = {}
    for step in plan.steps.values():
        units.setdefault(step.unit, []).append(step.id)
        unmet.setdefault(step.unit, {})[step.id] = len(step.needs)
        by_group.setdefault(step.group, []).append(step.id)
        for need in step.needs:
            dependents[need].append(step.id)
        past_epoch[step.id] = step.role is Role.EPOCH or any(past_epoch[n] for n in step.needs)
        if step.stage is Stage.PREFLIGHT:
            preflight.append(step.id)
        if step.role is Role.FENCE:
            fences.append(step.id)
        elif step.role in (Role.EPOCH, Role.PROMOTE):
            roles[step.role].setdefault(step.group, []).append(step.id)
        elif step.role in (Role.LOSS, Role.VERIFY):
            roles[step.role].setdefault(step.unit, []).append(step.id)
        elif step.role is Role.PROTECT:
            side = after if past_epoch[step.id] else before
            side.setdefault(step.group, []).append(step.id)
    return PlanIndex(
        units=_frozen(units),
        dependents=_frozen(dependents),
        unmet=unmet,
        preflight=tuple(preflight),
        preflight_set=frozenset(preflight),
        fences=tuple(fences),
        epochs=_frozen(roles[Role.EPOCH]),
        promotes=_frozen(roles[Role.PROMOTE]),
        loss=_frozen(roles[Role.LOSS]),
        verifies=_frozen(roles[Role.VERIFY]),
        protects_before=_frozen(before),
        protects_after=_frozen(after),
        by_group=_frozen(by_group),
        order=tuple(plan.steps),
    )


def _frozen(lists: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(values) for key, values in lists.items()}


def fence_covers(plan: Plan, fence: Step, unit: str, host: str) -> bool:
    """Does this fence's proof speak for ``unit`` on ``host``? A demoted proof is the unit's own."""
    return host in fence.fences and (fence.proves is not ProofKind.DEMOTED or fence.unit == unit)
