"""Decides how every group is looked at outside any operation: the read-only steps that an operation
would begin with, for all groups at once. Such a plan never becomes a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.core.model import Estate, Operation, Runbook, Stage, group_of
from orchestrator.core.move import Move
from orchestrator.core.plan import Plan
from orchestrator.planning.compile import bind_moves
from orchestrator.ports import Catalog

NO_EPOCH = 0


def inspection_plan(estate: Estate, runbooks: Mapping[str, Runbook], catalog: Catalog) -> Plan:
    """The preflight steps of every group, as if each stood at home and had never moved.

    InputError: an estate without a home and another site that holds services.
    """
    home = next((site.name for site in estate.sites.values() if site.role == "home"), "")
    abroad = next((site.name for site in estate.sites.values() if site.role == "embassy"), "")
    groups = dict.fromkeys(group_of(estate, name) for name in runbooks)
    moves = {
        group: Move(
            Operation.FAILOVER, estate, group, home, abroad, NO_EPOCH, NO_EPOCH + 1, is_planned=False,
            reprotects=False, moves=True,
        )
        for group in groups
    }  # fmt: skip
    plan = bind_moves(estate, runbooks, Operation.FAILOVER, moves, catalog, {})
    steps = {name: step for name, step in plan.steps.items() if step.stage is Stage.PREFLIGHT}
    return replace(plan, steps=steps)
