"""Of what may go on at once, what the first write waits for is begun first and its result is taken first."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.effects import Execute
from orchestrator.core.inputs import Ended
from orchestrator.core.outcomes import Outcome, Succeeded
from orchestrator.core.plan import Role
from orchestrator.core.run import start
from orchestrator.drivers.hosts import LocalHosts
from orchestrator.engine.dispatch import Surroundings, ThreadDispatcher
from tests.action_context import GivenSecrets, KeptResources, RealClock
from tests.builders import a_wide_failover, created
from tests.waiting import until

SECONDS_MAX = 5.0


@dataclass
class Noted:
    """Notes in which order steps begin; all of them end when they are let go."""

    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    all_ended: threading.Event = field(default_factory=threading.Event)
    expected: int = 0

    def action(self, kind: str) -> Any:
        return self

    def parse(self, kind: str, arguments: Mapping[str, Any]) -> Any:
        return None

    def execute(self, context: Any) -> Outcome:
        self.begun.append(context.step)
        assert self.go.wait(SECONDS_MAX)
        return Succeeded()

    def told(self, point: str) -> None:
        self.ended.append(point)
        if len(self.ended) == self.expected:
            self.all_ended.set()


def dispatcher_for(noted: Noted) -> ThreadDispatcher:
    around = Surroundings(KeptResources(), GivenSecrets(), LocalHosts(), RealClock(), at_point=noted.told)
    return ThreadDispatcher(noted, around)


def test_of_two_results_that_are_there_the_urgent_one_is_taken_first() -> None:
    run = start(a_wide_failover(), created())
    fences = [step.id for step in run.plan.steps.values() if step.role is Role.FENCE]
    verify = next(step.id for step in run.plan.steps.values() if step.role is Role.VERIFY)
    noted = Noted(expected=len(fences) + 1)
    dispatcher = dispatcher_for(noted)

    dispatcher.ensure([Execute(name, 1) for name in (verify, *fences)], run)
    until(lambda: len(noted.begun) == len(fences) + 1, "not all begun")
    assert noted.begun[-1] == verify

    noted.go.set()
    assert noted.all_ended.wait(SECONDS_MAX)
    until(lambda: not any(thread.name.endswith("#1") for thread in threading.enumerate()), "not all ended")
    taken = []
    for _ in (verify, *fences):
        ended = dispatcher.wait(SECONDS_MAX)
        assert isinstance(ended, Ended)
        taken.append(ended.step)
    assert taken[-1] == verify
    assert set(taken) == {verify, *fences}
    assert dispatcher.wait(0.0) is None
