"""Decides how a closed standby becomes the primary, and gets the right to write: ``postgresql.promote``
and ``postgresql.epoch``. Promotion is one guarded statement that is never sent twice without a check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json, SiteRef
from orchestrator.drivers import postgresql, postgresql_epoch, postgresql_server
from orchestrator.drivers.postgresql import Session
from orchestrator.drivers.postgresql_epoch import Writer
from orchestrator.drivers.postgresql_member import Member, member
from orchestrator.errors import ContinuityError
from orchestrator.ports import Context, Description

IN_RECOVERY = "SELECT pg_is_in_recovery()"
SENT = "SELECT count(*) FROM pg_stat_file('promote', true) AS file WHERE file.size IS NOT NULL"
PAUSE_STATE = "SELECT pg_get_wal_replay_pause_state()"
RESUME = "SELECT pg_wal_replay_resume()"
PROMOTED = (
    "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int,"
    " pg_current_wal_insert_lsn()::text"
)
POLL_SECONDS = 0.001
LOOKS = 2  # "not sent" is said only when it was seen so often
LOOK_AGAIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class PromoteParams:
    """``expect_*``: what the row that the standby carries must say, or nothing is promoted."""

    cluster: ClusterRef
    host: HostRef
    databases: tuple[str, ...]
    expect_site: SiteRef
    expect_epoch: int


class Promote:
    """One guarded statement on the standby, watched until the server has left recovery."""

    kind: ClassVar[str] = "postgresql.promote"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = PromoteParams
    idempotent: ClassVar[bool] = False
    mutates: ClassVar[bool] = True

    def describe(self, params: PromoteParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        commands = [f"{name}: {_guard_statement(params)}" for name in params.databases[1:]]
        commands += [f"write {postgresql_server.claim_file(at)}: the attempt that promotes"]
        commands += [f"{_first(params)}: {promote_statement(params)}", IN_RECOVERY]
        return Description(tuple(commands), at.touches, Undo.POINT_OF_NO_RETURN)

    def load(self, context: Context[PromoteParams]) -> None:
        postgresql.warm(context, _member(context), context.params.databases or ("postgres",))

    def check(self, context: Context[PromoteParams]) -> Finding:
        def work() -> Finding:
            with postgresql.lease(context, _member(context), looking=True) as session:
                finding = _look(context, session)
                for _ in range(LOOKS - 1):
                    if finding.kind is not FindingKind.NOT_DONE:
                        break
                    context.cancelled.wait(LOOK_AGAIN_SECONDS)
                    finding = _look(context, session)
                return finding

        return postgresql.found(work)

    def execute(self, context: Context[PromoteParams]) -> Outcome:
        def work() -> Outcome:
            refusal = _rows_refuse(context)
            if refusal:
                return Failed(refusal)
            with postgresql.lease(context, _member(context), _first(context.params)) as session:
                if not postgresql.value(session, IN_RECOVERY):
                    return _already_promoted(context, session)
                _claim(context)
                return _promote(context, session)

        return postgresql.settle(work)

    def undo(self, context: Context[PromoteParams]) -> Outcome:
        return Failed("a promoted server cannot go back: going home is a failback")


def promote_statement(params: PromoteParams) -> str:
    """The guarded statement: no row that says what is expected, no promotion."""
    guard = postgresql_epoch.guard(params.expect_epoch, params.expect_site)
    return f"SELECT pg_promote(false) FROM continuity.writer WHERE {guard}"


def _guard_statement(params: PromoteParams) -> str:
    guard = postgresql_epoch.guard(params.expect_epoch, params.expect_site)
    return f"SELECT count(*) FROM continuity.writer WHERE {guard}"


def _first(params: PromoteParams) -> str:
    return params.databases[0] if params.databases else "postgres"


def _member(context: Context[Any]) -> Member:
    return member(context.parts, context.params.cluster, context.params.host)


def _rows_refuse(context: Context[PromoteParams]) -> str:
    """Why the rows of the databases beside the first do not let it be promoted, or ""."""
    params, at = context.params, _member(context)
    for database in params.databases[1:]:
        with postgresql.lease(context, at, database) as session:
            context.record(f"{database}: {_guard_statement(params)}")
            if postgresql.value(session, _guard_statement(params)) != 1:
                return f"{database}: its row is not epoch {params.expect_epoch} at {params.expect_site}"
    return ""


def _claim(context: Context[PromoteParams]) -> None:
    """Say at the target who promotes it, before the order is sent: a check knows its own run by it."""
    at = _member(context)
    context.record(f"write {postgresql_server.claim_file(at)}: the attempt that promotes")
    postgresql_server.take_claim(context, at, site=at.host.site, epoch_seen=context.params.expect_epoch)


def _already_promoted(context: Context[PromoteParams], session: Session) -> Outcome:
    """Nothing is claimed and nothing sent: whoever promoted it keeps the claim."""
    found = _promoted(context, session)
    return Succeeded(found.evidence) if found.kind is FindingKind.DONE else Failed(found.reason)


def _promote(context: Context[PromoteParams], session: Session) -> Outcome:
    params = context.params
    statement = promote_statement(params)
    context.record(f"{_first(params)}: {statement}")
    answer = postgresql.rows(session, statement)
    if not answer:
        return Failed(f"refused: no row says epoch {params.expect_epoch} at {params.expect_site}")
    if answer[0][0] is not True:
        return Unknown("pg_promote did not say that it was started")
    context.record(IN_RECOVERY)
    postgresql.poll(context, lambda: not postgresql.value(session, IN_RECOVERY), POLL_SECONDS)
    timeline, lsn = postgresql.row(session, PROMOTED)
    return Succeeded(
        {"timeline": timeline, "lsn": lsn, "host": params.host, "site": _member(context).host.site}
    )


def _look(context: Context[PromoteParams], session: Session) -> Finding:
    """One look (core contract 3.10): pg_is_in_recovery alone cannot tell."""
    import psycopg

    if not postgresql.value(session, IN_RECOVERY):
        return _promoted(context, session)
    if postgresql.is_alive(session, context):
        return Finding(FindingKind.RUNNING, "an attempt's session is still at work")
    try:
        if postgresql.value(session, SENT):
            return Finding(FindingKind.RUNNING, "the order to promote lies in the data directory")
        if postgresql.value(session, PAUSE_STATE) == "not paused":
            postgresql.rows(session, RESUME)
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        return Finding(FindingKind.RUNNING, postgresql.error_text(error))
    return Finding(FindingKind.NOT_DONE, "no order to promote is there")


def _promoted(context: Context[PromoteParams], session: Session) -> Finding:
    timeline, lsn = postgresql.row(session, PROMOTED)
    at = _member(context)
    evidence: dict[str, Json] = {
        "timeline": timeline,
        "lsn": lsn,
        "host": at.host.name,
        "site": at.host.site,
    }
    claim = postgresql_server.read_claim(context, at)
    if claim is None or claim.get("run") != context.run:
        holder = f"run {claim['run']} did" if claim else "nobody claims it"
        return Finding(FindingKind.CANNOT_TELL, f"promoted, but not by this run: {holder}")
    return Finding(FindingKind.DONE, "", evidence)


# --- epoch --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EpochParams:
    """The row becomes (``epoch``, ``site``, the run, ``durability``) where it is still the expected one.

    ``stands``: the site has held the right all along. What an earlier run gave it in some databases, before that
    run was taken back, is replaced too.
    """

    cluster: ClusterRef
    host: HostRef
    databases: tuple[str, ...]
    epoch: int
    site: SiteRef
    expect_site: SiteRef
    expect_epoch: int
    durability: str = "local"
    stands: bool = False


class Epoch:
    """Compare and set the row of every database, before anything opens to clients."""

    kind: ClassVar[str] = "postgresql.epoch"
    version: ClassVar[int] = 2
    params: ClassVar[type[Any]] = EpochParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: EpochParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        statement = _swap(params)
        commands = tuple(f"{name}: {statement}" for name in params.databases)
        return Description(commands, (at.touch,), Undo.POINT_OF_NO_RETURN)

    def load(self, context: Context[EpochParams]) -> None:
        postgresql.warm(context, _member(context), context.params.databases)

    def check(self, context: Context[EpochParams]) -> Finding:
        def work() -> Finding:
            evidence: dict[str, Json] = {}
            missing = []
            for database in context.params.databases:
                with postgresql.lease(context, _member(context), database, looking=True) as session:
                    if postgresql.is_alive(session, context):
                        return Finding(
                            FindingKind.RUNNING, f"{database}: an attempt's statement is still at work"
                        )
                    writer = postgresql_epoch.read(session)
                if writer is None or not _is_ours(context, writer):
                    missing.append(f"{database}: {writer.evidence() if writer else 'no row'}")
                else:
                    evidence[database] = writer.evidence()
            if missing:
                return Finding(FindingKind.NOT_DONE, "; ".join(missing))
            return Finding(FindingKind.DONE, "", _epoch_evidence(context.params, evidence))

        return postgresql.found(work)

    def execute(self, context: Context[EpochParams]) -> Outcome:
        databases = context.params.databases
        works = [lambda name=name: _swap_in(context, name) for name in databases]
        outcomes = dict(zip(databases, _all_at_once(works), strict=True))
        for database, outcome in outcomes.items():
            match outcome:
                case Succeeded():
                    continue
                case Failed():
                    return Failed(f"{database}: {outcome.message}", outcome.retryable)
                case Unknown():
                    return Unknown(f"{database}: {outcome.message}")
        rows: dict[str, Json] = {
            name: outcome.evidence for name, outcome in outcomes.items() if isinstance(outcome, Succeeded)
        }
        return Succeeded(_epoch_evidence(context.params, rows))

    def undo(self, context: Context[EpochParams]) -> Outcome:
        return Failed("epochs only grow: going home takes the next one")


def _swap(params: EpochParams) -> str:
    return postgresql_epoch.swap_statement(
        epoch=params.epoch,
        site=params.site,
        durability=params.durability,
        expect_epoch=params.expect_epoch,
        expect_site=params.expect_site,
    )


def _swap_in(context: Context[EpochParams], database: str) -> Outcome:
    """Compare and set one database's row; one that carries this run's epoch already is fine."""

    def work() -> Outcome:
        with postgresql.lease(context, _member(context), database) as session:
            statement = _swap(_expecting(context.params, session))
            context.record(f"{database}: {statement}")
            swapped = postgresql.rows(session, postgresql_epoch.with_run(statement, context.run))
            if swapped:
                params = context.params
                return Succeeded(Writer(params.epoch, params.site, context.run, params.durability).evidence())
            writer = postgresql_epoch.read(session)
        if writer is None:
            return Failed("the epoch row is gone")
        if _is_ours(context, writer):
            return Succeeded(writer.evidence())
        return Failed(f"refused: epoch {writer.epoch} at {writer.site} (run {writer.run}) rules here")

    try:
        return postgresql.settle(work)
    except ContinuityError as error:
        return Failed(str(error))


def _expecting(params: EpochParams, session: Session) -> EpochParams:
    """What this very row must say: where the site stands, any right of its own between what was seen and the new."""
    writer = postgresql_epoch.read(session) if params.stands else None
    if writer is None or writer.site != params.expect_site:
        return params
    is_between = params.expect_epoch <= writer.epoch < params.epoch
    return replace(params, expect_epoch=writer.epoch) if is_between else params


def _is_ours(context: Context[EpochParams], writer: Writer) -> bool:
    """Equal epochs pass only for the same run."""
    params = context.params
    return (writer.epoch, writer.site, writer.run) == (params.epoch, params.site, context.run)


def _epoch_evidence(params: EpochParams, rows: dict[str, Json]) -> dict[str, Json]:
    return {"epoch": params.epoch, "site": params.site, "rows": rows}


def _all_at_once(works: Sequence[Callable[[], Outcome]]) -> list[Outcome]:
    """The first here, each other in a thread of its own: several databases cost as much as one."""
    first, *others = works
    if not others:
        return [first()]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(others)) as pool:
        begun = [pool.submit(work) for work in others]
        return [first(), *(each.result() for each in begun)]
