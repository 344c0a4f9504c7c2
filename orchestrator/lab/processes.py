"""Decides which processes belong to a lab or a site, and signals exactly those; must never go by name.

A process belongs to a part when it carries the part's mark in its environment, when it works below the
part's folder (PostgreSQL's children overwrite their environment and leave the session: lab.md's pitfall 8),
or when its parent belongs. Signals go through a pidfd and only after the start time was read again, so a
recycled pid is never hit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lab.layout import MARK

KTHREADD = 2  # the kernel's own threads are its children: they belong to nobody
ENVIRONMENT_BYTES_MAX = 256 * 1024
PASSES_MAX = 400
PASS_SECONDS = 0.005

# Children that outlive the call that started them: kept so that each is reaped when it ends, by this process.
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Process:
    """``started`` in clock ticks since boot; ``state`` as in /proc/PID/stat (T stopped, Z ended)."""

    pid: int
    parent: int
    started: int
    state: str


def spawn(
    argv: list[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    out: Path,
    errors: Path | None = None,
    kept: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a part of a lab in a session of its own; it goes on when this process ends.

    ``errors`` None: both outputs go to ``out``. ``kept``: descriptors that it inherits.
    """
    reap()
    with open(out, "ab") as log, open(errors or out, "ab") as error_log:
        child = subprocess.Popen(
            argv,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=error_log,
            start_new_session=True,
            pass_fds=kept,
        )
    _children.append(child)
    return child


def reap() -> None:
    """Take note of children that have ended: none of them stays a zombie."""
    _children[:] = [child for child in _children if child.poll() is None]


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def look(pid: int) -> Process | None:
    """The process with this pid, or None when there is none (any more). A zombie is none."""
    try:
        fields = _read(f"/proc/{pid}/stat", 4096).rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None
    state = fields[0].decode("ascii")
    return None if state in "ZX" else Process(pid, int(fields[1]), int(fields[19]), state)


def _read(path: str, bytes_max: int) -> bytes:
    """A file of /proc in one piece: a fence waits for these."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, bytes_max)
    finally:
        os.close(descriptor)


def is_alive(pid: int, started: int) -> bool:
    found = look(pid) if pid else None
    return found is not None and found.started == started


def of_part(mark: str, folder: Path, but: frozenset[int] = frozenset()) -> dict[int, Process]:
    """Every living process of the part with this mark and working folder. ``but``: pids left out.

    ``mark`` is matched as a prefix, so ``FOLDER:`` finds every part of a lab.
    """
    wanted = f"{MARK}={mark}".encode()
    below = os.fsencode(folder)
    everyone: dict[int, Process] = {}
    members: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        pid = int(name)
        found = look(pid)
        if found is None or found.parent == KTHREADD:
            continue
        everyone[pid] = found
        if _is_marked(pid, wanted) or _works_below(pid, below):
            members.add(pid)
    _add_descendants(members, everyone)
    but |= {os.getpid()}
    return {pid: everyone[pid] for pid in sorted(members) if pid not in but}


def _is_marked(pid: int, wanted: bytes) -> bool:
    try:
        environment = _read(f"/proc/{pid}/environ", ENVIRONMENT_BYTES_MAX)
    except OSError:
        return False
    return environment.startswith(wanted) or b"\0" + wanted in environment


def _works_below(pid: int, folder: bytes) -> bool:
    try:
        at = os.readlink(f"/proc/{pid}/cwd".encode())
    except OSError:
        return False
    at = at.removesuffix(b" (deleted)")
    if at != folder and not at.startswith(folder + b"/"):
        return False
    # Somebody's shell may stand in the folder: only server processes count, and those have no terminal.
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            return handle.read().rsplit(b")", 1)[1].split()[4] == b"0"
    except (OSError, IndexError):
        return False


def _add_descendants(members: set[int], everyone: Mapping[int, Process]) -> None:
    grown = True
    while grown:
        grown = False
        for pid, process in everyone.items():
            if pid not in members and process.parent in members:
                members.add(pid)
                grown = True


def send(process: Process, number: signal.Signals) -> None:
    """Signal exactly this process; one that ended meanwhile is fine."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(process.pid, process.started):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def kill_all(find: Callable[[], Mapping[int, Process]]) -> int:
    """SIGKILL what ``find`` finds, again until it finds nothing. Returns how many were killed.

    TimeoutError when something of it still lives after the last pass.
    """
    killed: set[tuple[int, int]] = set()
    left: set[int] = set()
    for _ in range(PASSES_MAX):
        found = find()
        reap()
        # A child that nothing but its parent marked is found no more once that has gone: it is looked for by pid.
        left = {*found, *(pid for pid, started in killed if is_alive(pid, started))}
        if not left:
            return len(killed)
        for process in found.values():
            send(process, signal.SIGKILL)
            killed.add((process.pid, process.started))
        time.sleep(PASS_SECONDS)
    raise TimeoutError(f"still alive after SIGKILL: {sorted(left)}")


def stop_all(find: Callable[[], Mapping[int, Process]]) -> int:
    """SIGSTOP what ``find`` finds, again until all of it is stopped. Returns how many are stopped."""
    for _ in range(PASSES_MAX):
        moving = [process for process in find().values() if process.state not in "Tt"]
        if not moving:
            return len(find())
        for process in moving:
            send(process, signal.SIGSTOP)
        time.sleep(PASS_SECONDS)
    raise TimeoutError(f"still moving after SIGSTOP: {sorted(find())}")


def continue_all(find: Callable[[], Mapping[int, Process]]) -> int:
    """SIGCONT what ``find`` finds. Returns how many processes were stopped before."""
    stopped = [process for process in find().values() if process.state in "Tt"]
    for process in stopped:
        send(process, signal.SIGCONT)
    return len(stopped)
