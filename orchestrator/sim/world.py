"""Decides what time it is in a simulated estate, what stands there and what has happened to it; must
never know a run's state: it is what the run is judged by.

Time moves only from one planned happening to the next. Hosts, the link, service units, proxies, name
servers and documents stand here; database servers in ``servers.py``.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.sim.servers import Cluster, Server

MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000
UTC_START_NS = 1_800_000_000 * SECOND_NS
MONO_START_NS = 1_000 * SECOND_NS


@dataclass(slots=True)
class Machine:
    """A host. ``off_by_fence``: a fence cut its power; ``returned``: it came back by itself since."""

    name: str
    site: str
    is_on: bool = True
    is_hung: bool = False
    off_by_fence: bool = False
    returned: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """What stands beside everything that is switched: whose right it was switched under."""

    epoch: int
    site: str
    run: str = ""


@dataclass(frozen=True, slots=True)
class Routed:
    """What a proxy does with one backend; ``here`` = to its own site."""

    here: bool
    claim: Claim


@dataclass(frozen=True, slots=True)
class Record:
    """A name on one server: the site that its value stands for, and its claim."""

    points_to: str
    claim: Claim


@dataclass(slots=True)
class Documents:
    """The documents on one host: how they are shown there (``mode`` "" = not at all)."""

    mode: str
    claim: Claim
    replicates: bool = False  # a replicator writes here
    as_of_ns: int | None = None  # until when all that the other side took is here


@dataclass(slots=True)
class Happening:
    """One planned change. ``is_dead`` ones pass without effect."""

    ns: int
    what: str
    act: Callable[[], None]
    is_dead: bool = False


@dataclass(slots=True)
class World:
    """Everything there is. ``broken`` collects what must never have happened, by invariant name."""

    rng: random.Random
    source: str
    target: str
    trace: Callable[[str], None] | None = None
    now_ns: int = 0
    link_up: bool = True
    controller_up: bool = True
    slow: int = 1
    machines: dict[str, Machine] = field(default_factory=dict)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    units: dict[tuple[str, str], bool] = field(default_factory=dict)
    routes: dict[tuple[str, str], Routed] = field(default_factory=dict)
    proxy_sites: dict[str, str] = field(default_factory=dict)
    proxy_hosts: dict[str, str] = field(default_factory=dict)
    server_sites: dict[str, str] = field(default_factory=dict)
    names: dict[tuple[str, str], Record] = field(default_factory=dict)
    documents: dict[str, Documents] = field(default_factory=dict)
    before: dict[tuple[str, str], Any] = field(default_factory=dict)  # (run, step) → for its undo
    declared: set[str] = field(default_factory=set)  # sites that people declared lost
    alive: dict[str, int] = field(default_factory=dict)  # step → attempts alive at the target
    executed: set[tuple[str, str]] = field(default_factory=set)  # (run, attempt) that was carried out
    effects: set[tuple[str, str]] = field(default_factory=set)  # (run, step) that has taken effect
    broken: dict[str, str] = field(default_factory=dict)
    queue: list[tuple[int, int, Happening]] = field(default_factory=list)
    _count: int = 0

    # --- time ---------------------------------------------------------------------------------

    def utc_ns(self) -> int:
        return UTC_START_NS + self.now_ns

    def monotonic_ns(self) -> int:
        return MONO_START_NS + self.now_ns

    def monotonic(self) -> float:
        return self.monotonic_ns() / SECOND_NS

    def after(self, ns: int, what: str, act: Callable[[], None]) -> Happening:
        """Plan a happening ``ns`` from now."""
        return self.at(self.now_ns + max(0, ns), what, act)

    def at(self, ns: int, what: str, act: Callable[[], None]) -> Happening:
        happening = Happening(max(ns, self.now_ns), what, act)
        self._count += 1
        heapq.heappush(self.queue, (happening.ns, self._count, happening))
        return happening

    def step(self) -> bool:
        """Let the next happening happen. False: nothing is planned any more."""
        if not self.queue:
            return False
        _, _, happening = heapq.heappop(self.queue)
        if happening.is_dead:
            return True
        self.advance(happening.ns)
        self.say(happening.what)
        happening.act()
        return True

    def advance(self, ns: int) -> None:
        """Clients write and replication flows until ``ns``; nothing else changes meanwhile."""
        for cluster in self.clusters.values():
            cluster.flow(self, ns)
        for host, here in self.documents.items():
            others = [other for other in self.documents if self.site_of(other) != self.site_of(host)]
            if here.replicates and self.answers(host) and all(self.answers(other) for other in others):
                here.as_of_ns = ns
        self.now_ns = max(self.now_ns, ns)

    def say(self, text: str) -> None:
        if self.trace is not None and text:
            self.trace(f"{self.now_ns / SECOND_NS:10.3f}  {text}")

    # --- judging ------------------------------------------------------------------------------

    def blame(self, invariant: str, text: str) -> None:
        """Something happened that must never happen. Only the first of each name is kept."""
        if invariant not in self.broken:
            self.broken[invariant] = f"{invariant}: at {self.now_ns / SECOND_NS:.3f} s: {text}"
            self.say(f"!! {self.broken[invariant]}")

    # --- reaching -----------------------------------------------------------------------------

    def site_of(self, host: str) -> str:
        return self.machines[host].site

    def answers(self, host: str) -> bool:
        """Does this host answer the driver, which stands at the embassy?"""
        machine = self.machines[host]
        return machine.is_on and not machine.is_hung and self.link_reaches(machine.site)

    def has_returned(self, host: str) -> bool:
        """Was it switched off by a fence and has it come back by itself since?"""
        machine = self.machines[host]
        return machine.off_by_fence and machine.returned

    def link_reaches(self, site: str) -> bool:
        return self.link_up or site != "home"

    def is_refused(self, host: str) -> bool:
        """Does a connection fail at once (machine gone), and not by waiting?"""
        return host in self.machines and not self.machines[host].is_on

    def name_server_answers(self, name_server: str) -> bool:
        """A name server runs as long as any machine of its site does."""
        site = self.server_sites[name_server]
        runs = any(m.is_on and not m.is_hung for m in self.machines.values() if m.site == site)
        return runs and self.link_reaches(site)

    def witness(self, kind: str, part: str, subject: str) -> tuple[str, str, bool, Claim]:
        """(where, site, does it answer, its claim) of what carries a claim."""
        if kind == "dns":
            claim = self.names[part, subject].claim
            return f"{subject} at {part}", self.server_sites[part], self.name_server_answers(part), claim
        host = self.proxy_hosts[part] if kind == "haproxy" else part
        claim = self.routes[part, subject].claim if kind == "haproxy" else self.documents[part].claim
        return f"{subject} at {part}", self.site_of(host), self.answers(host), claim

    # --- databases ----------------------------------------------------------------------------

    def server(self, cluster: str, host: str) -> Server:
        return self.clusters[cluster].servers[host]

    def runs(self, host: str, unit: str) -> bool:
        return self.machines[host].is_on and self.units.get((host, unit), False)

    def takes_back(self, site: str) -> None:
        """Once no server of a site could write any more, nothing it does is excused."""
        servers = [(c, s) for c in self.clusters.values() for s in c.servers.values() if s.site == site]
        if not any(cluster.could_write(self, server) for cluster, server in servers):
            self.declared.discard(site)
            for machine in self.machines.values():
                if machine.site == site:
                    machine.off_by_fence = machine.returned = False

    # --- what befalls machines ----------------------------------------------------------------

    def crash(self, host: str) -> None:
        """Power gone, all at once."""
        machine = self.machines[host]
        machine.is_on = False
        machine.is_hung = False
        for cluster in self.clusters.values():
            if host in cluster.servers:
                cluster.servers[host].stop(by_run=False)
        for key in self.units:
            if key[0] == host:
                self.units[key] = False

    def prove_off(self, host: str) -> None:
        """The power controller has said that this machine is off."""
        machine = self.machines[host]
        machine.off_by_fence, machine.returned = True, False
        for cluster in self.clusters.values():
            if host in cluster.servers:
                cluster.servers[host].fence_ns = self.now_ns

    def power_on(self, host: str) -> None:
        """The machine starts again, unaided, with all that starts by itself there."""
        machine = self.machines[host]
        if machine.is_on:
            return
        machine.is_on, machine.returned = True, True
        for cluster in self.clusters.values():
            if host in cluster.servers:
                cluster.servers[host].start()
        for key in self.units:
            if key[0] == host:
                self.units[key] = True
