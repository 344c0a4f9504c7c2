"""A supervisord of its own for tests, with units of all manners."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.model import Manager
from orchestrator.drivers import supervisor
from orchestrator.errors import PermanentError, TransientError
from tests.waiting import until

START_SECONDS_MAX = 15.0
END_SECONDS_MAX = (
    15.0  # a signal that meets a unit between fork and exec is lost, and supervisor waits 10 s for it
)
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


@contextlib.contextmanager
def a_supervisor(folder: Path) -> Iterator[Lab]:
    """A supervisord with units of all manners, on a port of its own; its units and itself are gone afterwards."""
    port = free_port()
    config = folder / "supervisord.conf"
    config.write_text(configuration(folder, port))
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    manager = Manager(url=f"http://127.0.0.1:{port}", user="continuity", password="secret://env/GOOD")
    try:
        until(lambda: _is_up(manager, process), "supervisor and its units are up", START_SECONDS_MAX)
        yield Lab(manager, process)
    finally:
        process.send_signal(signal.SIGCONT)
        for unit in ("stubborn", "stubborn-too"):
            with contextlib.suppress(TransientError, PermanentError, ProcessLookupError):
                if pid := supervisor.state(manager, unit, Passwords()).pid:
                    os.kill(pid, signal.SIGKILL)
        process.terminate()
        try:
            process.wait(END_SECONDS_MAX)
        finally:
            process.kill()
            process.wait()


def _is_up(manager: Manager, process: subprocess.Popen[bytes]) -> bool:
    try:
        return supervisor.state(manager, "stubborn", Passwords()).name == "running"
    except TransientError:
        assert process.poll() is None, "supervisor has ended"
        return False
