"""Decides when a primary is protected again and what its rows promise: ``postgresql.protect``.

A row says ``remote`` only after commits really wait for the other site, and no longer before they stop
waiting: the replica carries the row, and from it zero loss is concluded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json
from orchestrator.drivers import (
    postgresql,
    postgresql_epoch,
    postgresql_server,
    postgresql_settings,
    postgresql_upstream,
)
from orchestrator.drivers.postgresql import quote
from orchestrator.drivers.postgresql_follower import role_text
from orchestrator.drivers.postgresql_member import Member, member, members
from orchestrator.drivers.postgresql_upstream import Stream
from orchestrator.errors import PermanentError
from orchestrator.ports import Context, Description

NAMES = "synchronous_standby_names"
RESET: dict[str, str | None] = {NAMES: None}
CHECKPOINT = "CHECKPOINT"
WAITING_COMMITS = ("on", "remote_apply", "remote_write")
SYNCHRONOUS = ("sync", "quorum")
POLL_SECONDS = 0.01
SYNCHRONOUS_SECONDS_MAX = 30.0
MARGIN_SECONDS_MAX = 0.5


@dataclass(frozen=True, slots=True)
class ProtectParams:
    """``host``: the primary; ``standby``: the host at the other site that must follow it."""

    cluster: ClusterRef
    host: HostRef
    standby: HostRef
    databases: tuple[str, ...]
    durability: Literal["remote", "local"] = "remote"


class Protect:
    """Wait until the standby has caught up; with ``remote`` let commits wait for it, then say so."""

    kind: ClassVar[str] = "postgresql.protect"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = ProtectParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: ProtectParams, parts: Parts) -> Description:
        primary, standby = _sides(params, parts)
        settings = (role_text(primary), *postgresql_settings.statements(RESET), CHECKPOINT, CHECKPOINT)
        rows = tuple(f"{name}: {durability_statement(params, primary)}" for name in params.databases)
        ordered = (*settings, *rows) if params.durability == "remote" else (*rows, *settings)
        commands = (postgresql_upstream.streams_text(standby), *ordered)
        return Description(commands, primary.touches, Undo.NONE_NEEDED)

    def load(self, context: Context[ProtectParams]) -> None:
        primary = _sides(context.params, context.parts)[0]
        postgresql.warm(context, primary, ("postgres", *context.params.databases))

    def check(self, context: Context[ProtectParams]) -> Finding:
        def work() -> Finding:
            params = context.params
            primary, standby = _sides(params, context.parts)
            for database in params.databases:
                with postgresql.lease(context, primary, database, looking=True) as session:
                    if postgresql.is_alive(session, context):
                        return Finding(FindingKind.RUNNING, "an attempt's statement is still at work")
            with postgresql.lease(context, primary, looking=True, new=True) as session:
                stream = postgresql_upstream.stream(session, standby)
                names = postgresql_settings.read_settings(session, (NAMES,))[NAMES]
            problems = [*_problems(params, stream, names, _names(context)), *_wrong_rows(context)]
            if problems or stream is None:
                return Finding(FindingKind.NOT_DONE, "; ".join(problems))
            return Finding(FindingKind.DONE, "", _evidence(context, stream))

        return postgresql.found(work)

    def execute(self, context: Context[ProtectParams]) -> Outcome:
        return postgresql.settle(lambda: _protect(context))

    def undo(self, context: Context[ProtectParams]) -> Outcome:
        """Protection is not taken back with a run: degrading it is people's own act."""
        return Succeeded()


def durability_statement(params: ProtectParams, primary: Member) -> str:
    """Its commit waits for the standby: when it returns, the standby has the row."""
    return (
        "BEGIN; SET TRANSACTION READ WRITE; SET LOCAL synchronous_commit = on;"
        f" UPDATE continuity.writer SET durability = {quote(params.durability)}"
        f" WHERE site = {quote(primary.host.site)} RETURNING epoch; COMMIT"
    )


def _sides(params: ProtectParams, parts: Parts) -> tuple[Member, Member]:
    return member(parts, params.cluster, params.host), member(parts, params.cluster, params.standby)


def _names(context: Context[ProtectParams]) -> str:
    """For whom commits wait: any one member at the standby's site."""
    params = context.params
    if params.durability == "local":
        return ""
    standby = _sides(params, context.parts)[1]
    return postgresql_settings.synchronous_names(members(context.parts, params.cluster, (standby.host.site,)))


