"""Waiting for a condition, bounded and said by name."""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_SECONDS = 0.001
SECONDS_MAX = 5.0


def until(condition: Callable[[], object], what: str, seconds_max: float = SECONDS_MAX) -> None:
    """Return when the condition holds. AssertionError names what did not come."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds_max:g} s: {what}"
        time.sleep(POLL_SECONDS)
