"""Decides what a figure is and when it is within its budget; must never measure anything."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

RESAMPLES = 2_000
RESAMPLE_SEED = 20_261_123  # the same samples give the same interval
TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Limit:
    """``ratio_max`` bounds ours / reference, ``value_max`` the median itself; None: not bounded."""

    ratio_max: float | None = None
    value_max: float | None = None

    @property
    def text(self) -> str:
        parts = []
        if self.ratio_max is not None:
            parts.append(f"≤ {self.ratio_max:g} ×")
        if self.value_max is not None:
            parts.append(f"≤ {self.value_max:g}")
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured. ``reference`` is what it is compared with, sample by sample in pairs
    where both have the same length."""

    section: str
    name: str
    unit: str
    samples: tuple[float, ...]
    reference_name: str = ""
    reference: tuple[float, ...] = ()
    limit: Limit = field(default_factory=Limit)
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def reference_median(self) -> float | None:
        return statistics.median(self.reference) if self.reference else None

    @property
    def ratio(self) -> float | None:
        """The pooled ratio: median over median, None without a reference."""
        below = self.reference_median
        return self.median / below if below else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the pooled ratio lies in 95 % of resampled sets of pairs."""
        if not self.reference or len(self.samples) < 3:
            return None
        return resampled(self.samples, self.reference)

    @property
    def is_within(self) -> bool | None:
        """None where nothing bounds it."""
        verdicts = []
        if self.limit.ratio_max is not None and self.ratio is not None:
            verdicts.append(self.ratio <= self.limit.ratio_max)
        if self.limit.value_max is not None:
            verdicts.append(self.median <= self.limit.value_max)
        return all(verdicts) if verdicts else None

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "section": self.section,
            "name": self.name,
            "unit": self.unit,
            "n": len(self.samples),
            "median": _short(self.median),
            "min": _short(min(self.samples)),
            "max": _short(max(self.samples)),
            "samples": [_short(sample) for sample in self.samples],
            "within": self.is_within,
            "limit": {"ratio_max": self.limit.ratio_max, "value_max": self.limit.value_max},
            "note": self.note or None,
        }
        if self.reference:
            below = self.reference_median
            found["reference"] = {
                "name": self.reference_name,
                "n": len(self.reference),
                "median": _short(below or 0.0),
                "samples": [_short(sample) for sample in self.reference],
            }
            found["ratio"] = None if self.ratio is None else _short(self.ratio)
            found["ratio_interval"] = (
                None if self.interval is None else [_short(end) for end in self.interval]
            )
        return found


def resampled(ours: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Bootstrap of the pooled ratio, in pairs where there are pairs."""
    chance = random.Random(RESAMPLE_SEED)
    paired = len(ours) == len(reference)
    ratios = []
    for _ in range(RESAMPLES):
        mine = [chance.randrange(len(ours)) for _ in ours]
        theirs = mine if paired else [chance.randrange(len(reference)) for _ in reference]
        below = statistics.median(reference[place] for place in theirs)
        if below:
            ratios.append(statistics.median(ours[place] for place in mine) / below)
    if not ratios:
        return (0.0, 0.0)
    ratios.sort()
    return ratios[int(TAIL * len(ratios))], ratios[min(len(ratios) - 1, int((1 - TAIL) * len(ratios)))]


def _short(value: float) -> float:
    return float(f"{value:.5g}")
