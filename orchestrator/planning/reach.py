"""Decides what a plan wants of the site that is left, from what its steps declare that they touch.
A failover must want nothing that has to succeed there; this is where that is proven.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.plan import Plan, Role, Step
from orchestrator.errors import InputError, Problem


@dataclass(frozen=True, slots=True)
class Reach:
    """Steps that speak to the site that is left, by what becomes of the run if it doesn't answer.

    ``required``: they cannot succeed. ``fences``: all of them, wherever they act; any proof will do,
    people's word in the end.
    ``looks``: evidence before the order, taken or not. ``best_effort``: owed until done.
    """

    required: tuple[str, ...]
    fences: tuple[str, ...]
    looks: tuple[str, ...]
    best_effort: tuple[str, ...]


def reach(plan: Plan) -> Reach:
    """Sort the steps that touch the source; a plan without a source leaves no site."""
    required: list[str] = []
    fences: list[str] = []
    looks: list[str] = []
    best_effort: list[str] = []
    for step in plan.steps.values():
        if plan.source and step.role is Role.FENCE:
            fences.append(step.id)
        if not plan.source or step.role is Role.FENCE or not touches(step, plan.source):
            continue
        if step.role is Role.EVIDENCE:
            looks.append(step.id)
        elif step.best_effort:
            best_effort.append(step.id)
        else:
            required.append(step.id)
    return Reach(tuple(required), tuple(fences), tuple(looks), tuple(best_effort))


def must_need_nothing_there(plan: Plan) -> None:
    """InputError names every step of a failover that cannot succeed without the site that is left."""
    problems = [
        Problem(
            "", 0, step, f"a failover step needs {plan.source}, which may be gone",
            "do it at the target or from a vantage; a failover waits for nothing at the site that is left",
        )
        for step in reach(plan).required
    ]  # fmt: skip
    if problems:
        raise InputError(problems)


def touches(step: Step, site: str) -> bool:
    return any(touch.site == site for touch in step.action.touches)
