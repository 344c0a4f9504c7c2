"""Decides whether a stopped server's data may follow a primary or left its history; must never open anything.

A history is a chain of timelines, each left at a fork. A server may follow when the last position it
reached lies on that chain, before the fork. What a crashed primary wrote last is not known from
outside: it counts as diverged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.drivers.postgresql_member import lsn_number

SYSTEM_ID = "Database system identifier"
STATE = "Database cluster state"
CHECKPOINT = "Latest checkpoint location"
CHECKPOINT_TIMELINE = "Latest checkpoint's TimeLineID"
RECOVERED_TO = "Minimum recovery ending location"
RECOVERED_TIMELINE = "Min recovery ending loc's timeline"
CHECKSUMS = "Data page checksum version"
HINTS = "wal_log_hints setting"

STOPPED = "shut down"
STANDBY_STATES = ("shut down in recovery", "in archive recovery")
NO_LSN = "0/0"

_FORK = re.compile(r"^\s*(\d+)\s+([0-9A-Fa-f]+/[0-9A-Fa-f]+)")
_COMMON = re.compile(r"last common checkpoint at ([0-9A-Fa-f]+/[0-9A-Fa-f]+)")
_START = re.compile(r"^START WAL LOCATION: ([0-9A-Fa-f]+/[0-9A-Fa-f]+)", re.MULTILINE)


class Standing(StrEnum):
    """How a server's data stand to the history of the primary that it should follow."""

    ABSENT = "absent"  # nothing is there: new hardware
    FOREIGN = "foreign"  # another cluster's
    FOLLOWS = "follows"  # a part of that history, however old
    TOO_OLD = "too-old"  # a part of it, but the primary has no longer what comes next
    DIVERGED = "diverged"  # it went on where that history did not, or may have


@dataclass(frozen=True, slots=True)
class History:
    """What a primary says of its log. ``lsn``: up to where it is flushed, ``end``: up to where it is
    written at all, which pg_rewind tells a rewound server to recover to. ``forks``: each older timeline
    of its history → where it was left. ``oldest``: where the log that it still has begins."""

    system_id: str
    timeline: int
    lsn: str
    end: str
    forks: Mapping[int, str]
    oldest: str

    def holds(self, timeline: int, lsn: str, *, is_record: bool = False) -> bool:
        """Does this history go through that position? ``is_record``: a record begins there."""
        end = self.end if timeline == self.timeline else self.forks.get(timeline)
        if end is None:
            return False
        return lsn_number(lsn) < lsn_number(end) if is_record else lsn_number(lsn) <= lsn_number(end)

    def has_log_from(self, lsn: str) -> bool:
        """Can somebody who has reached ``lsn`` go on from here?"""
        return lsn_number(lsn) >= lsn_number(self.oldest)


def parse_history(text: str) -> dict[int, str]:
    """A timeline history file: timeline → LSN at which it was left."""
    return {int(found[1]): found[2].upper() for line in text.splitlines() if (found := _FORK.match(line))}


def standing(control: Mapping[str, str], history: History) -> tuple[Standing, str]:
    """Judge what pg_controldata says, and why. Empty ``control``: there is no data directory."""
    if not control:
        return Standing.ABSENT, "there is no database"
    system = control.get(SYSTEM_ID, "")
    if system != history.system_id:
        return Standing.FOREIGN, f"its system identifier is {system}, not {history.system_id}"
    state = control.get(STATE, "")
    if state not in (STOPPED, *STANDBY_STATES):
        return Standing.DIVERGED, f"it did not stop cleanly ({state}): what it wrote last is not known"
    lsn, timeline, is_record = _position(control)
    if not history.holds(timeline, lsn, is_record=is_record):
        left = history.forks.get(timeline)
        where = f"which was left at {left}" if left else f"and the primary stands at {history.end}"
        return Standing.DIVERGED, f"it went on to {lsn} on timeline {timeline}, {where}"
    if state != STANDBY_STATES[1] and not history.has_log_from(lsn):
        return Standing.TOO_OLD, f"it stopped at {lsn}, and the primary's log begins at {history.oldest}"
    return Standing.FOLLOWS, f"it stopped at {lsn} on timeline {timeline} ({state})"


def _position(control: Mapping[str, str]) -> tuple[str, int, bool]:
    """(LSN, timeline, is it the begin of a record) of the last position that the control file tells."""
    lsn, timeline = control[CHECKPOINT], int(control[CHECKPOINT_TIMELINE])
    recovered = control.get(RECOVERED_TO, NO_LSN)
    if control[STATE] == STOPPED or lsn_number(recovered) <= lsn_number(lsn):
        return lsn, timeline, True
    return recovered, int(control[RECOVERED_TIMELINE]) or timeline, False


def can_be_rewound(control: Mapping[str, str], history: History) -> str:
    """Why pg_rewind cannot work on these data, or "": it needs to find every page that changed."""
    if control.get(CHECKSUMS, "0") == "0" and control.get(HINTS) != "on":
        return "neither data checksums nor wal_log_hints are on there"
    timeline = int(control[CHECKPOINT_TIMELINE])
    fork = history.forks.get(timeline)
    if fork is None and timeline != history.timeline:
        return f"its timeline {timeline} is no part of the primary's history"
    if fork is not None and not history.has_log_from(fork):
        return f"the histories part at {fork}, and the primary's log begins at {history.oldest}"
    return ""


def common_checkpoint(text: str) -> str:
    """Where pg_rewind says that the histories still agreed; "" when it does not say."""
    found = _COMMON.search(text)
    return found[1] if found else ""


def backup_start(label: str) -> str:
    """From which LSN a data directory with this backup_label must be recovered; "" when it has none."""
    found = _START.search(label)
    return found[1] if found else ""
