"""Decides what an operation's plan is: select → drafts → bind → edges → order → digest. Pure.

Components say what they contribute; here the contributions are bound to their actions and tied
together: inside a unit by the drafts' own needs, between components by ``needs``, between services
by ``depends-on``. A service goes on as soon as what it needs is up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.components.postgresql import PostgreSQL
from orchestrator.core.claims import Witness
from orchestrator.core.groups import GroupState
from orchestrator.core.model import Estate, Operation, Runbook, Stage, group_of
from orchestrator.core.move import BEFORE_OPEN, Move, Placed, as_moving
from orchestrator.core.plan import (
    Draft,
    GroupMove,
    Parts,
    Plan,
    PlanLimits,
    ServiceFacts,
    Step,
    Undo,
)
from orchestrator.errors import InputError
from orchestrator.planning.digest import digest
from orchestrator.planning.extra import (
    claims_draft,
    done_drafts,
    fence_drafts,
    go_home_draft,
    grant_draft,
    own_drafts,
)
from orchestrator.planning.order import topological
from orchestrator.planning.select import Asked, select
from orchestrator.ports import Catalog

STAGE_ORDER = {stage: place for place, stage in enumerate(Stage)}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan, and what people should know about the choice of groups."""

    plan: Plan
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    """A draft with its place; ``extra`` are needs that the compiler added."""

    id: str
    unit: str
    group: str
    service: str
    draft: Draft
    extra: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Table:
    """Everything drafted so far."""

    entries: dict[str, _Entry] = field(default_factory=dict)
    up: dict[str, list[str]] = field(default_factory=dict)  # SERVICE/COMPONENT → its up steps
    of_service: dict[str, list[str]] = field(default_factory=dict)

    def add(self, unit: str, group: str, service: str, drafts: Sequence[Draft]) -> list[_Entry]:
        made = []
        for draft in drafts:
            entry = _Entry(f"{unit}/{draft.key}", unit, group, service, draft)
            if entry.id in self.entries:
                raise InputError(f"two steps are named {entry.id}")
            self.entries[entry.id] = entry
            made.append(entry)
            if service:
                self.of_service.setdefault(service, []).append(entry.id)
        return made


def compile_plan(
    estate: Estate,
    runbooks: Mapping[str, Runbook],
    operation: Operation,
    *,
    target: str | None = None,
    services: Sequence[str] = (),
    states: Mapping[str, GroupState],
    catalog: Catalog,
    leave: Mapping[str, str] | None = None,
    file_digests: Sequence[tuple[str, str]] = (),
) -> Compiled:
    """Compile one operation. Raises RefusedError (a rule) or InputError (a runbook is wrong)."""
    asked = Asked(operation, target, tuple(services), leave or {})
    chosen = select(estate, runbooks, states, asked)
    plan = bind_moves(estate, runbooks, operation, chosen.moves, catalog, asked.leave)
    return Compiled(replace(plan, digest=digest(plan, file_digests)), chosen.notes)


def bind_moves(
    estate: Estate,
    runbooks: Mapping[str, Runbook],
    operation: Operation,
    chosen: Mapping[str, Move],
    catalog: Catalog,
    leave: Mapping[str, str],
) -> Plan:
    """The plan of moves that are already chosen, without its digest. InputError: a runbook is wrong."""
    moves = {
        group: replace(move, databases=_databases(estate, runbooks, group)) for group, move in chosen.items()
    }
    placed = {
        name: Placed(moves[group], runbook)
        for name, runbook in runbooks.items()
        if (group := group_of(estate, name)) in moves
    }
    try:
        table, groups = _draft(estate, placed, moves)
    except (ValueError, KeyError) as error:
        raise InputError(f"the runbooks do not say enough for this operation: {error}") from error
    parts = Parts(estate.sites, estate.hosts, estate.clusters, estate.proxies, estate.name_servers)
    steps = _bind(table, catalog, parts)
    move = next(iter(moves.values()))
    policies = estate.policies
    return Plan(
        operation, move.source if move.moves else "", move.target, groups,
        {name: _facts(item) for name, item in placed.items()}, steps, parts,
        PlanLimits(policies.fence_budget_ms, policies.proof_age_ms, policies.parallel_steps), "", leave,
    )  # fmt: skip


