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
    """``places``: per moment of a run, the place of its boot among the boots the run has seen. ``gaps``: between
    two drivers, the last that one wrote and the first that the next one did."""

    places: dict[At, int]
    gaps: tuple[tuple[At, At], ...] = ()

    def seconds(self, begin: At | None, end: At | None) -> float | None:
        """None where one moment is missing, or where the clock was set back in between: no figure is made up."""
        if begin is None or end is None:
            return None
        passed_ns = end.mono_ns - begin.mono_ns
        if passed_ns < 0 or self.places.get(begin, 0) != self.places.get(end, 0):
            passed_ns = end.utc_ns - begin.utc_ns
        return None if passed_ns < 0 else round(passed_ns / 1e9, 4)

    def undriven_seconds(self, begin: At | None, end: At | None) -> float:
        """Of the time between two moments, what may have passed without a driver: at most this, since one that was
        killed had lived a while after its last entry."""
        if begin is None or end is None:
            return 0.0
        inside = [
            (last, up)
            for last, up in self.gaps
            if self.order(begin) <= self.order(last) and self.order(up) <= self.order(end)
        ]
        return round(sum(self.seconds(last, up) or 0.0 for last, up in inside), 4)

    def order(self, at: At) -> tuple[int, int]:
        """What sorts moments of a run."""
        return self.places.get(at, 0), at.mono_ns


def clocks_of(entries: Iterable[Recorded]) -> Clocks:
    """The clocks of one run, from its stream."""
    places: dict[At, int] = {}
    gaps: list[tuple[At, At]] = []
    boot, place, last = "", 0, None
    for entry in entries:
        event = entry.event
        if isinstance(event, events.DriverCameUp):
            place += bool(boot) and event.boot != boot
            if boot and last is not None:
                gaps.append((last, event.at))
            boot = event.boot
        places[event.at] = place
        last = event.at
    return Clocks(places, tuple(gaps))
