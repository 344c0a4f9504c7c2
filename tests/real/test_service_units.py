"""What a run sees of units, does to them and takes back, against a supervisord of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from orchestrator.actions.files_replicator import (
    StartReplicator,
    StartReplicatorParams,
    StopReplicator,
    StopReplicatorParams,
)
from orchestrator.actions.service import (
    Inspect,
    InspectParams,
    Start,
    Status,
    StatusParams,
    Stop,
    UnitParams,
)
from orchestrator.core.model import Host, Manager
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts
from orchestrator.drivers import supervisor
from orchestrator.ports import Context
from tests.action_context import context
from tests.real.supervised import START_SECONDS_MAX, Lab, Passwords, a_supervisor, free_port

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with a_supervisor(tmp_path_factory.mktemp("supervisor")) as made:
        yield made


def look_at(lab: Lab, unit: str, manager: Manager | None = None) -> tuple[str, list[str]]:
    """What the preflight step sees of a unit: its state, and findings with what mends each."""
    host = Host("h", "embassy", "127.0.0.1", manager=manager or lab.manager)
    passwords = {"secret://env/GOOD": "right", "secret://env/BAD": "wrong"}
    outcome = Inspect().execute(
        context(InspectParams("h", unit), Parts(hosts={"h": host}), secrets=passwords)
    )
    assert isinstance(outcome, Succeeded), "it stands in nobody's way"
    return outcome.evidence["state"], [f"{f['text']} | {f['mend']}" for f in outcome.evidence["findings"]]


def test_what_should_wait_warm_and_does_not_is_a_finding_with_what_starts_it(lab: Lab) -> None:
    supervisor.stop(lab.manager, "quick", Passwords(), 5)
    state, (finding,) = look_at(lab, "quick")
    assert state == "stopped"
    assert finding.endswith(f"supervisorctl -s {lab.manager.url} -u continuity start quick")
    supervisor.start(lab.manager, "quick", Passwords(), 5)
    assert look_at(lab, "quick") == ("running", [])
    supervisor.stop(lab.manager, "quick", Passwords(), 5)


def test_a_cold_unit_may_be_stopped_and_must_be_known(lab: Lab) -> None:
    supervisor.stop(lab.manager, "quick", Passwords(), 5)
    parts = Parts(hosts={"h": Host("h", "embassy", "127.0.0.1", manager=lab.manager)})
    passwords = {"secret://env/GOOD": "right"}

    def looked(unit: str, parts: Parts = parts) -> tuple[Outcome, Finding]:
        asked = context(InspectParams("h", unit, "cold"), parts, secrets=passwords)
        return Inspect().execute(asked), Inspect().check(asked)

    outcome, finding = looked("quick")
    assert isinstance(outcome, Succeeded)
    assert (outcome.evidence["state"], outcome.evidence["findings"]) == ("stopped", [])
    assert finding.kind is FindingKind.DONE
    outcome, finding = looked("quikc")
    assert isinstance(outcome, Failed)
    assert "knows no unit of that name" in outcome.message
    assert len(outcome.evidence["findings"]) == 1
    assert finding.kind is FindingKind.NOT_DONE
    gone = replace(lab.manager, url=f"http://127.0.0.1:{free_port()}")
    outcome, _ = looked("quikc", Parts(hosts={"h": Host("h", "embassy", "127.0.0.1", manager=gone)}))
    assert isinstance(outcome, Succeeded), "a manager that does not answer says nothing of the name"
    assert len(outcome.evidence["findings"]) == 1


def test_a_manager_that_does_not_say_leaves_it_unknown_and_stops_nobody(lab: Lab) -> None:
    for unit, manager, why in (
        ("no-such-unit", lab.manager, "no such unit"),
        ("quick", replace(lab.manager, password="secret://env/BAD"), "HTTP 401"),
        ("quick", replace(lab.manager, url=f"http://127.0.0.1:{free_port()}"), "refused"),
    ):
        state, (finding,) = look_at(lab, unit, manager)
        assert state == "unknown"
        assert why in finding


UNIT = "quick"
SECRETS = {"secret://env/GOOD": "right"}
Change = Start | Stop | StartReplicator | StopReplicator
CHANGES: dict[str, Change] = {
    "start": Start(), "stop": Stop(), "replicate": StartReplicator(), "replicate-no-more": StopReplicator(),
}  # fmt: skip
STARTS = ("start", "replicate")


def asked_of(
    manager: Manager, folder: str, change: str, step: str = "s/step", run: str = "run-1", **more: Any
) -> Context[Any]:
    host = Host("h", "home", "127.0.0.1", run_directory=folder, manager=manager)
    params = {
        "start": UnitParams("h", UNIT), "stop": UnitParams("h", UNIT),
        "replicate": StartReplicatorParams("h", UNIT, "h"), "replicate-no-more": StopReplicatorParams("h", UNIT),
    }[change]  # fmt: skip
    return context(params, Parts(hosts={"h": host}), run=run, step=step, secrets=SECRETS, **more)


@dataclass(frozen=True)
class Side:
    """One unit, changed by a run that is taken back; each call as if by a driver of its own."""

    manager: Manager
    run_directory: Path

    def do(self, change: str, step: str = "s/step", run: str = "run-1") -> Outcome:
        return CHANGES[change].execute(asked_of(self.manager, str(self.run_directory), change, step, run))

    def undo(self, change: str) -> Outcome:
        return CHANGES[change].undo(asked_of(self.manager, str(self.run_directory), change))

    def put(self, *, running: bool) -> None:
        turn = supervisor.start if running else supervisor.stop
        turn(self.manager, UNIT, Passwords(), 5)

    def is_running(self) -> bool:
        return supervisor.state(self.manager, UNIT, Passwords()).name == "running"


@pytest.fixture
def side(lab: Lab, tmp_path: Path) -> Side:
    return Side(lab.manager, tmp_path / "run")


def test_documents_that_do_not_come_are_waited_for_once_and_what_brings_them_is_told(
    side: Side, tmp_path: Path
) -> None:
    (tmp_path / "here").write_text("old")
    (tmp_path / "there").write_text("new")
    asked = asked_of(side.manager, str(side.run_directory), "replicate")
    params = StartReplicatorParams(
        "h", UNIT, "h", str(tmp_path / "here"), str(tmp_path / "there"), within_ms=300
    )
    outcome = StartReplicator().execute(replace(asked, params=params))
    assert isinstance(outcome, Failed)
    assert outcome.message == f"the manifests are not equal yet after 300ms; {UNIT} on h runs"
    assert not outcome.retryable, "publication stands still meanwhile"
    host = Host("h", "home", "127.0.0.1", manager=side.manager)
    supervisor.stop(side.manager, UNIT, Passwords(), 5)
    told = supervisor.told(host, UNIT, Passwords(), 5)
    assert told == f"{UNIT} on h is stopped: {supervisor.start_command(host, UNIT)}"
    assert "runs is not known" in supervisor.told(replace(host, manager=None), UNIT, Passwords(), 5)


EVERY_CHANGE = pytest.mark.parametrize("change", CHANGES)
RAN_OR_NOT = pytest.mark.parametrize("ran", [True, False], ids=["ran", "did-not-run"])


@EVERY_CHANGE
@RAN_OR_NOT
def test_an_undo_gives_back_what_ran_before_and_no_more(side: Side, change: str, ran: bool) -> None:
    side.put(running=ran)
    for _ in range(2):  # the second attempt finds what the first one did
        assert isinstance(side.do(change), Succeeded)
        assert side.is_running() is (change in STARTS)
    for _ in range(2):
        assert isinstance(side.undo(change), Succeeded)
        assert side.is_running() is ran


@EVERY_CHANGE
@RAN_OR_NOT
def test_an_undo_of_a_step_that_changed_nothing_changes_nothing(side: Side, change: str, ran: bool) -> None:
    """Also where another step of the run, or this step of another run, noted something of that unit."""
    side.put(running=not ran)
    other = "stop" if ran else "start"
    assert isinstance(side.do(other, "s/other"), Succeeded)
    assert isinstance(side.do(other, run="run-0"), Succeeded)
    side.put(running=ran)
    assert isinstance(side.undo(change), Succeeded)
    assert side.is_running() is ran


KILLED = """
import os, signal, sys
from orchestrator.core.model import Manager
from tests.real.test_service_units import CHANGES, asked_of

