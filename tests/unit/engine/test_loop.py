"""While a question to people is open the driver takes its turns: timers come due, other terminals are heard."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestrator.bootstrap.app import plan_from_text
from orchestrator.core.effects import Effect, WakeAt
from orchestrator.core.inputs import At, DriverInput, Pause, Resume, Woke
from orchestrator.core.run import Run
from orchestrator.core.states import RunState, StepState
from orchestrator.engine.clock import SystemClock, now
from orchestrator.engine.journal import Journal
from orchestrator.engine.loop import drive
from orchestrator.stores.sqlite import SqliteStore
from tests.unit.cli.logs import HELD_FOR_LOSS, RUN, told

TURNS_MAX = 50


BACKING_OFF = """
plan failover
driver i1
proceed
failed db/inspect retryable
"""


class Wakes:
    """A dispatcher in which nothing happens but the timers that the run orders: each at its moment."""

    def __init__(self) -> None:
        self.turns = 0
        self.timers: list[WakeAt] = []

    def ensure(self, effects: Iterable[Effect], run: Run) -> None:
        assert self.turns < TURNS_MAX, "the driver was never called"
        self.timers = [effect for effect in effects if isinstance(effect, WakeAt)]

    def wait(self, seconds_max: float) -> DriverInput | None:
        self.turns += 1
        if not self.timers:
            return None
        due = self.timers[0]
        return Woke(At(now(SystemClock()).utc_ns, due.mono_ns), due.name)


def opened(folder: Path) -> Journal:
    return Journal(SqliteStore(folder / ".continuity" / "journal.db"), plan_from_text)


def test_the_timers_of_a_driver_that_asks_come_due(tmp_path: Path) -> None:
    told(tmp_path, BACKING_OFF).store.close()
    journal = opened(tmp_path)
    tracked = journal.load(RUN)
    assert tracked.run.step("db/inspect").state is StepState.BACKOFF
    run = drive(
        journal, tracked, Wakes(), SystemClock(), None,
        lambda run: run.step("db/inspect").state is StepState.RUNNING,
    )  # fmt: skip
    assert run.step("db/inspect").attempt == 2


def test_a_driver_that_asks_hears_what_others_order(tmp_path: Path) -> None:
    told(tmp_path, HELD_FOR_LOSS).store.close()
    journal, elsewhere, dispatcher = opened(tmp_path), opened(tmp_path), Wakes()

    def is_called(run: Run) -> bool:
        if dispatcher.turns == 2:
            elsewhere.submit(elsewhere.load(RUN), Pause(now(SystemClock()), "Bert"))
        return run.state is RunState.PAUSED

    run = drive(journal, journal.load(RUN), dispatcher, SystemClock(), lambda run: False, is_called)
    assert run.state is RunState.PAUSED


def test_what_others_ordered_before_a_driver_came_back_to_its_turns_is_not_missed(tmp_path: Path) -> None:
    """Between two calls nobody listens; the version of the log at the second call already counts it."""
    told(tmp_path, f"{HELD_FOR_LOSS}pause\n").store.close()
    told_of: list[str] = []
    journal = Journal(
        SqliteStore(tmp_path / ".continuity" / "journal.db"), plan_from_text,
        on_others=lambda run, events: told_of.extend(event.KIND for event in events),
    )  # fmt: skip
    tracked, elsewhere = journal.load(RUN), opened(tmp_path)
    elsewhere.submit(elsewhere.load(RUN), Resume(now(SystemClock()), "Bert"))
    drive(journal, tracked, Wakes(), SystemClock(), None, lambda run: True)
    assert told_of[0] == "run.resumed"
    assert tracked.run.state is not RunState.PAUSED
