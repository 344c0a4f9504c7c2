"""One round: writers at work, something breaks, people fail over, and what was promised is measured."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from orchestrator.core import events
from orchestrator.core.inputs import DeclareLost
from orchestrator.engine.clock import SystemClock, now
from orchestrator.lab import faults, processes, traffic
from orchestrator.lab.layout import Lab
from tests import labs
from tests.faults import ledgers
from tests.faults.ledgers import Told
from tests.interrupt.drivers import Drivers

DONE, HELD = 0, 4
STEADY_ACKS_MIN = 150
TRIES_AFTER_MIN = 4
ORDER_SECONDS_MAX = 1.5  # people decide within this of the disruption, in these rounds
PLANTED_SECONDS = 3.0
BUSY_SECONDS_MAX = 30.0
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """``fault``: the lab's name for it. ``planted``: the link is cut for so long before the fault.
    ``fence``: power, or declared (nothing can be proven, people say that home is lost)."""

    name: str
    fault: str
    fence: str = "power"
    planted_seconds: float = 0.0
    home_returns: bool = False


CRASH = Scenario("home crash", "home-crash")
HANG = Scenario("home hang", "home-hang")
CUT = Scenario("link cut", "link-cut")
CUT_DECLARED = Scenario("link cut, home declared lost", "link-cut", fence="declared", home_returns=True)
RETURNS = Scenario("home crash, home returns", "home-crash", home_returns=True)
PLANTED = Scenario("3 s unreplicated, home crash", "home-crash", planted_seconds=PLANTED_SECONDS)


@dataclass(slots=True)
class Round:
    """What was measured. Times in nanoseconds of the one monotonic clock; rows by (table, key)."""

    scenario: Scenario
    durability: str
    seed: int
    run: str = ""
    broke_ns: int = 0
    ordered_ns: int = 0
    proven_ns: int = 0
    proof: str = ""
    first_write_ns: int = 0
    told: list[Told] = field(default_factory=list)
    late: list[Told] = field(default_factory=list)
    tries_after: dict[str, int] = field(default_factory=dict)
    checked: dict[str, Any] = field(default_factory=dict)
    lost: frozenset[tuple[str, str]] = frozenset()
    stated: events.LossStated | None = None

    @property
    def gap_ns(self) -> int:
        """True loss in time: from the last write that survived to the last that home acknowledged."""
        home = [t for t in ledgers.acked_at(self.told, "home") if t.ended_ns <= self.proven_ns]
        kept = [t.ended_ns for t in home if (t.table, t.key) not in self.lost]
        return max(0, home[-1].ended_ns - max(kept, default=home[0].begun_ns)) if home else 0

    @property
    def lost_before_proof(self) -> int:
        late = {(t.table, t.key) for t in self.late}
        return len(self.lost - late)

    def row(self) -> tuple[str, ...]:
        stated = self.stated
        assert stated is not None
        milliseconds = "unknown" if stated.milliseconds is None else f"{stated.milliseconds / 1000:.2f}"
        ways = {t.way for t in self.late}
        return (
            self.scenario.name,
            "remote" if self.durability == "remote" else "local",
            str(self.seed),
            self.proof,
            f"{(self.proven_ns - self.ordered_ns) / SECOND_NS:.2f}",
            f"{(self.first_write_ns - self.ordered_ns) / SECOND_NS:.2f}",
            str(sum(t.outcome == "acked" for t in self.told)),
            f"{len(self.late)}{' (' + ', '.join(sorted(ways)) + ')' if ways else ''}",
            str(self.lost_before_proof),
            str(stated.rows_bound),
            f"{self.gap_ns / SECOND_NS:.2f}",
            milliseconds,
        )


HEADER = (
    "scenario", "commit", "seed", "proof", "order→proof s", "order→write s", "acked", "at home after proof",
    "lost", "≤ stated rows", "lost s", "≤ stated s",
)  # fmt: skip


class Player:
    """Plays rounds in one lab, one after the other; home is active at the start of each."""

    def __init__(self, lab: Lab, drivers: Drivers) -> None:
        self.lab = lab
        self.drivers = drivers

    def play(self, scenario: Scenario, seed: int) -> Round:
        """From writers at work to the end of the failover; load and probes of home go on."""
        chance = random.Random(seed)
        found = Round(scenario, self.lab.durability, seed)
        paths = self._begin(chance)
        with contextlib.ExitStack() as stack:
            if scenario.fence == "declared":
                stack.enter_context(silent_power(self.lab))
            self._disrupt(found, chance)
            self._order(found)
        self._wait_for_tries(found, paths)
        traffic.stop(self.lab)
        self._measure(found, paths)
        return found

    def _begin(self, chance: random.Random) -> list[Path]:
        load = traffic.start(self.lab, traffic.Load(writers=chance.randint(2, 4), pause_ms=8))
        paths = [load.ledger, ledgers.start_probes(self.lab)]
        wanted = STEADY_ACKS_MIN + chance.randint(0, 200)
        self._until(lambda: ledgers.count(paths, _acked) >= wanted, "writers are at work")
        for way in ("front", "inside", "sql"):
            self._until(lambda w=way: ledgers.count(paths, _acked_by(w)) > 3, f"{way} leads into home")
        return paths

    def _disrupt(self, found: Round, chance: random.Random) -> None:
        if found.scenario.planted_seconds:
            faults.break_it(self.lab, "link-cut")
            self._until_ns(ledgers.now_ns() + int(found.scenario.planted_seconds * SECOND_NS))
        found.broke_ns = ledgers.now_ns()
        faults.break_it(self.lab, found.scenario.fault)
        self._until_ns(found.broke_ns + int(chance.uniform(0, ORDER_SECONDS_MAX) * SECOND_NS))

    def _order(self, found: Round) -> None:
        ended = self.drivers.drive("failover", accept_loss="10m")
        found.run = ended.run
        if found.scenario.fence == "declared":
            assert ended.code == HELD, self.drivers.said()
            self._declare(found.run)
            runs = self.drivers.runs().index(found.run)
            ended = self.drivers.drive("failover", accept_loss="unknown", runs_before=runs)
        assert ended.code == DONE, self.drivers.said()

    def _declare(self, run: str) -> None:
        app = self.drivers.journal()
        try:
            tracked = app.journal.load(run)
            said = DeclareLost(now(SystemClock()), "a test", "home", "nothing proves it")
            app.journal.submit(tracked, said)
        finally:
            app.close()

    def history(self, run: str) -> list[Any]:
        app = self.drivers.journal()
        try:
            return [entry.event for entry in app.journal.store.read(f"run:{run}")]
        finally:
            app.close()

    def _wait_for_tries(self, found: Round, paths: Sequence[Path]) -> None:
        """After the proof, every way into home must have been tried several times, and clients served abroad."""
        history = self.history(found.run)
        found.ordered_ns = next(e.at.mono_ns for e in history if isinstance(e, events.RunAuthorised))
        found.proven_ns, found.proof = proof_of(history, self.plan(found.run))
        for way in ("front", "inside", "sql"):
            is_try = _tried_after(way, found.proven_ns)
            self._until(lambda t=is_try: ledgers.count(paths, t) >= TRIES_AFTER_MIN, f"{way} was tried again")
            found.tries_after[way] = ledgers.count(paths, is_try)
        self._until(
            lambda: ledgers.count(paths, _acked_abroad) > STEADY_ACKS_MIN, "clients are served abroad"
        )

    def plan(self, run: str) -> Any:
        app = self.drivers.journal()
        try:
            return app.journal.load(run).run.plan
        finally:
            app.close()

    def _measure(self, found: Round, paths: Sequence[Path]) -> None:
        found.told = ledgers.read(paths)
        found.late = ledgers.after(found.told, found.proven_ns)
        abroad = [t for t in ledgers.acked_at(found.told, "embassy") if t.way == "clients"]
        found.first_write_ns = abroad[0].ended_ns
        found.checked = traffic.check(self.lab, "embassy", list(paths))
        there = self.rows_at_embassy(found.told)
        acked = {(t.table, t.key) for t in found.told if t.outcome == "acked"}
        found.lost = frozenset(acked - there)
        stated = [e for e in self.history(found.run) if isinstance(e, events.LossStated)]
        found.stated = stated[-1] if stated else None

    def rows_at_embassy(self, told: Sequence[Told]) -> set[tuple[str, str]]:
        return rows_at(self.lab, "embassy", told)

    def _until(self, is_so: Callable[[], bool], what: str) -> None:
        labs.wait_until(is_so, what, BUSY_SECONDS_MAX)

    def _until_ns(self, moment_ns: int) -> None:
        self._until(lambda: ledgers.now_ns() >= moment_ns, "the clock goes on")


def rows_at(lab: Lab, site: str, told: Sequence[Told]) -> set[tuple[str, str]]:
    """(table, key) of these writes that a site holds."""
    from orchestrator.lab import postgres

    with postgres.connect(lab, cast("Any", site), "population") as session:
        rows = session.execute(
            "SELECT id FROM public.persons WHERE id = ANY(%s)", ([t.key for t in told],)
        ).fetchall()
    return {("persons", row[0]) for row in rows}


def proof_of(history: Sequence[Any], plan: Any) -> tuple[int, str]:
    """When home was first proven unable to write, or declared lost; and how."""
    for event in history:
        if isinstance(event, events.SiteDeclaredLost):
            return event.at.mono_ns, "declared lost"
        if isinstance(event, events.StepSucceeded | events.StepResolved):
            step = plan.steps[event.step]
            is_met = isinstance(event, events.StepSucceeded) or event.finding == "done"
            if step.role.value == "fence" and step.fences and is_met:
                return event.at.mono_ns, str(step.proves)
    raise AssertionError("no proof in the log")


@contextlib.contextmanager
def silent_power(lab: Lab) -> Iterator[None]:
    """The power controller accepts connections and says nothing: no proof is to be had there."""
    (found,) = [
        process
        for process in processes.of_part(lab.mark("outside"), lab.path / "outside").values()
        if b"orchestrator.lab.power" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    ]
    processes.send(found, signal.SIGSTOP)
    try:
        yield
    finally:
        processes.send(found, signal.SIGCONT)


def _acked(told: Told) -> bool:
    return told.outcome == "acked"


def _acked_abroad(told: Told) -> bool:
    return told.outcome == "acked" and told.site == "embassy"


def _acked_by(way: str) -> Callable[[Told], bool]:
    return lambda told: told.outcome == "acked" and told.way == way


def _tried_after(way: str, proof_ns: int) -> Callable[[Told], bool]:
    return lambda told: told.way == way and told.begun_ns > proof_ns and told.ended_ns > 0
