"""Decides how one simulated night runs: plan and seed in, history and verdict out.

It runs the production loop, journal and planning; drivers die and are followed by successors, people
give orders from processes of their own. Must never decide anything for the run.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from orchestrator.core import events
from orchestrator.core.events import GroupAdopted, RunCreated
from orchestrator.core.fold import has_ended
from orchestrator.core.inputs import DriverStarted
from orchestrator.core.log import Append
from orchestrator.core.model import Operation
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run
from orchestrator.core.states import RunState
from orchestrator.engine import lock
from orchestrator.engine.clock import now
from orchestrator.engine.journal import GROUP, RUN, Journal, Tracked
from orchestrator.engine.loop import WAITS_FOR_PEOPLE, come_up, drive
from orchestrator.errors import ContinuityError, InvariantBroken, RefusedError
from orchestrator.sim.adapters import (
    KINDS,
    DriverKilled,
    DriversStore,
    JudgingStore,
    NothingGoesOn,
    SimulatedDispatcher,
)
from orchestrator.sim.coverage import Reached, rows_of
from orchestrator.sim.faults import Book, WorldFault, plan_faults
from orchestrator.sim.judge import judge
from orchestrator.sim.operators import People
from orchestrator.sim.scene import Scene, build, choose
from orchestrator.sim.world import MILLISECOND_NS, SECOND_NS, World

DRIVERS_MAX = 60
TURNS_MAX = 300
HORIZON_NS = 3_000 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Verdict:
    """``broken``: invariants that did not hold, each text beginning with its name. ``head``: the log's
    last hash, equal for equal seeds."""

    seed: int
    operation: str
    outcome: str
    broken: tuple[str, ...]
    head: str
    drivers: int
    events: int
    reached: Reached


@dataclass(slots=True)
class Night:
    """Everything about one seed while it runs."""

    seed: int
    plan: Plan
    rng: random.Random
    world: World
    store: JudgingStore
    book: Book
    folder: Path
    run_id: str
    people: People | None = None
    stays: bool = False  # the driver's process stays when the run waits for people
    drivers: int = 0
    dispatcher: SimulatedDispatcher | None = None
    worlds: dict[str, int] = field(default_factory=dict)

    # --- the log ------------------------------------------------------------------------------

    def journal(self, *, of_driver: bool) -> Journal:
        store = DriversStore(self.store, self.book, self.plan) if of_driver else self.store
        return Journal(store, self._plan_from_text, is_deep=True)

    def _plan_from_text(self, digest: str) -> Plan:
        if digest != self.plan.digest:
            raise InvariantBroken(f"the log holds a plan {digest} that nobody made")
        return self.plan

    def create(self) -> Tracked:
        """Groups are adopted, then the run claims them; a plan that has grown old is refused."""
        at = now(self.world)
        for name, move in self.plan.groups.items():
            protection = "protected" if self.is_protected else "unprotected"
            adopted = GroupAdopted(at, name, move.active, move.epoch_seen, protection, "ann")
            self.store.append([Append(GROUP + name, 0, (adopted,))])
        journal = self.journal(of_driver=False)
        operation = str(self.plan.operation)
        created = RunCreated(at, self.run_id, operation, self.plan.digest, "ann", "laptop", "tonight")
        return journal.create(self.plan, self.plan.digest, created)

    is_protected: bool = True

    # --- drivers ------------------------------------------------------------------------------

    def go(self) -> Run:
        """Drivers follow one another until the run is over."""
        self.people = self._people(self.create())
        self.world.after(MILLISECOND_NS, "", self._peoples_turn)
        for fault, milliseconds in self.book.world:
            self.world.after(milliseconds * MILLISECOND_NS, "", partial(self._befall, fault))
        while self.drivers < DRIVERS_MAX:
            run = self._one_driver()
            if run is not None and run.is_final:
                self._let_the_rest_happen()
                return run
            self._until(self.world.now_ns + self.rng.choice((1, 50, 700, 3_000)) * MILLISECOND_NS)
        self.world.blame("always-ends", f"{DRIVERS_MAX} drivers did not end the run")
        return self.people.tracked.run

    def _one_driver(self) -> Run | None:
        """One process, from its lock to its end. None: it was killed."""
        self.drivers += 1
        lock.acquire(self.folder, self.run_id)
        dispatcher = SimulatedDispatcher(self.world, self.store, self.book, self.rng, horizon_ns=HORIZON_NS)
        self.dispatcher = dispatcher
        try:
            journal = self.journal(of_driver=True)
            tracked = journal.load(self.run_id)
            if tracked.run.is_final:
                return tracked.run
            boot = "boot"
            at = now(self.world)
            started = DriverStarted(at, f"i{self.drivers}", self.drivers, boot, "laptop", "0")
            come_up(journal, tracked, started)
            while True:
                run = drive(journal, tracked, dispatcher, self.world, lambda run: not self.stays)
                if run.is_final or self.rng.random() < 0.4:
                    return run
                self._until_people_acted(journal, tracked)
        except DriverKilled:
            return None
        finally:
            dispatcher.die()
            lock.release(self.folder, self.run_id)

    def _until_people_acted(self, journal: Journal, tracked: Tracked) -> None:
        """The command waits at its prompt; people act from elsewhere."""
        while tracked.run.state in WAITS_FOR_PEOPLE:
            if self.world.now_ns > HORIZON_NS or not self.world.step():
                raise NothingGoesOn
            journal.refresh(tracked)

    def _until(self, ns: int) -> None:
        """No driver lives; the world goes on."""
        while self.world.queue and self.world.queue[0][0] <= ns:
            self.world.step()
        self.world.advance(ns)

    def _let_the_rest_happen(self) -> None:
        """What was sent before the end still lands; what comes of it is judged too."""
        self.book.is_quiet = True
        self._until(self.world.now_ns + 10 * SECOND_NS)

    # --- people and faults --------------------------------------------------------------------

    def _people(self, tracked: Tracked) -> People:
        kinds = [fault for fault, _ in self.book.world]
        return People(
            self.world,
            self.journal(of_driver=False),
            tracked,
            self.book,
            self.rng,
            is_noisy=WorldFault.NOISE in kinds,
            aborts=self.rng.random() < 0.35,
        )

    def _peoples_turn(self) -> None:
        people = self.people
        if people is None or people.turns > TURNS_MAX:
            raise NothingGoesOn
        if people.turn():
            self.world.after(people.pause_ns(), "", self._peoples_turn)

    def _befall(self, fault: WorldFault) -> None:
        world = self.world
        if self.book.is_quiet:
            return
        self.worlds[fault] = self.worlds.get(fault, 0) + 1
        world.say(f"the world: {fault}")
        home = [m.name for m in world.machines.values() if m.site == "home"]
        back_ns = self.rng.choice((500, 3_000, 20_000)) * MILLISECOND_NS
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
                world.after(back_ns, "the link is back", partial(setattr, world, "link_up", True))
            case WorldFault.TARGET_SLOW:
                world.slow = 20
            case WorldFault.CONTROLLER_DOWN:
                world.controller_up = False
                world.after(back_ns, "", partial(setattr, world, "controller_up", True))
            case WorldFault.REPLAY_PAUSED:
                self._pause_replay(is_paused=True)
                world.after(back_ns, "replay goes on", partial(self._pause_replay, is_paused=False))
            case WorldFault.SECOND_DRIVER:
                self._try_a_second_driver()
            case WorldFault.NOISE:
                return

    def _hang(self, hosts: list[str], *, is_hung: bool) -> None:
        for host in hosts:
            self.world.machines[host].is_hung = is_hung

    def _pause_replay(self, *, is_paused: bool) -> None:
        for cluster in self.world.clusters.values():
            for server in cluster.servers.values():
                server.is_paused = is_paused

    def _try_a_second_driver(self) -> None:
        if self.dispatcher is None or self.dispatcher.is_dead:
            return
        try:
            lock.acquire(self.folder, self.run_id)
        except RefusedError:
            return
        self.world.blame("one-driver-at-a-time", "a second driver was let in while the first lives")


def night(seed: int, plan: Plan, folder: Path, trace: Callable[[str], None] | None = None) -> Night:
    """What this seed makes of this plan, before anything has happened."""
    rng = random.Random(seed)
    scene: Scene = choose(rng, plan)
    world = build(rng, plan, scene, trace)
    book = plan_faults(rng, plan, dict(KINDS), is_calm=rng.random() < 0.05)
    store = JudgingStore(world, plan)
    stays = rng.random() < 0.5
    found = Night(seed, plan, rng, world, store, book, folder, f"r{seed}", stays=stays)
    found.is_protected = scene.is_protected
    return found


def simulate(
    seed: int, plan: Plan, *, folder: Path | None = None, trace: Callable[[str], None] | None = None
) -> Verdict:
    """Run one plan under one seed and judge the world it leaves behind."""
    folder = folder or _locks()
    what = night(seed, plan, folder, trace)
    outcome = "stuck"
    try:
        run = what.go()
        outcome = str(run.state)
        if run.is_final:
            judge(what.world, run, what.journal(of_driver=False).groups())
    except NothingGoesOn:
        what.world.blame("always-ends", _why_stuck(what))
    except InvariantBroken as broken:
        what.world.blame(str(broken).split(": ")[1] if ": " in str(broken) else "bug", str(broken))
    except ContinuityError as error:
        what.world.blame("no-other-error", f"{type(error).__name__}: {error}")
    return _verdict(what, outcome)


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def _locks() -> Path:
    """One folder for the drivers' locks of this process."""
    if not _FOLDERS:
        _FOLDERS.append(tempfile.TemporaryDirectory(prefix="continuity-sim-"))
    return Path(_FOLDERS[0].name)


