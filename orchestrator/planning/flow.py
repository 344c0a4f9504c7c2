"""Decides what people are told about the course of a plan: what waits for what, gates included, what
runs side by side, and how long that is expected to take. Must never decide when a step may start
(the machine does), nor count a duration that nobody knows as nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.index import PlanIndex, fence_covers, index_of
from orchestrator.core.model import Stage
from orchestrator.core.plan import Gate, Plan, Role, Step
from orchestrator.planning.order import topological
from orchestrator.planning.order import waves as waves_of

RECORD_TTL = "ttl_ms"
BEFORE_THE_PAUSE = frozenset({Stage.PREFLIGHT, Stage.AUTHORISE})


@dataclass(frozen=True, slots=True)
class Expectation:
    """How long something takes. ``known_ms``: the longest chain of steps that this log has timed;
    ``unknown``: steps before its end that it never timed. With any of those, the sum is no answer.
    """

    known_ms: int
    unknown: tuple[str, ...]

    @property
    def total_ms(self) -> int | None:
        """The whole, or None when a part of it is unknown."""
        return None if self.unknown else self.known_ms


def befores(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Step → every step that stands before it: its needs, and those whose success its gates ask for."""
    index = index_of(plan)
    fences = _fences(plan, index)
    found: dict[str, tuple[str, ...]] = {}
    for step in plan.steps.values():
        before = dict.fromkeys(step.needs)
        for gate in step.gates:
            before |= dict.fromkeys(_asked(gate, step, index, fences))
        before.pop(step.id, None)
        found[step.id] = tuple(before)
    return found


def _asked(gate: Gate, step: Step, index: PlanIndex, fences: Mapping[str, Sequence[str]]) -> Iterable[str]:
    match gate:
        case Gate.AUTHORISED:
            return index.preflight
        case Gate.FENCED:
            return fences.get(step.unit, ())
        case Gate.VERIFIED:
            return index.verifies.get(step.unit, ())
        case Gate.LOSS_ACCEPTED:
            return index.loss.get(step.unit, ())
        case Gate.GRANTED:
            return index.epochs.get(step.group, ())


def _fences(plan: Plan, index: PlanIndex) -> dict[str, list[str]]:
    """Unit → the fences whose proofs speak for one of its old members."""
    by_host: dict[str, list[str]] = {}
    for fence in index.fences:
        for host in plan.steps[fence].fences:
            by_host.setdefault(host, []).append(fence)
    found: dict[str, list[str]] = {}
    for move in plan.groups.values():
        for unit, hosts in move.fence_hosts.items():
            found[unit] = [
                fence
                for host in hosts
                for fence in by_host.get(host, ())
                if fence_covers(plan, plan.steps[fence], unit, host)
            ]
    return found


def waves(plan: Plan) -> list[list[str]]:
    """Steps in the waves in which they can run: all of one wave side by side.

    Raises InputError if a gate could never open, because what it asks for waits for its own step.
    """
    before = befores(plan)
    place = waves_of(before, topological(before))
    out: list[list[str]] = [[] for _ in range(max(place.values(), default=-1) + 1)]
    for step in plan.steps:
        out[place[step]].append(step)
    return out


# --- expected duration ------------------------------------------------------------------------


def expectations(plan: Plan, expected: Mapping[str, int | None]) -> dict[str, Expectation]:
    """Service → how long until it is proven to serve.

    Unplanned: from the order. Planned: from the moment its writes are refused, since all that comes
    before happens while it serves. Of several fences the first proof counts, within their budget.
    """
    before = befores(plan)
    free = _while_it_serves(plan)
    ends: dict[str, tuple[int, frozenset[str]]] = {}
    for step_id in topological(before):
        ends[step_id] = _end(plan, plan.steps[step_id], before[step_id], ends, expected, free)
    last: dict[str, list[str]] = {}
    for step in plan.steps.values():
        if step.service and _is_its_proof(step):
            last.setdefault(step.service, []).append(step.id)
    for step in plan.steps.values():
        if step.service and step.up and step.service not in last:
            last.setdefault(step.service, []).append(step.id)
    found = {}
    for service in plan.services:
        known = [ends[step] for step in last.get(service, ())]
        unknown = frozenset[str]().union(*(missing for _, missing in known))
        found[service] = Expectation(
            max((at for at, _ in known), default=0), tuple(step for step in plan.steps if step in unknown)
        )
    return found


def _is_its_proof(step: Step) -> bool:
    return step.role is Role.DONE and not step.best_effort


def _while_it_serves(plan: Plan) -> frozenset[str]:
    """Steps of which no client notices anything: preflight, and in a planned move all that a freeze needs."""
    free = {step.id for step in plan.steps.values() if step.stage is Stage.PREFLIGHT}
    freezes = [step for step in plan.steps.values() if step.role is Role.FREEZE and not step.best_effort]
    if not freezes:
        return frozenset(free)
    free |= {step.id for step in plan.steps.values() if step.stage in BEFORE_THE_PAUSE}
    todo = [need for freeze in freezes for need in freeze.needs]
    while todo:
        step_id = todo.pop()
        if step_id not in free:
            free.add(step_id)
            todo += plan.steps[step_id].needs
    return frozenset(free)


def _end(
    plan: Plan, step: Step, before: Sequence[str], ends: Mapping[str, tuple[int, frozenset[str]]],
    expected: Mapping[str, int | None], free: frozenset[str],
) -> tuple[int, frozenset[str]]:  # fmt: skip
    """When a step ends at the earliest that is known, and what before that nobody knows."""
    start, unknown = 0, frozenset[str]()
    fences: list[tuple[int, frozenset[str]]] = []
    for other in before:
        if plan.steps[other].role is Role.FENCE:
            fences.append(ends[other])
            continue
        at, missing = ends[other]
        start, unknown = max(start, at), unknown | missing
    if fences:
        at, missing = min(fences, key=lambda end: (bool(end[1]), end[0]))
        start, unknown = max(start, at), unknown | missing
    if step.id in free:
        return start, unknown
    duration = expected.get(step.id)
    if duration is None:
        return start, unknown | {step.id}
    return start + duration, unknown


def names_kept_ms(plan: Plan, service: str) -> int:
    """How long clients may still be sent to the old side by names that they have asked for already."""
    kept = 0
    for step in plan.steps.values():
        ttl = step.action.arguments.get(RECORD_TTL)
        if step.service == service and step.role is Role.ROUTE and isinstance(ttl, int):
            kept = max(kept, ttl)
    return kept
