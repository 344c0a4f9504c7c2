"""One round: writers at work, something breaks, people fail over, and what was promised is measured."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from orchestrator.core import events
from orchestrator.core.inputs import DeclareLost
from orchestrator.engine.clock import SystemClock, now
from orchestrator.lab import faults, traffic
from orchestrator.lab.layout import Lab
from tests.faults import ledgers
from tests.faults.ledgers import Reader, Told
from tests.interrupt.drivers import Drivers
from tests.labs import power_controller_silent
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
GROUP = "registers"
DECLARED_LOST = "declared lost"
DONE, REFUSED, HELD = 0, 3, 4
STEADY_ACKS_MIN, SERVED_ACKS_MIN = 120, 60
TRIES_AFTER_MIN = 3
PAUSE_MS = 100  # between a client's writes: their rate then depends little on how busy this machine is
ORDER_SECONDS_MAX = 1.5  # people decide within this of the disruption, in these rounds
PLANTED_SECONDS = 3.0
SLOW_PROOF_SECONDS = 2.5  # within the fences' budget
BUSY_SECONDS_MAX = 30.0
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """``fault``: the lab's name for it. ``fences``: what the estate has against home beside asking it to stop:
    power, nothing (people must declare it lost), or a lie (the proof looks at the wrong machine).
    ``accepts``: the loss accepted with the order; "" is what --yes accepts, the RPO. ``returns``: home is back, unasked, while the embassy serves. ``planted``: replication stood still so long
    before the fault."""

    name: str
    fault: str
    fences: str = "power"
    returns: bool = False
    planted_seconds: float = 0.0
    accepts: str = ""


CRASH = Scenario("home crash", "home-crash")
HANG = Scenario("home hang", "home-hang")
CUT = Scenario("link cut", "link-cut")
DECLARED = Scenario("link cut, declared lost", "link-cut", fences="nothing", returns=True)
RETURNS = Scenario("home crash, returns", "home-crash", returns=True)
PLANTED = Scenario("3 s not replicated, crash", "home-crash", planted_seconds=PLANTED_SECONDS)
LITTLE = Scenario(
    "3 s not replicated, a slow proof, 5 s accepted",
    "home-crash",
    planted_seconds=PLANTED_SECONDS,
    accepts="5s",
)
LIE = Scenario("link cut, fence is a lie", "link-cut", fences="lie", returns=True)


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
    held: list[Any] = field(default_factory=list)
    returned_ns: int = 0
    back: list[Told] = field(default_factory=list)
    found_seconds: float = 0.0
    named: str = ""
    refused: str = ""
    listed: frozenset[tuple[str, str]] = frozenset()
    restored_seconds: float = 0.0
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
        """Acknowledged before the proof and not there: what the stated loss speaks of."""
        later = {(t.table, t.key) for t in (*self.late, *self.back)}
        return len(self.lost - later)

    def row(self) -> tuple[str, ...]:
        stated = self.stated
        assert stated is not None
        milliseconds = "unknown" if stated.milliseconds is None else f"{stated.milliseconds / 1000:.2f}"
        ways = ", ".join(sorted({t.way for t in self.late}))
        return (
            self.scenario.name, self.durability, str(self.seed), self.proof,
            f"{(self.ordered_ns - self.broke_ns) / SECOND_NS:.2f}",
            f"{(self.proven_ns - self.ordered_ns) / SECOND_NS:.2f}",
            f"{(self.first_write_ns - self.ordered_ns) / SECOND_NS:.2f}",
            str(sum(t.outcome == "acked" for t in self.told)),
            f"{len(self.late)} ({ways})" if ways else "0",
            str(self.lost_before_proof), "unknown" if stated.rows_bound is None else str(stated.rows_bound),
            f"{self.gap_ns / SECOND_NS:.2f}", milliseconds,
            f"{len(self.back)}, {self.named}, {len(self.listed)} rows" if self.scenario.returns else "",
            f"{self.restored_seconds:.1f}",
        )  # fmt: skip


HEADER = (
    "scenario", "commits", "seed", "proof", "break→order s", "order→proof s", "order→write s", "acked",
    "at home after proof", "lost", "≤ stated", "lost s", "≤ stated", "home back: acked there, label, listed",
    "home again s",
)  # fmt: skip


class Player:
    """Plays rounds in one lab, one after the other; home is active at the start of each."""

    def __init__(self, lab: Lab, drivers: Drivers) -> None:
        self.lab = lab
        self.drivers = drivers

    def play(self, scenario: Scenario, seed: int) -> Round:
        """From writers at work to home being active again."""
        chance = random.Random(seed)
        found = Round(scenario, self.lab.durability, seed)
        with declared_fences(self.lab, scenario.fences):
            ledger = self._begin(chance)
            self._disrupt(found, chance)
            self._order(found)
            self._wait_for_tries(found, ledger)
            if scenario.returns:
                self._return(found, ledger)
            traffic.stop(self.lab)
            self._measure(found, ledger)
            if scenario.returns:
                self._look_and_resolve(found)
            self._restore(found)
        return found

    def _begin(self, chance: random.Random) -> Reader:
        load = traffic.start(self.lab, traffic.Load(writers=chance.randint(8, 12), pause_ms=PAUSE_MS))
        ledger = Reader([load.ledger, ledgers.start_probes(self.lab)])
        wanted = STEADY_ACKS_MIN + chance.randint(0, 100)
        self._until(lambda: ledger.count(_acked) >= wanted, "writers are at work")
        for way in ledgers.WAYS:
            self._until(lambda w=way: ledger.count(_acked_by(w)) > 3, f"{way} leads into home")
        return ledger

    def _disrupt(self, found: Round, chance: random.Random) -> None:
        seconds = chance.uniform(0, ORDER_SECONDS_MAX)
        if found.scenario.planted_seconds:
            seconds = 0.0
            stop_streaming(self.lab)
            self._until_ns(ledgers.now_ns() + int(found.scenario.planted_seconds * SECOND_NS))
        found.broke_ns = ledgers.now_ns()
        faults.break_it(self.lab, found.scenario.fault)
        self._until_ns(found.broke_ns + int(seconds * SECOND_NS))

    def _order(self, found: Round) -> None:
        accepts = {"accept_loss": found.scenario.accepts} if found.scenario.accepts else {}
        with self._slow_proof() if accepts else contextlib.nullcontext():
            ended = self.drivers.drive("failover", **accepts)
        found.run = ended.run
        if found.scenario.fences == "nothing" or accepts:
            assert ended.code == HELD, self.drivers.said()
            found.held = self.history(found.run)
            if not accepts:
                self._declare(found.run)
            begun_before = self.drivers.runs().index(found.run)
            ended = self.drivers.drive("failover", accept_loss="unknown", runs_before=begun_before)
        assert ended.code == DONE, self.drivers.said()

    @contextlib.contextmanager
    def _slow_proof(self) -> Iterator[None]:
        """What is expected to be lost is within what is accepted; what is stated, after the fence, is not."""
        with power_controller_silent(self.lab) as speak:
            later = threading.Timer(SLOW_PROOF_SECONDS, speak)
            later.start()
            try:
                yield
            finally:
                later.cancel()
                later.join()

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

    def _wait_for_tries(self, found: Round, ledger: Reader) -> None:
        """After the proof, every way into home must have been tried several times, and clients served abroad."""
        history = self.history(found.run)
        found.ordered_ns = next(e.at.mono_ns for e in history if isinstance(e, events.RunAuthorised))
        found.proven_ns, found.proof = proof_of(history, self.plan(found.run))
        for way in ledgers.WAYS:
            is_try = _tried_after(way, found.proven_ns)
            self._until(lambda t=is_try: ledger.count(t) >= TRIES_AFTER_MIN, f"{way} was tried again")
            found.tries_after[way] = ledger.count(is_try)
        if found.scenario.fences != "power":  # who is connected to home stays there: these are new clients
            ledger.paths.append(traffic.start(self.lab, traffic.Load(writers=2, pause_ms=PAUSE_MS)).ledger)
        self._until(lambda: ledger.count(_acked_abroad) > SERVED_ACKS_MIN, "clients are served abroad")

    def plan(self, run: str) -> Any:
        app = self.drivers.journal()
        try:
            return app.journal.load(run).run.plan
        finally:
            app.close()

    def _return(self, found: Round, ledger: Reader) -> None:
        """Home is back by itself, and its clients try again: with local commits some are acknowledged there."""
        found.returned_ns = ledgers.now_ns()
        if found.scenario.fault == "link-cut":
            faults.heal(self.lab, "link-cut")
        else:
            faults.break_it(self.lab, "home-returns")
        enough = _acked_after(found.returned_ns) if self.lab.durability == "local" else None
        for way in ledgers.WAYS:
            again = enough or _tried_after(way, found.returned_ns)
            self._until(
                lambda a=again: ledger.count(a) >= TRIES_AFTER_MIN, f"{way} into home was tried again"
            )

    def _measure(self, found: Round, ledger: Reader) -> None:
        found.told = ledger.read()
        later = ledgers.after(found.told, found.proven_ns)
        is_back = found.returned_ns and found.scenario.fences == "power"
        found.late = [t for t in later if not is_back or t.ended_ns < found.returned_ns]
        found.back = [t for t in later if is_back and t.ended_ns >= found.returned_ns]
        abroad = [t for t in ledgers.acked_at(found.told, "embassy") if t.way == "clients"]
        found.first_write_ns = abroad[0].ended_ns
        found.checked = traffic.check(self.lab, "embassy", ledger.paths)
        there = self.rows_at_embassy(found.told)
        acked = {(t.table, t.key) for t in found.told if t.outcome == "acked"}
        found.lost = frozenset(acked - there)
        losses = (e for e in self.history(found.run) if isinstance(e, events.LossStated))
        stated = [loss for loss in losses if loss.unit == "registers-db"]
        found.stated = stated[-1] if stated else None

    def _look_and_resolve(self, found: Round) -> None:
        """As people would: look, try to go home, be told to resolve first, and see what differs."""
        begun = ledgers.now_ns()
        if found.scenario.fences == "lie":  # nobody looks: who wants to go home is told all the same
            found.refused = self._say(REFUSED, "failback", "--yes")
            looked = json.loads(self._say(0, "status", "--output", "json"))
        else:
            looked = json.loads(self._say(0, "status", "--live", "--output", "json"))
            found.found_seconds = (ledgers.now_ns() - begun) / SECOND_NS
            found.refused = self._say(REFUSED, "failback", "--yes")
        (group,) = [group for group in looked["groups"] if group["name"] == GROUP]
        found.named = group["label"]
        if group["conflict"]:
            words = ("--keep", "embassy", "--by", "Tester", "--reason", "a test", "--yes", "--output", "json")
            resolved = json.loads(self._say(0, "resolve", GROUP, *words))
            rows = Path(resolved["list"]).read_text(encoding="utf-8").splitlines() if resolved["list"] else ()
            found.listed = frozenset(_listed(json.loads(row)) for row in rows)

    def _say(self, code: int, *words: str) -> str:
        """A command of a process of its own; what it printed on both channels if it was refused."""
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *words, "--estate", str(self.lab.estate)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=BUSY_SECONDS_MAX,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr if code else done.stdout

    def _restore(self, found: Round) -> None:
        """Mend what is broken and go home, so that the next round begins as this one did."""
        begun = ledgers.now_ns()
        if not found.scenario.returns:
            faults.heal(self.lab)
        ended = self.drivers.drive("failback")
        assert ended.code == DONE, self.drivers.said()
        faults.heal(self.lab)
        found.restored_seconds = (ledgers.now_ns() - begun) / SECOND_NS

    def rows_at_embassy(self, told: Sequence[Told]) -> set[tuple[str, str]]:
        return rows_at(self.lab, "embassy", told)

    def _until(self, is_so: Callable[[], bool], what: str) -> None:
        until(is_so, what, BUSY_SECONDS_MAX)

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
            return event.at.mono_ns, DECLARED_LOST
        if isinstance(event, events.StepSucceeded | events.StepResolved):
            step = plan.steps[event.step]
            is_met = isinstance(event, events.StepSucceeded) or event.finding == "done"
            if step.role.value == "fence" and step.fences and is_met:
                return event.at.mono_ns, str(step.proves)
    raise AssertionError("no proof in the log")


@contextlib.contextmanager
def declared_fences(lab: Lab, kind: str) -> Iterator[None]:
    """The estate's fences against home beside asking it to stop, for one round."""
    import yaml

    before = lab.estate.read_text(encoding="utf-8")
    document = yaml.safe_load(before)
    fences = document["fences"]["home"]
    (power,) = [fence for fence in fences if fence["proves"] == "power-off"]
    if kind == "nothing":
        fences.remove(power)
    elif kind == "lie":
        wrong = power["with"]["check"]["url"].replace("/home", "/embassy")
        power["with"] = {
            "method": "GET",
            "url": wrong,
            "expect_status": 200,
            "check": {"url": wrong, "status": 200, "json": {"PowerState": "On"}},
        }
    lab.estate.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    try:
        yield
    finally:
        lab.estate.write_text(before, encoding="utf-8")


