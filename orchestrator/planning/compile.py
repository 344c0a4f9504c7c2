"""Decides what an operation's plan is: select → drafts → edges → bind → order → digest. Pure.

Components say what they contribute; here the contributions are put into one table, tied together
(``edges``), and bound to their actions. The same runbooks give the same plan, whatever order their
keys and files stand in.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from orchestrator.components.postgresql import PostgreSQL
from orchestrator.core.claims import Witness
from orchestrator.core.groups import GroupState
from orchestrator.core.model import Estate, Operation, Runbook
from orchestrator.core.move import Move, Placed, as_moving
from orchestrator.core.plan import GroupMove, Parts, Plan, PlanLimits, ServiceFacts, Step, Undo
from orchestrator.errors import InputError, Problem
from orchestrator.planning.digest import digest
from orchestrator.planning.edges import STAGE_ORDER, Entry, Table, freeze_when_all_waits, gate_going_home, tie
from orchestrator.planning.extra import claims_draft, fence_drafts, grant_draft
from orchestrator.planning.flow import must_be_able_to_start
from orchestrator.planning.order import topological
from orchestrator.planning.parts import parts_of
from orchestrator.planning.reach import must_need_nothing_there
from orchestrator.planning.select import Asked, membership, select
from orchestrator.ports import Catalog


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan, and what people should know about the choice of groups."""

    plan: Plan
    notes: tuple[str, ...]


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
    rejoin: str = "rewind",
    file_digests: Sequence[tuple[str, str]] = (),
) -> Compiled:
    """Compile one operation. ``rejoin``: how an old side that lost its place in history comes back.

    Raises RefusedError (a rule) or InputError (a runbook is wrong).
    """
    asked = Asked(operation, target, tuple(services), leave or {}, rejoin)
    chosen = select(estate, runbooks, states, asked)
    with _not_collecting():
        plan = bind_moves(estate, runbooks, operation, chosen.moves, catalog, asked.leave)
        plan = replace(plan, stops=chosen.stops)
        if operation is Operation.FAILOVER:
            must_need_nothing_there(plan)
        must_be_able_to_start(plan)
        return Compiled(replace(plan, digest=digest(plan, file_digests)), chosen.notes)


@contextmanager
def _not_collecting() -> Iterator[None]:
    """A plan is many objects and no cycles: looking for those took half of the time of a big one."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()


def bind_moves(
    estate: Estate,
    runbooks: Mapping[str, Runbook],
    operation: Operation,
    chosen: Mapping[str, Move],
    catalog: Catalog,
    leave: Mapping[str, str],
) -> Plan:
    """The plan of moves that are already chosen, without its digest. InputError: a runbook is wrong."""
    placed = _placed(estate, runbooks, chosen)
    table, groups = _draft(estate, placed)
    parts = parts_of(estate)
    steps = _bind(table, placed, catalog, parts)
    move = next(iter(chosen.values()))
    policies = estate.policies
    return Plan(
        operation, move.source if move.moves else "", move.target, groups,
        {name: _facts(item) for name, item in placed.items()}, steps, parts,
        PlanLimits(policies.fence_budget_ms, policies.proof_age_ms, policies.parallel_steps), "", leave,
    )  # fmt: skip


def _placed(estate: Estate, runbooks: Mapping[str, Runbook], chosen: Mapping[str, Move]) -> dict[str, Placed]:
    """The services that move, most critical first, each with its group's move."""
    group_of = membership(estate, runbooks)
    databases = _databases(runbooks, group_of)
    moves = {group: replace(move, databases=databases.get(group, {})) for group, move in chosen.items()}
    names = [name for name in runbooks if group_of[name] in moves]
    names.sort(key=lambda name: (runbooks[name].tier, name))
    return {name: Placed(moves[group_of[name]], _in_order(runbooks[name])) for name in names}


def _in_order(runbook: Runbook) -> Runbook:
    """Components in an order that does not depend on where they stand in the file."""
    names = sorted(runbook.components)
    if names == list(runbook.components):
        return runbook
    return replace(runbook, components={name: runbook.components[name] for name in names})


