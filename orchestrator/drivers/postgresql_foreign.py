"""Decides whether a server that lies stopped went on as a primary after another had taken over; must never change it.

A crashed primary usually holds a little log that never arrived: that is the loss which was stated and
accepted, and no second history. What tells the two apart is time. Its log beyond the fork is read, and
a commit there that is later than the other's promotion was made by a server that had lost the right to
write: a split brain, whether or not it still runs. The promotion's time is that of the history file
which it wrote, in whole seconds, so one more second is allowed. Both sites' clocks are trusted as far
as they are for a stated loss. A log that is gone tells nothing, and that is said, never taken for "none".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator.core.values import Json
from orchestrator.drivers import postgresql, postgresql_log_host, postgresql_server
from orchestrator.drivers.postgresql import Session, quote
from orchestrator.drivers.postgresql_history import CHECKPOINT_TIMELINE, History, Standing, standing
from orchestrator.drivers.postgresql_member import Member
from orchestrator.errors import PermanentError

if TYPE_CHECKING:
    from orchestrator.ports import Context

CLOCK_NS = 1_000_000_000  # file times are told in whole seconds


@dataclass(frozen=True, slots=True)
class Foreign:
    """What the old server committed beyond the fork. ``unknown``: why that cannot be told, or ""."""

    timeline: int
    fork: str
    promoted_ns: int
    commits: int = 0
    first_ns: int = 0
    last_ns: int = 0
    last_lsn: str = ""
    unknown: str = ""

    def text(self) -> str:
        if self.unknown:
            return f"whether it went on to write after the other was promoted cannot be told: {self.unknown}"
        if not self.commits:
            return "it committed nothing after the other was promoted"
        return (
            f"it committed {self.commits} transactions up to {self.last_lsn} on timeline {self.timeline}, which was"
            f" left at {self.fork}, between {_utc(self.first_ns)} and"
            f" {_utc(self.last_ns)}, after the other was promoted"
            f" ({_utc(self.promoted_ns)})"
        )

    def evidence(self) -> dict[str, Json]:
        return {
            "timeline": self.timeline,
            "fork": self.fork,
            "promoted_ns": self.promoted_ns,
            "commits": self.commits,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "last_lsn": self.last_lsn,
            "unknown": self.unknown,
        }


def foreign(
    context: Context[Any],
    session: Session,
    follower: Member,
    data: str,
    control: Mapping[str, str],
    history: History,
) -> Foreign | None:
    """What lies in ``data``, where no server runs, against the primary of ``session``. None: no other history."""
    if standing(control, history)[0] is not Standing.DIVERGED:
        return None
    timeline = int(control[CHECKPOINT_TIMELINE])
    fork = history.forks.get(timeline, "")
    if not fork:
        return Foreign(timeline, "", 0, unknown=f"timeline {timeline} is not one that the primary has left")
    promoted_ns = _promoted_ns(session, history, timeline)
    if promoted_ns is None:
        return Foreign(
            timeline, fork, 0, unknown="the primary has no longer the history file of its promotion"
        )
    arguments: dict[str, Json] = {
        "tool": follower.tool("pg_waldump"),
        "log_directory": f"{data}/pg_wal",
        "timeline": timeline,
        "start": fork,
        "after_ns": promoted_ns + CLOCK_NS,
    }
    try:
        found = postgresql_server.call(context, follower, postgresql_log_host.commits, arguments)
    except (PermanentError, TimeoutError) as error:
        return Foreign(timeline, fork, promoted_ns, unknown=str(error))
    return Foreign(
        timeline, fork, promoted_ns, found["later"], found["first_ns"] or 0, found["last_ns"] or 0,
        found["last_lsn"], found["problem"],
    )  # fmt: skip


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _promoted_ns(session: Session, history: History, timeline: int) -> int | None:
    """When the timeline that followed ``timeline`` began."""
    after = min((*(each for each in history.forks if each > timeline), history.timeline))
    name = f"{after:08X}.history"
    found = postgresql.rows(
        session,
        "SELECT (extract(epoch FROM modification) * 1000000000)::bigint FROM pg_ls_waldir()"
        f" WHERE name = {quote(name)}",
    )
    return int(found[0][0]) if found else None