def _protect(context: Context[ProtectParams]) -> Outcome:
    primary, standby = _sides(context.params, context.parts)
    postgresql.pool(context, primary)  # InputError for a secret that is not there: nothing was told yet
    context.record(postgresql_upstream.streams_text(standby))
    stream = _wait(context, Stream.has_replayed, context.seconds_left())
    if stream is None:
        return Failed(f"{standby.host.name} did not catch up with {primary.host.name}", retryable=True)
    refusal = _unsafe_commits(context)
    if refusal:
        return Failed(refusal)
    if context.params.durability == "local":
        _write_rows(context)
        _set_names(context)
    else:
        _set_names(context)
        stream = _wait(context, lambda found, _: found.sync_state in SYNCHRONOUS, SYNCHRONOUS_SECONDS_MAX)
        if stream is None:
            return Failed(f"{standby.host.name} streams, and is no synchronous standby", retryable=True)
        _write_rows(context)
    return Succeeded(_evidence(context, stream))


def _wait(
    context: Context[ProtectParams], done: Callable[[Stream, str], bool], seconds_max: float
) -> Stream | None:
    """The standby's stream once it is ``done``, given where the primary stood when the wait began."""
    primary, standby = _sides(context.params, context.parts)
    now = context.clock.monotonic
    end = now() + min(
        seconds_max, context.seconds_left() - min(MARGIN_SECONDS_MAX, context.seconds_left() / 4)
    )
    with postgresql.lease(context, primary) as session:
        wanted = postgresql_upstream.history(session, primary.host.name).lsn
        while True:
            stream = postgresql_upstream.stream(session, standby)
            if stream is not None and stream.state == "streaming" and done(stream, wanted):
                return stream
            if now() >= end or context.cancelled.wait(POLL_SECONDS):
                return None


def _unsafe_commits(context: Context[ProtectParams]) -> str:
    """Why ``remote`` would be said of commits that do not wait, or ""."""
    if context.params.durability == "local":
        return ""
    primary, _ = _sides(context.params, context.parts)
    with postgresql.lease(context, primary) as session:
        setting = postgresql_settings.read_settings(session, ("synchronous_commit",))["synchronous_commit"]
        exempt = postgresql_settings.overrides(session, "synchronous_commit")
    if setting not in WAITING_COMMITS:
        return f"synchronous_commit is {setting}: no commit would wait for the standby"
    loose = [text for text in exempt if text.rpartition("=")[2] not in WAITING_COMMITS]
    return f"not remote for everybody: {'; '.join(loose)}" if loose else ""


def _set_names(context: Context[ProtectParams]) -> None:
    """Write the role file, and return when every commit does what it says.

    Whether commits wait is decided by a flag that the checkpointer sets when it reads the files again,
    which a long checkpoint delays. The session that is opened after the reload exists only after the
    checkpointer was told; a second checkpoint begins only after it has listened.
    """
    primary, _ = _sides(context.params, context.parts)
    names = _names(context)
    postgresql_server.write_role(context, primary, postgresql_settings.primary_file(names))
    with postgresql.lease(context, primary) as session:
        postgresql_settings.change(context, session, RESET)
    with postgresql.lease(context, primary, new=True) as session:
        seen = postgresql_settings.read_settings(session, (NAMES,))[NAMES]
        if seen != names:
            raise PermanentError(f"after the reload {NAMES} is {seen!r}: {primary.role_file} is not in force")
        for _ in range(2):
            context.record(CHECKPOINT)
            postgresql.rows(session, CHECKPOINT)


def _write_rows(context: Context[ProtectParams]) -> None:
    primary, _ = _sides(context.params, context.parts)
    statement = durability_statement(context.params, primary)
    for database in context.params.databases:
        with postgresql.lease(context, primary, database) as session:
            context.record(f"{database}: {statement}")
            if not postgresql.rows(session, statement):
                raise PermanentError(
                    f"{database}: its row does not name {primary.host.site}: "
                    f"continuity epoch install {primary.cluster.name}"
                )


def _problems(params: ProtectParams, stream: Stream | None, names: str, wanted_names: str) -> Iterator[str]:
    if stream is None or stream.state != "streaming":
        yield f"{params.standby} does not stream"
    elif params.durability == "remote" and stream.sync_state not in SYNCHRONOUS:
        yield f"{params.standby} streams, and commits do not wait for it"
    if names != wanted_names:
        yield f"{NAMES} is {names!r}, not {wanted_names!r}"


def _wrong_rows(context: Context[ProtectParams]) -> Iterator[str]:
    primary, _ = _sides(context.params, context.parts)
    wanted = (primary.host.site, context.params.durability)
    for database in context.params.databases:
        with postgresql.lease(context, primary, database, looking=True) as session:
            writer = postgresql_epoch.read(session)
        if writer is None or (writer.site, writer.durability) != wanted:
            yield f"{database}: {writer.evidence() if writer else 'no epoch row'}"


def _evidence(context: Context[ProtectParams], stream: Stream) -> dict[str, Json]:
    params = context.params
    primary, standby = _sides(params, context.parts)
    return {
        "host": primary.host.name,
        "standby": standby.host.name,
        "slot": standby.slot,
        **stream.evidence(),
        NAMES: _names(context),
        "durability": params.durability,
        "databases": list(params.databases),
    }
