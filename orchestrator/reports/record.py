"""Decides what a run's record holds (JSON, schema-versioned): everything an auditor asks for that
the log knows. The log is the source; this only arranges it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.core import events
from orchestrator.core.events import Event
from orchestrator.core.inputs import At
from orchestrator.core.model import Operation
from orchestrator.core.plan import Role, Step
from orchestrator.core.run import Run
from orchestrator.core.states import SATISFIED, StepState
from orchestrator.core.values import duration_text
from orchestrator.engine.journal import RUN, Journal, moment, utc_text
from orchestrator.reports.clocks import Clocks, clocks_of
from orchestrator.reports.history import names_of
from orchestrator.reports.state import loss_document, loss_text

SHOWN_MAX = 10
RECORD_SCHEMA = "continuity/record/v1"


def record(journal: Journal, run_id: str) -> dict[str, Any]:
    """The record of one run."""
    run = journal.load(run_id).run
    entries = journal.store.read(RUN + run_id)
    clocks = clocks_of(entries)
    end = next((e.event.at for e in entries if isinstance(e.event, events.RunFinished)), None)
    return {
        "schema": RECORD_SCHEMA,
        "run": run.id,
        "operation": run.plan.operation.value,
        "from": run.plan.source or None,
        "to": run.plan.target,
        "outcome": run.state.value,
        "plan_digest": run.plan.digest,
        "people": {
            "started_by": run.created.by,
            "machine": run.created.machine,
            "reason": run.created.reason or None,
            "authorised_by": run.authorised_by or None,
        },
        "times": {
            "created": moment(run.created.at),
            "order": moment(run.authorised) if run.authorised else None,
            "end": moment(end) if end else None,
            "order_to_end_seconds": clocks.seconds(run.authorised, end),
        },
        "groups": {
            name: {"services": list(move.services), "epoch_before": move.epoch_seen, "epoch": move.epoch_next}
            for name, move in run.plan.groups.items()
        },
        "services": {name: _service(run, name, clocks) for name in run.plan.services},
        "stated_loss": {unit: loss_document(loss) for unit, loss in sorted(run.losses.items())},
        "fence": _fences(run),
        "decisions": [_decision(e.event) for e in entries if _is_decision(e.event)],
        "steps": [_step(run, step, clocks) for step in run.plan.steps],
        "came_back": [_came_back(run, step) for step in run.plan.steps.values() if _has_come_back(run, step)],
        "drivers": run.drivers,
        "debts": list(run.debts),
        "exposures": list(run.exposures),
        "log": {
            "first_seq": entries[0].seq,
            "last_seq": entries[-1].seq,
            "last_hash": entries[-1].hash,
            "events": len(entries),
        },
    }


def _service(run: Run, name: str, clocks: Clocks) -> dict[str, Any]:
    facts = run.plan.services[name]
    rto = clocks.seconds(run.authorised, served_at(run, name, clocks))
    rpo_ms, basis = _rpo(run, facts.group)
    return {
        "group": facts.group,
        "tier": facts.tier,
        "owner": facts.owner,
        "legal_basis": facts.legal_basis,
        "rto_seconds": rto,
        "rto_objective_seconds": facts.rto_ms / 1000,
        "rto_met": None if rto is None else rto * 1000 <= facts.rto_ms,
        "rpo_seconds": None if rpo_ms is None else rpo_ms / 1000,
        "rpo_basis": basis,
        "rpo_objective_seconds": facts.rpo_ms / 1000,
        "rpo_met": None if rpo_ms is None else rpo_ms <= facts.rpo_ms,
        "mtpd_seconds": facts.mtpd_ms / 1000,
    }


def _rpo(run: Run, group: str) -> tuple[int | None, str]:
    """What a group's move lost at most, and what says so; None where nothing was measured."""
    units = run.plan.groups[group].units
    if not units:
        return None, "not measured: the group holds no data of its own"
    found = [(unit, *_lost_by(run, unit)) for unit in units]
    unknown = [(unit, basis) for unit, lost_ms, basis in found if lost_ms is None]
    if unknown:
        return None, "; ".join(f"{unit}: {basis}" for unit, basis in unknown)
    most = max(found, key=lambda entry: entry[1] or 0)
    return most[1], f"{most[0]}: {most[2]}"


