"""Decides how long something took by the log: monotonic within one boot of the machine, UTC across boots.

The monotonic clock begins anew with each boot; ``driver.started`` says which boot the events after it are of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core import events
from orchestrator.core.log import Recorded
from orchestrator.core.moment import At


@dataclass(frozen=True, slots=True)
class Clocks:
    """``places``: per moment of a run, the place of its boot among the boots the run has seen."""

    places: dict[At, int]

    def seconds(self, begin: At | None, end: At | None) -> float | None:
        """None where one moment is missing, or where the clock was set back in between: no figure is made up."""
        if begin is None or end is None:
            return None
        passed_ns = end.mono_ns - begin.mono_ns
        if passed_ns < 0 or self.places.get(begin, 0) != self.places.get(end, 0):
            passed_ns = end.utc_ns - begin.utc_ns
        return None if passed_ns < 0 else round(passed_ns / 1e9, 4)

    def order(self, at: At) -> tuple[int, int]:
        """What sorts moments of a run."""
        return self.places.get(at, 0), at.mono_ns


def clocks_of(entries: Iterable[Recorded]) -> Clocks:
    """The clocks of one run, from its stream."""
    places: dict[At, int] = {}
    boot, place = "", 0
    for entry in entries:
        event = entry.event
        if isinstance(event, events.DriverCameUp):
            place += bool(boot) and event.boot != boot
            boot = event.boot
        places[event.at] = place
    return Clocks(places)
