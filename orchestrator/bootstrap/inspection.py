"""Decides how a cluster is inspected outside any operation: one read-only step per cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.model import Operation, Stage, group_of
from orchestrator.core.plan import Gate, GroupMove, Parts, Plan, PlanLimits, Retry, Role, Step

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App

INSPECT_MS = 2_000
NO_GATES: tuple[Gate, ...] = ()


def inspection_plan(app: App) -> Plan:
    """A plan of inspection steps only; it never becomes a run."""
    estate, runbooks = app.loaded.estate, app.loaded.runbooks
    parts = Parts(estate.sites, estate.hosts, estate.clusters, estate.proxies, estate.name_servers)
    home = next((s.name for s in estate.sites.values() if s.role == "home"), "")
    steps: dict[str, Step] = {}
    groups: dict[str, GroupMove] = {}
    for name, cluster in estate.clusters.items():
        databases: list[str] = []
        group = ""
        for runbook in runbooks.values():
            for component in runbook.components.values():
                if getattr(component, "cluster", None) == name:
                    group = group_of(estate, runbook.name)
                    databases.append(getattr(component, "database"))  # noqa: B009 - postgresql only
        others = [site for site in cluster.members if site != home]
        if not databases or home not in cluster.members or not others:
            continue
        arguments = {
            "cluster": name, "host": cluster.members[others[0]][0], "source": home, "target": others[0],
            "databases": sorted(set(databases)),
        }  # fmt: skip
        bound = app.catalog.bind("postgresql.inspect", arguments, parts)
        step = Step(
            f"{name}/inspect", name, group, "", Stage.PREFLIGHT, Role.EVIDENCE, f"look at {name}",
            "evidence decides, not one machine's file", bound, INSPECT_MS, (), NO_GATES, up=False, best_effort=False, retry=Retry(),
        )  # fmt: skip
        steps[step.id] = step
        groups[group] = GroupMove(group, (), "", 0, 0, (name,), {})
    return Plan(Operation.FAILOVER, home, "", groups, {}, steps, parts, PlanLimits(), "")
