"""drivers.supervisor against a supervisord of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.drivers import supervisor
from orchestrator.errors import PermanentError, TransientError
from tests.real.supervised import Lab, Passwords, a_supervisor, free_port

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with a_supervisor(tmp_path_factory.mktemp("supervisor")) as made:
        yield made


def test_start_and_stop_are_quick_and_repeatable(lab: Lab) -> None:
    running = supervisor.start(lab.manager, "quick", Passwords(), 5)
    assert running.name == "running"
    assert Path(f"/proc/{running.pid}").exists()
    assert supervisor.start(lab.manager, "quick", Passwords(), 5).pid == running.pid
    assert supervisor.stop(lab.manager, "quick", Passwords(), 5).name == "stopped"
    assert not Path(f"/proc/{running.pid}").exists()
    assert supervisor.stop(lab.manager, "quick", Passwords(), 5).name == "stopped"


def test_start_waits_for_startsecs_only_where_they_are_set(lab: Lab) -> None:
    took = {}
    for unit in ("quick", "slow-to-count"):
        begin = time.monotonic()
        assert supervisor.start(lab.manager, unit, Passwords(), 5).name == "running"
        took[unit] = time.monotonic() - begin
    supervisor.stop(lab.manager, "quick", Passwords(), 5)
    print(took)
    assert took["quick"] < took["slow-to-count"]


def test_a_unit_that_ends_at_once_or_does_not_exist(lab: Lab) -> None:
    with pytest.raises(PermanentError, match="ended at once"):
        supervisor.start(lab.manager, "dies", Passwords(), 5)
    with pytest.raises(PermanentError, match="broken"):
        supervisor.start(lab.manager, "broken", Passwords(), 5)
    for call in (supervisor.start, supervisor.stop):
        with pytest.raises(PermanentError, match="no such unit"):
            call(lab.manager, "absent", Passwords(), 5)


def test_a_unit_that_the_manager_restarts_stays_stopped(lab: Lab) -> None:
    """A killed unit with autorestart is EXITED for one loop of supervisor: that is not stopped.

    (A signal that meets a unit between fork and exec is lost: supervisor kills it after stopwaitsecs.)
    """
    for _ in range(5):
        pid = supervisor.start(lab.manager, "returning", Passwords(), 5).pid
        os.kill(pid, signal.SIGKILL)
        supervisor.stop(lab.manager, "returning", Passwords(), 5)
        for _ in range(4):
            assert supervisor.state(lab.manager, "returning", Passwords()).pid == 0


def test_a_stop_that_takes_too_long_is_a_time_out(lab: Lab) -> None:
    with pytest.raises(TimeoutError, match="stopping"):
        supervisor.stop(lab.manager, "stubborn", Passwords(), 0.5)
    assert supervisor.state(lab.manager, "stubborn", Passwords()).name == "stopping"


def test_start_while_it_is_being_stopped_starts_it_again(lab: Lab) -> None:
    pid = supervisor.state(lab.manager, "stubborn-too", Passwords()).pid
    with pytest.raises(TimeoutError):
        supervisor.stop(lab.manager, "stubborn-too", Passwords(), 0.2)
    killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    killer.start()
    again = supervisor.start(lab.manager, "stubborn-too", Passwords(), 5)
    killer.join()
    assert again.name == "running"
    assert again.pid != pid


def test_a_stopped_manager_leaves_the_outcome_unknown_within_the_bound(lab: Lab) -> None:
    lab.process.send_signal(signal.SIGSTOP)
    for call, error in ((supervisor.start, TimeoutError), (supervisor.stop, TransientError)):
        begin = time.monotonic()
        with pytest.raises(error):  # stop looks first: it knows that it gave no order
            call(lab.manager, "quick", Passwords(), 0.5)
        assert time.monotonic() - begin < 2
    with pytest.raises(TransientError):
        supervisor.state(lab.manager, "quick", Passwords(), timeout_seconds=0.3)
    lab.process.send_signal(signal.SIGCONT)
    assert supervisor.state(lab.manager, "quick", Passwords()).name != "unknown"


def test_no_manager_there_means_the_order_was_not_given(lab: Lab) -> None:
    gone = replace(lab.manager, url=f"http://127.0.0.1:{free_port()}")
    for call in (supervisor.start, supervisor.stop):
        with pytest.raises(TransientError, match="cannot connect"):
            call(gone, "quick", Passwords(), 1)


def test_a_wrong_password_is_permanent(lab: Lab) -> None:
    wrong = replace(lab.manager, password="secret://env/BAD")
    with pytest.raises(PermanentError, match="HTTP 401"):
        supervisor.state(wrong, "quick", Passwords())