def _lost_by(run: Run, unit: str) -> tuple[int | None, str]:
    """A stated loss counts, and zero where a planned move proved that all had arrived; nothing else does."""
    loss = run.losses.get(unit)
    if loss is not None:
        return loss.milliseconds, loss.basis
    states = [(step, run.step(step.id)) for step in run.plan.steps.values() if step.unit == unit]
    for step, state in states:
        if state.state is not StepState.SUCCEEDED:
            continue
        if step.role is Role.DRAIN:
            return 0, f"{step.id}: both sites had an equal manifest"
        if state.evidence.get("drained") is True:
            return 0, f"{step.id}: everything up to the old side's last record had arrived"
    for _, state in states:
        written = state.evidence.get("manifest_written_ns")
        if isinstance(written, int):
            return None, f"loss not measured; last signed manifest here is of {utc_text(written)}"
    if any(s.role is Role.VERIFY and state.state is StepState.SUCCEEDED for s, state in states):
        return None, "verified as it is here; what never arrived was not measured"
    return None, "not measured"


def _unstated(run: Run) -> Iterator[tuple[str, str]]:
    """(unit, why) of what a failover moved without a stated loss."""
    if run.plan.operation is not Operation.FAILOVER:
        return
    for move in run.plan.groups.values():
        for unit in move.units:
            lost_ms, basis = _lost_by(run, unit)
            if unit not in run.losses and lost_ms is None:
                yield unit, basis


def served_at(run: Run, service: str, clocks: Clocks) -> At | None:
    """When the last proof from outside came in for a service; None while one is missing."""
    steps = [
        s
        for s in run.plan.steps.values()
        if s.service == service and s.role is Role.DONE and not s.best_effort
    ]
    if not steps:
        steps = [s for s in run.plan.steps.values() if s.service == service and s.up]
    states = [run.step(step.id) for step in steps]
    if not states or any(state.state not in SATISFIED or state.since is None for state in states):
        return None
    return max((state.since for state in states if state.since is not None), key=clocks.order)


