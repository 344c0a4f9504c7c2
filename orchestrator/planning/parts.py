"""Decides which declared things a plan carries, so that it is whole in itself. Addresses that belong to
one host are resolved here; a cluster's folders stay templates, because each member resolves its own.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.model import Estate, Host
from orchestrator.core.plan import Parts
from orchestrator.core.templates import host_values, resolve


def parts_of(estate: Estate) -> Parts:
    """The estate's things as steps speak of them. InputError for a placeholder that does not exist."""
    hosts = {name: _resolved(host) for name, host in estate.hosts.items()}
    return Parts(estate.sites, hosts, estate.clusters, estate.proxies, estate.name_servers)


def _resolved(host: Host) -> Host:
    if host.manager is None or "${" not in host.manager.url:
        return host
    return replace(host, manager=replace(host.manager, url=resolve(host.manager.url, host_values(host))))
