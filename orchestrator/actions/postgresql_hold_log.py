"""Decides that a lost side can come back by a rewind later: ``postgresql.hold-log``; must never fill a disk.

A standby that is about to be promoted makes the slot that each other member will follow it through. Made
before the promotion it reaches back to the last checkpoint that both histories share, which is where a
rewound server begins to read: made later, the first checkpoint after the promotion may be faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json
from orchestrator.drivers import postgresql, postgresql_follower, postgresql_upstream
from orchestrator.drivers.postgresql_member import Member, member
from orchestrator.drivers.postgresql_upstream import Held
from orchestrator.errors import PermanentError
from orchestrator.ports import Context, Description

SESSIONS = 2  # one more than the steps that run at its side have warmed


@dataclass(frozen=True, slots=True)
class HoldLogParams:
    """``host``: the member that is promoted."""

    cluster: ClusterRef
    host: HostRef


class HoldLog:
    """A reserved slot for every other member, under the very name by which it will follow."""

    kind: ClassVar[str] = "postgresql.hold-log"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = HoldLogParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: HoldLogParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        others = postgresql_follower.others(parts, at)
        texts = tuple(postgresql_upstream.slot_text(other) for other in others)
        undo = (postgresql_upstream.free_slots_text(others),) if others else ()
        return Description((postgresql_upstream.BOUND, *texts), (at.touch,), Undo.UNDO, undo)

    def load(self, context: Context[HoldLogParams]) -> None:
        postgresql.warm(context, _member(context), count=SESSIONS)

    def check(self, context: Context[HoldLogParams]) -> Finding:
        def work() -> Finding:
            with postgresql.lease(context, _member(context), looking=True) as session:
                held = postgresql_upstream.held(session)
            missing = [other.slot for other in _others(context) if not _holds(held, other)]
            if missing:
                return Finding(FindingKind.NOT_DONE, f"no slot holds the log for {', '.join(missing)}")
            return Finding(FindingKind.DONE, "", _evidence(context, held))

        return postgresql.found(work)

    def execute(self, context: Context[HoldLogParams]) -> Outcome:
        return postgresql.settle(lambda: _hold(context))

    def undo(self, context: Context[HoldLogParams]) -> Outcome:
        def work() -> Outcome:
            postgresql_follower.free_slots(context, _member(context))
            return Succeeded()

        return postgresql.settle(work)


def _hold(context: Context[HoldLogParams]) -> Outcome:
    problems: list[str] = []
    with postgresql.lease(context, _member(context)) as session:
        context.record(postgresql_upstream.BOUND)
        if postgresql.value(session, postgresql_upstream.BOUND) < 0:
            return Failed(_without_a_bound(context))
        for other in _others(context):
            try:
                postgresql_upstream.keep_slot(context, session, other)
            except PermanentError as error:
                problems.append(str(error))
        evidence = _evidence(context, postgresql_upstream.held(session))
    return Failed("; ".join(problems), evidence=evidence) if problems else Succeeded(evidence)


def _without_a_bound(context: Context[HoldLogParams]) -> str:
    at = _member(context)
    names = ", ".join(other.host.name for other in _others(context)) or "nobody"
    return (
        f"{at.endpoint}: max_slot_wal_keep_size = -1: a slot for {names}, which may never come back, would fill the"
        " disk; none is made, and past wal_keep_size a rejoin must clone anew. To have it:"
        f" {postgresql_upstream.SET_BOUND}"
    )


def _holds(held: tuple[Held, ...], other: Member) -> bool:
    return any(slot.name == other.slot and (slot.active or slot.holds) for slot in held)


def _evidence(context: Context[HoldLogParams], held: tuple[Held, ...]) -> dict[str, Json]:
    names = {other.slot for other in _others(context)}
    return {"slots": [slot.evidence() for slot in held if slot.name in names]}


def _member(context: Context[HoldLogParams]) -> Member:
    return member(context.parts, context.params.cluster, context.params.host)


def _others(context: Context[HoldLogParams]) -> tuple[Member, ...]:
    return postgresql_follower.others(context.parts, _member(context))
