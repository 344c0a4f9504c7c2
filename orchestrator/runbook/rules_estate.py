"""Decides what an estate must hold to be able to move at all; must never judge a single service."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from orchestrator.core.model import Cluster, Estate, Fence, ProofKind
from orchestrator.errors import InputError
from orchestrator.runbook.problems import YamlPath, suggest
from orchestrator.runbook.sources import Parsed, Sources
from orchestrator.runbook.wording import RELOAD_HINT

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

PORT_MAX = 65_535
DECLARE = "declare"
DEMOTES = ("postgresql.stop", "files.stop-replicator")
RUNS_ON_A_HOST = "command.run"
READ_BACK = {
    "http.request": ("json", "check: {url: …, json: {PowerState: 'Off'}}"),
    "command.run": ("expect", "check: {argv: [bmc, status], expect: 'off'}"),
}
"""What their ``check`` must expect before they prove anything, and how that is written."""
SEEN_FROM_OUTSIDE = (ProofKind.POWER_OFF, ProofKind.NETWORK_CUT, ProofKind.LEASE_EXPIRED)
ROLES = ("control", "replication", "rewind")
ARGUMENTS_FROM_COMPONENT = ("postgresql.", "files.", "service.")
"""Fences whose arguments the component fills in: they are bound when a plan is compiled."""


def check(sources: Sources, parsed: Parsed) -> None:
    estate: Estate = parsed.value
    _check_sites(sources, parsed, estate)
    _check_hosts(sources, parsed, estate)
    for cluster in estate.clusters.values():
        _check_cluster(sources, parsed, estate, cluster)
    for name, proxy in estate.proxies.items():
        if not proxy.state_file:
            sources.note(
                parsed,
                ("proxies", name, "state-file"),
                "a proxy without a state file",
                RELOAD_HINT,
            )
    _check_ports(sources, parsed, estate)
    _check_groups(sources, parsed, estate)
    for site, fences in estate.fences.items():
        for index, fence in enumerate(fences):
            _check_fence(sources, parsed, fence, site, index)
    _check_policies(sources, parsed, estate)


def _check_sites(sources: Sources, parsed: Parsed, estate: Estate) -> None:
    roles = {site.role for site in estate.sites.values()}
    for role, what in (("home", "that services come home to"), ("embassy", "that services go to")):
        if role not in roles and estate.sites:
            hint = f"write `role: {role}` at the site {what}"
            sources.note(parsed, ("sites",), f"no site has the role `{role}`", hint)
    if not estate.sites:
        sources.note(parsed, ("sites",), "no site is declared", "declare at least a home and an embassy")
    for name, site in estate.sites.items():
        for index, written in enumerate(site.networks):
            if _network(written) is None:
                hint = "write it as 10.1.0.0/16, with no bit set after the prefix"
                place = ("sites", name, "networks", index)
                sources.note(parsed, place, f"`{written}` is not a network", hint)


def _network(written: str) -> Network | None:
    try:
        return ipaddress.ip_network(written)
    except ValueError:
        return None


def networks_of(estate: Estate, sites: Iterable[str]) -> dict[str, tuple[Network, ...]]:
    """The valid networks of these sites, by site."""
    found = {}
    for name in sites:
        written = estate.sites[name].networks if name in estate.sites else ()
        found[name] = tuple(network for network in map(_network, written) if network is not None)
    return found


def site_of_address(networks: Mapping[str, tuple[Network, ...]], address: str) -> str:
    """The site in whose networks an address lies, "" if in none or no address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return next((site for site, mine in networks.items() if any(ip in network for network in mine)), "")


def _check_hosts(sources: Sources, parsed: Parsed, estate: Estate) -> None:
    networks = networks_of(estate, estate.sites)
    for name, host in estate.hosts.items():
        lies_at = site_of_address(networks, host.address)
        if lies_at and lies_at != host.site:
            message = f"host `{name}` stands at {host.site}, its address lies in {lies_at}'s networks"
            hint = "correct the site, the address or the networks: a loss of a site is judged by them"
            sources.note(parsed, ("hosts", name, "address"), message, hint)


