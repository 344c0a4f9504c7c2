"""Decides how simulated database servers behave: who accepts writes, what reaches whom, what a
promotion keeps; must never know a run or a step. ``Cluster.flow`` is where clients write.

A server is asked on every path (front door, direct SQL): whatever accepts physically is written to.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.sim.world import World

WAITING_CLIENTS_MAX = 4


@dataclass(frozen=True, slots=True)
class Writer:
    """The row that says who may write: see semantics 2.1."""

    epoch: int
    site: str
    run: str = ""
    durability: str = "remote"


@dataclass(slots=True)
class Row:
    """One client's row. ``acked_ns`` None: nobody was told that it is there."""

    ns: int
    epoch: int
    site: str
    acked_ns: int | None = None


@dataclass(slots=True)
class Server:
    """One database server. ``signal``: it starts as a standby, whatever it was. ``received``: how
    many of ``upstream``'s rows are here. ``promoting_ns``: when a promotion sent to it is through."""

    cluster: str
    host: str
    site: str
    is_up: bool = True
    is_primary: bool = False
    signal: bool = False
    is_read_only: bool = False
    is_frozen_by_run: bool = False
    is_stopped_by_run: bool = False
    is_sync: bool = False
    is_paused: bool = False  # replay
    upstream: str = ""
    timeline: int = 1
    received: int = 0
    rows: list[Row] = field(default_factory=list)
    waiting: list[Row] = field(default_factory=list)
    writers: dict[str, Writer] = field(default_factory=dict)
    promoting_ns: int | None = None
    promoted_by: str = ""
    fence_ns: int | None = None  # a fence proved, at this moment, that it cannot write
    evidence_copies: int = 0
    holds_log: bool = False  # a slot for every other member

    def stop(self, *, by_run: bool) -> None:
        """The process ends; whoever waits for an acknowledgement never gets one."""
        self.is_up = False
        self.is_stopped_by_run = by_run
        self.promoting_ns = None
        self.waiting.clear()

    def start(self) -> None:
        self.is_up = True
        self.is_stopped_by_run = False
        if self.signal:
            self.is_primary = False

    def writer(self) -> Writer:
        """The row that any of its databases shows first."""
        return next(iter(self.writers.values()))

    def lsn(self) -> str:
        count = len(self.rows) if self.is_primary or not self.upstream else self.received
        return f"0/{count * 64:X}"


@dataclass(frozen=True, slots=True)
class Promotion:
    """A standby that became a primary. ``missing``: rows of the old holder that it does not have."""

    ns: int
    host: str
    run: str
    old: str
    last_present_ns: int
    missing: tuple[Row, ...]


