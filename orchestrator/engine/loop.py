"""Decides the order of things while a run is driven; the sixty lines to read first.

    input -> advance -> append (durable) -> orders -> dispatcher -> result -> input …

Orders are carried out only after the events they follow from are durable. A driver's first append
turns what an earlier driver left running into unknown; nothing is ever silently run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from orchestrator.core.effects import Effect
from orchestrator.core.inputs import DriverInput, DriverStarted, Proceed
from orchestrator.core.orders import orders
from orchestrator.core.run import Run
from orchestrator.core.states import RunState, StepState
from orchestrator.engine.clock import now
from orchestrator.engine.journal import Journal, Tracked
from orchestrator.ports import Clock

POLL_SECONDS = 0.020
POLL_SECONDS_FOR_PEOPLE = 0.002
WAITS_FOR_PEOPLE = frozenset({RunState.READY, RunState.HELD, RunState.PAUSED})
IN_FLIGHT = frozenset({StepState.RUNNING, StepState.UNKNOWN, StepState.MARKING, StepState.UNDOING})


class Dispatcher(Protocol):
    """Carries out orders and hands back what came of them (``dispatch.ThreadDispatcher``)."""

    def ensure(self, effects: Iterable[Effect], run: Run) -> None: ...
    def wait(self, seconds_max: float) -> DriverInput | None: ...


def come_up(journal: Journal, tracked: Tracked, started: DriverStarted) -> None:
    """The driver's first append, if the log is as it was written; then whatever may start is started by
    ``drive``."""
    journal.must_be_whole()
    journal.submit(tracked, started)


def drive(
    journal: Journal,
    tracked: Tracked,
    dispatcher: Dispatcher,
    clock: Clock,
    may_leave: Callable[[Run], bool] | None = None,
    is_called: Callable[[Run], bool] | None = None,
) -> Run:
    """Drive a run until it is over or waits for people. The caller holds the run's lock.

    ``may_leave`` decides whether to come back when the run waits for people (default: yes). ``is_called`` is
    asked in every turn and must not wait: somebody at this terminal has spoken, or a question to them is void.
    Whoever comes back may call again: what was begun goes on meanwhile.
    """
    may_leave = may_leave or (lambda run: True)
    version = journal.store.version()
    journal.refresh(tracked)  # behind the version: what others append from here on shows as a newer one
    journal.submit(tracked, Proceed(now(clock)))
    while True:
        dispatcher.ensure(orders(tracked.run), tracked.run)
        run = tracked.run
        if run.is_final:
            return run
        waits = stands_still(run)
        if (is_called is not None and is_called(run)) or (waits and may_leave(run)):
            return run
        given = dispatcher.wait(POLL_SECONDS_FOR_PEOPLE if waits else POLL_SECONDS)
        newest = journal.store.version()
        if newest != version:
            version = newest
            if journal.refresh(tracked) and given is None:
                given = Proceed(now(clock))
        if given is not None:
            journal.submit(tracked, given)


def stands_still(run: Run) -> bool:
    """Does nothing happen any more unless people say something?"""
    return run.state in WAITS_FOR_PEOPLE and not is_busy(run)


def is_busy(run: Run) -> bool:
    """Is anything going on that will come back by itself? Held runs do not wait for late fences."""
    if run.state is RunState.HELD:
        return False
    return any(run.step(step).state in IN_FLIGHT for name in run.active for step in run.units[name].busy)
