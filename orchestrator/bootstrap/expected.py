"""Decides which loss people are told to expect before they accept one: 0 is said only with proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.loss import ahead_ms
from orchestrator.core.model import Operation
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run
from orchestrator.core.values import Json, duration_text, size_text
from orchestrator.engine.journal import utc_text

INSPECT = "postgresql.inspect"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a failover would state as lost of one unit. ``since_ns``: when all was there for the last time; None where
    nobody can tell. ``is_nothing``: it is proven that nothing is missing. ``is_measured``: False where a failover states
    nothing of it, and no limit applies."""

    text: str
    since_ns: int | None = None
    is_nothing: bool = False
    is_measured: bool = True

    def milliseconds(self, now_utc_ns: int) -> int | None:
        """None: nobody can bound it."""
        if self.is_nothing:
            return 0
        return None if self.since_ns is None else max(0, (now_utc_ns - self.since_ns) // 1_000_000)


def expected(run: Run, documents: Mapping[str, Expected]) -> dict[str, Expected]:
    """What a failover would lose now, by unit; a planned move loses nothing, and says so by its gates."""
    if run.plan.operation is not Operation.FAILOVER:
        return dict(documents)
    at = run.last.utc_ns
    databases = {unit: expected_loss(unit, seen, run.plan, at) for unit, seen in inspections(run).items()}
    return {**databases, **documents}


def expected_losses(losses: Mapping[str, Expected]) -> list[str]:
    return [f"{unit}: expected loss now: {loss.text}" for unit, loss in losses.items()]


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


def expected_loss(unit: str, found: Mapping[str, Json], plan: Plan, now_utc_ns: int) -> Expected:
    """The loss that a failover would state now: an expectation; the run measures it after the fence."""
    target = site_of(found, plan.target)
    writers = target.get("writers") or {}
    if any(unit in move.units and move.active == plan.target for move in plan.groups.values()):
        text = f"0 ({plan.target} takes the writes already; what the other side alone held was listed)"
        return Expected(text, is_nothing=True)
    home = site_of(found, plan.source)
    broken = home.get("role") == "primary" and home.get("waits") is False
    promised = writers and all(w.get("durability") == "remote" for w in writers.values())
    if promised and target.get("waits") is True and not broken:
        return Expected("0 (every acknowledged commit waited for the embassy)", is_nothing=True)
    last = target.get("last_commit_ns")
    if not isinstance(last, int) or target.get("heartbeat_ns") is None:
        return Expected("unknown (no heartbeat from home)")
    last -= ahead_ms(home.get("clock_offset_ms")) * 1_000_000
    age_ms = max(0, (now_utc_ns - last) // 1_000_000)
    behind = ""
    if home.get("lsn") and target.get("receive_lsn"):
        from orchestrator.core.loss import lsn_number

        behind = f", {size_text(max(0, lsn_number(home['lsn']) - lsn_number(target['receive_lsn'])))} behind"
    return Expected(f"up to {duration_text(age_ms)} (last commit present at {utc_text(last)}{behind})", last)
