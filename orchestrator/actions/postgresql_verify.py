"""Decides whether a standby's data may be promoted and what would be lost: ``postgresql.verify``,
``postgresql.verify-drained`` and ``postgresql.measure``. Read-only; the cost never grows with data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import (
    Bytes,
    ClusterRef,
    HostRef,
    Json,
    Milliseconds,
    SiteRef,
    duration_text,
    size_text,
)
from orchestrator.drivers import postgresql, postgresql_facts
from orchestrator.drivers.postgresql_epoch import Writer
from orchestrator.drivers.postgresql_facts import Beat, Facts
from orchestrator.drivers.postgresql_member import Member, highest, lsn_number, member, promote_ms
from orchestrator.ports import Context, Description

MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000
RATE_NS_MIN = 100 * MILLISECOND_NS  # a rate over less says nothing
XIDS = 1 << 32
PLANNED = (Operation.SWITCHOVER, Operation.FAILBACK)
READ_WRITERS = "SELECT epoch, site, run, durability FROM continuity.writer"
POLL_SECONDS = 0.001


class ReadOnly(ABC):
    """What the actions of this module share: they change nothing and are asked again at will."""

    version: ClassVar[int] = 1
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def load(self, context: Context[Any]) -> None:
        databases = getattr(context.params, "databases", ())
        postgresql.warm(context, _member(context), databases or ("postgres",))

    def check(self, context: Context[Any]) -> Finding:
        outcome = self.execute(context)
        if isinstance(outcome, Succeeded):
            return Finding(FindingKind.DONE, "", outcome.evidence)
        return Finding(FindingKind.NOT_DONE, outcome.message)

    def undo(self, context: Context[Any]) -> Outcome:
        return Succeeded()

    @abstractmethod
    def execute(self, context: Context[Any]) -> Outcome: ...


def _member(context: Context[Any]) -> Member:
    return member(context.parts, context.params.cluster, context.params.host)


def _look(
    context: Context[VerifyParams] | Context[MeasureParams],
) -> tuple[Facts, dict[str, Writer | None], list[Beat | None]]:
    """What the server says of itself, then the epoch row and the heartbeat of each database: one session
    each, because taking one costs as much as asking."""
    at, names = _member(context), context.params.databases
    found: Facts | None = None
    writers: dict[str, Writer | None] = {}
    beats: list[Beat | None] = []
    for database in names or ("postgres",):
        with postgresql.lease(context, at, database, looking=found is not None) as session:
            if found is None:
                context.record("SELECT role, system identifier, timeline, received and replayed LSN")
                found = postgresql_facts.facts(session)
            if database in names:
                writers[database], beat = postgresql_facts.writer_and_beat(session)
                beats.append(beat)
    assert found is not None
    return found, writers, beats


# --- verify -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VerifyParams:
    cluster: ClusterRef
    host: HostRef
    databases: tuple[str, ...]
    expect_site: SiteRef
    expect_epoch: int
    lag_ms_limit: Milliseconds = 10_000
    backlog_bytes_limit: Bytes = 64 * 1024 * 1024


RECORD_BYTES_MAX = 512 * 1024
"""More than an ordinary record of WAL is, with an image of each of the 33 pages that one may hold
(https://www.postgresql.org/docs/current/wal-internals.html, XLR_MAX_BLOCK_ID in access/xlogrecord.h)."""


class Verify(ReadOnly):
    """The standby holds the cluster's data, replays it, and its rows say what the plan saw."""

    kind: ClassVar[str] = "postgresql.verify"
    params: ClassVar[type[Any]] = VerifyParams

    def describe(self, params: VerifyParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        rows = tuple(f"{name}: {READ_WRITERS}" for name in params.databases)
        commands = ("SELECT role, system identifier, timeline, received and replayed LSN", *rows)
        return Description(commands, (at.touch,), Undo.NONE_NEEDED)

    def execute(self, context: Context[VerifyParams]) -> Outcome:
        def work() -> Outcome:
            params = context.params
            facts, rows, _ = _look(context)
            problems = [
                *_problems_of_standby(context, facts),
                *postgresql_facts.writer_problems(
                    rows, params.cluster, epoch=params.expect_epoch, site=params.expect_site
                ),
            ]
            evidence: dict[str, Json] = {
                **facts.evidence(),
                "backlog_bytes": facts.backlog_bytes,
                "lag_ms": _lag_ms(facts),
                "predicted_promote_ms": promote_ms(facts.backlog_bytes),
                "writers": {name: writer.evidence() if writer else None for name, writer in rows.items()},
                "problems": problems,
            }
            if problems:
                return Failed("; ".join(problems), evidence=evidence)
            return Succeeded(evidence)

        return postgresql.settle(work)


def _problems_of_standby(context: Context[VerifyParams], facts: Facts) -> Iterator[str]:
    if not facts.in_recovery:
        yield "not a standby: it has been promoted already"
    if facts.in_recovery and _source_still_runs(context) and facts.receiver_status != "streaming":
        yield "it does not stream: what is written until the stop would not arrive"
    if facts.is_paused:
        yield f"replay is {facts.pause_state}: a promotion replays what was held back"
    if facts.is_delayed:
        yield f"replay is delayed on purpose (recovery_min_apply_delay = {facts.apply_delay})"
    limits = context.params
    if facts.backlog_bytes > limits.backlog_bytes_limit:
        yield (
            f"{size_text(facts.backlog_bytes)} received and not replayed, more than"
            f" {size_text(limits.backlog_bytes_limit)}: promotion would take"
            f" {duration_text(promote_ms(facts.backlog_bytes))}"
        )
    lag_ms = _lag_ms(facts)
    if lag_ms is not None and lag_ms > limits.lag_ms_limit:
        yield f"replay is {duration_text(lag_ms)} behind, more than {duration_text(limits.lag_ms_limit)}"
    for site, seen in postgresql_facts.inspected(context.evidence):
        if seen.get("system_id") != facts.system_id:
            yield f"system identifier {facts.system_id} is not that of {site} ({seen.get('system_id')})"


def _source_still_runs(context: Context[VerifyParams]) -> bool:
    """In a planned move, until its stop is proven: data is verified again right before the promotion."""
    stopped = any(step.get("proof") for step in context.evidence.values())
    return context.operation in PLANNED and not stopped


def _lag_ms(facts: Facts) -> int | None:
    """How old the last replayed commit is while received WAL waits; 0 when all of it is replayed. What a primary that
    died was in the middle of sending is never whole: it waits for ever, and is no lag."""
    is_cut_off = facts.receiver_status != "streaming" and facts.backlog_bytes <= RECORD_BYTES_MAX
    if not facts.backlog_bytes or is_cut_off:
        return 0
    if facts.last_commit_ns is None:
        return None
    return max(0, (facts.now_ns - facts.last_commit_ns) // MILLISECOND_NS)


# --- verify-drained -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VerifyDrainedParams:
    """``source``: the host of the stopped primary, whose stop step left its shutdown checkpoint."""

    cluster: ClusterRef
    host: HostRef
    source: HostRef


class VerifyDrained(ReadOnly):
    """The target has replayed everything up to and with the old primary's shutdown checkpoint."""

    kind: ClassVar[str] = "postgresql.verify-drained"
    params: ClassVar[type[Any]] = VerifyDrainedParams

    def describe(self, params: VerifyDrainedParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        command = f"SELECT pg_last_wal_replay_lsn() > the shutdown checkpoint of {params.source}"
        return Description((command,), (at.touch,), Undo.NONE_NEEDED)

    def execute(self, context: Context[VerifyDrainedParams]) -> Outcome:
        def work() -> Outcome:
            checkpoint = _shutdown_checkpoint(context)
            if checkpoint is None:
                return Failed(f"{context.params.source} left no proof of a clean shutdown")
            replayed = _replayed_past(context, checkpoint)
            if replayed is None:
                return Failed("not a standby")
            evidence: dict[str, Json] = {"shutdown_checkpoint": checkpoint, "replay_lsn": replayed}
            if lsn_number(replayed) <= lsn_number(checkpoint):
                return Failed(
                    f"replayed up to {replayed}, not past {checkpoint}", retryable=True, evidence=evidence
                )
            return Succeeded({**evidence, "drained": True})

        return postgresql.settle(work)


def _shutdown_checkpoint(context: Context[VerifyDrainedParams]) -> str | None:
    for step in context.evidence.values():
        checkpoint = step.get("shutdown_checkpoint")
        if step.get("host") == context.params.source and isinstance(checkpoint, str) and checkpoint:
            return checkpoint
    return None


def _replayed_past(context: Context[VerifyDrainedParams], checkpoint: str) -> str | None:
    """Wait until replay is past the checkpoint; the replay LSN at the end, None for no standby."""
    limit = context.deadline - min(0.2, context.seconds_left() / 4)
    with postgresql.lease(context, _member(context)) as session:
        context.record(f"SELECT pg_last_wal_replay_lsn() > {checkpoint}")
        while True:
            standby, replayed = postgresql.row(
                session, "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text"
            )
            if not standby or replayed is None:
                return None
            over = context.clock.monotonic() >= limit or context.cancelled.is_set()
            if over or lsn_number(replayed) > lsn_number(checkpoint):
                return str(replayed)
            context.cancelled.wait(POLL_SECONDS)


# --- measure ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MeasureParams:
    cluster: ClusterRef
    host: HostRef
    databases: tuple[str, ...]


class Measure(ReadOnly):
    """What of home's work has reached this standby; the core states the loss from it."""

    kind: ClassVar[str] = "postgresql.measure"
    params: ClassVar[type[Any]] = MeasureParams

    def describe(self, params: MeasureParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        rows = tuple(
            f"{name}: {text}"
            for name in params.databases
            for text in (READ_WRITERS, "SELECT at FROM continuity.heartbeat")
        )
        commands = ("SELECT received and replayed LSN, time of the last commit", *rows)
        return Description(commands, (at.touch,), Undo.NONE_NEEDED)

    def execute(self, context: Context[MeasureParams]) -> Outcome:
        def work() -> Outcome:
            facts, rows, seen = _look(context)
            beats = [beat for beat in seen if beat is not None]
            missing = [name for name, writer in rows.items() if writer is None]
            if missing:
                return Failed(f"no epoch row in {', '.join(missing)}: the loss cannot be told")
            promised = {writer.durability for writer in rows.values() if writer} == {"remote"}
            kept = postgresql_facts.waited(facts, seen) and not _is_contradicted(context)
            evidence: dict[str, Json] = {
                "durability": "remote" if promised and kept else "local",
                "received_lsn": facts.held_lsn,
                "replay_lsn": facts.replay_lsn,
                "last_commit_ns": facts.last_commit_ns,
                "heartbeat_ns": max((beat.at_ns for beat in beats), default=None),
                "home_lsn": _home_lsn(context),
                "write_rate_rows_per_s": _write_rate(context, facts, beats),
                "backlog_bytes": facts.backlog_bytes,
                "predicted_promote_ms": promote_ms(facts.backlog_bytes),
                "seen_ns": facts.now_ns,
                "clock_offset_ms": _clock_offset_ms(context),
            }
            return Succeeded(evidence)

        return postgresql.settle(work)


def _is_contradicted(context: Context[MeasureParams]) -> bool:
    """Did a primary at another site say itself, to the inspection, that its commits do not wait?"""
    here = _member(context).host.site
    return any(
        site != here and side.get("role") == "primary" and side.get("waits") is False
        for site, side in postgresql_facts.inspected(context.evidence)
    )


def _clock_offset_ms(context: Context[MeasureParams]) -> int | None:
    """How far the clock whose commits are compared with the proof's time was ahead of this machine's, when the
    preflight saw it; None: it did not."""
    here = _member(context).host.site
    for site, seen in postgresql_facts.inspected(context.evidence):
        if site != here and isinstance(offset := seen.get("clock_offset_ms"), int):
            return offset
    return None


def _home_lsn(context: Context[MeasureParams]) -> str | None:
    """The highest position that home itself told: to the inspection, or by its shutdown checkpoint. What its
    standby heard of home ends with the link, so without home's own word the bytes are unknown, not 0."""
    at = _member(context)
    seen: list[str | None] = []
    for site, side in postgresql_facts.inspected(context.evidence):
        if site != at.host.site and isinstance(lsn := side.get("lsn"), str):
            seen.append(lsn)
    for step in context.evidence.values():
        checkpoint = step.get("shutdown_checkpoint")
        if step.get("host") != at.host.name and isinstance(checkpoint, str) and checkpoint:
            seen.append(checkpoint)
    return highest(*seen)


def _write_rate(context: Context[MeasureParams], facts: Facts, beats: Sequence[Beat]) -> int | None:
    """The highest rate known: home's own statistics, and the transaction ids that replay has passed since
    the older of the heartbeats, the inspection and the checkpoint.

    An average since the checkpoint alone would hide the load of now behind idle hours. A transaction counts
    as one row, so this is a lower bound where transactions write many rows and home was not seen.
    """
    if facts.last_commit_ns is None:
        return None
    rates: list[int] = []
    samples = [(facts.checkpoint_ns, facts.xid - facts.checkpoint_xid)]
    beaten = sorted((beat.at_ns, (facts.xid - beat.xid_low) % XIDS) for beat in beats)  # the longest first
    for site, side in postgresql_facts.inspected(context.evidence):
        rate = side.get("write_rate_rows_per_s")
        if isinstance(rate, int):
            rates.append(rate)
        commit_ns, xid = side.get("last_commit_ns"), side.get("xid")
        if site == _member(context).host.site and isinstance(commit_ns, int) and isinstance(xid, int):
            samples.append((commit_ns, facts.xid - xid))
    kept = [sample for sample in samples if facts.last_commit_ns - sample[0] >= RATE_NS_MIN]
    for since_ns, count in (*kept, *beaten[:1]):
        rates.append(rate_bound(max(0, count), max(1, facts.last_commit_ns - since_ns)))
    return max(rates, default=None)


def rate_bound(count: int, nanoseconds: int) -> int:
    """Rows per second that a count over a while allows, rounded up: chance alone moves a count by its root,
    so three times that is added; a bound that is met half of the time is none."""
    likely = count + 3 * (math.isqrt(count) + 1)
    return -(-likely * SECOND_NS // nanoseconds)
