"""Decides what a service must say to be moved safely; must never derive its steps (``planning`` does)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from orchestrator.core.model import Component, Estate, Runbook, Stage, group_of
from orchestrator.runbook import rules_estate, rules_steps, shape
from orchestrator.runbook.problems import YamlPath, suggest
from orchestrator.runbook.references import Text, done_path
from orchestrator.runbook.sources import Parsed, Sources

STATEFUL_TYPES = ("postgresql", "files")
_IPV4 = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9.])")
_IPV6 = re.compile(r"\[([0-9A-Fa-f:]+)\]|(?<![0-9A-Fa-f:])([0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f]+)")
_FROM_COMPONENT = re.compile(r"\$\{from\.[a-z0-9-]+\.address\}")


def check(sources: Sources, parsed: Parsed) -> None:
    """Note what is wrong with one service, as far as the estate is known."""
    runbook: Runbook = parsed.value
    estate = sources.known_estate
    _check_objectives(sources, parsed, runbook)
    _check_modes(sources, parsed, runbook)
    _check_needs(sources, parsed, runbook)
    rules_steps.check(sources, parsed)
    for name, component in runbook.components.items():
        _check_records(sources, parsed, runbook, name, component, estate)
        _check_says_something(sources, parsed, name, component)
    if estate is not None:
        _check_fences(sources, parsed, runbook, estate)
        _check_placement(sources, parsed, estate)
        _check_both_sides(sources, parsed, estate)
        _check_needs_home(sources, parsed, estate)
    if runbook.name != parsed.document.path.stem and parsed.document.get(("name",)):
        line, _ = parsed.document.place(("name",))
        sources.warnings.append(
            f"{parsed.document.file}:{line}: name: `{runbook.name}` is easier to find in a file of its own"
            f" name, {runbook.name}.yaml"
        )


def check_together(sources: Sources) -> None:
    """Note what is wrong between services: names, dependencies, shared clusters."""
    usable = [parsed for parsed in sources.runbooks if parsed.value is not None]
    _check_names(sources, usable)
    _check_depends_on(sources, usable)
    estate = sources.known_estate
    _check_shared_records(sources, usable, estate)
    if estate is not None:
        _check_shared_clusters(sources, usable, estate)


# --- one service --------------------------------------------------------------------------------


def _check_objectives(sources: Sources, parsed: Parsed, runbook: Runbook) -> None:
    if parsed.document.was_cut(("objectives",)) or not parsed.document.get(("objectives",)):
        return
    goals = runbook.objectives
    if goals.rto_ms > goals.mtpd_ms > 0:
        hint = "what may last at most `mtpd` must be restored sooner: `rto` ≤ `mtpd`"
        sources.note(parsed, ("objectives", "rto"), "`rto` is longer than `mtpd`", hint)
    for key, value in (("rto", goals.rto_ms), ("mtpd", goals.mtpd_ms)):
        if value <= 0 and parsed.document.get(("objectives", key)) is not None:
            hint = "no service is restored in no time: write what people can live with"
            sources.note(parsed, ("objectives", key), f"`{key}` must be above zero", hint)
    if runbook.tier < 0:
        sources.note(parsed, ("tier",), "`tier` must not be negative", "1 is the most critical tier")


def _check_modes(sources: Sources, parsed: Parsed, runbook: Runbook) -> None:
    """A mode that nothing keeps is a promise that the run would break: the service would take writes at once."""
    if parsed.document.was_cut_below(("components",)):  # what is left does not tell
        return
    components = runbook.components.values()
    has_documents = any(shape.component_type(component) == "files" for component in components)
    kept = ("read-only", "full") if has_documents else ("full",)
    for mode in dict.fromkeys(runbook.modes):
        if mode not in kept:
            message = f"no component of {runbook.name} keeps the mode `{mode}`"
            hint = "leave `modes` out: only documents (`type: files`) are opened read-only before they take new ones"
            sources.note(parsed, ("modes",), message, hint)


def _check_needs(sources: Sources, parsed: Parsed, runbook: Runbook) -> None:
    graph = {name: tuple(component.needs) for name, component in runbook.components.items()}
    for cycle in cycles(graph):
        path: YamlPath = ("components", cycle[0], "needs")
        hint = "a component cannot wait for itself: remove one of these `needs`"
        sources.note(parsed, path, f"dependency cycle {' → '.join(cycle)}", hint)


def _check_says_something(sources: Sources, parsed: Parsed, name: str, component: Component) -> None:
    """Readiness that asks nobody, questions that nobody would be asked."""
    place: YamlPath = ("components", name)
    ready = getattr(component, "ready", None)
    is_cut = parsed.document.was_cut((*place, "ready", "http"))
    if ready is not None and not (ready.http or ready.dns or is_cut):
        hint = "write `http:` or `dns:`, or leave `ready` out: nothing is then known of it but that it runs"
        sources.note(parsed, (*place, "ready"), "readiness that asks nothing", hint)
    prompts = getattr(component, "prompts", None)
    if prompts is not None and not prompts:
        hint = "write `prompts: {start: …}`: one question per stage"
        sources.note(parsed, (*place, "prompts"), f"`{name}` asks people nothing", hint)
    if prompts and Stage.PREFLIGHT in prompts:
        path = (*place, "prompts", Stage.PREFLIGHT.value)
        hint = "preflight only looks, before people have confirmed: ask at `freeze`"
        sources.note(parsed, path, "nobody is asked in preflight", hint)


def _check_records(
    sources: Sources,
    parsed: Parsed,
    runbook: Runbook,
    name: str,
    component: Component,
    estate: Estate | None,
) -> None:
    """Records of names: an address per site, or the component whose proxies clients meet."""
    seen: set[tuple[str, str]] = set()
    for index, record in enumerate(getattr(component, "records", ())):
        place: YamlPath = ("components", name, "records", index)
        if (record.name, record.type) in seen:
            sources.note(parsed, place, f"record {record.name} {record.type} stands twice", "remove one")
        seen.add((record.name, record.type))
        proxy, at = getattr(record, "proxy", ""), getattr(record, "at", {})
        if bool(proxy) == bool(at):
            message = "says both `proxy` and `at`" if proxy else "says neither `proxy` nor `at`"
            hint = "write `proxy: COMPONENT` (its front address) or `at: {SITE: [ADDRESS]}`"
            sources.note(parsed, place, f"record {message}", hint)
            continue
        for site in sorted(set(component.servers) - set(at)) if at else ():  # type: ignore[attr-defined]
            hint = f"write `at: {{{site}: [ADDRESS]}}` too: the name moves there with the service"
            sources.note(parsed, (*place, "at"), f"record {record.name} has no value at {site}", hint)
        target = runbook.components.get(proxy)
        if target is None or estate is None:
            continue
        proxies = getattr(target, "proxies", None)
        if proxies is None:
            haproxies = [key for key, item in runbook.components.items() if hasattr(item, "proxies")]
            message = f"component `{proxy}` has no proxies"
            sources.note(parsed, (*place, "proxy"), message, suggest(proxy, haproxies))
            continue
        for site, names in proxies.items():
            first = estate.proxies.get(names[0]) if names else None
            if first is not None and not first.front_address:
                message = f"proxy `{first.name}` at {site} has no address for clients"
                hint = f"write `front-address:` at proxies.{first.name} of the estate"
                sources.note(parsed, (*place, "proxy"), message, hint)


# --- state and fences ---------------------------------------------------------------------------


def is_stateful(component: Component) -> bool:
    """Does the component hold data that two sites must never write at once?"""
    return shape.component_type(component) in STATEFUL_TYPES or getattr(component, "state", False) is True


def _sites_of_state(estate: Estate, component: Component) -> Iterator[str]:
    if hasattr(component, "cluster"):
        cluster = estate.clusters.get(component.cluster)
        yield from cluster.members if cluster is not None else ()
        return
    for field in ("at", "hosts", "sites"):
        found = getattr(component, field, None)
        if isinstance(found, Mapping):
            yield from found
            return
    yield from (site.name for site in estate.sites.values() if site.role in ("home", "embassy"))


def _check_fences(sources: Sources, parsed: Parsed, runbook: Runbook, estate: Estate) -> None:
    assert sources.estate is not None
    written = sources.estate.names.get("fences", frozenset())
    for name, component in runbook.components.items():
        if not is_stateful(component):
            continue
        for site in _sites_of_state(estate, component):
            fences = estate.fences.get(site, ())
            if site not in estate.sites or (not fences and site in written):
                continue  # already a problem of its own
            if not fences or rules_estate.is_declared_only(fences):
                lack = "has no fence" if not fences else "can only be declared lost"
                message = f"state without a fence: `{name}` may have to be left at {site}, which {lack}"
                hint = (
                    f"add one to the estate: fences: {{{site}: [{{proves: demoted, action: …}}]}};"
                    " without proof that the old side is closed nothing may be promoted"
                )
                sources.note(parsed, ("components", name), message, hint)


# --- home may be gone ---------------------------------------------------------------------------


def _check_placement(sources: Sources, parsed: Parsed, estate: Estate) -> None:
    """What is named for a site stands there."""
    for text in parsed.texts:
        if not text.site or text.kind not in ("host", "proxy", "name-server"):
            continue
        stands = _site_of_part(estate, text.kind, text.text)
        if stands in estate.sites and text.site in estate.sites and stands != text.site:
            what = text.kind.replace("-", " ")
            message = f"{what} `{text.text}` stands at {stands}, not at {text.site}"
            hint = f"name one that stands at {text.site}: a failover must not need the other site"
            sources.note(parsed, done_path(text.path, parsed.document.data), message, hint)


PLACED_BY: Mapping[str, str] = {"service": "at", "files": "at", "haproxy": "proxies", "dns": "servers"}
"""Component type → its field that says by site what it has there."""


def _check_both_sides(sources: Sources, parsed: Parsed, estate: Estate) -> None:
    """What stands at one side only can go nowhere, or never come home."""
    runbook: Runbook = parsed.value
    for name, component in runbook.components.items():
        field = PLACED_BY.get(shape.component_type(component), "")
        path: YamlPath = ("components", name, field)
        if not field or parsed.document.was_cut(path):
            continue
        found = getattr(component, field)
        roles = {estate.sites[site].role for site in found if site in estate.sites and found[site]}
        if not found or set(found) - set(estate.sites):
            continue  # a problem of its own
        for role in ("home", "embassy"):
            sites = [site.name for site in estate.sites.values() if site.role == role]
            if sites and role not in roles:
                message = f"`{name}` has nothing at {' or '.join(sites)}, so it cannot move there"
                hint = f"write `{field}: {{{sites[0]}: …}}`: a service must be able to go and to come back"
                sources.note(parsed, path, message, hint)


def _site_of_part(estate: Estate, kind: str, name: str) -> str:
    if kind == "name-server":
        server = estate.name_servers.get(name)
        return server.site if server is not None else ""
    if kind == "proxy":
        proxy = estate.proxies.get(name)
        name = proxy.host if proxy is not None else ""
    host = estate.hosts.get(name)
    return host.site if host is not None else ""


def _check_needs_home(sources: Sources, parsed: Parsed, estate: Estate) -> None:
    homes = {site.name for site in estate.sites.values() if site.role == "home"}
    runbook: Runbook = parsed.value
    for index, step in enumerate(runbook.steps):
        if step.needs_home:
            message = f"step `{step.name}` needs home, which a failover must not"
            hint = "do it abroad or from a vantage, or leave it to the way back: home may be gone"
            sources.note(parsed, ("steps", index, "needs-home"), message, hint)
    networks = rules_estate.networks_of(estate, homes)
    for text in parsed.texts:
        if text.site in homes:
            continue
        reason = _needs_home(text, estate, homes, networks)
        if reason:
            hint = "a failover has to work when home is gone: use `${to.COMPONENT.address}` or a vantage"
            path = done_path(text.path, parsed.document.data)
            sources.note(parsed, path, f"a failover step needs home: {reason}", hint)


def _needs_home(
    text: Text, estate: Estate, homes: set[str], networks: Mapping[str, tuple[rules_estate.Network, ...]]
) -> str:
    """Why a text makes a failover depend on home, "" if it does not."""
    in_action = bool(text.path) and text.path[0] in ("steps", "done-when")
    if text.kind == "site" and text.text in homes and "from" in text.path:
        return f"it is asked from `{text.text}`"
    if text.kind not in ("template", "text"):
        return ""
    for address in addresses(text.text):
        site = rules_estate.site_of_address(networks, address)
        if site:
            return f"{address} lies in the networks of `{site}`"
        owner = next((h for h in estate.hosts.values() if h.address == address and h.site in homes), None)
        if owner is not None:
            return f"{address} is host `{owner.name}` at `{owner.site}`"
    if in_action and "with" in text.path:
        host = estate.hosts.get(text.text)
        if host is not None and host.site in homes:
            return f"host `{host.name}` stands at `{host.site}`"
    if in_action and (match := _FROM_COMPONENT.search(text.text)):
        return f"`{match.group(0)}` is the side that is left"
    return ""


def addresses(text: str) -> Iterator[str]:
    """Every literal IP address in a text (candidates; ``ipaddress`` judges them)."""
    if "." in text:
        yield from _IPV4.findall(text)
    if text.count(":") > 1:
        for bracketed, plain in _IPV6.findall(text):
            yield bracketed or plain


# --- between services ---------------------------------------------------------------------------


def _check_names(sources: Sources, usable: Sequence[Parsed]) -> None:
    first: dict[str, Parsed] = {}
    for parsed in usable:
        name = parsed.value.name
        if name in first:
            message = f"runbook name `{name}` stands also in {first[name].document.file}"
            sources.note(parsed, ("name",), message, "give each service a name of its own")
        first.setdefault(name, parsed)


def _check_depends_on(sources: Sources, usable: Sequence[Parsed]) -> None:
    by_name = {parsed.value.name: parsed for parsed in usable}
    graph = {name: tuple(parsed.value.depends_on) for name, parsed in by_name.items()}
    for cycle in cycles(graph):
        hint = "services cannot wait for each other: remove one of these `depends-on`"
        sources.note(by_name[cycle[0]], ("depends-on",), f"dependency cycle {' → '.join(cycle)}", hint)


def _check_shared_clusters(sources: Sources, usable: Sequence[Parsed], estate: Estate) -> None:
    users: dict[str, tuple[str, str]] = {}
    for parsed in usable:
        service = parsed.value.name
        group = group_of(estate, service)
        for text in parsed.texts:
            if text.kind != "cluster" or text.text not in estate.clusters:
                continue
            first_group, first_service = users.setdefault(text.text, (group, service))
            if first_group != group:
                message = (
                    f"cluster `{text.text}` is in two groups: `{first_group}` (service {first_service})"
                    f" and `{group}` (service {service})"
                )
                hint = (
                    f"a cluster moves once: put both into one group of the estate,"
                    f" services: [{first_service}, {service}]"
                )
                sources.note(parsed, text.path, message, hint)


def _check_shared_records(sources: Sources, usable: Sequence[Parsed], estate: Estate | None) -> None:
    """A name belongs to one component: each move of another would point it elsewhere, under an epoch of its own."""
    writers: dict[tuple[str, str], str] = {}
    for parsed in usable:
        for name, component in parsed.value.components.items():
            writer = f"{parsed.value.name}/{name}"
            for index, record in enumerate(getattr(component, "records", ())):
                for server in dict.fromkeys(_asked_at(estate, s) for s in component.servers.values()):
                    first = writers.setdefault((server, record.name.rstrip(".").lower()), writer)
                    if first != writer:
                        message = (
                            f"record {record.name} is written by two components, `{first}` and `{writer}`"
                        )
                        hint = "each would point it where its own service goes: give each its own, or put both into one"
                        sources.note(parsed, ("components", name, "records", index, "name"), message, hint)


def _asked_at(estate: Estate | None, server: str) -> str:
    """What tells one name server from another: where it is asked, whatever it is called here."""
    known = estate.name_servers.get(server) if estate is not None else None
    return f"{known.address} {known.port}" if known is not None else server


def cycles(graph: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Every cycle met by a depth-first walk, as its path, the first name again at its end."""
    found: list[tuple[str, ...]] = []
    finished: set[str] = set()
    for start in sorted(graph):
        if start in finished:
            continue
        trail: list[str] = [start]
        depth = {start: 0}
        pending = [iter(sorted(set(graph[start])))]
        while pending:
            following = next(pending[-1], None)
            if following is None:
                pending.pop()
                finished.add(trail[-1])
                del depth[trail.pop()]
            elif following in depth:
                found.append((*trail[depth[following] :], following))
            elif following in graph and following not in finished:
                depth[following] = len(trail)
                trail.append(following)
                pending.append(iter(sorted(set(graph[following]))))
    return tuple(found)
