"""Decides what time it is; the only module of the engine that reads a clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.core.moment import At

if TYPE_CHECKING:
    from orchestrator.ports import Clock


class SystemClock:
    """UTC for people, CLOCK_MONOTONIC for ages and waits."""

    def utc_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def monotonic(self) -> float:
        return time.monotonic()


def now(clock: Clock) -> At:
    return At(clock.utc_ns(), clock.monotonic_ns())
