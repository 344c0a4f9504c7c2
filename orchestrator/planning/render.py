"""Decides how a plan is told: as text that a tired person can follow, and as one JSON document.

Both say the same. Nothing in them depends on when or where they are printed but the part of dated
observations at the end, so `plan` and `failover --dry-run` print the identical plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.core.plan import Gate, GroupMove, Plan, ServiceFacts, Step, Touch, Undo, accepted_with
from orchestrator.core.values import duration_text
from orchestrator.planning.codec import plain, step_to_json
from orchestrator.planning.flow import Expectation, expectations, is_planned, names_kept_ms, waves
from orchestrator.planning.reach import Reach, reach

RUN_PLACEHOLDER, RUN = "${run}", "RUN"
ANYWHERE = "wherever its names lead"
UNKNOWN = "unknown"
RULE = "─" * 78


def shown(command: str) -> str:
    """A command as people read it: ``RUN`` stands for the name that the run gets when it begins."""
    return command.replace(RUN_PLACEHOLDER, RUN)


def plan_document(
    plan: Plan, expected: Mapping[str, int | None], notes: Sequence[str], observed: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The plan as JSON. ``observed`` is None unless people asked for a look at the world."""
    found, times, kept = waves(plan), expectations(plan, expected), names_kept_ms(plan)
    wave_of = {step: number for number, wave in enumerate(found, start=1) for step in wave}
    document: dict[str, Any] = {
        "operation": plan.operation.value,
        "from": plan.source or None,
        "to": plan.target,
        "digest": plan.digest,
        "plan_schema": plan.schema,
        "notes": list(notes),
        "left_behind": dict(plan.leave),
        "groups": [plain(move) for move in plan.groups.values()],
        "services": [
            _service(facts, times.get(name), kept.get(name, 0)) for name, facts in plan.services.items()
        ],
        "limits": plain(plan.limits),
        "waves": found,
        "steps": [_step(step, wave_of[step.id], expected) for step in plan.steps.values()],
        "points_of_no_return": [step.id for step in _no_return(plan)],
        "endpoints": {site or ANYWHERE: list(places) for site, places in endpoints(plan).items()},
    }
    if plan.source:
        document["at_the_site_left"] = plain(reach(plan))
    if observed is not None:
        document["observed"] = observed
    return document


def _service(facts: ServiceFacts, expected: Expectation | None, names_kept: int) -> dict[str, Any]:
    total = expected.total_ms if expected else None
    return {
        **plain(facts),
        "expected_ms": total,
        "expected_known_part_ms": expected.known_ms if expected else None,
        "expected_unknown_steps": list(expected.unknown) if expected else [],
        "expected_path": list(expected.path) if expected else [],
        "within_rto": None if total is None else total <= facts.rto_ms,
        "names_kept_ms": names_kept,
    }


def _step(step: Step, wave: int, expected: Mapping[str, int | None]) -> dict[str, Any]:
    body: dict[str, Any] = step_to_json(step)
    action = body["action"]
    action["commands"] = [shown(command) for command in step.action.commands]
    action["undo_commands"] = [shown(command) for command in step.action.undo_commands]
    return {**body, "wave": wave, "expected_ms": expected.get(step.id)}


def _no_return(plan: Plan) -> list[Step]:
    return [step for step in plan.steps.values() if step.action.undo is Undo.POINT_OF_NO_RETURN]


