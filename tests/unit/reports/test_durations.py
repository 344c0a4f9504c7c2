"""What a step is expected to take: p90 of its last 20 successes on the same way, else unknown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from orchestrator.bootstrap.app import plan_from_text, plan_to_text
from orchestrator.core.events import DriverCameUp, RunEvent, StepFailed, StepStarted, StepSucceeded
from orchestrator.core.log import Append
from orchestrator.core.plan import Plan
from orchestrator.engine.journal import RUN, Journal
from orchestrator.reports.durations import RUNS_READ_MAX, expected_ms
from orchestrator.stores.memory import MemoryStore
from tests.builders import a_failover, at, created

PLAN = a_failover()
BACK = replace(PLAN, source="embassy", target="home", digest="b" * 64)


def took(step: str, milliseconds: int, attempt: int = 1) -> list[RunEvent]:
    return [StepStarted(at(0), step, attempt), StepSucceeded(at(milliseconds / 1000), step, attempt)]


def log_of(runs: Iterable[tuple[Plan, Sequence[RunEvent]]]) -> Journal:
    store = MemoryStore()
    for plan in (PLAN, BACK):
        store.put_plan(plan.digest, plan_to_text(plan))
    for number, (plan, events) in enumerate(runs):
        run = f"r{number:03}"
        store.append([Append(RUN + run, 0, (replace(created(run), digest=plan.digest), *events))])
    return Journal(store, plan_from_text)


def test_without_a_log_everything_is_unknown() -> None:
    assert set(expected_ms(None, PLAN).values()) == {None}
    assert set(expected_ms(log_of([]), PLAN)) == set(PLAN.steps)


def test_a_step_that_succeeded_is_expected_to_take_as_long_again() -> None:
    found = expected_ms(log_of([(PLAN, took("db/promote", 120))]), PLAN)
    assert found["db/promote"] == 120
    assert [step for step, ms in found.items() if ms is not None] == ["db/promote"]


@pytest.mark.parametrize(
    ("times", "p90"), [([10], 10), ([10, 20], 20), (list(range(1, 11)), 9), (list(range(1, 21)), 18)]
)
def test_it_is_the_ninetieth_percentile(times: list[int], p90: int) -> None:
    log = log_of((PLAN, took("db/promote", ms)) for ms in times)
    assert expected_ms(log, PLAN)["db/promote"] == p90


@pytest.mark.parametrize(
    ("times", "p90"),
    [([9_000] * 5 + [100] * 20, 100), (range(1, 41), 38), (range(40, 0, -1), 18)],
    ids=["a-slow-past", "21-to-40", "20-to-1"],  # the last two: neither 19 nor 21 give these
)
def test_only_the_last_twenty_successes_count(times: Iterable[int], p90: int) -> None:
    log = log_of((PLAN, took("db/promote", ms)) for ms in times)
    assert expected_ms(log, PLAN)["db/promote"] == p90


def test_the_other_way_says_nothing_about_this_one() -> None:
    log = log_of([(BACK, took("db/promote", 5_000)), (PLAN, took("db/promote", 100))])
    assert expected_ms(log, PLAN)["db/promote"] == 100
    assert expected_ms(log, BACK)["db/promote"] == 5_000


def test_a_failed_attempt_takes_no_time_of_its_own() -> None:
    events = [
        StepStarted(at(0), "db/promote", 1),
        StepFailed(at(8), "db/promote", 1, "no", 1),
        *took("db/promote", 50, 2),
    ]
    assert expected_ms(log_of([(PLAN, events)]), PLAN)["db/promote"] == 50


def test_a_very_old_run_is_not_read() -> None:
    runs = [(PLAN, took("db/promote", 70)), *[(PLAN, took("db/close", 5))] * RUNS_READ_MAX]
    assert expected_ms(log_of(runs), PLAN)["db/promote"] is None


def test_a_success_without_its_start_is_no_measure() -> None:
    assert expected_ms(log_of([(PLAN, [StepSucceeded(at(1), "db/promote", 3)])]), PLAN)["db/promote"] is None


def test_an_attempt_that_outlived_its_driver_is_no_measure() -> None:
    """After a reboot the monotonic clock begins anew: the difference would be negative."""
    start, success = took("db/promote", 5)
    came_up = DriverCameUp(at(1, 7), "i2", 1, "b2", "laptop", "0")
    found = expected_ms(log_of([(PLAN, [start, came_up, replace(success, at=at(2, 7))])]), PLAN)
    assert found["db/promote"] is None


def test_a_run_whose_plan_this_program_cannot_read_tells_it_nothing() -> None:
    log = log_of([(PLAN, took("db/promote", 120)), (BACK, took("db/promote", 5))])
    newer = {BACK.digest: plan_to_text(BACK).replace(f'"schema":{BACK.schema}', '"schema":99')}
    plans = log.store._plans  # type: ignore[attr-defined]
    assert newer[BACK.digest] != plans[BACK.digest]
    plans.update(newer)
    assert expected_ms(log, PLAN)["db/promote"] == 120
