"""What the steps need is opened beside the preflight: a site that hangs costs one bound, not one for each."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.effects import Execute
from orchestrator.core.inputs import Ended
from orchestrator.core.outcomes import Outcome, Succeeded
from orchestrator.core.run import start
from orchestrator.drivers.hosts import LocalHosts
from orchestrator.engine.dispatch import Surroundings, ThreadDispatcher
from tests.action_context import GivenSecrets, KeptResources, RealClock
from tests.builders import created, four_services

SECONDS_MAX = 2.0


@dataclass
class Slow:
    """Opening what it needs takes until a step was executed: alone it never ends by itself."""

    executed: threading.Event = field(default_factory=threading.Event)
    opened: list[bool] = field(default_factory=list)

    def action(self, kind: str) -> Any:
        return self

    def parse(self, kind: str, arguments: Mapping[str, Any]) -> Any:
        return None

    def load(self, context: Any) -> None:
        self.opened.append(self.executed.wait(SECONDS_MAX))

    def execute(self, context: Any) -> Outcome:
        self.executed.set()
        return Succeeded()


def test_steps_go_on_while_the_rest_is_opened_and_the_order_waits_for_it() -> None:
    slow = Slow()
    around = Surroundings(KeptResources(), GivenSecrets(), LocalHosts(), RealClock())
    dispatcher, run = ThreadDispatcher(slow, around), start(four_services(), created())
    warmed = dispatcher.warm(run)
    dispatcher.ensure([Execute("a/start", 1)], run)
    assert isinstance(dispatcher.wait(SECONDS_MAX), Ended)
    warmed()
    assert slow.opened, "nothing was opened when the order was given"
    assert all(slow.opened), "the step waited until everything was opened"
