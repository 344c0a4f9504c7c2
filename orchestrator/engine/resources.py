"""Decides how long things opened for a run live: until the process ends or ``close`` is called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class SharedResources:
    """Session pools and clients by key, made once; each key has a lock of its own while it is made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._made: dict[Hashable, Any] = {}

    def get(self, key: Hashable, factory: Callable[[], T]) -> T:
        with self._lock:
            if key in self._made:
                return cast("T", self._made[key])
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._made:
                self._made[key] = factory()
            return cast("T", self._made[key])

    def close(self) -> None:
        """Close everything that can be closed, last opened first."""
        for made in reversed(list(self._made.values())):
            close = getattr(made, "close", None)
            if close is not None:
                close()
        self._made.clear()
