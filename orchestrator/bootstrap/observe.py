"""Decides what people are shown of the world before they confirm, and what `--live` adds to a plan.

Observations come from the plan's own read-only preflight steps; they are dated, bounded, never part
of a digest, and change nothing but this: a split brain that is seen is written into the log.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.bootstrap.documents import expected_of_documents
from orchestrator.bootstrap.expected import (
    INSPECT,
    Expected,
    expected_loss,
    expected_losses,
    inspections,
    site_of,
)
from orchestrator.bootstrap.healthy import documents_lines, is_healthy, looks_at_source
from orchestrator.bootstrap.standing import (
    how_to_adopt,
    journal_apart,
    journal_conflict,
    journal_left,
    journal_unprotected,
    log_behind,
    told,
    towards_adopt,
    writing_sites,
)
from orchestrator.core.claims import CONTRADICTIONS
from orchestrator.core.model import Operation, Stage
from orchestrator.core.outcomes import Failed, Succeeded
from orchestrator.core.plan import Plan, Role, Step
from orchestrator.core.run import Run
from orchestrator.core.values import Json, duration_text
from orchestrator.engine.clock import now
from orchestrator.engine.journal import moment

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App

OBSERVE_SECONDS = 2.0
CLAIMS = "continuity.claims"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What is shown before the typed confirmation. ``is_source_healthy``: it answers and serves."""

    text: str
    is_source_healthy: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """``findings``: what the sides say is amiss with them, with what mends it."""

    document: dict[str, Any]
    text: str
    findings: tuple[str, ...] = ()


def confirmation(run: Run, losses: Mapping[str, Expected]) -> Confirmation:
    """The services, whose they are and under which law, and the loss to be expected now, by unit."""
    plan = run.plan
    lines = [f"{plan.operation}: {plan.source or 'the old side'} → {plan.target}, plan {plan.digest[:12]}"]
    for facts in plan.services.values():
        law = f"; {facts.legal_basis}" if facts.legal_basis else ""
        rto, rpo = (duration_text(goal) if goal else "0" for goal in (facts.rto_ms, facts.rpo_ms))
        goals = f"RTO {rto}, RPO {rpo}"
        lines.append(f"  {facts.name} (tier {facts.tier}, {facts.owner}{law}): {goals}")
    lines += [f"  {text}" for text in plan.stops]
    for unit, found in inspections(run).items():
        lines += [f"  {line}" for line in describe(unit, found, plan)]
    seen = {step.id: run.step(step.id).evidence for step in looks_at_source(plan)}
    lines += [f"  {line}" for line in documents_lines(plan, seen)]
    lines += [f"  {line}" for line in expected_losses(losses)]
    lines += [f"  {line}" for line in other_findings(run)]
    return Confirmation("\n".join(lines), is_healthy(plan, seen))


def preflight_findings(run: Run) -> list[str]:
    """Everything that the run's preflight found amiss, with what mends it."""
    found = [line for unit, seen in inspections(run).items() for line in _finding_lines(unit, seen)]
    return [*found, *other_findings(run)]


def other_findings(run: Run) -> list[str]:
    """What the preflight found beside the databases."""
    return [
        line
        for step in run.plan.steps.values()
        if step.stage is Stage.PREFLIGHT and step.action.kind != INSPECT
        for line in _finding_lines(step.unit, run.step(step.id).evidence)
    ]


def describe(unit: str, found: Mapping[str, Json], plan: Plan) -> list[str]:
    """One line per site of what an inspection saw, and its findings with the command that mends each."""
    lines = []
    for site in (plan.source, plan.target):
        if not site:
            continue
        seen = site_of(found, site)
        if not seen.get("reachable"):
            lines.append(f"{unit} at {site}: does not answer ({seen.get('error') or 'no answer'})")
            continue
        writers = seen.get("writers") or {}
        epochs = ", ".join(f"{db}: epoch {w['epoch']} of {w['site']}" for db, w in sorted(writers.items()))
        lines.append(f"{unit} at {site}: {seen.get('role')}, timeline {seen.get('timeline')}; {epochs}")
    return [*lines, *_finding_lines(unit, found)]


def _finding_lines(unit: str, found: Mapping[str, Json]) -> list[str]:
    lines = []
    findings = found.get("findings")
    for finding in findings if isinstance(findings, list | tuple) else ():
        if isinstance(finding, Mapping):
            mend = f" — {finding['mend']}" if finding.get("mend") else ""
            lines.append(f"{unit}: finding: {finding.get('text')}{mend}")
    return lines


# --- without a run ----------------------------------------------------------------------------


