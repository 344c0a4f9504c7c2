"""Decides how the record of a run reads on paper: whatever an auditor needs stands in it, not only in the JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.core.model import Operation
from orchestrator.core.run import Run
from orchestrator.core.states import StepState
from orchestrator.core.values import duration_text
from orchestrator.reports.leftovers import leftover_lines
from orchestrator.reports.record import driven_seconds, lost_by
from orchestrator.reports.rights import right_text
from orchestrator.reports.state import loss_text

SHOWN_MAX = 10
LONGEST_MAX = 3
TIDY = frozenset({StepState.SUCCEEDED, StepState.PENDING, StepState.UNDONE})
"""States of a step that need no line of their own where one attempt was enough."""


def record_text(document: Mapping[str, Any], run: Run) -> str:
    """The record as people read it."""
    lines = [
        *_head(document),
        "",
        *_services(document),
        *(f"  stated loss {unit}: {loss_text(loss)}" for unit, loss in sorted(run.losses.items())),
        *(f"  {unit}: {basis}" for unit, basis in _unstated(run)),
        *(_accepted_line(each) for each in document["accepted_losses"]),
        "",
        *_longest(document["steps"]),
        *(_decision_line(each) for each in document["decisions"]),
        "",
        *_proof_lines(document["fence"]),
        *_step_lines(document["steps"]),
    ]
    for back in document["came_back"]:
        kept = f"; kept as it was: {back['kept']}" if back["kept"] else ""
        lines.append(f"  came back: {back['step']}: {back['how']} ({back['because'] or back['state']}){kept}")
        lines += _diverged_lines(back, document["run"])
    lines += [f"  still owed: {debt}" for debt in document["debts"]]
    lines += leftover_lines(run)
    log = document["log"]
    lines.append(f"  log entries {log['first_seq']}–{log['last_seq']}, last hash {log['last_hash'][:16]}")
    return "\n".join(lines)


def _head(document: Mapping[str, Any]) -> Iterator[str]:
    people, times = document["people"], document["times"]
    yield f"{document['operation']} {document['run']}: {document['outcome'].upper()}"
    yield f"  {document['from'] or ''} → {document['to']}; plan {document['plan_digest'][:12]}"
    why = f": {people['reason']}" if people["reason"] else ""
    yield f"  started by {people['started_by']} on {people['machine']} at {times['created']}{why}"
    yield f"  ordered by {people['authorised_by'] or 'nobody yet'} at {times['order'] or '-'}; ended at {times['end'] or '-'}"
    for name, group in document["groups"].items():
        yield f"  {name}: {right_text(group, is_over=times['end'] is not None)}"
    if document["drivers"] > 1:
        yield f"  driven by {document['drivers']} processes, one after the other"


def _services(document: Mapping[str, Any]) -> Iterator[str]:
    yield "  service                RTO reached / objective     RPO stated / objective"
    for name, facts in document["services"].items():
        rto = "-" if facts["rto_seconds"] is None else f"{facts['rto_seconds']:.3f} s"
        rpo = "-" if facts["rpo_seconds"] is None else f"{facts['rpo_seconds']:.3f} s"
        rto_goal = duration_text(int(facts["rto_objective_seconds"] * 1000))
        rpo_goal = duration_text(int(facts["rpo_objective_seconds"] * 1000))
        yield f"  {name:<22} {rto:>10} / {rto_goal:<13} {rpo:>10} / {rpo_goal}"


def _accepted_line(accepted: Mapping[str, Any]) -> str:
    limit = accepted["limit"]
    text = {"unknown": "a loss that nobody can bound", "0": "no loss"}.get(limit, f"at most {limit}")
    return f"  accepted loss: {text}, by {accepted['by']} at {accepted['at']} ({accepted['how']})"


def _unstated(run: Run) -> Iterator[tuple[str, str]]:
    """(unit, why) of what a failover moved without a stated loss."""
    if run.plan.operation is not Operation.FAILOVER:
        return
    for move in run.plan.groups.values():
        for unit in move.units:
            lost_ms, basis = lost_by(run, unit)
            if unit not in run.losses and lost_ms is None:
                yield unit, basis


def _longest(steps: list[dict[str, Any]]) -> Iterator[str]:
    """The steps that took longest, but for the time in which nobody drove."""
    timed = sorted((s for s in steps if s["seconds"] is not None), key=driven_seconds, reverse=True)
    for step in timed[:LONGEST_MAX]:
        undriven = step["undriven_seconds"]
        beside = f", and up to {undriven:.3f} s in which nobody drove" if undriven else ""
        yield f"  longest: {step['id']} {driven_seconds(step):.3f} s{beside}"


def _decision_line(decision: Mapping[str, Any]) -> str:
    """What was decided, of which step, gate or site, by whom and why."""
    of = decision.get("step") or decision.get("gate") or decision.get("site") or ""
    closed = "--leave-closed" if decision.get("leave_closed") else ""
    why = decision.get("reason") or decision.get("text") or ""
    words = (decision["at"], decision["what"], of, closed, f"by {decision.get('by', '')}", why)
    return "  " + " ".join(filter(None, words))


def _step_lines(steps: list[dict[str, Any]]) -> Iterator[str]:
    """Steps that took more than one attempt, did not end as meant, or could not see what they had to see."""
    for step in steps:
        facts = []
        if step["attempts"] > 1:
            facts.append(f"{step['attempts']} attempts")
        if step["observed"] is False:
            detail = step["evidence"].get("detail")
            facts.append(f"not observed{f' ({detail})' if detail else ''}: the fence proof stands for it")
        if left := step["evidence"].get("sessions_left"):
            facts.append(f"sessions may go on: {left}")
        if not facts and step["state"] in TIDY:
            continue
        said = f": {step['message']}" if step["message"] else ""
        yield f"  step {step['id']}: {'; '.join([step['state'], *facts])}{said}"


def _diverged_lines(back: Mapping[str, Any], run: str) -> Iterator[str]:
    """The first few by name, and exactly how many more there are; where all of them stand."""
    found, count = back["diverged"], back["diverged_count"]
    for each in found[:SHOWN_MAX]:
        yield f"    {each['kind']}: " + ", ".join(
            f"{name} {value}" for name, value in each.items() if name != "kind" and value
        )
    if count > SHOWN_MAX:
        place = back["list"] or (
            f"continuity report {run} --output json" if count == len(found) else back["kept"]
        )
        yield f"    and {count - SHOWN_MAX} more; all of them: {place}"


def _proof_lines(fences: list[dict[str, Any]]) -> Iterator[str]:
    """What proves that the old side could not write, and what gave no proof."""
    for fence in fences:
        if "declared_lost" in fence:
            yield f"  declared lost: {fence['declared_lost']} by {fence['by']} at {fence['at']}: {fence['reason']}"
        elif fence["state"] == StepState.SUCCEEDED:
            when = f"at {fence['at']}" if fence["at"] else "(void since a pause or a new driver)"
            yield f"  proof: {fence['step']}: {', '.join(fence['hosts'])} {fence['proves']} {when}"
        else:
            why = f": {fence['message']}" if fence["message"] else ""
            yield f"  no proof: {fence['step']} {fence['state']}{why}"
