"""What plans of thousands of steps cost: folding grows with the steps, and a decision stays far below its budget."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import pytest

from orchestrator.core import events
from orchestrator.core.effects import Execute
from orchestrator.core.fold import fold
from orchestrator.core.index import index_of
from orchestrator.core.inputs import Ended, Input, Proceed
from orchestrator.core.machine import advance
from orchestrator.core.orders import orders
from orchestrator.core.outcomes import Succeeded
from orchestrator.core.plan import Plan, Role
from orchestrator.core.run import start
from orchestrator.core.states import RunState
from tests.builders import a_big_failover, at, authorise, created, driver
from tests.story import REMOTE

STEPS_PER_SERVICE = 20
PAIRS = 7
FOLD_RATIO_MAX = 12  # for ten times the steps
DECIDING_MS_PER_STEP_MAX = 2.0


class Told:
    """A whole run of a plan in which everything succeeds."""

    def __init__(self, plan: Plan) -> None:
        self.run = start(plan, created())
        self.history: list[events.RunEvent] = [created()]
        self.now = 1.0
        self._tell(driver(self.now))
        self._tell(Proceed(at(self.now)))
        self._work()
        self._tell(authorise(self.now))
        self._tell(Proceed(at(self.now)))
        self._work()
        assert self.run.state is RunState.DONE

    def _tell(self, given: Input) -> None:
        self.now += 0.0001
        decision = advance(self.run, given)
        self.run = decision.run
        self.history.extend(decision.events)

    def _work(self) -> None:
        while wanted := [order for order in orders(self.run) if isinstance(order, Execute)]:
            for order in wanted:
                is_loss = self.run.plan.steps[order.step].role is Role.LOSS
                outcome = Succeeded(REMOTE if is_loss else {})
                self._tell(Ended(at(self.now), order.step, order.attempt, outcome))


def seconds(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.slow
def test_folding_ten_times_the_steps_costs_about_ten_times_as_much() -> None:
    folds = []
    for services in (100, 1_000):
        plan = a_big_failover(services)
        assert len(plan.steps) == services * STEPS_PER_SERVICE
        index, history = index_of(plan), Told(plan).history
        folds.append(lambda plan=plan, index=index, history=history: fold(plan, history, index))
    small, big = folds
    pairs = [(seconds(small), seconds(big)) for _ in range(PAIRS)]
    ratio = statistics.median(of_big / of_small for of_small, of_big in pairs)
    best = min(of_big for _, of_big in pairs) / min(of_small for of_small, _ in pairs)
    print(f"fold of 20,000 steps / 2,000 steps: {ratio:.1f} as median of {PAIRS} pairs, {best:.1f} at best")
    assert min(ratio, best) <= FOLD_RATIO_MAX


@pytest.mark.slow
def test_deciding_is_far_below_two_milliseconds_a_step() -> None:
    plan = a_big_failover(1_000)
    took = seconds(lambda: Told(plan))
    per_step_ms = took / len(plan.steps) * 1000
    print(f"deciding {len(plan.steps)} steps: {took:.1f} s, {per_step_ms:.2f} ms a step")
    assert per_step_ms <= DECIDING_MS_PER_STEP_MAX