def _facts(placed: Placed) -> ServiceFacts:
    r, goals = placed.runbook, placed.runbook.objectives
    return ServiceFacts(
        r.name, placed.move.group, r.tier, r.owner, r.legal_basis, goals.rto_ms, goals.rpo_ms, goals.mtpd_ms
    )


# --- drafts and edges -------------------------------------------------------------------------


def _draft(
    estate: Estate, placed: Mapping[str, Placed], moves: Mapping[str, Move]
) -> tuple[_Table, dict[str, GroupMove]]:
    table = _Table()
    groups: dict[str, GroupMove] = {}
    for group, move in moves.items():
        mine = {name: item for name, item in placed.items() if item.move.group == group}
        fenced, witnesses = _draft_components(table, group, mine)
        if witnesses:
            table.add(group, group, "", [claims_draft(move, witnesses)])
        if move.moves and not fenced:
            table.add(group, group, "", [grant_draft(move)])
        groups[group] = GroupMove(
            group, tuple(mine), move.source, move.epoch_seen, move.epoch_next, tuple(fenced), fenced
        )
        if move.reprotects and move.moves:
            _gate_going_home(table, group)
    _add_site_fences(table, estate, moves, groups)
    for item in placed.values():
        _tie_components(table, item)
    for item in placed.values():
        _tie_services(table, item, placed)
    for name, item in placed.items():
        if item.move.moves:
            _add_own_and_done(table, name, item)
    return table, groups


def _draft_components(
    table: _Table, group: str, mine: Mapping[str, Placed]
) -> tuple[dict[str, tuple[str, ...]], list[Witness]]:
    """Ask each component once per unit; returns the stateful units with the hosts to be fenced, and
    where claims stand."""
    fenced: dict[str, tuple[str, ...]] = {}
    witnesses: list[Witness] = []
    for name, item in mine.items():
        for component in map(as_moving, item.runbook.components.values()):
            unit = component.unit_in(name)
            if unit in table.up:
                continue  # a cluster moves once, however many services use it
            made = component.contribute(item)
            entries = table.add(unit, group, made.service, made.drafts)
            table.up[unit] = [entry.id for entry in entries if entry.draft.up]
            witnesses.extend(made.witnesses)
            if made.is_stateful:
                fenced[unit] = made.fence_hosts
    return fenced, witnesses


def _databases(estate: Estate, runbooks: Mapping[str, Runbook], group: str) -> dict[str, tuple[str, ...]]:
    """Cluster → the databases in it that this group's services use."""
    found: dict[str, set[str]] = {}
    for name, runbook in runbooks.items():
        if group_of(estate, name) == group:
            for component in runbook.components.values():
                if isinstance(component, PostgreSQL):
                    found.setdefault(component.cluster, set()).add(component.database)
    return {name: tuple(sorted(databases)) for name, databases in found.items()}


def _gate_going_home(table: _Table, group: str) -> None:
    """A failback that had to reprotect asks people before it begins the planned move (5.5)."""
    entries = [e for e in table.entries.values() if e.group == group]
    before = [e.id for e in entries if e.draft.stage is Stage.AUTHORISE]
    gate = table.add(group, group, "", [go_home_draft(group, tuple(before))])[0]
    for entry in entries:
        is_before = entry.draft.stage in (Stage.AUTHORISE, Stage.PREFLIGHT)
        if not is_before and not entry.draft.needs:
            entry.extra.append(gate.id)


