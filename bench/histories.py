"""Decides how a whole run is lived through without any part: every step succeeds at once."""

from __future__ import annotations

from orchestrator.core.events import RunCreated, RunEvent
from orchestrator.core.inputs import At, Authorise, DriverInput, DriverStarted, Ended, Input, Proceed
from orchestrator.core.machine import advance
from orchestrator.core.outcomes import Succeeded
from orchestrator.core.plan import Plan, Role
from orchestrator.core.run import Run, start
from orchestrator.core.states import RunState, StepState
from orchestrator.core.values import Json

STEP_NS = 1_000_000
BEGIN_NS = 1_800_000_000_000_000_000
LOSS_EVIDENCE: dict[str, Json] = {"durability": "remote"}


def live_through(plan: Plan, name: str = "failover-bnch") -> tuple[Run, list[RunEvent]]:
    """The run at its end and all its events. Raises AssertionError when it comes to a standstill."""
    created = RunCreated(_at(0), name, str(plan.operation), plan.digest, "bench", "here", "")
    life = _Life(start(plan, created), [created])
    life.tell(DriverStarted(_at(1), "bench", 1, "boot", "here", "0"))
    life.tell(Proceed(_at(2)))
    while not life.run.is_final:
        given = life.next_input()
        assert given is not None, f"the run stands still: {life.run.held_causes or life.run.state}"
        life.tell(given)
    return life.run, life.events


def _at(number: int) -> At:
    return At(BEGIN_NS + number * STEP_NS, STEP_NS * (1 + number))


class _Life:
    def __init__(self, run: Run, events: list[RunEvent]) -> None:
        self.run = run
        self.events = events
        self._moment = 2
        self._going: list[tuple[str, int]] = []

    def tell(self, given: Input) -> None:
        decision = advance(self.run, given)
        self.run = decision.run
        self.events.extend(decision.events)
        for event in decision.events:
            if event.KIND == "step.started":
                self._going.append((event.step, event.attempt))  # type: ignore[union-attr]

    def next_input(self) -> DriverInput | Authorise | None:
        self._moment += 1
        if self.run.state is RunState.READY:
            return Authorise(_at(self._moment), "bench", self.run.plan.digest, 1_000, "bench")
        while self._going:
            step, attempt = self._going.pop(0)
            if self.run.step(step).state is StepState.RUNNING:
                loss = self.run.plan.steps[step].role is Role.LOSS
                return Ended(_at(self._moment), step, attempt, Succeeded(LOSS_EVIDENCE if loss else {}))
        return Proceed(_at(self._moment)) if self.run.state is RunState.RUNNING else None
