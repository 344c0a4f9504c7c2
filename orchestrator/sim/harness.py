"""Decides how one simulated night runs: seed in, history and verdict out.

It runs the production loop, journal and planning; drivers die and are followed by successors, people
give orders from processes of their own. Must never decide anything for the run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from orchestrator.core.events import (
    GroupAdopted,
    GroupConflictSeen,
    GroupEvent,
    GroupKeepReserved,
    GroupResolved,
    RunCreated,
)
from orchestrator.core.inputs import DriverStarted
from orchestrator.core.log import Append
from orchestrator.core.moment import At
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run
from orchestrator.engine import lock
from orchestrator.engine.clock import now
from orchestrator.engine.journal import GROUP, RUN, Journal, Tracked
from orchestrator.engine.loop import WAITS_FOR_PEOPLE, come_up, drive
from orchestrator.errors import RefusedError
from orchestrator.sim.befall import Weather
from orchestrator.sim.dispatch import HORIZON_NS, NothingGoesOn, SimulatedDispatcher
from orchestrator.sim.estate import SETTINGS, Setting, again, plan_of
from orchestrator.sim.faults import Book, WorldFault, plan_faults
from orchestrator.sim.operators import People
from orchestrator.sim.scene import build, choose
from orchestrator.sim.store import DriverKilled, DriversStore, JudgingStore
from orchestrator.sim.world import MILLISECOND_NS, SECOND_NS, World
from orchestrator.stores.memory import MemoryStore

DRIVERS_MAX = 60
TURNS_MAX = 300
SETTLE_NS = 10 * SECOND_NS
MOVES = tuple(name for name, setting in SETTINGS.items() if not setting.left)
TURN_OF_SETTINGS = (
    "failover",
    *MOVES,
)  # failover twice as often as the others; what was kept has seeds of its own

Trace = Callable[[str], None]


@dataclass(slots=True)
class Night:
    """Everything about one seed while it runs."""

    seed: int
    setting: str
    plan: Plan
    rng: random.Random
    world: World
    store: JudgingStore
    book: Book
    folder: Path
    run_id: str
    stays: bool = False  # the driver's process stays when the run waits for people
    at_point: Callable[[str], None] = lambda name: None  # kill tests end a driver here
    people: People | None = None
    drivers: int = 0
    drivers_max: int = DRIVERS_MAX
    turns_max: int = TURNS_MAX  # of people
    weather: Weather | None = None
    plans: dict[str, Plan] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)

    # --- the log ------------------------------------------------------------------------------

    def journal(self, *, of_driver: bool) -> Journal:
        if not of_driver:
            return Journal(self.store, self._plan_from_text, is_deep=True)
        store = DriversStore(self.store, self.book, self.plan)
        return Journal(store, self._plan_from_text, is_deep=True, at_point=self.at_point)

    def _plan_text(self) -> str:
        """A plan's digest stands for its text: writing and reading it is the codec's own test."""
        return self.plan.digest

    def _plan_from_text(self, text: str) -> Plan:
        return self.plans[text]

    def adopt(self, *, moved: bool = False) -> None:
        """People have looked at the evidence and confirmed it. ``moved``: what the plan never saw."""
        at = now(self.world)
        for name, move in self.plan.groups.items():
            site, epoch = (self.plan.target, move.epoch_seen + 1) if moved else (move.active, move.epoch_seen)
            setting = SETTINGS[self.setting]
            facts: tuple[GroupEvent, ...] = (GroupAdopted(at, name, site, epoch, setting.protection, "ann"),)
            if setting.left and not moved:
                facts = _kept(at, name, setting, epoch)
            self.store.append([Append(GROUP + name, len(self.store.read(GROUP + name)), facts)])

    def create(self) -> Tracked:
        journal = self.journal(of_driver=False)
        operation, digest = str(self.plan.operation), self.plan.digest
        text = self._plan_text()
        self.plans[text] = self.plan
        self.store.plans[RUN + self.run_id] = self.plan
        created = RunCreated(now(self.world), self.run_id, operation, digest, "ann", "laptop", "tonight")
        return journal.create(self.plan, text, created)

    def _try_an_old_plan(self) -> None:
        """The groups have moved on since the plan was made: it must be refused."""
        self.adopt(moved=True)
        self.book.note_world(WorldFault.PLAN_GROWS_OLD)
        try:
            self.create()
        except RefusedError:
            self.adopt()
            self.plan = again(self.setting, self.journal(of_driver=False).groups())
        else:
            self.world.blame("old-plans-are-refused", "a plan was taken for groups that have moved on")

    # --- drivers ------------------------------------------------------------------------------

    def go(self) -> Run:
        """The night: one run, and another one where the first was taken back."""
        if any(fault is WorldFault.PLAN_GROWS_OLD for fault, _ in self.book.world):
            self._try_an_old_plan()
        else:
            self.adopt()
        for fault, milliseconds in self.book.world:
            if self.weather is not None:
                befall = partial(self.weather.befall, fault)
                self.world.after(milliseconds * MILLISECOND_NS, "", befall)
        return self.drive_to_the_end(self.create())

    def drive_to_the_end(self, tracked: Tracked) -> Run:
        """Drivers follow one another until the run is over."""
        self.people = self._people(tracked)
        self.world.after(MILLISECOND_NS, "", self._peoples_turn)
        for _ in range(self.drivers_max):
            run = self._one_driver()
            if run is not None and run.is_final:
                self._let_the_rest_happen()
                self.outcomes.append(str(run.state))
                return run
            self._until(self.world.now_ns + self.rng.choice((1, 50, 700, 3_000)) * MILLISECOND_NS)
        self.world.blame("always-ends", f"{self.drivers_max} drivers did not end the run")
        raise NothingGoesOn

    def run_next(self, plan: Plan) -> Run:
        """Another run in the same night, after what went wrong has been mended; nothing new goes wrong."""
        if self.people is not None:
            self.people.mend(power=True)
        self.plan, self.run_id = plan, f"{self.run_id}b"
        self.book.is_quiet, self.book.prefers = True, ("confirm", "retry")
        return self.drive_to_the_end(self.create())

    def _one_driver(self) -> Run | None:
        """One process: comes up, drives, and leaves, dies, or ends the run."""
        self.drivers += 1
        try:
            lock.acquire(self.folder, self.run_id)
        except RefusedError as refused:
            self.world.blame("one-driver-at-a-time", f"nobody drives, and yet: {refused}")
            raise NothingGoesOn from refused
        dispatcher = SimulatedDispatcher(self.world, self.store, self.book, self.rng, self.at_point)
        if self.weather is not None:
            self.weather.driver = dispatcher, self.run_id
        try:
            journal = self.journal(of_driver=True)
            tracked = journal.load(self.run_id)
            boot = f"boot{self.rng.random() < 0.1}"
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
        self._until(self.world.now_ns + SETTLE_NS)

    # --- people -------------------------------------------------------------------------------

    def _people(self, tracked: Tracked) -> People:
        is_noisy = not self.book.is_quiet and any(f is WorldFault.NOISE for f, _ in self.book.world)
        aborts = not self.book.is_quiet and (bool(self.book.abort_after) or self.rng.random() < 0.25)
        journal = self.journal(of_driver=False)
        if is_noisy:
            self.book.note_world(WorldFault.NOISE)
        return People(self.world, journal, tracked, self.book, self.rng, is_noisy=is_noisy, aborts=aborts)

    def _peoples_turn(self) -> None:
        people = self.people
        if people is None or people.turns > self.turns_max:
            raise NothingGoesOn
        if people.turn():
            self.world.after(people.pause_ns(), "", self._peoples_turn)


def _kept(at: At, name: str, setting: Setting, epoch: int) -> tuple[GroupEvent, ...]:
    """A split brain after which people kept the side that had lost its epoch."""
    return (
        GroupAdopted(at, name, setting.left, epoch - 1, setting.protection, "ann"),
        GroupConflictSeen(at, name),
        GroupKeepReserved(at, name, setting.active, "k1", epoch, "ann", "a false alarm"),
        GroupResolved(at, name, setting.active, "ann", "a false alarm", {}, epoch, "k1"),
    )


def night(seed: int, folder: Path, setting: str = "", trace: Trace | None = None) -> Night:
    """What this seed makes of the estate, before anything has happened."""
    rng = random.Random(seed)
    turn, place = divmod(seed, len(TURN_OF_SETTINGS))
    setting = setting or TURN_OF_SETTINGS[place]
    plan = plan_of(setting)
    scene = choose(rng, is_protected=SETTINGS[setting].protection == "protected")
    world = build(rng, plan, scene, trace)
    book = plan_faults(rng, plan, turn)
    store = JudgingStore(MemoryStore(), world)
    stays = rng.random() < 0.5
    made = Night(seed, setting, plan, rng, world, store, book, folder, f"r{seed}", stays)
    made.weather = Weather(world, book, rng, folder)
    return made