def _add_site_fences(
    table: _Table, estate: Estate, moves: Mapping[str, Move], groups: Mapping[str, GroupMove]
) -> None:
    """Fences that the estate declares for a site: one step per host, shared by every group on it."""
    unplanned = {g: m for g, m in moves.items() if m.site_is_lost()}
    if not unplanned:
        return
    move = next(iter(unplanned.values()))
    owner: dict[str, str] = {}
    for group in unplanned:
        for hosts in groups[group].fence_hosts.values():
            for host in hosts:
                owner.setdefault(host, group)
    for host, group in owner.items():
        table.add(f"site-{move.source}", group, "", fence_drafts(estate, move, host))


def _tie_components(table: _Table, item: Placed) -> None:
    service = item.runbook.name
    units = {name: as_moving(c).unit_in(service) for name, c in item.runbook.components.items()}
    for name, component in item.runbook.components.items():
        wanted = [step for need in component.needs for step in table.up.get(units[need], ())]
        for entry in _late(table, service):
            if entry.unit == units[name]:
                entry.extra.extend(wanted)


def _tie_services(table: _Table, item: Placed, placed: Mapping[str, Placed]) -> None:
    wanted = [
        step
        for need in item.runbook.depends_on
        if need in placed
        for step in _up_of_service(table, placed[need])
    ]
    for entry in _late(table, item.runbook.name):
        entry.extra.extend(wanted)


def _late(table: _Table, service: str) -> list[_Entry]:
    """A service's own steps that wait for what the service needs."""
    entries = [table.entries[step] for step in table.of_service.get(service, ())]
    return [entry for entry in entries if entry.draft.stage not in BEFORE_OPEN]


def _up_of_service(table: _Table, item: Placed) -> list[str]:
    service, components = item.runbook.name, item.runbook.components.values()
    units = dict.fromkeys(as_moving(component).unit_in(service) for component in components)
    return [step for unit in units for step in table.up.get(unit, ())]


def _add_own_and_done(table: _Table, service: str, item: Placed) -> None:
    group, before = item.move.group, list(table.of_service.get(service, ()))
    for own, draft in own_drafts(item):
        at = STAGE_ORDER[own.before or own.after or Stage.START]
        first = table.add(f"{service}/own", group, service, [draft])[0]
        for entry_id in before:
            place = STAGE_ORDER[table.entries[entry_id].draft.stage]
            if place < at or (own.after is not None and place == at):
                first.extra.append(entry_id)
            elif place > at or own.before is not None:
                table.entries[entry_id].extra.append(first.id)
    needs = _up_of_service(table, item)
    owns = [s for s in table.of_service.get(service, ()) if table.entries[s].unit == f"{service}/own"]
    for entry in table.add(f"{service}/done-when", group, service, done_drafts(item)):
        entry.extra.extend([*needs, *owns])


# --- binding ----------------------------------------------------------------------------------


def _bind(table: _Table, catalog: Catalog, parts: Parts) -> dict[str, Step]:
    needs = {
        entry.id: tuple(dict.fromkeys([*(_full(entry, n, table) for n in entry.draft.needs), *entry.extra]))
        for entry in table.entries.values()
    }
    problems: list[str] = []
    steps: dict[str, Step] = {}
    for step_id in topological(needs):
        entry = table.entries[step_id]
        draft = entry.draft
        try:
            bound = catalog.bind(draft.action, draft.arguments, parts)
        except InputError as error:
            problems.append(f"{step_id}: {error}")
            continue
        if draft.undo is not None:
            bound = replace(bound, undo=Undo(draft.undo))
        steps[step_id] = Step(
            step_id, entry.unit, entry.group, entry.service, draft.stage, draft.role, draft.title, draft.why,
            bound, draft.timeout_ms, needs[step_id], draft.gates, draft.up, draft.best_effort, draft.retry,
            draft.fences, draft.proves,
        )  # fmt: skip
    if problems:
        raise InputError("; ".join(problems))
    return steps


def _full(entry: _Entry, need: str, table: _Table) -> str:
    return need if need in table.entries else f"{entry.unit}/{need}"
