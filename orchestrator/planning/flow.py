"""Decides what people are told about the course of a plan: what waits for what, gates included, what
runs side by side, and how long that is expected to take. Must never decide when a step may start
(the machine does), nor count a duration that nobody knows as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.index import fence_covers
from orchestrator.core.model import Stage
from orchestrator.core.plan import Gate, Plan, Role, Step
from orchestrator.planning.order import topological
from orchestrator.planning.order import waves as waves_of

ORDER = "people's confirmation"
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
    """Step → every step that stands before it: its needs, and those whose success its gates ask for.

    ``ORDER`` stands for people's confirmation, which comes after the whole preflight.
    """
    asked = _what_gates_ask_for(plan)
    found: dict[str, tuple[str, ...]] = {ORDER: asked[Gate.AUTHORISED].get("", ())}
    for step in plan.steps.values():
        before = list(step.needs)
        for gate in step.gates:
            match gate:
                case Gate.AUTHORISED:
                    before.append(ORDER)
                case Gate.GRANTED:
                    before += asked[gate].get(step.group, ())
                case Gate.FENCED | Gate.VERIFIED | Gate.LOSS_ACCEPTED:
                    before += (other for other in asked[gate].get(step.unit, ()) if other != step.id)
        found[step.id] = tuple(dict.fromkeys(before))
    return found


def _what_gates_ask_for(plan: Plan) -> dict[Gate, dict[str, tuple[str, ...]]]:
    """Gate → unit (of GRANTED: group) → the steps whose success opens it there."""
    found: dict[Gate, dict[str, list[str]]] = {gate: {} for gate in Gate}
    by_host: dict[str, list[Step]] = {}
    for step in plan.steps.values():
        if step.stage is Stage.PREFLIGHT:
            found[Gate.AUTHORISED].setdefault("", []).append(step.id)
        match step.role:
            case Role.EPOCH:
                found[Gate.GRANTED].setdefault(step.group, []).append(step.id)
            case Role.VERIFY:
                found[Gate.VERIFIED].setdefault(step.unit, []).append(step.id)
            case Role.LOSS:
                found[Gate.LOSS_ACCEPTED].setdefault(step.unit, []).append(step.id)
            case Role.FENCE:
                for host in step.fences:
                    by_host.setdefault(host, []).append(step)
    for move in plan.groups.values():
        for unit, hosts in move.fence_hosts.items():
            found[Gate.FENCED][unit] = [
                fence.id
                for host in hosts
                for fence in by_host.get(host, ())
                if fence_covers(plan, fence, unit, host)
            ]
    return {gate: {key: tuple(steps) for key, steps in lists.items()} for gate, lists in found.items()}


def must_be_able_to_start(plan: Plan) -> None:
    """InputError shows the path if a gate asks for something that waits for the gate's own step."""
    topological(befores(plan))


def waves(plan: Plan) -> list[list[str]]:
    """Steps in the waves in which they can run: all of one wave side by side."""
    before = befores(plan)
    place = waves_of(before, topological(before))
    out: list[list[str]] = [[] for _ in range(max(place.values(), default=-1) + 1)]
    for step in plan.steps:
        out[place[step]].append(step)
    return [wave for wave in out if wave]


# --- expected duration ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _End:
    """When a step ends, as far as that is known; ``unknown`` has a bit for each step that is not."""

    at_ms: int = 0
    unknown: int = 0


def expectations(plan: Plan, expected: Mapping[str, int | None]) -> dict[str, Expectation]:
    """Service → how long until it is proven to serve.

    Unplanned: from the order. Planned: from the moment its writes are refused, since all that comes
    before happens while it serves. Of several fences the first proof counts, within their budget.
    """
    before = befores(plan)
    free = _while_it_serves(plan)
    names = list(plan.steps)
    bit_of = {step: 1 << number for number, step in enumerate(names)}
    ends: dict[str, _End] = {}
    for step_id in topological(before):
        start = _start([ends[other] for other in before[step_id] if not _is_fence(plan, other)],
                       [ends[other] for other in before[step_id] if _is_fence(plan, other)])  # fmt: skip
        if step_id == ORDER or step_id in free:
            ends[step_id] = start
        elif (duration := expected.get(step_id)) is None:
            ends[step_id] = _End(start.at_ms, start.unknown | bit_of[step_id])
        else:
            ends[step_id] = _End(start.at_ms + duration, start.unknown)
    found = {}
    for service, last in _last_steps(plan).items():
        end = _start([ends[step] for step in last], [])
        missing = tuple(name for number, name in enumerate(names) if end.unknown >> number & 1)
        found[service] = Expectation(end.at_ms, missing)
    return found


def _is_fence(plan: Plan, step: str) -> bool:
    return step != ORDER and plan.steps[step].role is Role.FENCE


def _start(before: Sequence[_End], fences: Sequence[_End]) -> _End:
    """After all of these; of fences, after the first that is known to prove something."""
    if fences:
        before = [*before, min(fences, key=lambda end: (bool(end.unknown), end.at_ms))]
    unknown = 0
    for end in before:
        unknown |= end.unknown
    return _End(max((end.at_ms for end in before), default=0), unknown)


def _last_steps(plan: Plan) -> dict[str, list[str]]:
    """Service → the steps with which it is proven to serve: what done means, else all that say it is up."""
    proofs: dict[str, list[str]] = {}
    ups: dict[str, list[str]] = {}
    for step in plan.steps.values():
        if step.service and _is_its_proof(step):
            proofs.setdefault(step.service, []).append(step.id)
        elif step.service and step.up:
            ups.setdefault(step.service, []).append(step.id)
    return {service: proofs.get(service) or ups.get(service, []) for service in plan.services}


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


def names_kept_ms(plan: Plan, service: str) -> int:
    """How long clients may still be sent to the old side by names that they have asked for already."""
    kept = 0
    for step in plan.steps.values():
        ttl = step.action.arguments.get(RECORD_TTL)
        if step.service == service and step.role is Role.ROUTE and isinstance(ttl, int):
            kept = max(kept, ttl)
    return kept