def _fences(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step_id in run.index.fences:
        step, state = run.plan.steps[step_id], run.step(step_id)
        found.append(
            {
                "step": step_id,
                "hosts": list(step.fences),
                "proves": step.proves.value if step.proves else None,
                "state": state.state.value,
                "at": moment(state.proof_at) if state.proof_at else None,
                "evidence": state.evidence,
                "message": state.message or None,
            }
        )
    for site, lost in run.lost_sites.items():
        found.append({"declared_lost": site, "by": lost.by, "reason": lost.reason, "at": moment(lost.at)})
    return found


def _has_come_back(run: Run, step: Step) -> bool:
    evidence = run.step(step.id).evidence
    return bool(evidence.get("how")) and (step.role is Role.REJOIN or "diverged" in evidence)


def _came_back(run: Run, step: Step) -> dict[str, Any]:
    """How the old side's data became a follower's, where what it looked like before is kept, and what it alone
    held: the first of it by name, all of it in the list beside what is kept."""
    evidence = run.step(step.id).evidence
    diverged = evidence.get("diverged")
    return {
        "step": step.id,
        "state": run.step(step.id).state.value,
        "how": evidence["how"],
        "because": evidence.get("because") or None,
        "kept": evidence.get("kept") or None,
        "diverged": list(diverged) if isinstance(diverged, list | tuple) else [],
    }


def _is_decision(event: Event) -> bool:
    return isinstance(
        event,
        events.RunAuthorised
        | events.GateAccepted
        | events.SiteDeclaredLost
        | events.StepSkipped
        | events.StepMarkAsked
        | events.StepConfirmed
        | events.StepRetried
        | events.RunPaused
        | events.RunResumed
        | events.AbortAsked,
    )


def _decision(event: Event) -> dict[str, Any]:
    names = [name for name in names_of(event) if name != "at"]
    return {"at": moment(event.at), "what": event.KIND, **{n: getattr(event, n) for n in names}}


def _step(run: Run, step_id: str, clocks: Clocks) -> dict[str, Any]:
    step, state = run.plan.steps[step_id], run.step(step_id)
    return {
        "id": step_id,
        "stage": step.stage.value,
        "action": step.action.kind,
        "state": state.state.value,
        "attempts": state.attempt,
        "started": moment(state.started) if state.started else None,
        "seconds": clocks.seconds(state.started, state.since),
        "message": state.message or None,
        "reason": state.reason or None,
        "evidence": state.evidence,
    }


def record_text(document: dict[str, Any], run: Run) -> str:
    """The record as people read it."""
    lines = [
        f"{document['operation']} {document['run']}: {document['outcome'].upper()}",
        f"  {document['from'] or ''} → {document['to']}; plan {document['plan_digest'][:12]}",
        (
            f"  started by {document['people']['started_by']} on {document['people']['machine']}; "
            f"ordered by {document['people']['authorised_by'] or 'nobody yet'} at {document['times']['order'] or '-'}"
        ),
        "",
        "  service                RTO reached / objective     RPO stated / objective",
    ]
    for name, facts in document["services"].items():
        rto = "-" if facts["rto_seconds"] is None else f"{facts['rto_seconds']:.3f} s"
        rpo = "-" if facts["rpo_seconds"] is None else f"{facts['rpo_seconds']:.3f} s"
        rto_goal = duration_text(int(facts["rto_objective_seconds"] * 1000))
        rpo_goal = duration_text(int(facts["rpo_objective_seconds"] * 1000))
        lines.append(f"  {name:<22} {rto:>10} / {rto_goal:<13} {rpo:>10} / {rpo_goal}")
    lines += [f"  stated loss {unit}: {loss_text(loss)}" for unit, loss in sorted(run.losses.items())]
    lines += [f"  {unit}: {basis}" for unit, basis in _unstated(run)]
    slowest = sorted((s for s in document["steps"] if s["seconds"] is not None), key=lambda s: -s["seconds"])[
        :3
    ]
    lines.append("")
    lines += [f"  longest: {s['id']} {s['seconds']:.3f} s" for s in slowest]
    for decision in document["decisions"]:
        who = decision.get("by", "")
        why = decision.get("reason") or decision.get("text") or ""
        lines.append(f"  {decision['at']} {decision['what']} by {who} {why}".rstrip())
    lines += ["", *_proof_lines(document["fence"])]
    for back in document["came_back"]:
        kept = f"; kept as it was: {back['kept']}" if back["kept"] else ""
        lines.append(f"  came back: {back['step']}: {back['how']} ({back['because'] or back['state']}){kept}")
        lines += _diverged_lines(back["diverged"])
    lines += [f"  still owed: {debt}" for debt in document["debts"]]
    lines += [
        f"  exposed: {name} gave no proof: what it should have stopped may come back as it was"
        for name in document["exposures"]
    ]
    log = document["log"]
    lines.append(f"  log entries {log['first_seq']}–{log['last_seq']}, last hash {log['last_hash'][:16]}")
    return "\n".join(lines)


def _diverged_lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The first few by name; the document has more of them, the list beside what is kept has all."""
    for each in found[:SHOWN_MAX]:
        yield f"    {each['kind']}: " + ", ".join(
            f"{name} {value}" for name, value in each.items() if name != "kind" and value
        )
    if len(found) > SHOWN_MAX:
        yield f"    and {len(found) - SHOWN_MAX} more: continuity report RUN --output json"


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
