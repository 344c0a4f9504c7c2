"""Decides how a range of seeds is played on all processors and what it adds up to; must never make one
seed depend on another.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from orchestrator.sim.coverage import Reached
from orchestrator.sim.estate import SETTINGS, plan_of
from orchestrator.sim.faults import StepFault, pairs_of
from orchestrator.sim.nights import Verdict, simulate

CHUNK = 20


@dataclass(slots=True)
class Total:
    """What a range of seeds came to. ``failed``: every seed with a broken invariant."""

    seeds: int = 0
    heads: str = ""  # digest over the heads of all logs, in the order of the seeds
    events: int = 0
    drivers: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failed: list[Verdict] = field(default_factory=list)
    reached: Reached = field(default_factory=Reached)

    def add(self, other: Total) -> None:
        self.seeds += other.seeds
        self.heads = hashlib.sha256(f"{self.heads}{other.heads}".encode()).hexdigest()
        self.events += other.events
        self.drivers += other.drivers
        self.outcomes.update(other.outcomes)
        self.failed.extend(other.failed)
        self.reached.add(other.reached)

    def missing(self) -> list[str]:
        """What no seed has reached, of the rows of the tables and of the faults of each step kind."""
        return self.reached.missing_rows() + self.reached.missing_faults(all_pairs())

    def lines(self) -> list[str]:
        """The report for people."""
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        return [
            f"seeds: {self.seeds}; events: {self.events}; drivers: {self.drivers}",
            f"ends: {ends}",
            *self.reached.summary(all_pairs()),
            *(f"seed {v.seed} ({v.setting}): {text}" for v in self.failed for text in v.broken),
            f"seeds with a broken invariant: {len(self.failed)}",
        ]


def all_pairs() -> list[tuple[StepFault, str]]:
    """Every (fault, step kind) that any plan allows."""
    return sorted({pair for name in SETTINGS for pair in pairs_of(plan_of(name))})


def play(seeds: Sequence[int], until: str = "") -> Total:
    """Some seeds, one after the other, in this process; up to the first that breaks the invariant
    ``until`` (``any``: whichever it is)."""
    total = Total()
    for seed in seeds:
        verdict = simulate(seed)
        total.seeds += 1
        total.heads += verdict.head
        total.events += verdict.events
        total.drivers += verdict.drivers
        total.outcomes[f"{verdict.setting} {verdict.outcome}"] += 1
        total.reached.add(verdict.reached)
        if verdict.broken:
            total.failed.append(verdict)
            if until and (until == "any" or any(text.startswith(f"{until}:") for text in verdict.broken)):
                break
    return total


def play_all(seeds: Iterable[int], processes: int = 0) -> Total:
    """All of them, spread over processes (0: as many as there are processors)."""
    total = Total()
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        for part in pool.map(play, _chunks(list(seeds))):
            total.add(part)
    return total


def _chunks(seeds: Sequence[int]) -> Iterator[Sequence[int]]:
    return (seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK))
