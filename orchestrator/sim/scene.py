"""Decides what the simulated estate looks like when a run begins, from the plan and the seed alone;
must never look at what the run does afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.core.plan import GroupMove, Plan, Step
from orchestrator.core.values import Json
from orchestrator.sim.servers import Cluster, Row, Server, Writer
from orchestrator.sim.world import (
    MILLISECOND_NS,
    SECOND_NS,
    Claim,
    Documents,
    Machine,
    Record,
    Routed,
    World,
)

HISTORY_ROWS = 20


@dataclass(frozen=True, slots=True)
class Scene:
    """What the seed chose. ``is_protected``: the other side follows when the run begins."""

    is_sync: bool
    is_protected: bool
    interval_ms: int
    lag_ms: int


def choose(rng: random.Random, *, is_protected: bool) -> Scene:
    """``is_protected``: as the plan found the groups."""
    return Scene(
        is_sync=rng.random() < 0.5,
        is_protected=is_protected,
        interval_ms=rng.choice((20, 50, 200, 1_500)),
        lag_ms=rng.choice((1, 5, 30, 400)),
    )


def build(rng: random.Random, plan: Plan, scene: Scene, trace: Callable[[str], None] | None = None) -> World:
    """The world as it is when the run begins."""
    active = next(iter(plan.groups.values())).active
    world = World(rng, source=active, target=plan.target, trace=trace)
    for host in plan.parts.hosts.values():
        world.machines[host.name] = Machine(host.name, host.site)
    for proxy in plan.parts.proxies.values():
        world.proxy_hosts[proxy.name] = proxy.host
        world.proxy_sites[proxy.name] = plan.parts.hosts[proxy.host].site
    for name_server in plan.parts.name_servers.values():
        world.server_sites[name_server.name] = name_server.site
    for move in plan.groups.values():
        for unit in move.units:
            if unit in plan.parts.clusters:
                world.clusters[unit] = _cluster(world, plan, move, unit, scene)
    for step in plan.steps.values():
        _surroundings(world, plan, step, scene)
    world.advance(SECOND_NS)
    return world


def _cluster(world: World, plan: Plan, move: GroupMove, name: str, scene: Scene) -> Cluster:
    cluster = Cluster(name, name, scene.interval_ms * MILLISECOND_NS, scene.lag_ms * MILLISECOND_NS)
    databases = _databases(plan, name)
    durability = "remote" if scene.is_sync and scene.is_protected else "local"
    row = Writer(move.epoch_seen, move.active, "", durability)
    for site, hosts in plan.parts.clusters[name].members.items():
        for host in hosts:
            cluster.servers[host] = Server(name, host, site, writers=dict.fromkeys(databases, row))
    primary = next(s for s in cluster.servers.values() if s.site == move.active)
    cluster.holder = primary.host
    cluster.epoch_sites[move.epoch_seen] = move.active
    primary.is_primary = True
    primary.is_sync = scene.is_sync and scene.is_protected
    primary.rows = [Row(0, move.epoch_seen, move.active, 0) for _ in range(HISTORY_ROWS)]
    for server in cluster.servers.values():
        if server is primary:
            continue
        if scene.is_protected or server.site == move.active:
            cluster.follow(server, primary)
            server.is_sync = primary.is_sync
        else:
            _left_behind(server, move, databases)
    return cluster


def _left_behind(server: Server, move: GroupMove, databases: tuple[str, ...]) -> None:
    """The old side after a failover: stopped, with a history that may differ."""
    old = Row(0, move.epoch_seen - 1, server.site, None)
    server.rows = [old for _ in range(HISTORY_ROWS - 5)]
    server.is_up, server.signal = False, True
    server.writers = dict.fromkeys(databases, Writer(move.epoch_seen - 1, server.site))


def _databases(plan: Plan, cluster: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for step in plan.steps.values():
        arguments = step.action.arguments
        names = arguments.get("databases")
        if arguments.get("cluster") == cluster and isinstance(names, list | tuple):
            found.update(dict.fromkeys(str(name) for name in names))
    return tuple(found) or ("register",)


def _surroundings(world: World, plan: Plan, step: Step, scene: Scene) -> None:
    """What a step of the plan speaks of stands as the group's active site has it."""
    arguments, move = step.action.arguments, plan.groups[step.group]
    text = {name: str(value) for name, value in arguments.items()}
    leads, claim = _leads(plan, move)
    match step.action.kind:
        case "haproxy.route":
            here = world.proxy_sites[text["proxy"]] == leads
            world.routes[text["proxy"], text["backend"]] = Routed(here, claim)
        case "dns.update":
            world.names[text["server"], text["name"]] = Record(leads, claim)
        case "service.start":
            world.units[text["host"], text["unit"]] = False
        case "service.stop":
            world.units[text["host"], text["unit"]] = True
        case "service.ready":
            world.units.setdefault((text["host"], text["unit"]), True)
        case "continuity.claims":
            _witnesses(world, arguments["witnesses"], move, scene, _leads(plan, move))
        case kind if kind.startswith("files."):
            _documents(world, text["host"], move, scene)
        case _:
            return


def _documents(world: World, host: str, move: GroupMove, scene: Scene) -> None:
    is_active = world.site_of(host) == move.active
    claim = Claim(move.epoch_seen if is_active else move.epoch_seen - 1, move.active)
    mode, replicates = ("full", False) if is_active else ("read-only", scene.is_protected)
    if not scene.is_protected and world.site_of(host) == "home":
        mode = "full"  # it came back by itself and knows nothing of the move
    world.documents.setdefault(host, Documents(mode, claim, replicates))


def _leads(plan: Plan, move: GroupMove) -> tuple[str, Claim]:
    """Where names and routes lead, and under whose right: to the active site, but where people kept another
    than that which held the epoch before."""
    if plan.source and plan.source != move.active:
        return plan.source, Claim(move.epoch_seen - 1, plan.source)
    return move.active, Claim(move.epoch_seen, move.active)


def _witnesses(
    world: World, witnesses: Json, move: GroupMove, scene: Scene, leading: tuple[str, Claim]
) -> None:
    """Also of what no step of this plan switches (a reprotect routes nothing)."""
    assert isinstance(witnesses, list | tuple)
    leads, claim = leading
    for witness in witnesses:
        assert isinstance(witness, Mapping)
        part, subject = str(witness["part"]), str(witness["subject"])
        if witness["kind"] == "dns":
            world.names.setdefault((part, subject), Record(leads, claim))
        elif witness["kind"] == "haproxy":
            here = world.proxy_sites[part] == leads
            world.routes.setdefault((part, subject), Routed(here, claim))
        else:
            _documents(world, part, move, scene)
