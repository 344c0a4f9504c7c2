"""Decides which steps wait for which, beyond the needs inside a unit: between components (``needs``),
between services (``depends-on``), around owners' own steps and the gate before going home. Must never
let anything depend on a fence: gates ask for its proof instead (core contract 3.7).

A service goes on as soon as what it needs is up. What never says of itself that it is up passes on
what it needs, so that nobody starts because somebody in between has nothing to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.model import OwnStep, Stage
from orchestrator.core.move import BEFORE_OPEN, Placed, as_moving
from orchestrator.core.plan import Draft, Gate, Role
from orchestrator.errors import InputError
from orchestrator.planning.extra import done_drafts, go_home_draft, own_drafts
from orchestrator.planning.order import topological

STAGE_ORDER: Mapping[Stage, int] = {stage: place for place, stage in enumerate(Stage)}
SERVICES_WAIT = "services wait for each other"
COMPONENTS_WAIT = "components wait for each other"


@dataclass(slots=True)
class Entry:
    """A draft with its place; ``extra`` are needs that the compiler added."""

    id: str
    unit: str
    group: str
    service: str
    draft: Draft
    extra: list[str] = field(default_factory=list)

    @property
    def is_late(self) -> bool:
        """Does it wait for the components and services that its own needs?"""
        return self.draft.stage not in BEFORE_OPEN

    @property
    def holds_nobody_up(self) -> bool:
        """Is it done for later days, so that nothing of this operation waits for it?"""
        return self.draft.best_effort and self.draft.role is Role.ORDINARY


@dataclass(slots=True)
class Table:
    """Everything drafted so far."""

    entries: dict[str, Entry] = field(default_factory=dict)
    by_unit: dict[str, list[Entry]] = field(default_factory=dict)
    by_group: dict[str, list[Entry]] = field(default_factory=dict)
    go_home: dict[str, str] = field(default_factory=dict)  # group → its gate, in a failback that reprotects

    def add(self, unit: str, group: str, service: str, drafts: Iterable[Draft]) -> list[Entry]:
        made = []
        mine, all_of_group = self.by_unit.setdefault(unit, []), self.by_group.setdefault(group, [])
        for draft in drafts:
            entry = Entry(f"{unit}/{draft.key}", unit, group, service, draft)
            if entry.id in self.entries:
                raise InputError(f"two steps are named {entry.id}")
            self.entries[entry.id] = entry
            mine.append(entry)
            all_of_group.append(entry)
            made.append(entry)
        return made

    def needs(self, entry: Entry) -> tuple[str, ...]:
        """All that an entry waits for, as step ids, each once."""
        named = (f"{entry.unit}/{need}" for need in entry.draft.needs)
        inside = (full if full in self.entries else full.removeprefix(f"{entry.unit}/") for full in named)
        return tuple(dict.fromkeys([*inside, *entry.extra]))


def freeze_when_all_waits(table: Table, group: str) -> None:
    """A planned move refuses nobody's writes before what waits at the target is seen to run there."""
    waits = [e.id for e in table.by_group[group] if e.draft.stage is Stage.AUTHORISE]
    for entry in table.by_group[group]:
        if entry.draft.role is Role.FREEZE:
            entry.extra.extend(waits)


def gate_going_home(table: Table, group: str) -> None:
    """A failback that had to reprotect asks people before it begins the planned move (semantics 5.5)."""
    before = {e.id for e in table.by_group[group] if e.draft.stage is Stage.AUTHORISE}
    entries = [e for e in table.by_group[group] if e.draft.stage not in (Stage.AUTHORISE, Stage.PREFLIGHT)]
    gate = table.add(group, group, "", [go_home_draft(group)])[0]
    gate.extra.extend(sorted(before))
    table.go_home[group] = gate.id
    for entry in entries:
        if before.issuperset(table.needs(entry)):
            entry.extra.append(gate.id)


# --- components and services ------------------------------------------------------------------


def tie(table: Table, placed: Mapping[str, Placed]) -> None:
    """Tie components by ``needs``, services by ``depends-on``, then own steps and what done means."""
    graph = {name: [d for d in item.runbook.depends_on if d in placed] for name, item in placed.items()}
    served: dict[str, tuple[str, ...]] = {}
    for name in topological(graph, SERVICES_WAIT):
        item = placed[name]
        outside = _joined(served[need] for need in graph[name])
        served[name] = _tie_components(table, item, outside)
        if item.move.moves:
            _add_own_and_done(table, item, served[name], outside)


