"""Decides what a PostgreSQL database contributes to each operation; must never move a cluster twice.

The cluster's steps belong to the cluster, however many services use it (semantics 6.1). A promoted
database whose old primary can still write is a split brain: the order below is what prevents it, and
each step says why it is there. Whether a step may start is for the gates to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.model import Cluster, Estate, ProofKind, Stage
from orchestrator.core.move import (
    AUTHORISED,
    FENCE_RETRY,
    ONCE,
    OPENS,
    QUICK_RETRY,
    STANDARD_RETRY,
    Contribution,
    Move,
    Placed,
    must_stand_at,
)
from orchestrator.core.plan import Draft, Gate, Retry, Role
from orchestrator.core.values import ClusterRef, ComponentRef, Json, Name

INSPECT_MS = 3_000
QUICK_MS = 10_000
FREEZE_MS = 10_000
STOP_MS = 30_000
DRAIN_MS = 60_000
PROMOTE_MS = 300_000
CHECKPOINT_MS = 600_000
FOLLOW_MS = 120_000
REJOIN_MS = 4 * 3_600_000
PROTECT_MS = 3_600_000
LIST_MS = 30 * 60_000
INSPECT_RETRY = Retry(2, 200, 1_000)
NOTHING: Mapping[str, Json] = {}


@dataclass(frozen=True, slots=True)
class PostgreSQL:
    """A database of a cluster that the estate declares; the cluster moves once for all its services."""

    name: Name
    cluster: ClusterRef
    database: str
    reconcile: tuple[str, ...] = ()
    needs: tuple[ComponentRef, ...] = ()

    def unit_in(self, service: str) -> str:
        return self.cluster

    def address_at(self, estate: Estate, site: str) -> str:
        members = estate.clusters[self.cluster].members.get(site, ())
        return estate.hosts[members[0]].address if members else ""

    def contribute(self, placed: Placed) -> Contribution:
        """The steps of the whole cluster; the compiler asks once however many services use it."""
        move = placed.move
        cluster = move.estate.clusters[self.cluster]
        for site in (move.source, move.target):
            must_stand_at(f"cluster {cluster.name}", site, cluster.members.get(site, ()))
        drafts = tuple(cluster_drafts(move, cluster, move.databases[cluster.name]))
        fenced = cluster.members[move.source] if move.moves and not move.stands else ()
        return Contribution(cluster.name, "", drafts, fenced, is_stateful=True)


@dataclass(frozen=True, slots=True)
class _Side:
    """What the steps of one cluster's move are made from."""

    move: Move
    cluster: Cluster
    databases: tuple[str, ...]

    @property
    def source(self) -> str:
        return self.cluster.members[self.move.source][0]

    @property
    def target(self) -> str:
        return self.cluster.members[self.move.target][0]

    def draft(
        self, key: str, stage: Stage, role: Role, action: str, host: str, title: str, why: str, timeout_ms: int, *,
        needs: tuple[str, ...] = (), gates: tuple[Gate, ...] = AUTHORISED, up: bool = False,
        best_effort: bool = False, retry: Retry = STANDARD_RETRY, fences: tuple[str, ...] = (),
        more: Mapping[str, Json] = NOTHING, **arguments: Json,
    ) -> Draft:  # fmt: skip
        return Draft(
            key=key, stage=stage, role=role, title=title, why=why, action=action,
            arguments={"cluster": self.cluster.name, "host": host, **more, **arguments}, timeout_ms=timeout_ms,
            needs=needs, gates=gates, up=up, best_effort=best_effort, retry=retry, fences=fences,
            proves=ProofKind.DEMOTED if role is Role.FENCE else None,
        )  # fmt: skip