def _why_stuck(what: Night) -> str:
    if what.people is None:
        return "nothing goes on"
    run = what.people.journal.load(what.run_id).run
    left = [
        f"{step_id} {run.step(step_id).state}"
        for step_id, step in run.plan.steps.items()
        if not has_ended(step, run.step(step_id).state)
    ]
    return f"the run is {run.state} after {what.people.turns} orders; not ended: {', '.join(left) or 'none'}"


def _verdict(what: Night, outcome: str) -> Verdict:
    reached = Reached()
    history = [record.event for record in what.store.read(RUN + what.run_id)]
    told = [event for event in history if not isinstance(event, events.GroupEvent)]
    reached.rows.update(rows_of(what.plan, told))
    reached.faults.update(what.book.seen)
    reached.worlds.update(what.worlds)
    return Verdict(
        what.seed,
        str(what.plan.operation),
        outcome,
        tuple(what.world.broken.values()),
        what.store.head(),
        what.drivers,
        len(history),
        reached,
    )


def plan_of(plans: Mapping[Operation, Plan], seed: int, operation: str = "") -> Plan:
    """The plan a seed runs: one of the four operations, failover most often."""
    if operation:
        return plans[Operation(operation)]
    rng = random.Random(seed * 7919 + 1)
    weighted = [Operation.FAILOVER, *plans]
    return plans[rng.choice(weighted)]


__all__ = ["Night", "RunState", "Verdict", "night", "plan_of", "simulate"]
