"""Bad input that an action meets: before its first command it is a failure, after it nobody knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.core.effects import Execute, UndoStep
from orchestrator.core.inputs import Ended, UndoEnded
from orchestrator.core.outcomes import Failed, Outcome, Unknown
from orchestrator.core.run import start
from orchestrator.drivers.hosts import LocalHosts
from orchestrator.engine.dispatch import Surroundings, ThreadDispatcher
from orchestrator.errors import InputError
from tests.action_context import GivenSecrets, KeptResources, RealClock
from tests.builders import created, four_services

MESSAGE = "secret://file/pg: No such file or directory"
SECONDS_MAX = 5.0


@dataclass(frozen=True)
class BadInput:
    """``commands``: what it tells of, and would send, before it finds out."""

    commands: tuple[str, ...]

    def execute(self, context: Any) -> Outcome:
        for command in self.commands:
            context.record(command)
        raise InputError(MESSAGE)

    undo = execute


@dataclass(frozen=True)
class OneAction:
    only: Any

    def action(self, kind: str) -> Any:
        return self.only

    def parse(self, kind: str, arguments: Mapping[str, Any]) -> Any:
        return None


def outcome_of(action: BadInput, order: Execute | UndoStep) -> Outcome:
    around = Surroundings(KeptResources(), GivenSecrets(), LocalHosts(), RealClock())
    dispatcher = ThreadDispatcher(OneAction(action), around)
    dispatcher.ensure([order], start(four_services(), created()))
    ended = dispatcher.wait(SECONDS_MAX)
    assert isinstance(ended, Ended | UndoEnded), ended
    return ended.outcome


@pytest.mark.parametrize("order", [Execute("a/start", 1), UndoStep("a/start", 1)])
def test_before_the_first_command_it_is_a_failure_with_that_very_message(order: Execute | UndoStep) -> None:
    assert outcome_of(BadInput(()), order) == Failed(MESSAGE)


@pytest.mark.parametrize("order", [Execute("a/start", 1), UndoStep("a/start", 1)])
def test_after_a_command_nobody_knows(order: Execute | UndoStep) -> None:
    assert outcome_of(BadInput(("stop it",)), order) == Unknown(MESSAGE)
