"""Decides how observers are told: behind a bounded queue that drops, never on the driver's thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeAlias

from orchestrator.core.events import RunEvent
from orchestrator.core.run import Run

QUEUE_MAX = 2_000
CLOSE_SECONDS = 1.0
DRAIN_SECONDS = 1.0
Observer: TypeAlias = Callable[[Run, tuple[RunEvent, ...]], None]
Item: TypeAlias = "tuple[Observer, Run, tuple[RunEvent, ...]] | threading.Event | None"


class Aside:
    """Tells one observer from a thread of its own. ``dropped`` counts what it was too slow for."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._queue: queue.Queue[Item] = queue.Queue(QUEUE_MAX)
        self.dropped = 0
        self._thread = threading.Thread(target=self._work, name="observer", daemon=True)
        self._thread.start()

    def __call__(self, run: Run, events: tuple[RunEvent, ...]) -> None:
        self.tell(self._observer, run, events)

    def tell(self, observer: Observer, run: Run, events: tuple[RunEvent, ...]) -> None:
        """Tell another observer from the same thread, in the same order."""
        try:
            self._queue.put_nowait((observer, run, events))
        except queue.Full:
            self.dropped += len(events)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
            else:
                observer, run, events = item
                observer(run, events)

    def drain(self, seconds_max: float = DRAIN_SECONDS) -> bool:
        """Wait until the observer was told all that is queued now. False if it did not get there in time."""
        told = threading.Event()
        try:
            self._queue.put(told, timeout=seconds_max)
        except queue.Full:
            return False
        return told.wait(seconds_max)

    def close(self) -> None:
        """Let the observer finish what is queued, for at most CLOSE_SECONDS."""
        try:
            self._queue.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS)
