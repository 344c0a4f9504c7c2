"""Decides what a run's record holds (JSON, schema-versioned): everything an auditor asks for that
the log knows. The log is the source; this only arranges it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.core import events
from orchestrator.core.events import Event
from orchestrator.core.inputs import LOSS_UNKNOWN, LOSS_WITHIN_RPO, At
from orchestrator.core.log import Recorded
from orchestrator.core.plan import Role, Step
from orchestrator.core.run import Run
from orchestrator.core.states import SATISFIED, StepState
from orchestrator.engine.journal import RUN, Journal, moment, utc_text
from orchestrator.reports.attempts import ends_of
from orchestrator.reports.clocks import Clocks, clocks_of
from orchestrator.reports.history import names_of
from orchestrator.reports.leftovers import exposed, left_as_it_is, unprotected
from orchestrator.reports.rights import rights_document
from orchestrator.reports.state import limit_name, loss_document

RECORD_SCHEMA = "continuity/record/v1"
HOLDS_NO_DATA = "not measured: the group holds no data of its own"


def record(journal: Journal, run_id: str) -> dict[str, Any]:
    """The record of one run."""
    run = journal.load(run_id).run
    entries = journal.store.read(RUN + run_id)
    clocks, ends = clocks_of(entries), ends_of(entries)
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
        "groups": rights_document(journal, run),
        "services": {name: _service(run, name, clocks) for name in run.plan.services},
        "stated_loss": {unit: loss_document(loss) for unit, loss in sorted(run.losses.items())},
        "accepted_losses": list(_accepted(entries)),
        "fence": _fences(run),
        "decisions": [_decision(e.event) for e in entries if _is_decision(e.event)],
        "steps": [_step(run, step, clocks, ends.get(step)) for step in run.plan.steps],
        "came_back": [_came_back(run, step) for step in run.plan.steps.values() if _has_come_back(run, step)],
        "drivers": run.drivers,
        "debts": list(run.debts),
        "unprotected": list(unprotected(run)),
        "exposures": list(exposed(run)),
        "left_as_it_is": [{"step": step, "why": why} for step, why in left_as_it_is(run)],
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
        return None, HOLDS_NO_DATA
    found = [(unit, *lost_by(run, unit)) for unit in units]
    unknown = [(unit, basis) for unit, lost_ms, basis in found if lost_ms is None]
    if unknown:
        return None, "; ".join(f"{unit}: {basis}" for unit, basis in unknown)
    most = max(found, key=lambda entry: entry[1] or 0)
    return most[1], f"{most[0]}: {most[2]}"


def lost_by(run: Run, unit: str) -> tuple[int | None, str]:
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


def _accepted(entries: Sequence[Recorded]) -> Iterator[dict[str, Any]]:
    """Who accepted which limit of loss, when and how. A pause or a new driver voids one before promotion: then
    the next one is accepted anew, and stands here too."""
    for entry in entries:
        match entry.event:
            case events.RunAuthorised(at=at, by=by, accepted_loss_ms=limit, method=how):
                yield _limit(at, by, limit, how)
            case events.GateAccepted(gate="loss", at=at, by=by, reason=why, limit_ms=int(limit)):
                yield _limit(at, by, limit, why)
            case events.RunResumed(at=at, by=by, accepted_loss_ms=int(limit)):
                yield _limit(at, by, limit, "on resume")


def _limit(at: At, by: str, limit_ms: int, how: str) -> dict[str, Any]:
    is_bounded = limit_ms not in (LOSS_UNKNOWN, LOSS_WITHIN_RPO)
    return {
        "at": moment(at),
        "by": by,
        "limit": limit_name(limit_ms),
        "limit_seconds": limit_ms / 1000 if is_bounded else None,
        "how": how,
    }


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
        "diverged_count": _diverged_count(evidence),
        "list": evidence.get("list") or None,
    }


def _diverged_count(evidence: Mapping[str, Any]) -> int:
    """How many there are: the journal names the first thousand, and knows the number of all."""
    named = evidence.get("diverged")
    counts = [evidence.get("rows"), sum(int(evidence.get(name) or 0) for name in ("only", "differ"))]
    return max(len(named) if isinstance(named, list | tuple) else 0, *(int(n or 0) for n in counts))


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


def _observed(evidence: Mapping[str, Any]) -> bool | None:
    """False: what had to be seen could not be reached, and another proof stands for it. None: not asked."""
    value = evidence.get("observed")
    return value if isinstance(value, bool) else None


def _step(run: Run, step_id: str, clocks: Clocks, end: At | None) -> dict[str, Any]:
    step, state = run.plan.steps[step_id], run.step(step_id)
    return {
        "id": step_id,
        "stage": step.stage.value,
        "action": step.action.kind,
        "state": state.state.value,
        "attempts": state.attempt,
        "observed": _observed(state.evidence),
        "started": moment(state.started) if state.started else None,
        "seconds": clocks.seconds(state.started, end),
        "undriven_seconds": clocks.undriven_seconds(state.started, end),
        "message": state.message or None,
        "reason": state.reason or None,
        "evidence": state.evidence,
    }


def driven_seconds(step: Mapping[str, Any]) -> float:
    """What a step of a record took, less what may have passed without a driver; it must have an end."""
    return max(0.0, float(step["seconds"]) - float(step["undriven_seconds"]))