def cluster_drafts(move: Move, cluster: Cluster, databases: tuple[str, ...]) -> list[Draft]:
    """All steps of one cluster in one operation."""
    side = _Side(move, cluster, databases)
    out = [_inspect(side)]
    if move.stands:
        return [*out, _epoch(side, ()), _aftercare(side, "epoch")]
    if move.reprotects:
        out += _reprotect(side)
    if move.moves and move.is_planned:
        out += [
            *_drain(side),
            *_promotion(side, ("close", "verify", "verify-drained"), with_loss=False),
            *_follow(side),
        ]
    if move.reprotects:
        out += _list_diverged(side, "protect" if move.moves else "reprotect")
    if move.moves and not move.is_planned:
        out += [*_lose(side), *_promotion(side, ("close", "verify", "measure"), with_loss=True)]
    return out


def _inspect(side: _Side) -> Draft:
    return side.draft(
        "inspect", Stage.PREFLIGHT, Role.EVIDENCE, "postgresql.inspect", side.target,
        f"look at every member of {side.cluster.name}, both sites side by side",
        "group state comes from evidence, not from one machine's file",
        INSPECT_MS, gates=(), retry=INSPECT_RETRY,
        databases=list(side.databases), source=side.move.source, target=side.move.target,
        more=_seen(side.move),
    )  # fmt: skip


def _seen(move: Move) -> dict[str, Json]:
    """What the log knows of the group; nothing where it is looked at without one."""
    if not move.epoch_seen:
        return {}
    void: dict[str, Json] = {"taken_back": list(move.taken_back)} if move.taken_back else {}
    return {"expect_site": move.holder, "expect_epoch": move.epoch_seen, **void}


def _stop(side: _Side, host: str, *, needs: tuple[str, ...]) -> Draft:
    """Fast, not immediate: what was committed is still sent to the replica while it stops."""
    timeout_ms = side.move.estate.policies.fence_budget_ms if side.move.site_is_lost() else STOP_MS
    return side.draft(
        f"stop-{host}", Stage.FENCE, Role.FENCE, "postgresql.stop", host,
        f"stop the database at {host} for good: it comes back only as a standby",
        "a promoted database whose old primary can still write is a split brain",
        timeout_ms, needs=needs, retry=FENCE_RETRY, fences=(host,),
        more={"mode": "fast", **side.move.declared_fence("postgresql.stop")},
    )  # fmt: skip


def _close(side: _Side) -> Draft:
    return side.draft(
        "close", Stage.FENCE, Role.CLOSE, "postgresql.close", side.target,
        f"close {side.target} to writers before it is promoted, and free it of home's settings",
        "clients that look for a writable server must not enter before the epoch is committed",
        QUICK_MS, retry=QUICK_RETRY,
    )  # fmt: skip


def _hold_log(side: _Side) -> Draft:
    """Before the promotion, and nothing waits for it: a server without it is only slower to come back."""
    return side.draft(
        "hold-log", Stage.FENCE, Role.ORDINARY, "postgresql.hold-log", side.target,
        f"have {side.target} keep the log that the others will need to follow it, within its bound",
        "past the log that is kept anyway, a lost side could not be rewound and must be cloned anew",
        QUICK_MS, best_effort=True, retry=QUICK_RETRY,
    )  # fmt: skip


def _verify(side: _Side) -> Draft:
    limits = side.cluster.limits
    return side.draft(
        "verify", Stage.VERIFY_DATA, Role.VERIFY, "postgresql.verify", side.target,
        f"{side.target} is a whole copy of this cluster, at the epoch this plan expects",
        "promoting the wrong or a paused copy cannot be taken back",
        QUICK_MS, retry=QUICK_RETRY, databases=list(side.databases), expect_site=side.move.source,
        expect_epoch=side.move.epoch_seen, lag_ms_limit=limits.lag_ms,
        backlog_bytes_limit=limits.backlog_bytes,
    )  # fmt: skip


