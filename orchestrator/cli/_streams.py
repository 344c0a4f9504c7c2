"""Decides what becomes of output that nobody takes: a full disk, a closed descriptor, a reader that went away.

A command goes on to its end all the same (a run must not stop because its output is gone); what could not be written
is said at the end, by message and exit code. Must never raise where something is printed.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
import time
from typing import Any

IN, OUT, ERR = range(3)
STALL_SECONDS = 0.3
"""So long a driver waits for whoever reads what it says; once, until something is taken again."""


class _Sink(io.FileIO):
    """A descriptor that takes everything: ``fault`` keeps why the first piece was lost."""

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left and self.fault is None:
            try:
                left = left[os.write(self.fileno(), left) :]
            except BlockingIOError:  # somebody made the pipe so; its reader is slow, not gone
                select.select([], [self.fileno()], [])
            except OSError as error:
                self.fault = error
        return size


class _Patient(_Sink):
    """What is said to people: whoever does not take it (Ctrl-S, a stopped pager, a full pipe) holds nobody up for longer
    than ``STALL_SECONDS``, and then not at all until it is taken again. What was left out is counted and said."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._own = _unwaiting(descriptor)
        self._left_out = 0

    def write(self, data: Any) -> int:
        size = len(memoryview(data).cast("B"))
        deadline = time.monotonic() + (0.0 if self._left_out else STALL_SECONDS)
        notice = b""
        if self._left_out:
            notice = f"\n({self._left_out} pieces of output were not taken, and are left out)\n".encode()
        if self._took(notice + bytes(data), deadline):
            self._left_out = 0
        elif self.fault is None:
            self._left_out += 1
        return size

    def _took(self, data: bytes, deadline: float) -> bool:
        while data and self.fault is None:
            if not _takes(self._own, max(0.0, deadline - time.monotonic())):
                return False
            try:
                data = data[os.write(self._own, data[: select.PIPE_BUF]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                self.fault = error
        return not data


def _unwaiting(descriptor: int) -> int:
    """The same terminal or pipe by a description of our own, on which no write waits: that of the descriptor may be
    others' too. The descriptor itself where it cannot be had; then a write that it was ready for may still wait."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or os.isatty(descriptor):
        try:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{descriptor}", flags)
        except OSError:
            return descriptor
    return descriptor


def _takes(descriptor: int, seconds: float) -> bool:
    """Would it take something within this time? Also true of one that is broken: a write says why."""
    asked = select.poll()
    asked.register(descriptor, select.POLLOUT)
    return bool(asked.poll(seconds * 1000))


_sinks: dict[int, _Sink] = {}


def guard() -> None:
    """Put stdout and stderr of this process behind sinks. A descriptor that was closed from the beginning is
    opened on nothing: else the log or a lock would get its number, and be written to."""
    for descriptor in (IN, OUT, ERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # stdout for reading alone, so that writing to it still is a fault
            os.open(os.devnull, os.O_WRONLY if descriptor == ERR else os.O_RDONLY)
    if sys.stdin is None:
        sys.stdin = open(IN, encoding="utf-8", closefd=False)  # noqa: SIM115 - lives as long as the process
    sys.stdout = _guarded(OUT, sys.stdout)
    sys.stderr = _guarded(ERR, sys.stderr)


def _guarded(descriptor: int, was: Any) -> Any:
    """``errors``: a terminal that has no "→" is no reason to end with a bug."""
    if was is not None and type(was) is not io.TextIOWrapper:
        return was  # somebody in this process listens
    sink = _Patient(descriptor) if descriptor == ERR else _Sink(descriptor, "w", closefd=False)
    _sinks[descriptor] = sink
    lines = descriptor == ERR or bool(was and was.line_buffering)
    encoding = was.encoding if was else "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(sink), encoding=encoding, errors="replace", line_buffering=lines
    )


def stdout_fault() -> OSError | None:
    """Why something that was to stand on stdout does not; None: it all does."""
    sys.stdout.flush()
    return _sinks[OUT].fault if OUT in _sinks else None


def reader_is_gone() -> bool:
    """Will nobody read on, even if nothing was lost yet? For commands that follow something for long."""
    if OUT not in _sinks:
        return False
    asked = select.poll()
    asked.register(OUT, 0)
    if _sinks[OUT].fault is None and any(seen & select.POLLERR for _, seen in asked.poll(0)):
        _sinks[OUT].fault = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    return _sinks[OUT].fault is not None