def observe(app: App, plan: Plan) -> dict[str, Any]:
    """Run the plan's preflight steps now, without a run: dated facts, at most OBSERVE_SECONDS, and what
    a failover would lose now."""
    steps = [step for step in plan.steps.values() if step.stage is Stage.PREFLIGHT]
    found = _perform(app, plan, steps)
    at = now(app.clock)
    observed: dict[str, Any] = {"at": moment(at), "steps": found, "lines": _lines(app, plan, found)}
    if plan.operation is Operation.FAILOVER:
        losses = {**_expected(plan, found, at.utc_ns), **expected_of_documents(app, plan)}
        observed["loss"] = {unit: loss.text for unit, loss in losses.items()}
    else:
        observed["lines"] += look_for_conflicts(app).text.splitlines()
    return observed


def expected_now(app: App, plan: Plan) -> dict[str, Expected]:
    """What a failover would lose by what the sites say at this moment."""
    found = _perform(app, plan, [step for step in plan.steps.values() if step.action.kind == INSPECT])
    return {**_expected(plan, found, app.clock.utc_ns()), **expected_of_documents(app, plan)}


def _expected(plan: Plan, found: Mapping[str, Any], now_utc_ns: int) -> dict[str, Expected]:
    return {
        (unit := plan.steps[step].unit): expected_loss(unit, seen.get("evidence") or {}, plan, now_utc_ns)
        for step, seen in found.items()
        if plan.steps[step].action.kind == INSPECT
    }


def read_only_gates(plan: Plan) -> list[Step]:
    """The steps that change nothing and whose question makes sense before anything has been changed."""
    roles = (Role.EVIDENCE, Role.VERIFY)
    return [
        step
        for step in plan.steps.values()
        if step.role in roles
        and not step.action.mutates
        and not any(plan.steps[need].action.mutates for need in step.needs)
    ]


@dataclass(frozen=True, slots=True)
class Gated:
    """One read-only gate asked now. ``mend``: commands or acts that would satisfy it."""

    step: str
    title: str
    result: str  # ok | failed | unknown
    message: str
    findings: tuple[tuple[str, str], ...]  # (text, mend)

    @property
    def is_met(self) -> bool:
        return self.result == "ok"


def ask_gates(app: App, plan: Plan, seconds: float) -> list[Gated]:
    """Ask every read-only gate of a plan now, side by side, without a run; nothing is changed."""
    steps = read_only_gates(plan)
    found = _perform(app, plan, steps, seconds)
    return [_gated(app, step, found[step.id]) for step in steps]


def _gated(app: App, step: Step, seen: Mapping[str, Any]) -> Gated:
    evidence = seen.get("evidence") or {}
    findings = tuple(
        (str(finding.get("text", "")), str(finding.get("mend", "")))
        for finding in evidence.get("findings") or ()
        if isinstance(finding, Mapping)
    )
    findings += tuple((text, towards_adopt(app, step.group)) for text in evidence.get(CONTRADICTIONS) or ())
    result = seen["result"] if seen["result"] in ("ok", "failed") else "unknown"
    message = seen.get("message") or ("" if result == "ok" else str(seen["result"]))
    return Gated(step.id, step.title, result, message, findings)


def _lines(app: App, plan: Plan, found: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for step_id, seen in found.items():
        step = plan.steps[step_id]
        evidence = seen.get("evidence") or {}
        if step.action.kind == INSPECT and evidence:
            lines += describe(step.unit, evidence, plan)
            lines += [
                f"{step.unit}: against the log: {text} — {towards_adopt(app, step.group)}"
                for text in evidence.get(CONTRADICTIONS) or ()
            ]
        else:
            lines.append(
                f"{step_id}: {seen['result']}{': ' + seen['message'] if seen.get('message') else ''}"
            )
            lines += _finding_lines(step.unit, evidence)
    return lines


def _perform(app: App, plan: Plan, steps: list[Step], seconds: float = OBSERVE_SECONDS) -> dict[str, Any]:
    """Execute read-only steps outside any run, side by side, each bounded."""
    from orchestrator.bootstrap.operations import surroundings
    from orchestrator.engine.dispatch import guarded
    from orchestrator.ports import Context

    around = surroundings(app)
    deadline = app.clock.monotonic() + seconds
    results: dict[str, Any] = {step.id: {"result": "no answer in time"} for step in steps}

    def look(step: Step) -> None:
        context: Context[Any] = Context(
            params=app.catalog.parse(step.action.kind, step.action.arguments), parts=plan.parts,
            operation=plan.operation, run="observe", step=step.id, attempt=f"observe/{step.id}/1",
            deadline=deadline, evidence={}, resources=around.resources, secrets=around.secrets,
            hosts=around.hosts, clock=around.clock,
        )  # fmt: skip
        outcome = guarded(lambda: app.catalog.action(step.action.kind).execute(context), mutates=False)
        if isinstance(outcome, Succeeded):
            results[step.id] = {"result": "ok", "evidence": outcome.evidence}
        elif isinstance(outcome, Failed):
            results[step.id] = {"result": "failed", "message": outcome.message, "evidence": outcome.evidence}
        else:
            results[step.id] = {"result": "unknown", "message": outcome.message}

    threads = [
        threading.Thread(target=look, args=(step,), daemon=True) for step in steps if not step.action.mutates
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline + 0.5 - app.clock.monotonic()))
    close = getattr(around.resources, "close", None)
    if close is not None:
        close()
    return results


