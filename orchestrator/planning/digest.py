"""Decides what a plan's digest binds (core contract 4.4): steps, groups, epochs, limits, the parts
they speak of and the digests of referenced files. Never times, history, loss or a run's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from orchestrator.core.plan import Plan, Step
from orchestrator.core.values import Json, canonical
from orchestrator.planning.codec import plain, step_to_json


def digest(plan: Plan, file_digests: Sequence[tuple[str, str]]) -> str:
    """SHA-256 as hex over the sorted digests of units and of everything that they share."""
    by_unit: dict[str, list[Step]] = {}
    for step in plan.steps.values():
        by_unit.setdefault(step.unit, []).append(step)
    units = {
        unit: _sha([step_to_json(step) for step in sorted(steps, key=lambda step: step.id)])
        for unit, steps in by_unit.items()
    }
    whole: Mapping[str, Json] = {
        "schema": plan.schema,
        "operation": str(plan.operation),
        "source": plan.source,
        "target": plan.target,
        "groups": plain(plan.groups),
        "services": plain(plan.services),
        "parts": plain(plan.parts),
        "limits": plain(plan.limits),
        "leave": plain(plan.leave),
        **({"stops": list(plan.stops)} if plan.stops else {}),
        "files": [[name, value] for name, value in sorted(file_digests)],
        "units": units,
    }
    return _sha(whole)


def _sha(value: Json) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()
