"""Points of a run at which its driver can be killed, and the file that remembers which were.

A point is named by what happens there, never by a count: ``OPERATION: before Ended STEP Succeeded``.
Each is killed at most once over all drivers that share a file, so a chain of drivers comes to an end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

TOLD, KILLED = "told", "killed"
NOTE = "-- "  # begins a text that is no command
EPOCH = re.compile(r"\bepoch = \d+")  # what differs from run to run must not make a new point
LSN = re.compile(r"\b[0-9A-F]{1,8}/[0-9A-F]{5,8}\b")


@dataclass(slots=True)
class Memory:
    """What every driver so far was told, and where drivers died. One line each; a line is whole or absent."""

    path: Path
    told: set[str] = field(default_factory=set)
    killed: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> Memory:
        memory = cls(path)
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            what, name = json.loads(line)
            (memory.killed if what == KILLED else memory.told).add(name)
        return memory

    def note(self, what: str, name: str) -> None:
        line = json.dumps([what, name]).encode() + b"\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


class Killer:
    """Ends this process by SIGKILL at the first point that nobody was killed at yet.

    ``spared``: kinds of points (first words) that are passed by. ``stop_at``: this point stops the
    process (SIGSTOP) instead, once: somebody outside looks at the world and lets it go on.
    """

    def __init__(
        self, operation: str, memory: Path | None, spared: Iterable[str] = (), stop_at: str = ""
    ) -> None:
        self._operation = operation
        self._memory = Memory.read(memory) if memory else None
        self._spared = frozenset(spared)
        self._stop_at = stop_at
        self._lock = threading.Lock()
        self.run = ""

    def at(self, point: str) -> None:
        """A hook of the engine: before or after an append, or after an effect."""
        if self._stop_at and point.startswith(self._stop_at):
            self._stop_at = ""
            os.kill(os.getpid(), signal.SIGSTOP)
        if self._memory is not None:
            with self._lock:
                self._die_at(f"{self._operation}: {point}")

    def record(self, step: str, command: str) -> None:
        """A hook of the engine: this exact command of this step is about to be sent."""
        if not command.startswith(NOTE):
            said = command.replace(self.run, "RUN") if self.run else command
            self.at(f"command {step}: {EPOCH.sub('epoch = N', LSN.sub('LSN', said))}")

    def _die_at(self, name: str) -> None:
        assert self._memory is not None
        if name in self._memory.killed:
            return
        if name not in self._memory.told:
            self._memory.told.add(name)
            self._memory.note(TOLD, name)
        if name.split(": ", 1)[1].split(" ", 1)[0] not in self._spared:
            self._memory.note(KILLED, name)
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()  # the signal is on its way; nothing more happens here