def look_for_conflicts(app: App) -> Seen:
    """Ask every cluster's sites now. Two sites that take writes, or took them, are a split brain, and
    journalled; so is an active primary from which no standby streams."""
    document: dict[str, Any] = {"at": moment(now(app.clock)), "clusters": {}}
    lines = [f"asked at {document['at']}:"]
    clusters = clusters_now(app)
    for unit, (group, found) in clusters.items():
        document["clusters"][unit] = found
        for site, seen in (found.get("sites") or {}).items():
            state = seen.get("role", "unknown") if seen.get("reachable") else "does not answer"
            lines.append(f"  {unit} at {site}: {state}")
        writers = writing_sites(found)
        if len(writers) > 1:
            journal_conflict(app, group, {"cluster": unit, "writers": list(writers)})
            lines.append(f"  {unit}: {told(app, group, _writing_text(app, group, writers))}")
    left = journal_left(app, clusters)
    apart = journal_apart(app)
    lost = journal_unprotected(app, clusters)
    lines += [f"  {each.unit} at {each.site}: {told(app, each.group, each.old.text())}" for each in left]
    lines += [
        f"  {each.unit} at {each.site}: {told(app, each.group, each.text())}"
        if each.found.is_second
        else f"  {each.unit} at {each.site}: {each.text()}"
        for each in apart
    ]
    lines += [f"  {group}: UNPROTECTED: {reason}" for group, reason in lost.items()]
    behind = log_behind(app, clusters)
    lines += [
        f"  {group}: THE LOG IS BEHIND: {text}; {how_to_adopt(app, group)}"
        for group, texts in behind.items()
        for text in texts
    ]
    document["behind"] = behind
    document["left"] = [{"cluster": each.unit, "site": each.site, **each.old.evidence()} for each in left]
    document["apart"] = [{"group": each.group, **each.evidence()} for each in apart]
    document["unprotected"] = lost
    findings = tuple(line for unit, (_, found) in clusters.items() for line in _finding_lines(unit, found))
    return Seen(document, "\n".join(lines), findings)


def _writing_text(app: App, group: str, writers: list[str]) -> str:
    """Once people have decided, the lost side alone is spoken of: it is owed its place behind the kept one."""
    state = app.journal.group(group)
    lost = [site for site in writers if site != state.active]
    if state.is_resolved and not state.conflict:
        return f"{' and '.join(lost)} still takes writes"
    return f"{' and '.join(writers)} take writes"


def serves_now(app: App, plan: Plan) -> bool:
    """Does the site that is to be left answer and serve at this moment?"""
    found = _perform(app, plan, looks_at_source(plan))
    return is_healthy(plan, {step: each.get("evidence") or {} for step, each in found.items()})


def look_before(app: App, operation: Operation) -> None:
    """What the log must know before a planned operation is planned. A failover waits for nothing."""
    if operation is not Operation.FAILOVER and app.has_log:
        look_for_conflicts(app)


def journal_conflicts(app: App, plan: Plan) -> None:
    """Before home follows or is gone to: a second site that takes writes, or took them, is found here, whoever
    looked for it or did not: the way home is refused until people have resolved it."""
    steps = [step for step in plan.steps.values() if step.action.kind == INSPECT]
    found = _perform(app, plan, steps)
    clusters = {step.unit: (step.group, found[step.id].get("evidence") or {}) for step in steps}
    for unit, (group, seen) in clusters.items():
        writers = writing_sites(seen)
        if len(writers) > 1:
            journal_conflict(app, group, {"cluster": unit, "writers": list(writers)})
    journal_left(app, clusters)
    journal_apart(app)


@dataclass(frozen=True, slots=True)
class Looked:
    """What one read-only step saw of a group; ``evidence`` is empty when it saw nothing."""

    group: str
    unit: str
    kind: str
    evidence: Mapping[str, Any]
    message: str


def evidence_now(app: App) -> list[Looked]:
    """What the reachable parts of every group say now: databases, and the claims beside what is switched."""
    from orchestrator.planning.inspection import inspection_plan

    plan = inspection_plan(app.loaded.estate, app.loaded.runbooks, app.catalog)
    steps = [step for step in plan.steps.values() if step.action.kind in (INSPECT, CLAIMS)]
    found = _perform(app, plan, steps)
    return [
        Looked(
            step.group, step.unit, step.action.kind, found[step.id].get("evidence") or {},
            found[step.id].get("message", ""),
        )
        for step in steps
    ]  # fmt: skip


def clusters_now(app: App) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Cluster → (its group, what its sites say now), through ``postgresql.inspect``."""
    return {seen.unit: (seen.group, seen.evidence) for seen in evidence_now(app) if seen.kind == INSPECT}
