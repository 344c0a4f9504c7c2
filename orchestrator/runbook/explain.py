"""Decides how the steps derived from runbooks are shown for every operation side by side.

Plans are compiled from assumed group states (served at home and protected, later abroad), so that
people can read what would happen at any time; nothing here is a plan that could run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.groups import GroupState
from orchestrator.core.model import Estate, Operation, group_of
from orchestrator.core.plan import Plan, Step
from orchestrator.core.values import Json
from orchestrator.errors import InputError, Problem, RefusedError
from orchestrator.ports import Catalog
from orchestrator.runbook.parse import Loaded
from orchestrator.runbook.rules_service import is_stateful

SCHEMA = "continuity/explain/v1"
ASSUMED_EPOCH = 1


@dataclass(frozen=True, slots=True)
class Assumed:
    """What an operation is explained from: where the groups are served, and protected or not."""

    operation: Operation
    active_role: str
    protection: str
    target_role: str


ASSUMPTIONS = (
    Assumed(Operation.FAILOVER, "home", "protected", "embassy"),
    Assumed(Operation.SWITCHOVER, "home", "protected", "embassy"),
    Assumed(Operation.FAILBACK, "embassy", "unprotected", "home"),
    Assumed(Operation.REPROTECT, "embassy", "unprotected", ""),
)


@dataclass(frozen=True, slots=True)
class Explanation:
    """One plan per operation; ``refused`` says why an operation cannot be derived."""

    plans: Mapping[Operation, Plan]
    refused: Mapping[Operation, str]


def compile_all(loaded: Loaded, catalog: Catalog, services: Sequence[str] = ()) -> Explanation:
    """Compile every operation. Raises InputError with the problems of all of them, each once."""
    from orchestrator.planning.compile import compile_plan

    plans: dict[Operation, Plan] = {}
    refused: dict[Operation, str] = {}
    problems: dict[Problem, None] = {}
    for assumed in ASSUMPTIONS:
        try:
            compiled = compile_plan(
                loaded.estate,
                loaded.runbooks,
                assumed.operation,
                target=_site(loaded.estate, assumed.target_role) or None,
                services=tuple(services),
                states=_states(loaded, assumed),
                catalog=catalog,
                leave={},
                file_digests=tuple(sorted(loaded.files.items())),
            )
            plans[assumed.operation] = compiled.plan
        except InputError as error:
            problems |= dict.fromkeys(error.problems)
        except RefusedError as error:
            refused[assumed.operation] = error.message
    if problems:
        raise InputError(tuple(problems))
    return Explanation(plans, refused)


def _site(estate: Estate, role: str) -> str:
    return next((site.name for site in estate.sites.values() if site.role == role), "")


def _states(loaded: Loaded, assumed: Assumed) -> dict[str, GroupState]:
    """Only what holds state can be unprotected: a group without any has nothing to lose."""
    active = _site(loaded.estate, assumed.active_role)
    protection: dict[str, str] = {}
    for service, runbook in sorted(loaded.runbooks.items()):
        holds_state = any(map(is_stateful, runbook.components.values()))
        group = group_of(loaded.estate, service)
        protection[group] = assumed.protection if holds_state else protection.get(group, "protected")
    return {
        name: GroupState(name, active, ASSUMED_EPOCH, found, adopted=True)
        for name, found in protection.items()
    }


# --- side by side -------------------------------------------------------------------------------


def rows(explanation: Explanation) -> list[tuple[Step, dict[Operation, int]]]:
    """Every derived step once, with its position (from 1) in each operation that has it.

    The order is that of the first operation, steps of later ones put after what precedes them there.
    """
    order: list[str] = []
    steps: dict[str, Step] = {}
    positions: dict[str, dict[Operation, int]] = {}
    for operation, plan in explanation.plans.items():
        place = 0
        for number, step in enumerate(plan.steps.values(), start=1):
            if step.id in positions:
                place = max(place, order.index(step.id) + 1)
            else:
                order.insert(place, step.id)
                place += 1
                steps[step.id] = step
                positions[step.id] = {}
            positions[step.id][operation] = number
    return [(steps[name], positions[name]) for name in order]


def as_text(explanation: Explanation) -> str:
    """A table for people: one line a step with its place in each operation, and why it is there."""
    operations = tuple(explanation.plans)
    found = rows(explanation)
    width = max([len(step.id) for step, _ in found] or [0])
    lines = ["step".ljust(width) + "".join(f"  {operation.value:>10}" for operation in operations)]
    for step, positions in found:
        cells = "".join(f"  {positions.get(operation, '·'):>10}" for operation in operations)
        lines += [step.id.ljust(width) + cells, *_told(explanation, step.id)]
    lines.append("")
    lines.append("The number is the step's place in that operation; steps that need not wait for each other")
    lines.append("run in parallel. `continuity plan OPERATION` prints the plan itself, with every command.")
    lines += [f"{operation.value}: {why}" for operation, why in explanation.refused.items()]
    return "\n".join(lines)


def _told(explanation: Explanation, step: str) -> list[str]:
    """Title and why; a step that means something else in another operation is told for each."""
    meanings: dict[tuple[str, str], list[str]] = {}
    for operation, plan in explanation.plans.items():
        if step in plan.steps:
            told = (plan.steps[step].title, plan.steps[step].why)
            meanings.setdefault(told, []).append(operation.value)
    lines = []
    for (title, why), operations in meanings.items():
        where = f"{', '.join(operations)}: " if len(meanings) > 1 else ""
        lines += [f"    {where}{title}", f"    why: {why}"]
    return lines


def as_json(explanation: Explanation) -> dict[str, Json]:
    operations: dict[str, Json] = {}
    for operation, plan in explanation.plans.items():
        steps: list[Json] = [
            {
                "id": step.id,
                "stage": step.stage.value,
                "role": step.role.value,
                "title": step.title,
                "why": step.why,
                "needs": list(step.needs),
                "gates": [gate.value for gate in step.gates],
                "commands": list(step.action.commands),
                "undo": step.action.undo.value,
            }
            for step in plan.steps.values()
        ]
        operations[operation.value] = {"from": plan.source, "to": plan.target, "steps": steps}
    refused: dict[str, Json] = {operation.value: why for operation, why in explanation.refused.items()}
    return {"operations": operations, "refused": refused}