def _lose(side: _Side) -> list[Draft]:
    """Unplanned: freeze and every fence side by side; then what is here is verified and measured."""
    move = side.move
    return [
        side.draft(
            "freeze", Stage.FREEZE, Role.FREEZE, "postgresql.freeze", side.source,
            f"refuse new writes at {side.source}, if it can be reached",
            "every write less at the old side is a row less to lose",
            move.estate.policies.fence_budget_ms, best_effort=True, retry=ONCE,
            databases=list(side.databases),
        ),
        *(_stop(side, host, needs=()) for host in side.cluster.members[move.source]),
        _close(side),
        _hold_log(side),
        _verify(side),
        side.draft(
            "measure", Stage.VERIFY_DATA, Role.LOSS, "postgresql.measure", side.target,
            "measure what is present here: the loss that is about to be accepted",
            "people accept a stated loss, after the fence, right before the promotion",
            QUICK_MS, gates=(*AUTHORISED, Gate.FENCED), retry=QUICK_RETRY, databases=list(side.databases),
        ),
    ]  # fmt: skip


def _drain(side: _Side) -> list[Draft]:
    """Planned: nothing is in flight when the old side stops, and its last record is here."""
    move = side.move
    return [
        side.draft(
            "checkpoint-before", Stage.FREEZE, Role.ORDINARY, "postgresql.checkpoint", side.source,
            f"checkpoint at {side.source} while it still serves",
            "the shutdown checkpoint is then short: clients see a pause of milliseconds",
            CHECKPOINT_MS,
        ),
        _close(side),
        _hold_log(side),
        _verify(side),
        side.draft(
            "freeze", Stage.FREEZE, Role.FREEZE, "postgresql.freeze", side.source,
            f"refuse new writes at {side.source} and let those in flight end",
            "a write in flight at the stop would have an unknown outcome",
            FREEZE_MS, needs=("checkpoint-before", "close", "verify"), databases=list(side.databases),
        ),
        *(_stop(side, host, needs=("freeze",)) for host in side.cluster.members[move.source]),
        side.draft(
            "verify-drained", Stage.VERIFY_DATA, Role.VERIFY, "postgresql.verify-drained", side.target,
            f"{side.target} has replayed everything up to the shutdown of {side.source}",
            "zero loss is said only with the proof of the last record",
            DRAIN_MS, needs=("freeze",), gates=(*AUTHORISED, Gate.FENCED), retry=QUICK_RETRY, source=side.source,
        ),
    ]  # fmt: skip


def _promotion(side: _Side, needs: tuple[str, ...], *, with_loss: bool) -> list[Draft]:
    move = side.move
    gates = (*AUTHORISED, Gate.FENCED, Gate.VERIFIED, *((Gate.LOSS_ACCEPTED,) if with_loss else ()))
    expect: dict[str, Json] = {"expect_site": move.source, "expect_epoch": move.epoch_seen}
    databases = list(side.databases)
    return [
        side.draft(
            "promote", Stage.PROMOTE, Role.PROMOTE, "postgresql.promote", side.target,
            f"promote {side.target}, guarded by the epoch row it carries",
            "no expected row, no promotion: the comparison stands inside the statement",
            PROMOTE_MS, needs=needs, gates=gates, retry=QUICK_RETRY, databases=databases, more=expect,
        ),
        _epoch(side, ("promote",)),
        side.draft(
            "open", Stage.PROMOTE, Role.OPEN, "postgresql.open", side.target,
            f"open {side.target} to writers",
            "only now, with the epoch committed, may clients write here",
            QUICK_MS, needs=("epoch",), gates=OPENS, up=True, retry=QUICK_RETRY,
        ),
        side.draft(
            "checkpoint", Stage.COMMIT, Role.ORDINARY, "postgresql.checkpoint", side.target,
            "checkpoint, off the critical path",
            "a rejoin reads the timeline from the control file, which a checkpoint writes",
            CHECKPOINT_MS, needs=("open",), gates=OPENS,
        ),
        _aftercare(side, "open"),
    ]  # fmt: skip