def stop_streaming(lab: Lab) -> None:
    """The embassy's replica stands still from here, as behind a link that lets nothing through.

    In the middle between two heartbeats: a rate that was seen for less is stated higher, on the safe side,
    and it is not what a planted loss is to show.
    """
    from orchestrator.lab import postgres

    with postgres.connect(lab, "embassy", "population") as session:
        age = "SELECT clock_timestamp() - at BETWEEN '0.4s' AND '0.9s' FROM continuity.heartbeat"
        until(lambda: session.execute(age).fetchone() == (True,), "a heartbeat of half a second")
    with postgres.connect(lab, "embassy", "postgres") as session:
        session.execute("ALTER SYSTEM SET primary_conninfo = ''")
        session.execute("SELECT pg_reload_conf()")
        receivers = "SELECT count(*) FROM pg_stat_wal_receiver"
        until(lambda: session.execute(receivers).fetchone() == (0,), "the replica stands still")
        session.execute("ALTER SYSTEM RESET primary_conninfo")  # read again only when the next run reloads


def _listed(row: dict[str, Any]) -> tuple[str, str]:
    """(table, key) of one line of the list."""
    table = str(row["table"]).rsplit(".", 1)[-1].strip('"')
    return table, "/".join(str(value) for value in row["key"].values())


def _acked(told: Told) -> bool:
    return told.outcome == "acked"


def _acked_abroad(told: Told) -> bool:
    return told.outcome == "acked" and told.site == "embassy"


def _acked_by(way: str) -> Callable[[Told], bool]:
    return lambda told: told.outcome == "acked" and told.way == way


def _acked_after(moment_ns: int) -> Callable[[Told], bool]:
    return lambda told: told.outcome == "acked" and told.site == "home" and told.begun_ns > moment_ns


def _tried_after(way: str, proof_ns: int) -> Callable[[Told], bool]:
    return lambda told: told.way == way and told.begun_ns > proof_ns and told.ended_ns > 0
