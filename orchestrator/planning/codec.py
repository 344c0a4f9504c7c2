"""Decides how a plan is written as JSON and read again: exactly, so that its digest stays true."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from orchestrator.core.plan import PLAN_SCHEMA, Plan, Step
from orchestrator.core.values import Json
from orchestrator.errors import InputError, NewerPlanError
from orchestrator.planning.bind import converter

_SCALARS = frozenset({str, int, bool, type(None)})


def plain(value: Any) -> Any:
    """A frozen value as JSON; enums as their text, tuples as lists. Faster than ``asdict``."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict:
        return {str(key): entry if type(entry) in _SCALARS else plain(entry) for key, entry in value.items()}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return {name: plain(getattr(value, name)) for name in _names(kind)}


_field_names: dict[type, tuple[str, ...]] = {}


def _names(kind: type) -> tuple[str, ...]:
    if kind not in _field_names:
        _field_names[kind] = tuple(f.name for f in dataclasses.fields(kind))
    return _field_names[kind]


def step_to_json(step: Step) -> dict[str, Json]:
    """One step; written out by hand because a plan may hold 20,000."""
    action = step.action
    return {
        "id": step.id, "unit": step.unit, "group": step.group, "service": step.service,
        "stage": str(step.stage), "role": str(step.role), "title": step.title, "why": step.why,
        "action": {
            "kind": action.kind, "kind_version": action.kind_version, "arguments": plain(action.arguments),
            "commands": list(action.commands),
            "touches": [{"site": t.site, "endpoint": t.endpoint} for t in action.touches],
            "undo": str(action.undo), "undo_commands": list(action.undo_commands),
            "idempotent": action.idempotent, "mutates": action.mutates,
        },
        "timeout_ms": step.timeout_ms, "needs": list(step.needs), "gates": [str(g) for g in step.gates],
        "up": step.up, "best_effort": step.best_effort,
        "retry": {
            "attempts": step.retry.attempts, "delay_ms": step.retry.delay_ms,
            "delay_ms_max": step.retry.delay_ms_max,
        },
        "fences": list(step.fences), "proves": None if step.proves is None else str(step.proves),
    }  # fmt: skip


def plan_to_json(plan: Plan) -> dict[str, Json]:
    """The whole plan, digest included."""
    return {
        "schema": plan.schema,
        "operation": str(plan.operation),
        "source": plan.source,
        "target": plan.target,
        "groups": plain(plan.groups),
        "services": plain(plan.services),
        "steps": [step_to_json(step) for step in plan.steps.values()],
        "parts": plain(plan.parts),
        "limits": plain(plan.limits),
        "leave": plain(plan.leave),
        **({"stops": list(plan.stops)} if plan.stops else {}),
        "digest": plan.digest,
    }


def plan_from_json(data: Mapping[str, Any]) -> Plan:
    """The plan behind ``plan_to_json``. NewerPlanError for what this program cannot read."""
    if data["schema"] > PLAN_SCHEMA:
        raise NewerPlanError(
            f"a plan of schema {data['schema']} lies in this log; this program reads up to {PLAN_SCHEMA}: "
            "install a newer one"
        )
    step = converter(Step)
    rest = {key: value for key, value in data.items() if key != "steps"}
    try:
        steps = [step(entry, "step") for entry in data["steps"]]
        plan: Plan = converter(Plan)({**rest, "steps": {}}, "plan")
    except InputError as error:  # a later version says more, and nobody may act on half of it
        raise NewerPlanError(
            f"a plan in this log is not one that this program reads ({error}): install a newer one"
        ) from error
    return dataclasses.replace(plan, steps={made.id: made for made in steps})
