"""Decides how an old side is brought back: it follows, is rewound, or is cloned anew; must never touch anything.

Pure: from what is seen on both sides to a course with its reason, the room it takes and the time it
will take. The old history is kept whole in every case but the first, which changes nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.values import Json, size_text
from orchestrator.drivers.postgresql_history import Standing

MARGIN_BYTES = 64 * 1024 * 1024
COPY_BYTES_PER_MS = 200_000  # measured on slow disks: predictions are rather too long than too short
CLONE_BYTES_PER_MS = 100_000
REWIND_MS = 1_500
CLONE_MS = 1_500
FOLLOW_MS = 500


class Way(StrEnum):
    FOLLOW = "follow"
    REWIND = "rewind"
    RECLONE = "reclone"


@dataclass(frozen=True, slots=True)
class Seen:
    """Both sides before anything is done. ``refusal``: why pg_rewind cannot work, or "".

    ``*_free_bytes``: where the new data directory and the evidence will be; ``shares``: a copy beside
    the data takes no room; ``has_data``: something is still in place. ``tablespaces`` of the primary.
    """

    wanted: str
    standing: Standing
    reason: str
    refusal: str
    used_bytes: int
    source_bytes: int
    free_bytes: int
    kept_free_bytes: int
    same_device: bool
    has_data: bool
    is_kept: bool
    shares: bool
    tablespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Course:
    """``problem``: why not even this way can be gone."""

    way: Way
    because: str
    needed_bytes: int = 0
    predicted_ms: int = FOLLOW_MS
    problem: str = ""

    def evidence(self) -> dict[str, Json]:
        return {
            "how": str(self.way),
            "because": self.because,
            "needed_bytes": self.needed_bytes,
            "predicted_ms": self.predicted_ms,
        }


def course(seen: Seen) -> Course:
    """The way that people wanted, as far as it can be gone; never less evidence for it."""
    if seen.wanted == Way.RECLONE:
        return _reclone(seen, f"as people wanted; {seen.reason}")
    if seen.standing is Standing.FOLLOWS:
        return Course(Way.FOLLOW, seen.reason)
    if seen.standing is not Standing.DIVERGED:
        return _reclone(seen, seen.reason)
    if seen.refusal:
        return _reclone(seen, f"{seen.reason}; it cannot be rewound: {seen.refusal}")
    needed, problem = _room_for_rewind(seen)
    if problem:
        return _reclone(seen, f"{seen.reason}; there is no room to rewind a copy: {problem}")
    predicted_ms = REWIND_MS + seen.used_bytes // COPY_BYTES_PER_MS
    return Course(Way.REWIND, seen.reason, needed, predicted_ms)


def instead(seen: Seen, because: str) -> Course:
    """The clone that stands in where a rewind turned out to be impossible."""
    return _reclone(seen, because)


def _room_for_rewind(seen: Seen) -> tuple[int, str]:
    """(bytes needed, what is missing or "")."""
    grows = max(0, seen.source_bytes - seen.used_bytes) + MARGIN_BYTES
    if seen.same_device:
        needed = grows + (0 if seen.shares else seen.used_bytes)
        return needed, _missing(needed, seen.free_bytes)
    if seen.is_kept:  # what is still in place is moved, what is not must be copied back
        needed = grows + (0 if seen.has_data else seen.used_bytes)
        return needed, _missing(needed, seen.free_bytes)
    needed = seen.used_bytes + MARGIN_BYTES
    return needed, _missing(needed, seen.kept_free_bytes) or _missing(grows, seen.free_bytes)


def _reclone(seen: Seen, because: str) -> Course:
    needed = seen.source_bytes + MARGIN_BYTES
    problem = _missing(needed, seen.free_bytes)
    if seen.tablespaces:
        problem = (
            f"the primary has tablespaces ({', '.join(seen.tablespaces)}), and where they shall lie here is"
            " not declared: clone it by hand with pg_basebackup --tablespace-mapping"
        )
    return Course(Way.RECLONE, because, needed, CLONE_MS + seen.source_bytes // CLONE_BYTES_PER_MS, problem)


def _missing(needed_bytes: int, free_bytes: int) -> str:
    if needed_bytes <= free_bytes:
        return ""
    return f"it takes {size_text(needed_bytes)}, {size_text(free_bytes)} are free"
