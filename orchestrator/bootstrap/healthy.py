"""Decides whether the side that an unplanned move would give up answers and serves: a planned one would lose nothing.

Only evidence that a plan's own looks have brought is judged here; nothing is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.bootstrap.expected import INSPECT, site_of
from orchestrator.core.plan import Plan, Step

DOCUMENTS = "files.inspect"


def looks_at_source(plan: Plan) -> list[Step]:
    """The steps that see whether the source serves: they look at its databases, and where its documents are taken."""
    return [
        step for step in plan.steps.values() if step.action.kind == INSPECT or _is_of_documents(plan, step)
    ]


def is_healthy(plan: Plan, found: Mapping[str, Mapping[str, Any]]) -> bool:
    """Does a database at the source take writes, or, where no database leaves it, are documents taken there?

    ``found``: step → what it saw. A database that is down is reason enough to go: documents beside it do not hold it.
    """
    databases = [step for step in looks_at_source(plan) if step.action.kind == INSPECT]
    for step in databases:
        seen = site_of(found.get(step.id) or {}, plan.source)
        if seen.get("reachable") and seen.get("serves_writes") is True:
            return True
    if any(_leaves(plan, step) for step in databases):
        return False
    return any(takes_documents(found.get(step.id) or {}) for step in looks_at_source(plan))


def documents_lines(plan: Plan, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each place of documents at the source that answers and takes new ones."""
    return [
        f"{step.unit} at {plan.source}: takes new documents"
        for step in looks_at_source(plan)
        if takes_documents(found.get(step.id) or {})
    ]


def takes_documents(seen: Mapping[str, Any]) -> bool:
    """By what one look at documents saw: reachable, shown, and open to new ones."""
    return seen.get("reachable") is True and seen.get("takes") is True


def _is_of_documents(plan: Plan, step: Step) -> bool:
    """Where people kept the target, what the other side still takes has no right any more: the move closes it."""
    return (
        step.action.kind == DOCUMENTS and step.action.arguments.get("serves") is True and _leaves(plan, step)
    )


def _leaves(plan: Plan, step: Step) -> bool:
    """Does the group of this step hold its right at the source?"""
    return plan.groups[step.group].active == plan.source
