"""Decides how a service's front doors are routed; must never route before the epoch is committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.claims import Witness
from orchestrator.core.model import Estate, Stage
from orchestrator.core.move import OPENS, QUICK_RETRY, Contribution, Placed, must_stand_at
from orchestrator.core.plan import Draft, Role
from orchestrator.core.values import (
    BackendName,
    ComponentRef,
    Name,
    ProxyRef,
    SiteRef,
)

ROUTE_MS = 3_000


@dataclass(frozen=True, slots=True)
class HAProxy:
    """A backend of the proxies at each site. The target's must succeed; the old site's are best effort."""

    name: Name
    proxies: Mapping[SiteRef, tuple[ProxyRef, ...]]
    backend: BackendName
    needs: tuple[ComponentRef, ...] = ()

    def unit_in(self, service: str) -> str:
        return f"{service}/{self.name}"

    def address_at(self, estate: Estate, site: str) -> str:
        names = self.proxies.get(site, ())
        if not names:
            return ""
        proxy = estate.proxies[names[0]]
        return proxy.front_address or estate.hosts[proxy.host].address

    def contribute(self, placed: Placed) -> Contribution:
        """Routes of both sites under the new epoch; a reprotect moves nobody and routes nothing."""
        move, service = placed.move, placed.runbook.name
        unit = self.unit_in(service)
        drafts: list[Draft] = []
        if move.moves:
            must_stand_at(unit, move.target, self.proxies.get(move.target, ()))
            drafts += [self._route(placed, move.target, proxy) for proxy in self.proxies[move.target]]
            drafts += [self._route(placed, move.source, proxy) for proxy in self.proxies.get(move.source, ())]
        witnesses = [
            Witness("haproxy", proxy, self.backend) for names in self.proxies.values() for proxy in names
        ]
        return Contribution(unit, service, tuple(drafts), witnesses=tuple(witnesses))

    def _route(self, placed: Placed, site: str, proxy: str) -> Draft:
        move = placed.move
        here = site == move.target
        key = f"route-{site}" if len(self.proxies[site]) == 1 else f"route-{site}-{proxy}"
        if here:
            title = f"route {self.backend} at {proxy} to {site}"
            why = "clients reach the site that holds the epoch; a reload or restart of the proxy keeps it"
        else:
            title = f"route {self.backend} at {proxy} of {site} to {move.target}"
            why = f"clients that still come to {site} are sent on; best effort, owed until it is done"
        return Draft(
            key, Stage.CUTOVER, Role.ROUTE, title, why, "haproxy.route",
            {
                "proxy": proxy, "backend": self.backend, "here": here, "site": move.target,
                "epoch": move.epoch_next, "end_sessions": move.site_is_lost(),
            },
            ROUTE_MS, (), OPENS, up=here, best_effort=not here,
            retry=QUICK_RETRY if here else move.retry_at_source(),
        )  # fmt: skip
