"""Decides how a cleanly stopped old side comes back as the standby of the new primary: ``postgresql.follow``.

Nothing is copied or rewound: data whose history is not a part of the primary's are refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef
from orchestrator.drivers import postgresql, postgresql_follower, postgresql_server, postgresql_upstream
from orchestrator.drivers.postgresql_history import Standing, standing
from orchestrator.drivers.postgresql_member import Member, member
from orchestrator.ports import Context, Description


@dataclass(frozen=True, slots=True)
class FollowParams:
    """``source``: the host of the primary that ``host`` shall follow."""

    cluster: ClusterRef
    host: HostRef
    source: HostRef


class Follow:
    """Slot, standby.signal, role and password file, start; done when the primary sees it stream."""

    kind: ClassVar[str] = "postgresql.follow"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = FollowParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: FollowParams, parts: Parts) -> Description:
        source, follower = _sides(params, parts)
        commands = (
            *postgresql_follower.texts(source, follower),
            postgresql_upstream.free_slots_text(postgresql_follower.others(parts, follower)),
        )
        return Description(commands, (source.touch, *follower.touches), Undo.NONE_NEEDED)

    def load(self, context: Context[FollowParams]) -> None:
        postgresql_follower.load(context, *_sides(context.params, context.parts))

    def check(self, context: Context[FollowParams]) -> Finding:
        def work() -> Finding:
            source, follower = _sides(context.params, context.parts)
            found = postgresql_follower.streaming(context, source, follower)
            if found is None:
                return Finding(FindingKind.NOT_DONE, f"{follower.host.name} does not stream from here")
            return Finding(FindingKind.DONE, "", postgresql_follower.evidence(follower, source, *found))

        return postgresql.found(work)

    def execute(self, context: Context[FollowParams]) -> Outcome:
        return postgresql.settle(lambda: _follow(context))

    def undo(self, context: Context[FollowParams]) -> Outcome:
        """A standby does no harm, and the primary may need it: it stays."""
        return Succeeded()


def _sides(params: FollowParams, parts: Parts) -> tuple[Member, Member]:
    return member(parts, params.cluster, params.source), member(parts, params.cluster, params.host)


def _follow(context: Context[FollowParams]) -> Outcome:
    source, follower = _sides(context.params, context.parts)
    postgresql_follower.need_secrets(context, follower)
    with postgresql.lease(context, source) as session:
        history = postgresql_upstream.history(session, source.host.name)
    seen = postgresql_server.look(context, follower)
    if not seen["postmaster"]:
        judged, reason = standing(seen["control"], history)
        if judged is not Standing.FOLLOWS:
            return Failed(
                f"{follower.host.name} cannot simply follow {source.host.name}: {reason}"
                " (to rejoin it: continuity reprotect)",
                evidence={"standing": str(judged)},
            )
    followed = postgresql_follower.follow(context, source, follower, history)
    if followed.stream is None:
        hint = " (to rejoin it: continuity reprotect)" if followed.has_left else ""
        return Failed(f"{follower.host.name}: {followed.problem}{hint}", retryable=not followed.has_left)
    return Succeeded(postgresql_follower.evidence(follower, source, followed.stream, followed.timeline))