def _check_cluster(sources: Sources, parsed: Parsed, estate: Estate, cluster: Cluster) -> None:
    place = ("clusters", cluster.name)
    if len(cluster.members) < 2:
        hint = "name the hosts of both sites: members: {home: […], embassy: […]}"
        sources.note(parsed, (*place, "members"), "a cluster that stands at one site cannot move", hint)
    for site, hosts in cluster.members.items():
        if not hosts:
            hint = "name its hosts, or remove the site"
            sources.note(parsed, (*place, "members", site), f"no member at {site}", hint)
        for index, host in enumerate(hosts):
            declared = estate.hosts.get(host)
            if declared is not None and declared.site != site and {site, declared.site} <= set(estate.sites):
                message = f"host `{host}` stands at {declared.site}, not at {site}"
                hint = suggest(host, (h.name for h in estate.hosts.values() if h.site == site))
                sources.note(parsed, (*place, "members", site, index), message, hint)
    for role in ROLES:
        if role not in cluster.roles and not parsed.document.was_cut((*place, "roles", role)):
            hint = f"write {role}: {{user: NAME, password: secret://file/NAME}}"
            sources.note(parsed, (*place, "roles"), f"role `{role}` is missing", hint)
    if cluster.tls.mode.startswith("verify") and not cluster.tls.ca:
        hint = "name the certificate authority's file, for example `ca: ./tls/ca.pem`"
        sources.note(parsed, (*place, "tls"), f"`mode: {cluster.tls.mode}` without `ca`", hint)


def _check_ports(sources: Sources, parsed: Parsed, estate: Estate) -> None:
    written: list[tuple[YamlPath, int]] = []
    for name, cluster in estate.clusters.items():
        written.append((("clusters", name, "port"), cluster.port))
        for site, path in cluster.replicate_from.items():
            written.append((("clusters", name, "replicate-from", site, "port"), path.port))
    for name, server in estate.name_servers.items():
        written.append((("name-servers", name, "port"), server.port))
    for place, port in written:
        if not 1 <= port <= PORT_MAX and not parsed.document.was_cut(place):
            hint = f"a port is a number from 1 to {PORT_MAX}"
            sources.note(parsed, place, f"`{port}` is no port", hint)


def _check_groups(sources: Sources, parsed: Parsed, estate: Estate) -> None:
    seen: dict[str, str] = {}
    for name, group in estate.groups.items():
        for index, service in enumerate(group.services):
            if service in seen:
                message = f"service `{service}` is in two groups, `{seen[service]}` and `{name}`"
                hint = "a service moves with one group: remove it from one"
                if seen[service] == name:
                    message, hint = f"service `{service}` stands twice in `{name}`", "remove one"
                sources.note(parsed, ("groups", name, "services", index), message, hint)
            seen.setdefault(service, name)
        if not group.services and group.name in parsed.names.get("groups", ()):
            hint = "name the services that move together, or remove the group"
            sources.note(parsed, ("groups", name), "a group without services", hint)


def _check_policies(sources: Sources, parsed: Parsed, estate: Estate) -> None:
    policies = estate.policies
    for key, value in (
        ("fence-budget", policies.fence_budget_ms),
        ("proof-age", policies.proof_age_ms),
        ("parallel-steps", policies.parallel_steps),
    ):
        if value <= 0:
            hint = "leave it out for the default"
            sources.note(parsed, ("policies", key), f"`{key}` must be above zero", hint)


# --- fences -------------------------------------------------------------------------------------


def is_declared_only(fences: Iterable[Fence]) -> bool:
    """Can nothing but people's word show that the site is closed?"""
    return all(fence.action == DECLARE for fence in fences)


