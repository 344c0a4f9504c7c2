"""Decides which process drives a run: one at a time, by a POSIX record lock on a file of its own.

``lockf`` and not ``flock``: after kill -9 with a forked child alive a flock stays held. The file is
opened once per process and kept in a registry, because closing any second descriptor of it would
free the lock. Liveness is read with F_GETLK, which names the pid without taking the lock.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from pathlib import Path

from orchestrator.errors import JournalError, RefusedError

_FLOCK = struct.Struct("hhqqi4x")
_held: dict[Path, int] = {}
_registry = threading.Lock()


def _file(folder: Path, run: str) -> Path:
    """One name for one file, however the folder is called: the registry knows by it what is open here."""
    return folder.resolve() / f"run-{run}.lock"


def acquire(folder: Path, run: str) -> None:
    """Become the driver of a run. RefusedError names the process that drives it already."""
    path = _file(folder, run)
    with _registry:
        if path in _held:
            raise RefusedError(f"run {run} is driven by this very process already")
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = _holder(descriptor)
            os.close(descriptor)
            raise RefusedError(
                f"run {run} is driven by process {pid} on this machine",
                (f"continuity watch {run}", f"continuity status {run}"),
            ) from None
        _held[path] = descriptor


def release(folder: Path, run: str) -> None:
    with _registry:
        descriptor = _held.pop(_file(folder, run), None)
        if descriptor is not None:
            os.close(descriptor)


def driver_pid(folder: Path, run: str) -> int:
    """The pid of the live driver of a run on this machine, 0 if there is none."""
    path = _file(folder, run)
    with _registry:
        if path in _held:
            return os.getpid()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise JournalError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            return _holder(descriptor)
        finally:
            os.close(descriptor)


def _holder(descriptor: int) -> int:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return 0 if kind == fcntl.F_UNLCK else pid