def _epoch(side: _Side, needs: tuple[str, ...]) -> Draft:
    move = side.move
    return side.draft(
        "epoch", Stage.PROMOTE, Role.EPOCH, "postgresql.epoch", side.target,
        f"commit epoch {move.epoch_next} of {move.target} in every database, compare-and-set",
        "the right to write is one number and one site; lower is refused everywhere",
        QUICK_MS, needs=needs, retry=QUICK_RETRY, databases=list(side.databases), epoch=move.epoch_next,
        site=move.target, durability="local",
        more={
            "expect_site": move.holder, "expect_epoch": move.epoch_seen, **({"stands": True} if move.stands else {}),
        },
    )  # fmt: skip


def _aftercare(side: _Side, after: str) -> Draft:
    return side.draft(
        "aftercare", Stage.COMMIT, Role.ORDINARY, "postgresql.aftercare", side.target,
        "look at what fails days later: archiver, slots, room for the log",
        "a site that serves alone without a backup, or fills its disk, is lost next",
        QUICK_MS, needs=(after,), gates=OPENS, best_effort=True,
        archiver_absent=side.move.target in side.cluster.archiver_absent_at,
    )  # fmt: skip


def _follow(side: _Side) -> list[Draft]:
    """The cleanly stopped old side becomes the standby: no rewind is needed."""
    hosts = side.cluster.members[side.move.source]
    follows = [
        side.draft(
            f"follow-{host}", Stage.COMMIT, Role.REJOIN, "postgresql.follow", host,
            f"start {host} as the standby of {side.target}",
            "the way back must be open before the move is over",
            FOLLOW_MS, needs=("open",), gates=OPENS, source=side.target,
        )
        for host in hosts
    ]  # fmt: skip
    needs = tuple(draft.key for draft in follows)
    return [*follows, _protect(side, "protect", Stage.COMMIT, side.target, side.source, needs)]


def _reprotect(side: _Side) -> list[Draft]:
    """``target`` lost its place in history: rejoin it to ``source``, which is active."""
    move = side.move
    decided: dict[str, Json] = {"resolved": True} if move.is_resolved else {}
    rejoins = [
        side.draft(
            f"rejoin-{host}", Stage.AUTHORISE, Role.REJOIN, "postgresql.rejoin", host,
            f"bring {host} back as the standby of {side.source} ({move.rejoin}), its old history kept",
            "one site alone is not protected; evidence of a diverged history is kept whole",
            REJOIN_MS, source=side.source, how=move.rejoin, databases=list(side.databases),
            more=decided,
        )
        for host in side.cluster.members[move.target]
    ]  # fmt: skip
    needs = tuple(draft.key for draft in rejoins)
    return [*rejoins, _protect(side, "reprotect", Stage.AUTHORISE, side.source, side.target, needs)]


def _list_diverged(side: _Side, after: str) -> list[Draft]:
    """Last of all: a copy is made and read, which must cost nobody who is served a moment."""
    return [
        side.draft(
            f"list-{host}", Stage.COMMIT, Role.ORDINARY, "postgresql.list-diverged", host,
            f"list what {host} alone had when it was brought back, from a copy of what is kept",
            "people are owed the rows that they were told of and that are not here, by table and key",
            LIST_MS, needs=(after,), best_effort=True, source=side.source, databases=list(side.databases),
            rejoin=f"{side.cluster.name}/rejoin-{host}",
        )
        for host in side.cluster.members[side.move.target]
    ]  # fmt: skip


def _protect(
    side: _Side, key: str, stage: Stage, primary: str, standby: str, needs: tuple[str, ...]
) -> Draft:
    return side.draft(
        key, stage, Role.PROTECT, "postgresql.protect", primary,
        f"wait until {standby} streams and has caught up, then let commits wait for it again"
        if side.cluster.durability == "remote" else f"wait until {standby} streams and has caught up",
        "durability is promised only after it is restored",
        PROTECT_MS, needs=needs, standby=standby, databases=list(side.databases),
        durability=side.cluster.durability,
    )  # fmt: skip