@dataclass(slots=True)
class Cluster:
    """Servers of one cluster and the clients that write to it, every ``interval_ns``."""

    name: str
    unit: str
    interval_ns: int
    lag_ns: int
    servers: dict[str, Server] = field(default_factory=dict)
    holder: str = ""  # the host that may write, by the world's own book
    promotions: list[Promotion] = field(default_factory=list)
    epoch_sites: dict[int, str] = field(default_factory=dict)
    next_write_ns: int = 0
    acknowledged: int = 0

    # --- who may write ------------------------------------------------------------------------

    def accepts(self, world: World, server: Server) -> bool:
        """Would a client's write go in now, on some path?"""
        machine = world.machines[server.host]
        able = machine.is_on and not machine.is_hung and server.is_up
        return able and server.is_primary and not server.is_read_only

    def could_write(self, world: World, server: Server) -> bool:
        """Could it accept writes now or once it is let go on (hung, cut off, merely frozen)?"""
        return world.machines[server.host].is_on and server.is_up and server.is_primary

    def streams(self, world: World, standby: Server) -> bool:
        """Does replication reach this standby now?"""
        upstream = self.servers.get(standby.upstream)
        if upstream is None or standby.is_primary or not (standby.is_up and upstream.is_up):
            return False
        machines = (world.machines[standby.host], world.machines[upstream.host])
        if any(machine.is_hung or not machine.is_on for machine in machines):
            return False
        return upstream.is_primary and (world.link_up or standby.site == upstream.site)

    # --- time passes --------------------------------------------------------------------------

    def flow(self, world: World, until_ns: int) -> None:
        """Let clients write and replication run up to a moment; roles do not change meanwhile."""
        accepting = [server for server in self.servers.values() if self.accepts(world, server)]
        streams = [s for s in self.servers.values() if s.upstream and self.streams(world, s)]
        if accepting:
            while self.next_write_ns <= until_ns:
                for server in accepting:
                    self._write(world, server, self.next_write_ns, streams)
                self.next_write_ns += self.interval_ns
        elif self.next_write_ns <= until_ns:
            missed = (until_ns - self.next_write_ns) // self.interval_ns + 1
            self.next_write_ns += missed * self.interval_ns
        for standby in streams:
            self._receive(world, standby, until_ns)

    def _write(self, world: World, server: Server, ns: int, streams: list[Server]) -> None:
        if server.is_sync and len(server.waiting) >= WAITING_CLIENTS_MAX:
            for standby in streams:
                if standby.upstream == server.host:
                    self._receive(world, standby, ns)
            if len(server.waiting) >= WAITING_CLIENTS_MAX:
                return
        writer = server.writer()
        row = Row(ns, writer.epoch, server.site)
        server.rows.append(row)
        if server.is_sync:
            server.waiting.append(row)
        else:
            self._acknowledge(world, server, row, ns)

    def _receive(self, world: World, standby: Server, ns: int) -> None:
        upstream = self.servers[standby.upstream]
        rows, count = upstream.rows, standby.received
        while count < len(rows) and rows[count].ns + self.lag_ns <= ns:
            row = rows[count]
            count += 1
            if upstream.waiting and upstream.waiting[0] is row and standby.site != upstream.site:
                upstream.waiting.pop(0)
                self._acknowledge(world, upstream, row, row.ns + self.lag_ns)
        standby.received = count
        if standby.writers != upstream.writers:
            standby.writers = dict(upstream.writers)

    def _acknowledge(self, world: World, server: Server, row: Row, ns: int) -> None:
        row.acked_ns = ns
        self.acknowledged += 1
        is_excused = server.site in world.declared or world.has_returned(server.host)
        if self.epoch_sites.setdefault(row.epoch, server.site) != server.site:
            world.blame("one-site-per-epoch", f"{server.site} acknowledged at epoch {row.epoch} of another")
        if server.host != self.holder and not is_excused:
            world.blame("one-writer", f"{server.host} acknowledged while {self.holder} holds {self.name}")
        if server.fence_ns is not None and ns > server.fence_ns and not is_excused:
            world.blame("fenced-means-silent", f"{server.host} acknowledged after its fence proof")
        if any(writer.site != server.site for writer in server.writers.values()):
            world.blame("opens-after-epoch", f"{server.host} acknowledged before its epoch was committed")

    # --- promotion ----------------------------------------------------------------------------

    def promoted(self, world: World, server: Server) -> None:
        """A promotion that was sent is through."""
        if server.promoting_ns is None or not server.is_up:
            return
        old = self.servers[self.holder]
        shared = self.servers[server.upstream] if server.upstream else old
        kept = shared.rows[: server.received]
        missing = tuple(row for row in old.rows[server.received :] if old is shared)
        last = kept[-1].ns if kept else 0
        self.promotions.append(
            Promotion(world.now_ns, server.host, server.promoted_by, old.host, last, missing)
        )
        for other in self.servers.values():
            self._judge_other(world, server, other)
        server.rows = list(kept)
        server.is_primary, server.signal, server.upstream = True, False, ""
        server.promoting_ns, server.timeline = None, server.timeline + 1
        self.holder = server.host

    def _judge_other(self, world: World, server: Server, other: Server) -> None:
        """Every member of the old side was proven unable to write, or people declared the site lost."""
        if other.site in (server.site, *world.declared) or world.has_returned(other.host):
            return
        if other.fence_ns is None or self.could_write(world, other):
            able = "can write" if self.could_write(world, other) else "was never fenced"
            world.blame("promoted-only-when-fenced", f"{server.host} was promoted while {other.host} {able}")

    def follow(self, standby: Server, primary: Server) -> None:
        """The standby takes the primary's history as its own and follows it."""
        standby.upstream, standby.is_primary, standby.signal = primary.host, False, True
        standby.rows, standby.received = [], len(primary.rows)
        standby.writers = dict(primary.writers)
        standby.timeline = primary.timeline
        standby.fence_ns, standby.holds_log = None, False


def set_writer(server: Server, databases: tuple[str, ...], **changes: object) -> None:
    """Change the writer row in some of a server's databases."""
    for database in databases:
        server.writers[database] = replace(server.writers[database], **changes)  # type: ignore[arg-type]