change, url, folder, moment = sys.argv[1:]

class Told(list):
    def append(self, command):
        if moment == "before":  # commands are told of before they are sent
            os.kill(os.getpid(), signal.SIGKILL)

manager = Manager(url=url, user="continuity", password="secret://env/GOOD")
CHANGES[change].execute(asked_of(manager, folder, change, recorded=Told()))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@EVERY_CHANGE
@RAN_OR_NOT
def test_what_a_killed_driver_saw_is_not_lost(side: Side, change: str, ran: bool, moment: str) -> None:
    """Killed right before the order, or after it: the successor tries again, and then people abort."""
    side.put(running=ran)
    argv = [sys.executable, "-c", KILLED, change, side.manager.url, str(side.run_directory), moment]
    killed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=START_SECONDS_MAX)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert side.is_running() is (ran if moment == "before" else change in STARTS)
    assert isinstance(side.do(change), Succeeded)
    assert isinstance(side.undo(change), Succeeded)
    assert side.is_running() is ran


@EVERY_CHANGE
def test_what_cannot_be_noted_is_not_ordered(side: Side, change: str) -> None:
    side.put(running=change not in STARTS)
    side.run_directory.write_text("in the way of the folder\n")
    assert isinstance(side.do(change), Failed)
    assert side.is_running() is (change not in STARTS)


def test_the_status_of_a_unit_is_as_an_owner_says_or_a_failure_that_names_it(side: Side) -> None:
    def looked(unit: str, state: Literal["running", "stopped"]) -> Outcome:
        host = Host("h", "home", "127.0.0.1", manager=side.manager)
        asked = context(StatusParams("h", unit, state), Parts(hosts={"h": host}), secrets=SECRETS)
        outcome, finding = Status().execute(asked), Status().check(asked)
        assert (finding.kind is FindingKind.DONE) is isinstance(outcome, Succeeded)
        return outcome

    side.put(running=False)
    assert isinstance(looked(UNIT, "stopped"), Succeeded)
    outcome = looked(UNIT, "running")
    assert isinstance(outcome, Failed)
    assert (outcome.message, outcome.retryable) == ("quick on h is stopped, not running", True)
    side.put(running=True)
    assert isinstance(looked(UNIT, "running"), Succeeded)
    assert isinstance(looked(UNIT, "stopped"), Failed)
    unknown = looked("quikc", "stopped")
    assert isinstance(unknown, Failed)
    assert (unknown.retryable, "no such unit" in unknown.message) == (False, True)
