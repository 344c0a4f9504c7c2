"""Decides what a moment is; must never read a clock: the shell stamps every input."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class At:
    """A moment: UTC for people and for loss, monotonic (same boot) for ages and waits; both ns."""

    utc_ns: int
    mono_ns: int