def _databases(
    runbooks: Mapping[str, Runbook], group_of: Mapping[str, str]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Group → cluster → the databases in it that the group's services use. InputError for a cluster in
    two groups: it can be fenced and promoted for one of them only."""
    found: dict[str, dict[str, set[str]]] = {}
    owner: dict[str, str] = {}
    for name, runbook in runbooks.items():
        group = group_of[name]
        for component in runbook.components.values():
            if not isinstance(component, PostgreSQL):
                continue
            first = owner.setdefault(component.cluster, group)
            if first != group:
                raise InputError(
                    f"cluster {component.cluster} is in two groups, {first} and {group}: it moves once"
                )
            of_group = found.setdefault(group, {})
            of_group.setdefault(component.cluster, set()).add(component.database)
    return {
        group: {cluster: tuple(sorted(names)) for cluster, names in sorted(clusters.items())}
        for group, clusters in found.items()
    }


def _facts(placed: Placed) -> ServiceFacts:
    r, goals = placed.runbook, placed.runbook.objectives
    return ServiceFacts(
        r.name, placed.move.group, r.tier, r.owner, r.legal_basis, goals.rto_ms, goals.rpo_ms, goals.mtpd_ms,
        r.client_timeout_ms,
    )  # fmt: skip


# --- drafts -----------------------------------------------------------------------------------


def _draft(estate: Estate, placed: Mapping[str, Placed]) -> tuple[Table, dict[str, GroupMove]]:
    table = Table()
    groups: dict[str, GroupMove] = {}
    members: dict[str, list[Placed]] = {}
    for item in placed.values():
        members.setdefault(item.move.group, []).append(item)
    for group, mine in members.items():
        move = mine[0].move
        fenced, witnesses = _draft_components(table, group, mine)
        if witnesses:
            table.add(group, group, "", [claims_draft(move, witnesses)])
        if move.moves and not fenced:
            table.add(group, group, "", [grant_draft(move)])
        groups[group] = GroupMove(
            group, tuple(item.runbook.name for item in mine), move.holder, move.epoch_seen, move.epoch_next,
            tuple(fenced), fenced,
        )  # fmt: skip
        if move.reprotects and move.moves:
            gate_going_home(table, group)
        elif move.is_planned and move.moves:
            freeze_when_all_waits(table, group)
    _add_site_fences(table, estate, placed, groups)
    tie(table, placed)
    return table, groups


def _draft_components(
    table: Table, group: str, mine: Sequence[Placed]
) -> tuple[dict[str, tuple[str, ...]], list[Witness]]:
    """Ask each component once per unit; returns the stateful units with the hosts to be fenced, and
    where claims stand."""
    fenced: dict[str, tuple[str, ...]] = {}
    witnesses: list[Witness] = []
    for item in mine:
        for component in map(as_moving, item.runbook.components.values()):
            unit = component.unit_in(item.runbook.name)
            if unit in table.by_unit:
                continue  # a cluster moves once, however many services use it
            made = component.contribute(item)
            table.add(unit, group, made.service, made.drafts)
            witnesses.extend(made.witnesses)
            if made.is_stateful:
                fenced[unit] = made.fence_hosts
    return fenced, witnesses


def _add_site_fences(
    table: Table, estate: Estate, placed: Mapping[str, Placed], groups: Mapping[str, GroupMove]
) -> None:
    """Fences that the estate declares for a site: one step per host, shared by every group on it."""
    owner: dict[str, Move] = {}
    for item in placed.values():
        if item.move.site_is_lost():
            for hosts in groups[item.move.group].fence_hosts.values():
                for host in hosts:
                    owner.setdefault(host, item.move)
    for host, move in owner.items():
        table.add(f"site-{move.source}", move.group, "", fence_drafts(estate, move, host))


# --- binding ----------------------------------------------------------------------------------


def _bind(table: Table, placed: Mapping[str, Placed], catalog: Catalog, parts: Parts) -> dict[str, Step]:
    """Every draft bound to its action. InputError with every draft that its action refuses."""
    tiers: dict[str, int] = {}
    for item in placed.values():
        tiers.setdefault(item.move.group, item.runbook.tier)
    entries = sorted(
        table.entries.values(), key=lambda e: (STAGE_ORDER[e.draft.stage], tiers[e.group], e.group)
    )
    needs = {entry.id: table.needs(entry) for entry in entries}
    problems: list[Problem] = []
    steps: dict[str, Step] = {}
    for step_id in topological(needs):
        entry = table.entries[step_id]
        try:
            steps[step_id] = _step(entry, needs[step_id], catalog, parts)
        except InputError as error:
            problems += [replace(p, path=f"{step_id}: {p.path}".removesuffix(": ")) for p in error.problems]
    if problems:
        raise InputError(problems)
    return steps


def _step(entry: Entry, needs: tuple[str, ...], catalog: Catalog, parts: Parts) -> Step:
    draft = entry.draft
    bound = catalog.bind(draft.action, draft.arguments, parts)
    if draft.undo is not None:
        bound = replace(bound, undo=Undo(draft.undo))
    return Step(
        entry.id, entry.unit, entry.group, entry.service, draft.stage, draft.role, draft.title, draft.why,
        bound, draft.timeout_ms, needs, draft.gates, draft.up, draft.best_effort, draft.retry, draft.fences,
        draft.proves,
    )  # fmt: skip
