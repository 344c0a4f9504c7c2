"""Decides what things may be called and how often they may be named; must never judge what they do.

Names become ids of steps (``registers-db/stop-h1``), names of files and words of commands: a slash or a
dot in one would make it mean something else there. Keys of mappings are held to it by the shape already.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.core.model import Estate
from orchestrator.runbook import units
from orchestrator.runbook.problems import YamlPath
from orchestrator.runbook.sources import Parsed, Sources

LISTS = ("at", "proxies")
_NAME = re.compile(units.NAME_PATTERN)


def check(sources: Sources, parsed: Parsed) -> None:
    """Note a name that cannot be used and everything that is named twice in one place."""
    if isinstance(parsed.value, Estate):
        _check_members(sources, parsed, parsed.value)
        _check_addresses(sources, parsed, parsed.value)
        return
    name = parsed.value.name
    if not _NAME.fullmatch(name):
        sources.note(parsed, ("name",), f"`{name}` is not a name", units.NAME_HINT)
    _check_components(sources, parsed, parsed.value.components)


def _check_members(sources: Sources, parsed: Parsed, estate: Estate) -> None:
    for name, cluster in estate.clusters.items():
        seen: dict[str, str] = {}
        for site, hosts in cluster.members.items():
            for index, host in enumerate(hosts):
                if host in seen:
                    where = "" if seen[host] == site else f", at {seen[host]} and at {site}"
                    message = f"host `{host}` is a member twice{where}"
                    hint = "name each host once, at the site where it stands"
                    sources.note(parsed, ("clusters", name, "members", site, index), message, hint)
                seen.setdefault(host, site)


def _check_components(sources: Sources, parsed: Parsed, components: Mapping[str, Any]) -> None:
    for name, component in components.items():
        for key in LISTS:
            places = getattr(component, key, None)
            for site, names in places.items() if isinstance(places, Mapping) else ():
                if isinstance(names, tuple):
                    _check_once(sources, parsed, ("components", name, key, site), names)


def _check_once(sources: Sources, parsed: Parsed, place: YamlPath, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            sources.note(parsed, (*place, index), f"`{name}` stands here twice", "name it once")
        seen.add(name)


def _check_addresses(sources: Sources, parsed: Parsed, estate: Estate) -> None:
    """One address at two sites: an order to the one would reach the other, and a proof mean nothing."""
    for section, things in (("hosts", estate.hosts), ("name-servers", estate.name_servers)):
        seen: dict[str, Any] = {}
        for name, thing in things.items():
            address = thing.address.lower()
            other = seen.setdefault(address, thing)
            if address and other.site != thing.site:
                message = f"`{name}` at {thing.site} has the address of `{other.name}` at {other.site}"
                hint = "give each site addresses of its own: an order to one site must not reach the other"
                sources.note(parsed, (section, name, "address"), message, hint)
