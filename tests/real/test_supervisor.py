"""drivers.supervisor against a supervisord of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.actions.service import Inspect, InspectParams
from orchestrator.core.model import Host, Manager
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts
from orchestrator.drivers import supervisor
from orchestrator.errors import PermanentError, TransientError
from tests.action_context import context

pytestmark = pytest.mark.real

START_SECONDS_MAX = 15.0
SLEEPER = f"{sys.executable} -c 'import time; time.sleep(600)'"
STUBBORN = f"{sys.executable} -c 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)'"


class Passwords:
    def value(self, reference: str) -> str:
        return {"secret://env/GOOD": "right", "secret://env/BAD": "wrong"}[reference]


@dataclass(frozen=True)
class Lab:
    manager: Manager
    process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configuration(folder: Path, port: int) -> str:
    return f"""[supervisord]
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
nodaemon=true
[inet_http_server]
port=127.0.0.1:{port}
username=continuity
password=right
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:slow-to-count]
command={SLEEPER}
autostart=false
startsecs=1
[program:quick]
command={SLEEPER}
autostart=false
startsecs=0
[program:returning]
command={SLEEPER}
autostart=true
autorestart=true
startsecs=0
stopwaitsecs=1
[program:broken]
command=/nonexistent/program
autostart=false
[program:dies]
command=/bin/false
autostart=false
startsecs=1
startretries=0
[program:stubborn]
command={STUBBORN}
autostart=true
stopwaitsecs=60
autorestart=false
startsecs=0
[program:stubborn-too]
command={STUBBORN}
autostart=true
stopwaitsecs=60
autorestart=false
startsecs=0
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    tmp_path = tmp_path_factory.mktemp("supervisor")
    port = free_port()
    config = tmp_path / "supervisord.conf"
    config.write_text(configuration(tmp_path, port))
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    manager = Manager(url=f"http://127.0.0.1:{port}", user="continuity", password="secret://env/GOOD")
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                if supervisor.state(manager, "stubborn", Passwords()).name == "running":
                    break
            except TransientError:
                assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Lab(manager, process)
    finally:
        process.send_signal(signal.SIGCONT)
        for unit in ("stubborn", "stubborn-too"):
            with contextlib.suppress(TransientError, PermanentError, ProcessLookupError):
                if pid := supervisor.state(manager, unit, Passwords()).pid:
                    os.kill(pid, signal.SIGKILL)
        process.terminate()
        try:
            process.wait(5)
        finally:
            process.kill()
            process.wait()


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
