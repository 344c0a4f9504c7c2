"""Decides in which thread a piece of work is done: one that is free, else a new one; must never make work
wait for a thread. Starting a thread waits until it runs, which on a busy machine takes longer than many a step.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

IDLE_MAX = 32


@dataclass(frozen=True, slots=True)
class _Given:
    work: Callable[[], None]
    name: str
    ended: threading.Event


@dataclass(slots=True)
class Workers:
    """Daemon threads that outlive their work and wait for more: as many as were ever busy at once, and of
    those that are free no more than ``IDLE_MAX``."""

    _free: list[queue.SimpleQueue[_Given]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def free(self) -> int:
        """How many threads wait for work."""
        return len(self._free)

    def begin(self, work: Callable[[], None], name: str) -> threading.Event:
        """Have ``work`` done in a thread of that name, now. The event is set when it has ended."""
        given = _Given(work, name, threading.Event())
        with self._lock:
            inbox = self._free.pop() if self._free else None
        if inbox is None:
            threading.Thread(target=self._live, args=(given,), daemon=True).start()
        else:
            inbox.put(given)
        return given.ended

    def _live(self, given: _Given) -> None:
        inbox = queue.SimpleQueue[_Given]()
        while True:
            threading.current_thread().name = given.name
            try:
                given.work()
            finally:
                given.ended.set()
            del given  # what it holds is not kept while nothing is done
            with self._lock:
                if len(self._free) >= IDLE_MAX:
                    return
                self._free.append(inbox)
            threading.current_thread().name = "free"
            given = inbox.get()
