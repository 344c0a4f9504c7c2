"""Decides how commands and host scripts run on hosts that this machine plays; must never use a shell.

``reach`` is asked before each command: a host that shares this machine is then lost like one that
does not (a stopped process still accepts connections, so only an answer counts). A command with a
lock holds it itself, by a descriptor that it inherits: the lock outlives a killed driver and ends
with the command. A descendant that keeps the descriptor keeps the lock, so daemons are started
through the host's manager, never through ``run``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.core.model import Host
from orchestrator.core.values import Json
from orchestrator.drivers import http
from orchestrator.errors import PermanentError, TransientError
from orchestrator.ports import Completed, HostConnection, HostScript

REACH_SECONDS = 0.5
OUTPUT_BYTES_MAX = 256 * 1024
POLL_SECONDS = 0.02
TERMINATE_SECONDS = 0.5
KILL_SECONDS = 1.0
LOCK_SECONDS = 0.1  # a reader of ``is_running`` holds the lock for microseconds


class LocalHosts:
    """ports.Hosts for ``via: local``. Holds nothing open."""

    def __init__(self, *, reach_timeout_seconds: float = REACH_SECONDS) -> None:
        self._reach_timeout_seconds = reach_timeout_seconds

    def connect(self, host: Host) -> HostConnection:
        """A connection by which commands run on ``host``; opens nothing yet."""
        if host.via != "local":
            raise PermanentError(f"{host.name}: this program reaches hosts via local only, not {host.via}")
        return LocalHost(host, self._reach_timeout_seconds)


@dataclass(frozen=True, slots=True)
class LocalHost:
    """ports.HostConnection for a host that this machine plays."""

    host: Host
    reach_timeout_seconds: float = REACH_SECONDS

    def reach(self) -> None:
        """Raise TransientError unless the host answers HTTP (whatever it says) within the bound."""
        if not self.host.reach:
            return
        try:
            http.exchange("GET", self.host.reach, timeout_seconds=self.reach_timeout_seconds)
        except http.NotConnectedError as error:
            raise TransientError(f"{self.host.name}: not reachable: {error}") from error
        except http.NoAnswerError as error:
            raise TransientError(f"{self.host.name}: does not answer: {error}") from error

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        lock: str = "",
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        cancelled: threading.Event | None = None,
    ) -> Completed:
        """See ports.HostConnection. ``lock`` already held: TransientError. Cancelled: TimeoutError.

        The environment is PATH, HOME, LC_ALL=C and ``environment``, nothing else. Of long output
        the last 256 KiB are kept.
        """
        self.reach()
        held = self._take(lock) if lock else -1
        try:
            with _as_file(stdin) as source:
                try:
                    child = subprocess.Popen(
                        list(argv),
                        stdin=source,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        env=_environment(environment or {}),
                        cwd="/",
                        start_new_session=True,
                        pass_fds=(held,) if lock else (),
                    )
                except OSError as error:
                    raise PermanentError(f"{argv[0]}: cannot be started: {error}") from error
        finally:
            if held >= 0:
                os.close(held)
        return _attend(child, argv[0], time.monotonic() + timeout_seconds, cancelled)

    def is_running(self, lock: str) -> bool:
        """Is a command started with this ``lock`` still alive?"""
        self.reach()
        try:
            descriptor = os.open(self._lock_file(lock), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def call(self, script: HostScript, arguments: Mapping[str, Json], *, timeout_seconds: float) -> Any:
        """Run a HostScript in this thread. It is given ``timeout_ms`` and bounds itself by it.

        PermanentError when the script raises: a script that changes things leaves an unknown outcome.
        """
        self.reach()
        sent = json.loads(json.dumps({**arguments, "timeout_ms": max(1, int(timeout_seconds * 1000))}))
        try:
            return json.loads(json.dumps(script(sent)))
        except TimeoutError:
            raise
        except Exception as error:
            name = getattr(script, "__name__", "script")
            raise PermanentError(f"{self.host.name}: {name}: {type(error).__name__}: {error}") from error

    def _lock_file(self, lock: str) -> Path:
        base = self.host.run_directory or f"{tempfile.gettempdir()}/continuity-{os.getuid()}/{self.host.name}"
        return Path(base) / "locks" / quote(lock, safe="")

    def _take(self, lock: str) -> int:
        path = self._lock_file(lock)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    raise TransientError(
                        f"{self.host.name}: {lock}: an earlier command is still running"
                    ) from None
                time.sleep(0.002)


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C", **given}


def _as_file(content: bytes) -> Any:
    """An anonymous file with the content, in memory where the system can: it may hold a secret."""
    try:
        handle = os.fdopen(os.memfd_create("stdin"), "w+b")
    except (AttributeError, OSError):
        handle = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    handle.write(content)
    handle.flush()
    handle.seek(0)
    return handle


class _Tail:
    """Keeps the end of what was written to it."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self.cut_bytes = 0

    def add(self, chunk: bytes) -> None:
        self.kept += chunk
        surplus = len(self.kept) - OUTPUT_BYTES_MAX
        if surplus > 0:
            del self.kept[:surplus]
            self.cut_bytes += surplus

    def text(self) -> str:
        start = f"[{self.cut_bytes} bytes cut]\n" if self.cut_bytes else ""
        return start + self.kept.decode("utf-8", "replace")


def _attend(
    child: subprocess.Popen[bytes], name: str, deadline: float, cancelled: threading.Event | None
) -> Completed:
    """Collect output until the child ends; end its whole group when the time is over or people cancel."""
    assert child.stdout is not None
    assert child.stderr is not None
    out, err = _Tail(), _Tail()
    with selectors.DefaultSelector() as selector, child.stdout, child.stderr:
        for stream, tail in ((child.stdout, out), (child.stderr, err)):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, tail)
        while True:
            _drain(selector, POLL_SECONDS)
            if not selector.get_map():  # both ends are closed: it is ending
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(POLL_SECONDS)
            if child.poll() is not None:
                _drain(selector, 0)
                return Completed(child.returncode, out.text(), err.text())
            if cancelled is not None and cancelled.is_set():
                _end(child)
                raise TimeoutError(f"{name}: cancelled; its outcome is unknown")
            if time.monotonic() >= deadline:
                _end(child)
                raise TimeoutError(
                    f"{name}: did not end in time; its outcome is unknown. {err.text()[-300:]}".strip()
                )


def _drain(selector: selectors.BaseSelector, wait_seconds: float) -> None:
    if not selector.get_map():
        return
    for key, _ in selector.select(wait_seconds):
        try:
            chunk = os.read(key.fd, 65536)
        except BlockingIOError:
            continue
        if chunk:
            key.data.add(chunk)
        else:
            selector.unregister(key.fileobj)


def _end(child: subprocess.Popen[bytes]) -> None:
    for number, wait_seconds in ((signal.SIGTERM, TERMINATE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        try:
            os.killpg(child.pid, number)
            child.wait(wait_seconds)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    # what the leader left behind in its group must not go on either
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
