"""Short rounds: home crashes under load and people fail over at once. Many of them say what few long ones cannot."""

from __future__ import annotations

import random
from dataclasses import replace

from orchestrator.core import events
from orchestrator.lab import traffic
from tests.faults.ledgers import Reader
from tests.faults.rounds import (
    PAUSE_MS,
    STEADY_ACKS_MIN,
    Player,
    Round,
    acked,
    acked_abroad,
    proof_of,
)
from tests.faults.scenarios import Scenario

SERVED_ACKS_MIN = 10
BEHIND_SECONDS = (0.2, 1.5)
BRIEF = Scenario("home crash, short round", "home-crash")
BEHIND = Scenario("behind a little, crash, short round", "home-crash")


class ShortPlayer(Player):
    """No client of home but the load itself, which is enough to know what was lost and what was stated."""

    def play(self, scenario: Scenario, seed: int) -> Round:
        """BEHIND: replication stands still for a while that the seed gives, before home crashes."""
        chance = random.Random(seed)
        if scenario is BEHIND:
            scenario = replace(scenario, planted_seconds=chance.uniform(*BEHIND_SECONDS))
        return super().play(scenario, seed)

    def _begin(self, chance: random.Random) -> Reader:
        load = traffic.start(self.lab, traffic.Load(writers=chance.randint(8, 12), pause_ms=PAUSE_MS))
        ledger = Reader([load.ledger])
        wanted = STEADY_ACKS_MIN + chance.randint(0, 100)
        self._until(lambda: ledger.count(acked) >= wanted, "writers are at work")
        return ledger

    def _wait_for_tries(self, found: Round, ledger: Reader) -> None:
        history = self.history(found.run)
        found.ordered_ns = next(e.at.mono_ns for e in history if isinstance(e, events.RunAuthorised))
        found.proven_ns, found.proof = proof_of(history, self.plan(found.run))
        self._until(lambda: ledger.count(acked_abroad) > SERVED_ACKS_MIN, "clients are served abroad")
