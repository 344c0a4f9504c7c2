"""Whatever hangs is said to be late, once, and told to stop: an attempt, a check, an undo."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.core.effects import Cancel, Check, Effect, Execute, UndoStep
from orchestrator.core.inputs import Checked, Ended, UndoEnded
from orchestrator.core.outcomes import FindingKind, Succeeded, Unknown
from orchestrator.core.run import Run, start
from orchestrator.drivers.hosts import LocalHosts
from orchestrator.engine.dispatch import CHECK_SECONDS, GRACE_SECONDS, LATE, Surroundings, ThreadDispatcher
from tests.action_context import GivenSecrets, KeptResources
from tests.builders import created, four_services
from tests.waiting import until

STEP = "a/start"
SECONDS_MAX = 5.0


@dataclass
class SetClock:
    """Stands still until it is set."""

    seconds: float = 100.0

    def utc_ns(self) -> int:
        return self.monotonic_ns()

    def monotonic_ns(self) -> int:
        return int(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Hangs:
    """Nothing of it ends before it is let go; it notes whether it was told to stop."""

    go: threading.Event = field(default_factory=threading.Event)
    told: list[threading.Event] = field(default_factory=list)

    def action(self, kind: str) -> Any:
        return self

    def parse(self, kind: str, arguments: Mapping[str, Any]) -> Any:
        return None

    def execute(self, context: Any) -> Any:
        self.told.append(context.cancelled)
        assert self.go.wait(SECONDS_MAX)
        return Succeeded()

    undo = execute
    check = execute


def set_up() -> tuple[Hangs, SetClock, Run, ThreadDispatcher]:
    """A dispatcher whose actions hang, and the clock that it goes by."""
    hangs, clock = Hangs(), SetClock()
    around = Surroundings(KeptResources(), GivenSecrets(), LocalHosts(), clock)
    return hangs, clock, start(four_services(), created()), ThreadDispatcher(hangs, around)


@pytest.mark.parametrize(
    ("order", "seconds"),
    [(Execute(STEP, 1), 10.0), (UndoStep(STEP, 1), 10.0), (Check(STEP, 1, 1, 0), CHECK_SECONDS)],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else "",
)
def test_what_hangs_is_late_once(order: Effect, seconds: float) -> None:
    hangs, clock, run, dispatcher = set_up()
    dispatcher.ensure([order], run)
    until(lambda: hangs.told, "begun")
    clock.seconds += seconds + GRACE_SECONDS - 0.1
    assert dispatcher.wait(0.0) is None
    assert not hangs.told[0].is_set()
    clock.seconds += 0.2
    late = dispatcher.wait(0.0)
    match late:
        case Ended() | UndoEnded():
            assert isinstance(late.outcome, Unknown)
            assert LATE in late.outcome.message
        case Checked():
            assert late.finding.kind is FindingKind.CANNOT_TELL
            assert LATE in late.finding.reason
        case _:
            raise AssertionError(late)
    assert hangs.told[0].is_set()
    assert dispatcher.wait(0.0) is None
    hangs.go.set()


def test_an_undo_does_not_begin_beside_an_undo_that_hangs() -> None:
    hangs, _clock, run, dispatcher = set_up()
    dispatcher.ensure([UndoStep(STEP, 1)], run)
    until(lambda: hangs.told, "begun")
    dispatcher.ensure([UndoStep(STEP, 2)], run)
    ended = dispatcher.wait(SECONDS_MAX)
    assert isinstance(ended, UndoEnded)
    assert (ended.number, type(ended.outcome)) == (2, Unknown)
    assert len(hangs.told) == 1
    hangs.go.set()


def test_an_attempt_that_is_cancelled_is_told_so_and_is_soon_late() -> None:
    """core.md 3.8: nobody waits for the whole time of a step that people ordered to stop."""
    hangs, clock, run, dispatcher = set_up()
    dispatcher.ensure([Execute(STEP, 1)], run)
    until(lambda: hangs.told, "begun")
    assert not hangs.told[0].is_set()
    dispatcher.ensure([Execute(STEP, 1), Cancel(STEP, 1)], run)
    assert hangs.told[0].is_set()
    assert dispatcher.wait(0.0) is None
    clock.seconds += 2 * GRACE_SECONDS + 0.1
    late = dispatcher.wait(0.0)
    assert isinstance(late, Ended)
    assert isinstance(late.outcome, Unknown)
    hangs.go.set()


def test_nothing_is_looked_for_while_the_attempt_itself_is_at_work() -> None:
    """core.md 3.5: else it could be found not done, and be begun again beside itself."""
    hangs, _clock, run, dispatcher = set_up()
    dispatcher.ensure([Execute(STEP, 1)], run)
    until(lambda: hangs.told, "begun")
    dispatcher.ensure([Check(STEP, 1, 1, 0)], run)
    found = dispatcher.wait(SECONDS_MAX)
    assert isinstance(found, Checked)
    assert found.finding.kind is FindingKind.RUNNING
    assert len(hangs.told) == 1
    hangs.go.set()
