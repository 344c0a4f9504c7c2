"""Decides what the fences of a site would stop beside what moves: data of groups that stay, on a host that is
fenced as a whole. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.components.files import Files
from orchestrator.components.postgresql import PostgreSQL
from orchestrator.core.model import Estate, Fence, ProofKind, Runbook
from orchestrator.core.move import Move


def fences_of_hosts(estate: Estate, site: str) -> tuple[Fence, ...]:
    """The fences that are carried out against a host as a whole. Not those that a component carries out against
    itself, nor people's word: they stop nothing beside it."""
    return tuple(
        fence
        for fence in estate.fences.get(site, ())
        if fence.action != "declare" and fence.proves is not ProofKind.DEMOTED
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """A group that stays, and the fences that would stop it all the same."""

    group: str
    services: tuple[str, ...]
    site: str
    hosts: tuple[str, ...]
    fences: tuple[str, ...]

    def refusal(self) -> str:
        return f"{self._fenced()} would also stop {self._named()}, which stays at {self.site}"

    def note(self, leave: Mapping[str, str]) -> str:
        """What people put their name to, with why each service is left behind."""
        reasons = {leave[service] for service in self.services}
        each = "; ".join(f"{service}: {leave[service]}" for service in self.services)
        stops = "stops" if len(self.fences) == 1 else "stop"
        why = each if len(reasons) > 1 else reasons.pop()
        return f"{self._fenced()} also {stops} {self._named()}, which stays: {why}"

    def _fenced(self) -> str:
        return f"{' and '.join(self.fences)} of {' and '.join(self.hosts)}"

    def _named(self) -> str:
        if self.services == (self.group,):
            return self.group
        return f"{self.group} ({', '.join(self.services)})"


def beside(
    estate: Estate,
    runbooks: Mapping[str, Runbook],
    at: Mapping[str, str],
    members: Mapping[str, Sequence[str]],
    moves: Mapping[str, Move],
) -> Iterator[Beside]:
    """Every group that is active where ``moves`` leave from and stays there, with data on a host that they fence.

    ``at``: service → the site where it is served now. Only an unplanned move fences hosts.
    """
    lost = {group: move for group, move in moves.items() if move.site_is_lost()}
    for site in sorted({move.source for move in lost.values()}):
        fences = tuple(dict.fromkeys(fence.proves.value for fence in fences_of_hosts(estate, site)))
        fenced = {
            host
            for group, move in lost.items()
            if move.source == site
            for host in _hosts(estate, runbooks, members[group], site)
        }
        for group, services in sorted(members.items()):
            if not fences or group in moves or at[services[0]] != site:
                continue
            hosts = tuple(sorted(fenced.intersection(_hosts(estate, runbooks, services, site))))
            if hosts:
                yield Beside(group, tuple(sorted(services)), site, hosts, fences)


def _hosts(
    estate: Estate, runbooks: Mapping[str, Runbook], services: Sequence[str], site: str
) -> Iterator[str]:
    """Where a group's data stand at a site: database members, and documents."""
    for service in services:
        for component in runbooks[service].components.values():
            if isinstance(component, PostgreSQL):
                yield from estate.clusters[component.cluster].members.get(site, ())
            elif isinstance(component, Files) and site in component.at:
                yield component.at[site].host