def _check_fence(sources: Sources, parsed: Parsed, fence: Fence, site: str, index: int) -> None:
    place = ("fences", site, index)
    is_declare = fence.action == DECLARE
    if is_declare != (fence.proves is ProofKind.SITE_LOST):
        message = f"`action: {fence.action}` cannot prove `{fence.proves.value}`"
        hint = "people's declaration proves `site-lost`, and nothing else does"
        sources.note(parsed, (*place, "proves"), message, hint)
    if fence.proves is ProofKind.DEMOTED and not is_declare and fence.action not in DEMOTES:
        message = (
            f"`{fence.action}` cannot prove `demoted`: only who holds the data can say that it stepped down"
        )
        hint = f"one of {', '.join(DEMOTES)}, or what this proves: power-off, network-cut, lease-expired"
        sources.note(parsed, (*place, "proves"), message, hint)
    if fence.on and fence.action != RUNS_ON_A_HOST:
        message = f"`on` names a host, and `{fence.action}` runs on none"
        sources.note(parsed, (*place, "on"), message, f"remove `on`; it is for `{RUNS_ON_A_HOST}`")
    if fence.proves in SEEN_FROM_OUTSIDE and fence.action in READ_BACK:
        _check_read_back(sources, parsed, fence, place)
    if is_declare and fence.with_:
        sources.note(parsed, (*place, "with"), "`declare` takes no arguments", "remove `with`")
    catalog = sources.catalog
    if catalog is None or is_declare:
        return
    kinds = set(catalog.kinds())
    if fence.action not in kinds:
        sources.note(
            parsed,
            (*place, "action"),
            f"unknown action `{fence.action}`",
            suggest(fence.action, kinds | {DECLARE}),
        )
    elif not fence.action.startswith(ARGUMENTS_FROM_COMPONENT):
        hosts = [host for host in parsed.value.hosts.values() if host.site == site]
        values = {"site.name": site}
        if hosts:
            values |= {"host.name": hosts[0].name, "host.address": hosts[0].address, "host.site": site}
        arguments = dict(fence.with_)
        if fence.action == RUNS_ON_A_HOST and fence.on and "host" not in arguments:
            arguments["host"] = fence.on
        try_bind(sources, parsed, (*place, "with"), fence.action, arguments, values)


def _check_read_back(sources: Sources, parsed: Parsed, fence: Fence, place: tuple[str | int, ...]) -> None:
    """An order that was taken is no proof: what counts is what the controller says afterwards."""
    expects, example = READ_BACK[fence.action]
    check = fence.with_.get("check")
    if not isinstance(check, Mapping):
        message = f"`{fence.action}` proves `{fence.proves.value}` only by a read-back, and it has no `check`"
        hint = f"write how to see it, not only how to order it: {example}"
        sources.note(parsed, (*place, "with"), message, hint)
    elif not check.get(expects):
        message = f"a `check` that expects nothing proves no `{fence.proves.value}`"
        hint = f"say what it must read: {example}"
        sources.note(parsed, (*place, "with", "check"), message, hint)


def try_bind(
    sources: Sources,
    parsed: Parsed,
    place: tuple[str | int, ...],
    action: str,
    arguments: Mapping[str, object],
    values: Mapping[str, str],
) -> None:
    """Let the catalog say what is wrong with an action's arguments, placeholders filled in."""
    from orchestrator.core.plan import Parts

    assert sources.catalog is not None
    estate = sources.known_estate
    parts = Parts()
    if estate is not None:
        parts = Parts(estate.sites, estate.hosts, estate.clusters, estate.proxies, estate.name_servers)
    filled = fill(arguments, values)
    if "${" in str(filled):
        return  # an unknown placeholder: a problem of its own
    try:
        sources.catalog.bind(action, filled, parts)  # type: ignore[arg-type]
    except InputError as error:
        for problem in error.problems:
            hint = problem.hint or f"see the arguments of `{action}` in docs/actions.md"
            message = f"{problem.path}: {problem.message}" if problem.path else problem.message
            message = message if message.startswith(action) else f"{action}: {message}"
            sources.note(parsed, place, message, hint)


def fill(value: object, values: Mapping[str, str]) -> object:
    """JSON with the placeholders that are known filled in."""
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace(f"${{{name}}}", text)
        return value
    if isinstance(value, Mapping):
        return {key: fill(item, values) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fill(item, values) for item in value]
    return value
