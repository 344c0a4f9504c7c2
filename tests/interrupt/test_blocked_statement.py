"""A killed driver's statement lives on at the server: nobody sends it again while it is seen there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orchestrator.core.events import StepResolved, StepStarted
from orchestrator.lab import adoption, postgres, processes, sites, traffic
from orchestrator.lab.layout import Lab
from tests import labs
from tests.interrupt.drivers import Drivers, drivers_for
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(180)]

STEP = "registers-db/epoch"
DATABASE = "land"  # the first database that the step writes to
WAITING = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND state = 'active' AND application_name LIKE 'cty:%/epoch/%'"
)
CLOSED_SECONDS_MAX = 2.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.own_home():
        yield sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)


@pytest.fixture
def drivers(lab: Lab, tmp_path: Path) -> Iterator[Drivers]:
    with drivers_for(lab, tmp_path) as found:
        yield found


def epoch_events(drivers: Drivers) -> list[Any]:
    app = drivers.journal()
    try:
        (name,) = app.journal.runs()
        return [
            e.event for e in app.journal.store.read(f"run:{name}") if getattr(e.event, "step", "") == STEP
        ]
    finally:
        app.close()


def waiting(watcher: psycopg.Connection[Any]) -> list[int]:
    return [row[0] for row in watcher.execute(WAITING)]


def findings(drivers: Drivers) -> list[str]:
    return [event.finding for event in epoch_events(drivers) if isinstance(event, StepResolved)]


def attempts(drivers: Drivers) -> list[int]:
    return [event.attempt for event in epoch_events(drivers) if isinstance(event, StepStarted)]


def is_stopped(pid: int) -> bool:
    found = processes.look(pid)
    return found is not None and found.state in "Tt"


def test_a_statement_that_outlives_its_driver_is_waited_for(lab: Lab, drivers: Drivers) -> None:
    load = traffic.start(lab, traffic.Load(writers=2, pause_ms=20))
    first = drivers.start("failover", stop_at=f"after Ended {STEP.replace('epoch', 'promote')} Succeeded")
    until(lambda: is_stopped(first), "the driver stops when the promotion is in the log", 30)
    with (
        postgres.connect(lab, "embassy", DATABASE) as blocker,
        postgres.connect(lab, "embassy", DATABASE) as watcher,
    ):
        blocker.execute("BEGIN; SET TRANSACTION READ WRITE; LOCK TABLE continuity.writer IN SHARE MODE")
        os.kill(first, signal.SIGCONT)
        until(lambda: bool(waiting(watcher)), "the epoch waits for the lock")
        (statement,) = waiting(watcher)
        os.kill(statement, signal.SIGSTOP)  # or it would end before the next driver can look
        os.kill(first, signal.SIGKILL)
        assert drivers.end(first) == -signal.SIGKILL

        second = drivers.start("failover", runs_before=0)
        until(lambda: "running" in findings(drivers), "the next driver sees that it still runs")
        assert set(findings(drivers)) == {"running"}
        assert attempts(drivers) == [1], "sent again while the first statement was alive"
        assert waiting(watcher) == [statement]

        os.kill(statement, signal.SIGCONT)
        until(
            lambda: statement not in waiting(watcher),
            "the server ends a statement whose client is gone",
            CLOSED_SECONDS_MAX,
        )
        until(lambda: attempts(drivers) == [1, 2], "the next attempt starts")
        until(lambda: bool(waiting(watcher)), "and waits for the lock as well")
        blocker.execute("COMMIT")
    assert drivers.end(second) == 0, drivers.said()
    assert "done" not in findings(drivers)
    traffic.stop(lab)
    report = traffic.check(lab, "embassy", [load.ledger])
    assert report["verified"], report
    with postgres.connect(lab, "embassy", DATABASE) as session:
        (row,) = session.execute("SELECT epoch, site FROM continuity.writer").fetchall()
    assert row == (2, "embassy")
