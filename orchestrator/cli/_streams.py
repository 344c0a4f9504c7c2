"""Decides what becomes of output that nobody takes: a full disk, a closed descriptor, a reader that went away.

A command goes on to its end all the same (a run must not stop because its output is gone); what could not be written
is said at the end, by message and exit code. Must never raise where something is printed.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

IN, OUT, ERR = range(3)


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
                import select

                select.select([], [self.fileno()], [])
            except OSError as error:
                self.fault = error
        return size


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
    sink = _sinks[descriptor] = _Sink(descriptor, "w", closefd=False)
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
    import select

    asked = select.poll()
    asked.register(OUT, 0)
    if _sinks[OUT].fault is None and any(seen & select.POLLERR for _, seen in asked.poll(0)):
        _sinks[OUT].fault = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    return _sinks[OUT].fault is not None
