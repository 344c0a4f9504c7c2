"""Decides which commands bring a group's names and routes to the site that holds its epoch, in the order in which
they help: what its services need there first, then they themselves, then the other side behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.core.groups import GroupState
from orchestrator.core.model import Runbook, group_of
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App


def runbooks_of(app: App, group: str) -> list[Runbook]:
    """The runbooks of a group's services, the most critical first."""
    loaded = app.loaded
    found = [
        runbook for runbook in loaded.runbooks.values() if group_of(loaded.estate, runbook.name) == group
    ]
    return sorted(found, key=lambda runbook: (runbook.tier, runbook.name))


def _service(app: App, group: str) -> str:
    """The most critical service of a group: naming it moves the whole group. InputError without one."""
    if found := runbooks_of(app, group):
        return found[0].name
    raise InputError(f"no runbook names a service of group {group} any more")


def next_commands(app: App, state: GroupState) -> tuple[str, ...]:
    """What brings the group's names and routes to the kept site, and the other side back behind it."""
    service = _service(app, state.name)
    return (*routing_commands(app, state), f"continuity reprotect --service {service}")


def routing_commands(app: App, state: GroupState) -> tuple[str, ...]:
    """Nothing where names and routes lead to the active site already. What the group's services need elsewhere is
    moved first, as planned and by name: until it is there, the failover is refused."""
    if not state.left or not state.active:
        return ()
    out = []
    if groups := _elsewhere(app, state):
        named = " ".join(f"--service {_service(app, group)}" for group in groups)
        site = app.loaded.estate.sites.get(state.active)  # none: it has another name there by now
        is_home = site is not None and site.role == "home"
        order = "failback" if is_home else f"switchover --to {state.active}"
        out.append(f"continuity {order} {named}")
    service = _service(app, state.name)
    return (*out, f"continuity failover --to {state.active} --service {service}")


def _elsewhere(app: App, state: GroupState) -> list[str]:
    """Groups at another site that this one needs, with all that such a move would otherwise be refused for: what
    they need themselves, and who needs them and would stay behind."""
    loaded, states = app.loaded, app.journal.groups()
    group_by_name = {name: group_of(loaded.estate, name) for name in loaded.runbooks}
    found: list[str] = []
    while more := _next(loaded.runbooks, group_by_name, states, state, found):
        found.append(more)
    return found


def _next(
    runbooks: Mapping[str, Runbook],
    group_by_name: Mapping[str, str],
    states: Mapping[str, GroupState],
    state: GroupState,
    found: list[str],
) -> str:
    """One more group that has to come along; "" when all are found."""

    def is_left_out(service: str) -> bool:
        group = group_by_name.get(service, state.name)
        active = states.get(group, GroupState(group)).active
        return group not in (state.name, *found) and active != state.active

    for name, runbook in runbooks.items():
        needs = [need for need in runbook.depends_on if need not in runbook.reachable_from]
        comes = group_by_name[name] in (state.name, *found)
        for need in needs:
            if comes and is_left_out(need):
                return group_by_name[need]
            if is_left_out(name) and group_by_name.get(need) in found:
                return group_by_name[name]
    return ""
