"""Decides which loss people are told to expect before they accept one: 0 is said only with proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.model import Operation
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run
from orchestrator.core.values import Json, duration_text, size_text
from orchestrator.engine.journal import utc_text

INSPECT = "postgresql.inspect"


def expected_losses(run: Run, documents: Mapping[str, str]) -> list[str]:
    """What a failover would lose now, by unit; a planned move loses nothing, and says so by its gates."""
    found = dict(documents)
    if run.plan.operation is Operation.FAILOVER:
        at = run.last.utc_ns
        databases = {unit: expected_loss_text(seen, run.plan, at) for unit, seen in inspections(run).items()}
        found = {**databases, **found}
    return [f"{unit}: expected loss now: {loss}" for unit, loss in found.items()]


def stands(plan: Plan) -> bool:
    """Do the databases take writes at the target already, because people kept that site?"""
    return all(move.active == plan.target for move in plan.groups.values())


def inspections(run: Run) -> dict[str, Mapping[str, Json]]:
    """Evidence of the run's inspection steps by unit."""
    return {
        step.unit: run.step(step.id).evidence
        for step in run.plan.steps.values()
        if step.action.kind == INSPECT and run.step(step.id).evidence
    }


def site_of(found: Mapping[str, Json], site: str) -> Mapping[str, Any]:
    sites = found.get("sites")
    value = sites.get(site) if isinstance(sites, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def expected_loss_text(found: Mapping[str, Json], plan: Plan, now_utc_ns: int) -> str:
    """The loss that a failover would state now: an expectation; the run measures it after the fence."""
    target = site_of(found, plan.target)
    writers = target.get("writers") or {}
    if stands(plan):
        return f"0 ({plan.target} takes the writes already; what the other side alone held was listed)"
    home = site_of(found, plan.source)
    broken = home.get("role") == "primary" and home.get("waits") is False
    promised = writers and all(w.get("durability") == "remote" for w in writers.values())
    if promised and target.get("waits") is True and not broken:
        return "0 (every acknowledged commit waited for the embassy)"
    last = target.get("last_commit_ns")
    if not isinstance(last, int) or target.get("heartbeat_ns") is None:
        return "unknown (no heartbeat from home)"
    age_ms = max(0, (now_utc_ns - last) // 1_000_000)
    behind = ""
    if home.get("lsn") and target.get("receive_lsn"):
        from orchestrator.core.loss import lsn_number

        behind = f", {size_text(max(0, lsn_number(home['lsn']) - lsn_number(target['receive_lsn'])))} behind"
    return f"up to {duration_text(age_ms)} (last commit present at {utc_text(last)}{behind})"
