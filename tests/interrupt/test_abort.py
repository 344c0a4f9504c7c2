"""A run is aborted after home was stopped for it: home writes again, or people are asked; never nobody, silently."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.groups import label
from orchestrator.core.inputs import Abort
from orchestrator.engine.clock import SystemClock, now
from orchestrator.errors import RefusedError
from orchestrator.lab import adoption, processes, sites, traffic
from orchestrator.lab.layout import Lab
from tests import labs
from tests.interrupt.drivers import Drivers, drivers_for
from tests.interrupt.points import Memory
from tests.interrupt.witnesses import PROMOTED
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]

ABORTED = 5
ONE_GROUP = {  # groups end each in its own state: with others the outcome would be mixed
    "services": ["population-register"],
    "leave": {"name-service": "it answers at both sites"},
}
STOPPED = "after Ended registers-db/stop-h1 Succeeded"
SENT = "command registers-db/promote: SELECT pg_is_in_recovery()"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.own_home():
        yield sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)


@pytest.fixture
def drivers(lab: Lab, tmp_path: Path) -> Iterator[Drivers]:
    with drivers_for(lab, tmp_path) as found:
        yield found


def abort_at(drivers: Drivers, point: str) -> int:
    """Let a switch go as far as ``point``, kill its driver there and order the abort. Runs before it."""
    before = len(drivers.runs())
    driver = drivers.start("switchover", stop_at=point, **ONE_GROUP)
    until(lambda: is_stopped(driver), f"the driver comes to: {point}", 30)
    os.kill(driver, signal.SIGKILL)
    assert drivers.end(driver) == -signal.SIGKILL
    app = drivers.journal()
    try:
        tracked = app.journal.load(app.journal.runs()[before])
        app.journal.submit(tracked, Abort(now(SystemClock()), "a test", "a false alarm"))
    finally:
        app.close()
    return before


def is_stopped(pid: int) -> bool:
    found = processes.look(pid)
    return found is not None and found.state in "Tt"


def acks_at(path: Path, site: str) -> int:
    return path.read_text(encoding="utf-8").count(f'"site":"{site}"')


def test_an_abort_after_the_fence_gives_home_back_whenever_drivers_die(
    lab: Lab, drivers: Drivers, tmp_path: Path
) -> None:
    load = traffic.start(lab, traffic.Load(writers=4, pause_ms=20))
    until(lambda: load.ledger.exists() and acks_at(load.ledger, "home") > 50, "home serves")
    before = abort_at(drivers, STOPPED)
    ended = drivers.drive("switchover", runs_before=before, memory=str(tmp_path / "points"))
    assert ended.code == ABORTED, drivers.said()
    points = Memory.read(tmp_path / "points")
    print(f"{ended.kills} drivers killed in the abort, {len(points.killed)} of {len(points.told)} points")
    assert points.killed == points.told
    assert any("undone registers-db/stop-h1" in point for point in points.killed)
    served = acks_at(load.ledger, "home")
    until(lambda: acks_at(load.ledger, "home") > served + 50, "home serves again")
    assert acks_at(load.ledger, "embassy") == 0
    assert sites.active_site(lab) == "home"
    app = drivers.journal()
    try:
        groups = app.journal.groups()
        assert app.journal.store.verify() == []
    finally:
        app.close()
    assert {state.claim for state in groups.values()} == {""}
    assert {state.active for state in groups.values()} == {"home"}
    print({name: label(state) for name, state in groups.items()})
    traffic.stop(lab)
    report = traffic.check(lab, "home", [load.ledger])
    assert report["verified"], report["listed"]


def test_home_is_not_given_back_while_nobody_knows_whether_the_embassy_was_promoted(
    lab: Lab, drivers: Drivers
) -> None:
    load = traffic.start(lab, traffic.Load(writers=4, pause_ms=20))
    with pytest.raises(RefusedError, match="could leave two writers or none"):
        abort_at(drivers, SENT)
    before = len(drivers.runs()) - 1
    ended = drivers.drive("switchover", runs_before=before)
    assert ended.code == 0, drivers.said()
    until(lambda: acks_at(load.ledger, "embassy") > 50, "the embassy serves")
    log = (lab.site("embassy").logs / "postgresql.log").read_text(encoding="utf-8")
    assert log.count(PROMOTED) == 1
    traffic.stop(lab)
    report = traffic.check(lab, "embassy", [load.ledger])
    assert report["verified"], report["listed"]
