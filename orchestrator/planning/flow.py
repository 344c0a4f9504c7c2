"""Decides what people are told about the course of a plan: what waits for what, gates included, what
runs side by side, and how long that is expected to take. Must never decide when a step may start
(the machine does), nor count a duration that nobody knows as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.index import fence_covers
from orchestrator.core.model import Stage
from orchestrator.core.plan import Gate, Plan, Role, Step, accepted_with
from orchestrator.planning.order import topological
from orchestrator.planning.order import waves as waves_of

ORDER = "people's confirmation"
RECORD_TTL = "ttl_ms"
BEFORE_THE_PAUSE = frozenset({Stage.PREFLIGHT, Stage.AUTHORISE})


@dataclass(frozen=True, slots=True)
class Expectation:
    """How long something takes. ``known_ms``: the longest chain of steps that this log has timed;
    ``unknown``: steps before its end that it never timed. With any of those, the sum is no answer.
    ``path``: that longest chain, first step first.
    """

    known_ms: int
    unknown: tuple[str, ...]
    path: tuple[str, ...] = ()

    @property
    def total_ms(self) -> int | None:
        """The whole, or None when a part of it is unknown."""
        return None if self.unknown else self.known_ms


def befores(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Step → every step that stands before it: its needs, and those whose success its gates ask for.

    ``ORDER`` stands for people's confirmation, which comes after the whole preflight.
    """
    asked, together = _what_gates_ask_for(plan), accepted_with(plan)
    found: dict[str, tuple[str, ...]] = {ORDER: asked[Gate.AUTHORISED].get("", ())}
    for step in plan.steps.values():
        before = list(step.needs)
        for gate in step.gates:
            match gate:
                case Gate.AUTHORISED:
                    before.append(ORDER)
                case Gate.GRANTED:
                    before += asked[gate].get(step.group, ())
                case Gate.LOSS_ACCEPTED:
                    before += (loss for unit in together[step.unit] for loss in asked[gate].get(unit, ()))
                case Gate.FENCED | Gate.VERIFIED:
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
    """When a step ends as far as that is known, and what it waited for: of fences only the first."""

    at_ms: int
    is_known: bool
    after: tuple[str, ...]


_AT_ONCE = _End(0, is_known=True, after=())


def expectations(plan: Plan, expected: Mapping[str, int | None]) -> dict[str, Expectation]:
    """Service → how long until it is proven to serve; a service of which nothing shows it is absent.

    Unplanned: from the order. Planned: from the moment its writes are refused, since all that comes
    before happens while it serves. Of several fences the first proof counts, within their budget.
    """
    before = befores(plan)
    free = _while_it_serves(plan)
    ends: dict[str, _End] = {}
    for step_id in topological(before):
        ends[step_id] = _AT_ONCE if step_id in free else _end(plan, step_id, before[step_id], ends, expected)
    place = {step: number for number, step in enumerate(plan.steps)}
    found = {}
    for service, last in _last_steps(plan).items():
        unknown = _unknown(last, ends, expected, free)
        path = _longest(last, ends, free)
        known_ms = max(ends[step].at_ms for step in last)
        found[service] = Expectation(known_ms, tuple(sorted(unknown, key=place.__getitem__)), path)
    return found


def _longest(last: Sequence[str], ends: Mapping[str, _End], free: frozenset[str]) -> tuple[str, ...]:
    """The chain that decides when these have ended, as far as durations are known."""
    path: list[str] = []
    before: Sequence[str] = last
    while before:
        step = max(before, key=lambda other: ends[other].at_ms)
        if step in free:
            break
        path.append(step)
        before = ends[step].after
    return tuple(reversed(path))


def _end(
    plan: Plan, step: str, before: Sequence[str], ends: Mapping[str, _End], expected: Mapping[str, int | None]
) -> _End:
    fences = [other for other in before if other != ORDER and plan.steps[other].role is Role.FENCE]
    after = tuple(other for other in before if other not in fences) if fences else before
    if fences:
        first = min(fences, key=lambda fence: (not ends[fence].is_known, ends[fence].at_ms))
        after = (*after, first)
    duration = expected.get(step)
    return _End(
        max((ends[other].at_ms for other in after), default=0) + (duration or 0),
        duration is not None and all(ends[other].is_known for other in after),
        tuple(after),
    )


def _unknown(
    last: Sequence[str], ends: Mapping[str, _End], expected: Mapping[str, int | None], free: frozenset[str]
) -> set[str]:
    """The steps without a known duration among these and all that they wait for."""
    seen = set(last)
    todo = [step for step in last if not ends[step].is_known]
    found = set()
    while todo:
        step = todo.pop()
        if step not in free and expected.get(step) is None:
            found.add(step)
        for other in ends[step].after:
            if other not in seen and not ends[other].is_known:
                seen.add(other)
                todo.append(other)
    return found


def _last_steps(plan: Plan) -> dict[str, list[str]]:
    """Service → the steps with which it is proven to serve: what done means, else all that say it is up."""
    proofs: dict[str, list[str]] = {}
    ups: dict[str, list[str]] = {}
    for step in plan.steps.values():
        if step.service and _is_its_proof(step):
            proofs.setdefault(step.service, []).append(step.id)
        elif step.service and step.up:
            ups.setdefault(step.service, []).append(step.id)
    return {s: last for s in plan.services if (last := proofs.get(s) or ups.get(s))}


def _is_its_proof(step: Step) -> bool:
    return step.role is Role.DONE and not step.best_effort


def _while_it_serves(plan: Plan) -> frozenset[str]:
    """Steps of which no client notices anything: preflight, and in a planned move all that a freeze needs."""
    free = {ORDER, *(step.id for step in plan.steps.values() if step.stage is Stage.PREFLIGHT)}
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


def is_planned(plan: Plan) -> bool:
    """Does the plan refuse writes and drain what is under way before it moves?"""
    return any(step.role is Role.FREEZE and not step.best_effort for step in plan.steps.values())


def names_kept_ms(plan: Plan) -> dict[str, int]:
    """Service → how long clients may still be sent to the old side by names that they have asked for."""
    kept: dict[str, int] = {}
    for step in plan.steps.values():
        ttl = step.action.arguments.get(RECORD_TTL)
        if step.role is Role.ROUTE and isinstance(ttl, int):
            kept[step.service] = max(kept.get(step.service, 0), ttl)
    return kept
