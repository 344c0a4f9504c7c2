"""Waiting for a condition, bounded and said by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

POLL_SECONDS = 0.005
WAIT_SECONDS_MAX = 20.0


def until(what: Callable[[], Any], why: str, seconds_max: float = WAIT_SECONDS_MAX) -> Any:
    """Look again until it is so, and give what was found. AssertionError names what did not come."""
    deadline = time.monotonic() + seconds_max
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds_max:g} s: {why}"
        time.sleep(POLL_SECONDS)
    return found