def _tie_components(table: Table, item: Placed, outside: Sequence[str]) -> tuple[str, ...]:
    """The steps after which the service serves."""
    service, components = item.runbook.name, item.runbook.components
    after: dict[str, tuple[str, ...]] = {}
    says_up = False
    graph = {name: component.needs for name, component in components.items()}
    for name in topological(graph, f"{service}: {COMPONENTS_WAIT}"):
        entries = table.by_unit[as_moving(components[name]).unit_in(service)]
        needed = _joined(after[need] for need in components[name].needs)
        for entry in entries:
            if entry.service == service and entry.is_late:
                entry.extra.extend(needed)
                entry.extra.extend(outside)
        ups = [entry for entry in entries if entry.draft.up]
        waits_itself = any(entry.is_late for entry in ups)
        says_up = says_up or waits_itself
        own = tuple(entry.id for entry in ups)
        after[name] = own if waits_itself else _joined([own, needed])
    _commit_after_cutover(table, item)
    return _joined([*after.values(), () if says_up else outside])


def _commit_after_cutover(table: Table, item: Placed) -> None:
    """What still answers at the old side is taken down only when nothing leads there any more: until
    then it refuses for sure, which a proxy may try again, where a closed port would be a failed request."""
    service = item.runbook.name
    units = dict.fromkeys(as_moving(c).unit_in(service) for c in item.runbook.components.values())
    entries = [e for unit in units for e in table.by_unit[unit] if e.service == service]
    moved = [e.id for e in entries if e.draft.stage is Stage.CUTOVER]
    for entry in entries:
        if entry.draft.stage is Stage.COMMIT:
            entry.extra.extend(moved)


def _joined(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(step for steps in lists for step in steps))


# --- owners' own steps, and done --------------------------------------------------------------


def _add_own_and_done(table: Table, item: Placed, served: Sequence[str], outside: Sequence[str]) -> None:
    service, group = item.runbook.name, item.move.group
    owns = _add_own(table, item, outside) if item.runbook.steps else []
    for entry in table.add(f"{service}/done-when", group, service, done_drafts(item)):
        entry.extra.extend([*served, *owns])


def _add_own(table: Table, item: Placed, outside: Sequence[str]) -> list[str]:
    """Own steps stand between the stages of their service and of the clusters it uses, one after another.

    What already comes before such a step stays before it, whatever its stage is called.
    """
    service, group = item.runbook.name, item.move.group
    others = _around(table, item)
    owns: list[str] = []
    for own, draft in sorted(own_drafts(item), key=lambda pair: _place(pair[0])):
        at = _place(own)
        entry = table.add(f"{service}/own", group, service, [draft])[0]
        entry.extra.extend(e.id for e in others if _place_of(e) < at and not e.holds_nobody_up)
        entry.extra.extend(outside if Gate.GRANTED in draft.gates else ())
        entry.extra.extend([*owns[-1:], *filter(None, [table.go_home.get(group)])])
        before = _all_before(table, entry)
        for other in others:
            is_mine = (
                other.service == service or at <= _PROMOTING
            )  # a late step never holds a shared cluster up
            if _place_of(other) > at and is_mine and other.id not in before:
                other.extra.append(entry.id)
        owns.append(entry.id)
    return owns


_PROMOTING = (STAGE_ORDER[Stage.PROMOTE], 0)


def _place(own: OwnStep) -> tuple[int, int]:
    """Where an own step stands: before (0) or after (2) the steps (1) of its stage."""
    stage = own.before or own.after
    assert stage is not None
    return STAGE_ORDER[stage], 0 if own.before else 2


def _place_of(entry: Entry) -> tuple[int, int]:
    return STAGE_ORDER[entry.draft.stage], 1


def _around(table: Table, item: Placed) -> list[Entry]:
    """The steps that an own step may come before or after: no preflight, no fence."""
    service, components = item.runbook.name, item.runbook.components.values()
    units = dict.fromkeys(as_moving(component).unit_in(service) for component in components)
    return [
        entry
        for unit in units
        for entry in table.by_unit[unit]
        if entry.draft.role is not Role.FENCE and entry.draft.stage is not Stage.PREFLIGHT
    ]


def _all_before(table: Table, entry: Entry) -> set[str]:
    """Every step of the same group that must end before this one begins."""
    found: set[str] = set()
    todo = [entry]
    while todo:
        for need in table.needs(todo.pop()):
            if need not in found:
                found.add(need)
                other = table.entries.get(need)
                if other is not None and other.group == entry.group:
                    todo.append(other)
    return found
