"""Decides the order in which steps are listed: topological, then as they were drafted; a cycle is
reported as its path. Never decides when a step may start (the machine does).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from orchestrator.errors import InputError

STEPS_WAIT = "steps wait for each other"


def topological(needs: Mapping[str, Sequence[str]], waiting: str = STEPS_WAIT) -> list[str]:
    """Ids so that every need comes first; ties keep the order of ``needs``.

    Raises InputError with the path of a cycle, or the name of a need that does not exist; ``waiting``
    says what kind of things they are.
    """
    place = {step: i for i, step in enumerate(needs)}
    left = dict.fromkeys(needs, 0)
    dependents: dict[str, list[str]] = {}
    for step, wanted in needs.items():
        for need in wanted:
            if need not in place:
                raise InputError(f"{step} needs {need}, which does not exist here")
            left[step] += 1
            dependents.setdefault(need, []).append(step)
    names = list(needs)
    ready = [place[step] for step, count in left.items() if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        step = names[heapq.heappop(ready)]
        order.append(step)
        for dependent in dependents.get(step, ()):
            left[dependent] -= 1
            if left[dependent] == 0:
                heapq.heappush(ready, place[dependent])
    if len(order) != len(names):
        raise InputError(f"{waiting}: " + " → ".join(cycle(needs, left)))
    return order


def cycle(needs: Mapping[str, Sequence[str]], left: Mapping[str, int]) -> list[str]:
    """One cycle as a path that ends where it begins."""
    step = next(name for name, count in left.items() if count)
    path: list[str] = []
    while step not in path:
        path.append(step)
        step = next(need for need in needs[step] if left[need])
    return [*path[path.index(step) :], step]


def waves(needs: Mapping[str, Sequence[str]], order: Sequence[str]) -> dict[str, int]:
    """The earliest wave of each step, from 0: steps of one wave run side by side."""
    found: dict[str, int] = {}
    for step in order:
        found[step] = max((found[need] + 1 for need in needs[step]), default=0)
    return found