def endpoints(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Site → every endpoint that any step speaks to, best effort or not."""
    found: dict[str, set[str]] = {}
    for step in plan.steps.values():
        for touch in step.action.touches:
            found.setdefault(touch.site, set()).add(touch.endpoint)
    return {site: tuple(sorted(found[site])) for site in sorted(found)}


# --- text -------------------------------------------------------------------------------------


def plan_text(
    plan: Plan, expected: Mapping[str, int | None], notes: Sequence[str], observed: Mapping[str, Any] | None
) -> str:
    """The plan as people read it before they put their name to it."""
    return "\n".join(
        [
            *_head(plan, notes),
            *_services(plan, expected),
            *_groups(plan),
            *_points(plan),
            *_site_left(plan),
            *_endpoints(plan),
            *_waves(plan, expected),
            *_foot(plan),
            *_observed(observed),
        ]
    )


def _head(plan: Plan, notes: Sequence[str]) -> Iterator[str]:
    way = f"{plan.source} → {plan.target}" if plan.source else f"{plan.target} is made to follow again"
    yield f"{plan.operation.value.upper()}   {way}"
    yield f"plan {plan.digest}"
    counts = (("step", plan.steps), ("service", plan.services), ("group", plan.groups))
    counted = ", ".join(_count(len(things), name) for name, things in counts)
    yield f"{counted}; at most {_count(plan.limits.parallel_steps, 'step')} at once"
    for note in notes:
        yield f"note: {note}"
    for service, reason in plan.leave.items():
        yield f"left behind, on the record: {service} ({reason})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _services(plan: Plan, expected: Mapping[str, int | None]) -> Iterator[str]:
    times, kept = expectations(plan, expected), names_kept_ms(plan)
    span = "from the refusal of writes" if is_planned(plan) else "from the order"
    yield from ("", "SERVICES")
    for facts in plan.services.values():
        law = f" · {facts.legal_basis}" if facts.legal_basis else ""
        yield f"  {facts.name} · tier {facts.tier} · {facts.owner}{law}"
        goals = (facts.rto_ms, facts.rpo_ms, facts.mtpd_ms)
        rto, rpo, mtpd = (duration_text(goal) if goal else "0" for goal in goals)
        yield f"      objectives: RTO {rto}, RPO {rpo}, MTPD {mtpd}"
        if _moves(plan):
            yield f"      {_duration(facts, times.get(facts.name), span)}{_clients(facts, kept.get(facts.name, 0))}"
            yield from _longest_step(times.get(facts.name), expected)


def _moves(plan: Plan) -> bool:
    return any(move.epoch_next != move.epoch_seen for move in plan.groups.values())


def _longest_step(found: Expectation | None, expected: Mapping[str, int | None]) -> Iterator[str]:
    """What decides how long it takes: the slowest step of the longest chain that is known."""
    timed = [(expected.get(step) or 0, step) for step in (found.path if found else ())]
    slowest, step = max(timed, default=(0, ""))
    if slowest:
        yield f"      slowest step on the way: {step}, {duration_text(slowest)}"


def _clients(facts: ServiceFacts, kept_ms: int) -> str:
    """What clients may still wait for when the service has been proven to serve."""
    names = f"; names that clients hold already: up to {duration_text(kept_ms)} more" if kept_ms else ""
    waits = facts.client_timeout_ms
    hanging = f"; a client that waits for the old side: up to {duration_text(waits)} more" if waits else ""
    return names + hanging


def _duration(facts: ServiceFacts, expected: Expectation | None, span: str) -> str:
    if expected is None:
        return "nothing in this plan shows when it serves: no `done-when`, no readiness"
    if expected.total_ms is None:
        steps = _count(len(expected.unknown), "step") + (" was" if len(expected.unknown) == 1 else " were")
        known = f"; those known alone: {duration_text(expected.known_ms)}" if expected.known_ms else ""
        return f"expected {span} to proof: {UNKNOWN}: {steps} never timed in this log{known}"
    verdict = "within the RTO" if expected.total_ms <= facts.rto_ms else "LONGER THAN THE RTO"
    return f"expected {span} to proof: {duration_text(expected.total_ms)}, {verdict}"


def _groups(plan: Plan) -> Iterator[str]:
    yield from ("", "GROUPS")
    for move in plan.groups.values():
        yield f"  {move.name}: {', '.join(move.services)}"
        yield f"      {_epochs(plan, move)}"
        for unit, hosts in move.fence_hosts.items():
            if hosts:
                yield f"      must be proven unable to write before {unit} changes hands: {', '.join(hosts)}"


def _epochs(plan: Plan, move: GroupMove) -> str:
    if move.epoch_next == move.epoch_seen:
        return f"active at {move.active}, epoch {move.epoch_seen}: neither changes"
    return f"epoch {move.epoch_seen} of {move.active} → epoch {move.epoch_next} of {plan.target}"


def _points(plan: Plan) -> Iterator[str]:
    points = [step for step in _no_return(plan) if step.action.mutates]
    yield from ("", f"POINTS OF NO RETURN ({len(points)})")
    for step in points:
        yield f"  !! {step.id}: {step.title}"


def _site_left(plan: Plan) -> Iterator[str]:
    found = reach(plan)
    if not plan.source:
        return
    yield from ("", f"WHAT THIS PLAN WANTS OF {plan.source.upper()}, THE SITE THAT IS LEFT")
    if found.required:
        yield f"  It must answer: {_count(len(found.required), 'step')} cannot do without it:"
        yield from (f"      {step}" for step in found.required)
    else:
        yield f"  Needs nothing at {plan.source}: no step that must succeed speaks to it."
    yield from _tried(plan, found)


def _tried(plan: Plan, found: Reach) -> Iterator[str]:
    budget = duration_text(plan.limits.fence_budget_ms)
    if found.fences:
        yield f"  Fences, side by side within {budget}; any proof will do, and without one people declare the site lost:"
        yield from (f"      {step}" for step in found.fences)
    if found.looks:
        yield "  Looked at there, and gone on without an answer:"
        yield from (f"      {step}" for step in found.looks)
    if found.best_effort:
        yield "  Best effort there, owed until done:"
        yield from (f"      {step}" for step in found.best_effort)


def _endpoints(plan: Plan) -> Iterator[str]:
    yield from ("", "EVERY ENDPOINT THAT IS SPOKEN TO")
    for site, places in endpoints(plan).items():
        yield f"  {site or ANYWHERE}:"
        yield from (f"      {place}" for place in places)


# --- waves and steps --------------------------------------------------------------------------


def _waves(plan: Plan, expected: Mapping[str, int | None]) -> Iterator[str]:
    found, together = waves(plan), accepted_with(plan)
    yield from ("", f"ORDER: {len(found)} waves; the steps of a wave run side by side, and a step starts as")
    yield "soon as all that it waits for is done, whatever else its wave still does. Nothing but preflight"
    yield "starts before people have confirmed this plan."
    for number, wave in enumerate(found, start=1):
        many = _count(len(wave), "step") + (" in parallel" if len(wave) > 1 else "")
        yield from ("", f"── wave {number} of {len(found)}: {many} {RULE}"[: len(RULE)])
        for step_id in wave:
            yield from ("", *_step_lines(plan, plan.steps[step_id], expected.get(step_id), together))


def _step_lines(
    plan: Plan, step: Step, expected_ms: int | None, together: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    best = "   [BEST EFFORT]" if step.best_effort else ""
    yield f"  {step.id}   ({step.stage.value}){best}"
    yield f"      {step.title}"
    yield f"      why: {step.why}"
    for command in step.action.commands:
        yield f"      $ {shown(command)}"
    if step.needs:
        yield f"      after: {', '.join(step.needs)}"
    for gate in step.gates:
        if gate is not Gate.AUTHORISED:  # said once, above the waves
            yield f"      gate: {_gate(plan, step, gate, together.get(step.unit, ()))}"
    if step.action.touches:
        yield f"      speaks to: {_touches(step.action.touches)}"
    yield f"      {_bounds(step, expected_ms)}"
    yield from _undo(step)


def _touches(touches: Sequence[Touch]) -> str:
    by_site: dict[str, list[str]] = {}
    for touch in touches:
        by_site.setdefault(touch.site or ANYWHERE, []).append(touch.endpoint)
    return "; ".join(f"{', '.join(places)} ({site})" for site, places in by_site.items())


def _gate(plan: Plan, step: Step, gate: Gate, together: Sequence[str]) -> str:
    move = plan.groups.get(step.group)
    age = duration_text(plan.limits.proof_age_ms)
    match gate:
        case Gate.AUTHORISED:
            return "people have confirmed this plan"
        case Gate.FENCED:
            hosts = ", ".join(move.fence_hosts.get(step.unit, ())) if move else ""
            return f"{hosts or 'the old side'} proven unable to write, at most {age} ago"
        case Gate.VERIFIED:
            return f"the data of {step.unit} verified at most {age} ago, or its finding accepted by name"
        case Gate.LOSS_ACCEPTED:
            of = f" of {', '.join(together)}" if len(together) > 1 else ""
            return f"the loss{of} measured after the fence, at most {age} ago, and accepted by people"
        case Gate.GRANTED:
            epoch = f"epoch {move.epoch_next}" if move else "the epoch"
            return f"{epoch} of {step.group} committed at {plan.target}"


def _bounds(step: Step, expected_ms: int | None) -> str:
    tries = "1 try" if step.retry.attempts == 1 else f"at most {step.retry.attempts} tries"
    expected = UNKNOWN if expected_ms is None else duration_text(expected_ms)
    undo = "; nothing to undo" if step.action.undo is Undo.NONE_NEEDED else ""
    return f"time-out {duration_text(step.timeout_ms)}, {tries}; expected: {expected}{undo}"


def _undo(step: Step) -> Iterator[str]:
    match step.action.undo:
        case Undo.NONE_NEEDED:
            return
        case Undo.POINT_OF_NO_RETURN:
            yield "      !!!! POINT OF NO RETURN !!!!  it cannot be taken back"
        case Undo.UNDO:
            yield from (f"      undo: {shown(command)}" for command in step.action.undo_commands)


# --- the end ----------------------------------------------------------------------------------


def _foot(plan: Plan) -> Iterator[str]:
    commands = [c for s in plan.steps.values() for c in (*s.action.commands, *s.action.undo_commands)]
    if any(RUN_PLACEHOLDER in command or f"={RUN}" in command for command in commands):
        yield from ("", f"{RUN} stands for the name that the run is given when it begins.")
    if any("secret://" in command for command in commands):
        yield "secret://… names a secret that is read on the day and never shown."
    yield from ("", f"end of plan {plan.digest}")


def _observed(observed: Mapping[str, Any] | None) -> Iterator[str]:
    if observed is None:
        return
    yield from (
        "",
        RULE,
        f"OBSERVED AT {observed['at']}: not part of the plan, may be different when it runs",
    )
    yield from (f"  {line}" for line in observed.get("lines", ()))
    for unit, loss in observed.get("loss", {}).items():
        yield f"  {unit}: expected loss now: {loss}"
