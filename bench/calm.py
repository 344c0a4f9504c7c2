"""Decides when a machine that others use is calm enough for a round; must never wait for ever."""

from __future__ import annotations

import time
from pathlib import Path

LOOK_SECONDS = 0.5
IDLE_MIN = 0.75
LOOKS_IN_A_ROW = 2
IDLE_FIELDS = (3, 4)  # idle and iowait of /proc/stat's first line


def idle_share(seconds: float = LOOK_SECONDS) -> float:
    """The share of all cores' time that nobody used, over the next moments."""
    before = _times()
    time.sleep(seconds)
    spent = [later - earlier for earlier, later in zip(before, _times(), strict=True)]
    return sum(spent[field] for field in IDLE_FIELDS) / max(1, sum(spent))


def wait(seconds_max: float) -> float:
    """Wait until the machine is calm, or no longer than this. Returns the idle share that was seen last."""
    deadline = time.monotonic() + seconds_max
    seen, calm = idle_share(), 0
    while time.monotonic() < deadline:
        calm = calm + 1 if seen >= IDLE_MIN else 0
        if calm >= LOOKS_IN_A_ROW:
            break
        seen = idle_share()
    return seen


def _times() -> list[int]:
    with Path("/proc/stat").open(encoding="ascii") as file:
        return [int(field) for field in file.readline().split()[1:9]]
