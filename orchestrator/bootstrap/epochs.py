"""Decides which databases get an epoch row by ``continuity epoch install``: all that a service uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.model import group_of
from orchestrator.errors import InputError
from orchestrator.settings import person

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App

INSTALL_SECONDS = 30.0


def databases_of(app: App, cluster: str) -> dict[str, str]:
    """Database → the group of the services that use it."""
    found: dict[str, str] = {}
    for runbook in app.loaded.runbooks.values():
        for component in runbook.components.values():
            if getattr(component, "cluster", None) == cluster:
                found[str(getattr(component, "database", ""))] = group_of(app.loaded.estate, runbook.name)
    return dict(sorted(found.items()))


def install_epochs(app: App, cluster: str) -> dict[str, dict[str, object]]:
    """Make the rows where they are missing, at the active site. Returns database → row.

    RefusedError when the active member takes no writes or a row names another site.
    """
    from orchestrator.drivers.postgresql_epoch import install

    estate = app.loaded.estate
    if cluster not in estate.clusters:
        raise InputError(f"no cluster {cluster!r}; there are: {', '.join(estate.clusters)}")
    databases = databases_of(app, cluster)
    states = app.journal.groups() if app.has_log else {}
    active = {states[group].active for group in databases.values() if group in states}
    home = next((site.name for site in estate.sites.values() if site.role == "home"), "")
    site = active.pop() if len(active) == 1 else home
    with app.context("epoch-install", person(), INSTALL_SECONDS) as context:
        rows = install(context, cluster, site, list(databases))
    return {name: dict(writer.evidence()) for name, writer in rows.items()}
