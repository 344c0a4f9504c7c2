"""Decides what befalls the estate when the seed's time has come, and makes it happen; must never look
at the run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.engine import lock
from orchestrator.errors import RefusedError
from orchestrator.sim.dispatch import SimulatedDispatcher
from orchestrator.sim.faults import Book, WorldFault
from orchestrator.sim.world import MILLISECOND_NS, World

BACK_MS = (500, 3_000, 20_000)
SLOW = 20


@dataclass(slots=True)
class Weather:
    """``driver``: who drives now, and which run: a second one is tried against it."""

    world: World
    book: Book
    rng: random.Random
    folder: Path
    driver: tuple[SimulatedDispatcher, str] | None = None

    def befall(self, fault: WorldFault) -> None:
        world = self.world
        if self.book.is_quiet or fault in (WorldFault.NOISE, WorldFault.PLAN_GROWS_OLD):
            return
        self.book.note_world(fault)
        world.say(f"the world: {fault}")
        home = [m.name for m in world.machines.values() if m.site == "home"]
        back_ns = self.rng.choice(BACK_MS) * MILLISECOND_NS
        match fault:
            case WorldFault.HOME_CRASHES:
                for host in home:
                    world.crash(host)
            case WorldFault.HOME_RETURNS:
                for host in home:
                    world.crash(host)
                    world.after(back_ns, f"{host} returns by itself", partial(world.power_on, host))
            case WorldFault.HOME_HANGS:
                self._hang(home, is_hung=True)
                world.after(back_ns, "home wakes up", partial(self._hang, home, is_hung=False))
            case WorldFault.LINK_CUT:
                world.link_up = False
                world.after(back_ns, "the link is back", self._link_is_back)
            case WorldFault.FALSE_ALARM:
                world.link_up = world.controller_up = False
                world.after(back_ns, "the link is back", self._link_is_back)
                world.after(2 * back_ns, "the controller is back", self._controller_is_back)
            case WorldFault.TARGET_SLOW:
                world.slow = SLOW
            case WorldFault.CONTROLLER_DOWN:
                world.controller_up = False
                world.after(back_ns, "the controller is back", self._controller_is_back)
            case WorldFault.REPLAY_PAUSED:
                self._pause_replay(is_paused=True)
                world.after(back_ns, "replay goes on", partial(self._pause_replay, is_paused=False))
            case WorldFault.SECOND_DRIVER:
                self._try_a_second_driver()

    def _link_is_back(self) -> None:
        self.world.link_up = True

    def _controller_is_back(self) -> None:
        self.world.controller_up = True

    def _hang(self, hosts: list[str], *, is_hung: bool) -> None:
        for host in hosts:
            self.world.machines[host].is_hung = is_hung

    def _pause_replay(self, *, is_paused: bool) -> None:
        for cluster in self.world.clusters.values():
            for server in cluster.servers.values():
                server.is_paused = is_paused

    def _try_a_second_driver(self) -> None:
        if self.driver is None or self.driver[0].is_dead:
            return
        try:
            lock.acquire(self.folder, self.driver[1])
        except RefusedError:
            return
        self.world.blame("one-driver-at-a-time", "a second driver was let in while the first lives")
