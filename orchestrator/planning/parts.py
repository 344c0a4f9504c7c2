"""Decides which declared things a plan carries, so that it is whole in itself. Addresses that belong to
one host are resolved here; a cluster's folders stay templates, because each member resolves its own.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.model import Cluster, Estate, Host
from orchestrator.core.plan import Parts
from orchestrator.core.templates import host_values, resolve


def parts_of(estate: Estate) -> Parts:
    """The estate's things as steps speak of them. InputError for a placeholder that does not exist."""
    hosts = {name: _resolved(host) for name, host in estate.hosts.items()}
    clusters = {name: _in_order(cluster) for name, cluster in estate.clusters.items()}
    return Parts(estate.sites, hosts, clusters, estate.proxies, estate.name_servers)


def _in_order(cluster: Cluster) -> Cluster:
    """Members by site in an order that does not depend on where they stand in the file."""
    sites = sorted(cluster.members)
    if sites == list(cluster.members):
        return cluster
    return replace(cluster, members={site: cluster.members[site] for site in sites})


def _resolved(host: Host) -> Host:
    if host.manager is None or "${" not in host.manager.url:
        return host
    return replace(host, manager=replace(host.manager, url=resolve(host.manager.url, host_values(host))))
