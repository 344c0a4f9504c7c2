"""Operations in one lab, each driven by a chain of drivers that die at their next point."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.core import events
from orchestrator.engine.journal import RUN
from orchestrator.lab import adoption, faults, sites, traffic
from orchestrator.lab.layout import Lab, SiteName
from tests.interrupt.drivers import Drivers, Ended, drivers_for
from tests.interrupt.points import Memory
from tests.interrupt.witnesses import Witnesses, wrong
from tests.waiting import until

ACKS_BEFORE, ACKS_AFTER = 400, 100
LOAD_SECONDS_MAX = 60.0
DOCUMENTS_LOSS = "30m"
"""What may be missing of documents at most; that of the registers is stated as 0."""
TARGETS: dict[tuple[str, SiteName], SiteName] = {
    ("failover", "home"): "embassy",
    ("switchover", "home"): "embassy",
    ("switchover", "embassy"): "home",
    ("failback", "embassy"): "home",
}


@dataclass(frozen=True, slots=True)
class Operated:
    """One operation: how its chain ended, and which effects others did not see exactly once."""

    name: str
    kind: str
    target: SiteName | None
    ended: Ended
    killed: int
    wrong: tuple[str, ...]


@dataclass(slots=True)
class Chain:
    """A lab with load running, and what happened in it."""

    lab: Lab
    drivers: Drivers
    memory: Path
    operated: list[Operated] = field(default_factory=list)
    active: SiteName = "home"
    is_home_dark: bool = False
    is_home_back: bool = False  # home was away when the others left it, and has not been active since

    def operate(self, kind: str, *, killing: bool = True) -> Operated:
        """One operation to its end; with ``killing`` each driver dies at a point where none died before."""
        target = TARGETS.get((kind, self.active))
        more = {"to": target} if kind == "switchover" else {}
        if kind == "failover":  # killed again and again, it closes home long after replication stopped here
            more["accept_loss"] = DOCUMENTS_LOSS
        if killing:
            more["memory"] = str(self.memory)
        witnesses = Witnesses(self.lab)
        ended = self.drivers.drive(kind, **more)
        assert ended.code == 0, f"{kind}: {ended}\n{self.drivers.said()}"
        bad = self._wrong(witnesses, kind, target)
        name = f"{kind} {ended.run}"
        self.operated.append(Operated(name, kind, target, ended, ended.kills, tuple(bad)))
        self.active = target or self.active
        print(
            f"{kind:<11} {ended.run:<18} {ended.kills:>4} drivers killed, {ended.seconds:6.1f} s", flush=True
        )
        self.wait_for_writes()
        return self.operated[-1]

    def _wrong(self, witnesses: Witnesses, kind: str, target: SiteName | None) -> list[str]:
        if target is None:
            return []
        is_back = target == "home" and self.is_home_back
        bad = wrong(witnesses.seen(), kind, target, is_source_dark=self.is_home_dark, is_back=is_back)
        self.is_home_back = self.is_home_dark and target == "embassy"
        return bad

    def last_to(self, site: SiteName) -> str:
        """The run that promoted a site last."""
        return next(o.ended.run for o in reversed(self.operated) if o.target == site)

    def crash_home(self) -> None:
        faults.break_it(self.lab, "home-crash")
        self.is_home_dark = True

    def heal(self) -> None:
        faults.heal(self.lab)
        self.is_home_dark = False

    def start_load(self) -> None:
        for load in (
            traffic.Load(writers=4, pause_ms=60),
            traffic.Load(service="land-register", writers=1, pause_ms=100),
        ):
            traffic.start(self.lab, load)
        self.wait_for_writes(ACKS_BEFORE)

    def wait_for_writes(self, wanted: int = ACKS_AFTER) -> None:
        """Until so many more writes were acknowledged by the site that is active now."""
        mark = f'"site":"{self.active}"'.encode()
        ends = {path: path.stat().st_size for path in traffic.ledgers(self.lab)}

        def acknowledged() -> int:
            """Only what was added is read: a ledger has megabytes before long."""
            found = 0
            for path in traffic.ledgers(self.lab):
                with path.open("rb") as ledger:
                    ledger.seek(ends.get(path, 0))
                    found += ledger.read().count(mark)
            return found

        until(lambda: acknowledged() >= wanted, f"{wanted} writes", LOAD_SECONDS_MAX)

    def one_step_at_a_time(self) -> None:
        """From here steps run one after the other, and home is asked to stop, not cut off: so each step's own
        result is reached, which a death beside it would have swallowed."""
        import yaml

        document = yaml.safe_load(self.lab.estate.read_text(encoding="utf-8"))
        document["policies"]["parallel-steps"] = 1
        for fences in document["fences"].values():
            fences[:] = [fence for fence in fences if fence["proves"] != "power-off"]
        self.lab.estate.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def points(self) -> Memory:
        return Memory.read(self.memory)


@contextmanager
def a_chain(folder: Path) -> Iterator[Chain]:
    lab = sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)
    with drivers_for(lab, folder) as drivers:
        yield Chain(lab, drivers, folder / "points.jsonl")


@dataclass(frozen=True, slots=True)
class Appends:
    """Points by what the log itself holds: one for each kind of input that was appended. ``outlived``: after which
    some driver appended something else, so that it surely was told of the point."""

    all: frozenset[str]
    outlived: frozenset[str]


def appends_in_log(chain: Chain, runs: list[Operated]) -> Appends:
    app = chain.drivers.journal()
    try:
        found: set[str] = set()
        outlived: set[str] = set()
        for run in runs:
            last: list[tuple[str, object]] = []  # what the driver appended in its newest append, and when
            for entry in app.journal.store.read(RUN + run.ended.run):
                moment = entry.event.at
                if isinstance(entry.event, events.DriverCameUp):
                    last = []
                elif last and last[0][1] != moment:
                    outlived.update(name for name, _ in last if name)
                    last = []
                name = _point_of(entry.event)
                point = f"{run.kind}: after {name}" if name else ""
                last.append((point, moment))
                found.update({point} - {""})
        return Appends(frozenset(found), frozenset(outlived))
    finally:
        app.close()


def _point_of(event: object) -> str:
    match event:
        case events.RunCreated():
            return "RunCreated"
        case events.DriverCameUp():
            return "DriverStarted"
        case events.RunAuthorised():
            return "Authorise"
        case events.StepConfirmed():
            return "Confirm"
        case events.StepSucceeded():
            return f"Ended {event.step} Succeeded"
        case events.StepFailed():
            return f"Ended {event.step} Failed"
        case events.StepUnknown():
            return f"Ended {event.step} Unknown"
        case events.StepResolved():
            return f"Checked {event.step} {event.finding}"
        case _:
            return ""


def events_in_log(chain: Chain) -> int:
    app = chain.drivers.journal()
    try:
        return sum(len(app.journal.store.read(name)) for name in app.journal.store.streams(RUN))
    finally:
        app.close()


def breaks_in_log(chain: Chain) -> list[str]:
    app = chain.drivers.journal()
    try:
        return app.journal.store.verify()
    finally:
        app.close()


def claims(chain: Chain) -> dict[str, str]:
    app = chain.drivers.journal()
    try:
        return {name: state.claim for name, state in app.journal.groups().items()}
    finally:
        app.close()


def read_claim(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return found
