"""Decides how people keep the site that does not hold the epoch after a split brain: it is granted a new one,
above all that anything knows, and never while another site is seen to take writes.

Intent first, as for a step: the epoch is reserved in the log under a name, the other side is closed, every
row of the kept side is compared and set, and then the log confirms it. Whoever gives the command again after a
crash takes the same reservation up; each part looks first and is harmless when it is done twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.bootstrap.following import runbooks_of
from orchestrator.core.events import GroupKeepReserved, GroupResolved
from orchestrator.core.groups import GroupState, Keeping
from orchestrator.core.model import Operation, ProofKind
from orchestrator.core.outcomes import Succeeded
from orchestrator.core.values import Json
from orchestrator.engine.clock import now
from orchestrator.errors import ContinuityError, InputError, RefusedError
from orchestrator.reports.sides import site_text

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.bootstrap.observe import Looked
    from orchestrator.drivers.postgresql_member import Member
    from orchestrator.ports import Context

STOP = "postgresql.stop"
CLOSE_SECONDS = 30.0
GRANT_SECONDS = 30.0
NAME_BYTES = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What people order. ``close``: stop the other side's servers first, as a fence would. ``is_lost``: it
    does not answer, and people declare it lost."""

    group: str
    keep: str
    by: str
    reason: str
    close: bool = False
    is_lost: bool = False

    @property
    def closing(self) -> str:
        """The command that closes the other side first."""
        return f"continuity resolve {self.group} --keep {self.keep} --close --by NAME --reason TEXT"

    @property
    def losing(self) -> str:
        """The command that declares it lost."""
        return f"continuity resolve {self.group} --keep {self.keep} --site-lost --by NAME --reason TEXT"


@dataclass(frozen=True, slots=True)
class Sides:
    """What both sides say now. ``writing``, ``silent``: (cluster, site, what it says) beside the kept site.
    ``idle``: clusters that take no writes at the kept site. ``highest``: the highest epoch that anything
    knows, the reservation of this very decision left out."""

    lines: tuple[str, ...]
    idle: tuple[str, ...]
    writing: tuple[tuple[str, str, str], ...]
    silent: tuple[tuple[str, str, str], ...]
    highest: int
    evidence: Mapping[str, Json]


def must_grant(state: GroupState, keep: str) -> bool:
    """Does keeping this site need a new epoch? Also where a decision for another site was begun: its epoch may
    stand in some rows already."""
    return keep != state.active or state.keeping is not None


# --- what is seen -----------------------------------------------------------------------------


def look(app: App, wanted: Wanted, state: GroupState) -> Sides:
    """Ask every member, name, route and folder of the group now."""
    from orchestrator.bootstrap.expected import INSPECT
    from orchestrator.bootstrap.observe import evidence_now

    seen = [each for each in evidence_now(app) if each.group == wanted.group]
    mine = state.keeping if state.keeping and state.keeping.site == wanted.keep else None
    lines: list[str] = []
    idle: list[str] = []
    others: dict[bool, list[tuple[str, str, str]]] = {True: [], False: []}
    for each in seen:
        sites: Mapping[str, Any] = each.evidence.get("sites") or {} if each.kind == INSPECT else {}
        for site, found in sites.items():
            told = site_text(found)
            lines.append(f"{each.unit} at {site}: {told}")
            writes, answers = bool(found.get("serves_writes")), bool(found.get("reachable"))
            if site == wanted.keep and not writes:
                idle.append(f"{each.unit} at {site}: {told}")
            elif site != wanted.keep and (writes or not answers):
                others[writes].append((each.unit, site, told))
    known = [epoch for each in seen for epoch, run in _rights(each) if mine is None or run != mine.id]
    is_newest = mine is not None and mine.epoch >= state.reserved
    highest = max((state.epoch, 0 if is_newest else state.reserved, *known))
    evidence: dict[str, Json] = {each.unit: dict(each.evidence) for each in seen}
    return Sides(tuple(lines), tuple(idle), tuple(others[True]), tuple(others[False]), highest, evidence)


def _rights(seen: Looked) -> Iterator[tuple[int, str]]:
    """(epoch, run) of every row and claim."""
    for site in (seen.evidence.get("sites") or {}).values():
        for row in (site.get("writers") or {}).values():
            yield int(row["epoch"]), str(row["run"])
    for claim in seen.evidence.get("claims") or ():
        yield int(claim["epoch"]), str(claim["run"])


def must_be_possible(app: App, wanted: Wanted, sides: Sides) -> None:
    """RefusedError before anything is asked or changed: the kept side takes no writes, the other one does, or
    nobody can tell; documents would be left apart."""
    _must_hold_databases_only(app, wanted)
    if sides.idle:
        raise RefusedError(
            f"{'; '.join(sides.idle)}: a site is kept as it is, and this one takes no writes; start its database,"
            " or keep the other side",
            ("continuity status --live",),
        )
    if wanted.close:
        return
    _must_be_closed(wanted, sides)


def _must_be_closed(wanted: Wanted, sides: Sides) -> None:
    """The other side is not seen to take writes; who does not answer is declared lost by people."""
    if sides.writing:
        told = "; ".join(f"{unit} at {site}: {says}" for unit, site, says in sides.writing)
        raise RefusedError(
            f"{told}: two sites would write; it is closed first, as a fence does", (wanted.closing,)
        )
    if sides.silent and not wanted.is_lost:
        told = "; ".join(f"{unit} at {site} {says}" for unit, site, says in sides.silent)
        raise RefusedError(
            f"{told}: whether it takes writes cannot be told; it is closed, or people declare it lost",
            (wanted.closing, wanted.losing),
        )


def _must_hold_databases_only(app: App, wanted: Wanted) -> None:
    from orchestrator.runbook.rules_service import is_stateful

    held = [
        f"{runbook.name}/{name}"
        for runbook in runbooks_of(app, wanted.group)
        for name, component in runbook.components.items()
        if is_stateful(component) and not hasattr(component, "cluster")
    ]
    if held:
        raise RefusedError(
            f"{wanted.group} holds {', '.join(held)} beside its databases: only databases can be kept at a site that "
            "lost the epoch; keep the site that holds it",
            ("continuity status --live",),
        )


def closing_texts(app: App, wanted: Wanted) -> tuple[str, ...]:
    """The exact commands by which the other side is going to be closed."""
    from orchestrator.planning.parts import parts_of

    action, parts = app.catalog.action(STOP), parts_of(app.loaded.estate)
    return tuple(
        text
        for arguments in _closings(app, wanted)
        for text in action.describe(app.catalog.parse(STOP, arguments), parts).commands
    )


def _closings(app: App, wanted: Wanted) -> list[dict[str, Json]]:
    """What ``postgresql.stop`` is told for every member of every other site."""
    estate = app.loaded.estate
    return [
        {"mode": "fast", **_declared(app, site), "cluster": cluster, "host": host}
        for cluster in _clusters(app, wanted.group)
        for site, hosts in estate.clusters[cluster].members.items()
        if site != wanted.keep
        for host in hosts
    ]


def _declared(app: App, site: str) -> Mapping[str, Json]:
    for fence in app.loaded.estate.fences.get(site, ()):
        if fence.action == STOP and fence.proves is ProofKind.DEMOTED:
            return fence.with_
    return {}


def _clusters(app: App, group: str) -> dict[str, list[str]]:
    """Cluster → the databases in it that the group's services use."""
    found: dict[str, set[str]] = {}
    for runbook in runbooks_of(app, group):
        components: Iterable[Any] = runbook.components.values()
        for component in components:
            if hasattr(component, "cluster"):
                found.setdefault(component.cluster, set()).add(component.database)
    return {cluster: sorted(names) for cluster, names in sorted(found.items())}


# --- what is done -----------------------------------------------------------------------------


def keep(app: App, wanted: Wanted, sides: Sides, diverged: Mapping[str, Json]) -> GroupState:
    """Reserve, close, look again, grant, confirm. RefusedError and TransientError leave the reservation: the
    same command takes it up."""
    held = _reserve(app, wanted, sides)
    app.at_point("keep reserved")
    try:
        closed = close(app, wanted, held.id) if wanted.close else {}
        app.at_point("keep stopped")
        seen = look(app, wanted, app.journal.group(wanted.group))
        must_be_possible(app, wanted, seen)
        if not wanted.close:
            closed = {"declared_lost": [site for _, site, _ in seen.silent]}
        elif seen.writing:
            _must_be_closed(wanted, seen)
        app.at_point("keep closed")
        rows = _grant(app, wanted, held)
    except RefusedError as refused:
        text = f"{refused.message} (epoch {held.epoch} stays reserved as {held.id})"
        raise RefusedError(text, refused.instead) from refused
    app.at_point("keep granted")
    evidence: dict[str, Json] = {**diverged, "closed": closed, "rows": rows, "seen": list(seen.lines)}
    at = now(app.clock)

    def confirm(state: GroupState) -> GroupResolved:
        if state.keeping != held:
            raise RefusedError(
                f"group {wanted.group}: somebody else decided meanwhile", ("continuity status --live",)
            )
        return GroupResolved(
            at, wanted.group, wanted.keep, wanted.by, wanted.reason, evidence, held.epoch, held.id
        )

    return app.journal.append_group(wanted.group, confirm)


def _reserve(app: App, wanted: Wanted, sides: Sides) -> Keeping:
    """The reservation of an interrupted decision for the same site, else a new one above all that is known."""
    at, name = now(app.clock), f"resolve-{secrets.token_hex(NAME_BYTES)}"

    def decide(state: GroupState) -> GroupKeepReserved | None:
        from orchestrator.bootstrap.adoption import must_have_conflict

        must_have_conflict(app, state)
        old = state.keeping
        if old is not None and old.site == wanted.keep and old.epoch > sides.highest:
            return None
        epoch = max(sides.highest, state.reserved, state.epoch) + 1
        evidence: dict[str, Json] = {"seen": list(sides.lines), "highest": sides.highest}
        return GroupKeepReserved(
            at, wanted.group, wanted.keep, name, epoch, wanted.by, wanted.reason, evidence
        )

    held = app.journal.append_group(wanted.group, decide).keeping
    assert held is not None
    return held


def close(app: App, wanted: Wanted, name: str) -> dict[str, Json]:
    """Stop every other member for good and prove it. Host → its proof."""
    from orchestrator.engine.dispatch import guarded

    action = app.catalog.action(STOP)
    proofs: dict[str, Json] = {}
    for arguments in _closings(app, wanted):
        host = str(arguments["host"])
        with app.context(name, f"close-{host}", CLOSE_SECONDS) as made:
            params = app.catalog.parse(STOP, arguments)
            context: Context[Any] = replace(made, params=params, operation=Operation.FAILOVER)
            outcome = guarded(partial(action.execute, context), mutates=True)
        if not isinstance(outcome, Succeeded):
            raise RefusedError(
                f"{host} is not proven closed: {outcome.message}",
                (wanted.closing, wanted.losing),
            )
        proofs[host] = dict(outcome.evidence)
    return proofs


def _grant(app: App, wanted: Wanted, held: Keeping) -> dict[str, Json]:
    """Compare and set every row; then nothing at the kept side waits for the other any more."""
    import psycopg

    from orchestrator.drivers.postgresql import error_text

    rows: dict[str, Json] = {}
    try:
        for cluster, databases in _clusters(app, wanted.group).items():
            with app.context(held.id, "grant", GRANT_SECONDS) as context:
                rows[cluster] = _grant_cluster(app, context, (cluster, databases), held)
    except (psycopg.Error, TimeoutError, ContinuityError) as error:
        if isinstance(error, RefusedError | InputError):
            raise
        raise RefusedError(
            f"the rows at {wanted.keep} could not all be seen to change ({error_text(error)}); the same command "
            "looks and goes on",
            (wanted.closing if wanted.close else wanted.losing,),
        ) from error
    return rows


def _grant_cluster(
    app: App, context: Context[Any], what: tuple[str, list[str]], held: Keeping
) -> dict[str, Json]:
    from orchestrator.drivers import postgresql, postgresql_epoch, postgresql_settings
    from orchestrator.drivers.postgresql_epoch import Writer

    at = _primary(context, what[0], held.site)
    right = Writer(held.epoch, held.site, held.id, "local")
    for database in what[1]:
        postgresql_epoch.grant(context, at, database, right)
        app.at_point(f"keep row {database}")
    with postgresql.lease(context, at) as session:
        if postgresql.value(session, "SELECT current_setting('synchronous_standby_names') <> ''"):
            postgresql_settings.change(context, session, {"synchronous_standby_names": ""})
    return {database: right.evidence() for database in what[1]}


def _primary(context: Context[Any], cluster: str, site: str) -> Member:
    from orchestrator.drivers import postgresql
    from orchestrator.drivers.postgresql_member import members
    from orchestrator.errors import TransientError

    for at in members(context.parts, cluster, (site,)):
        try:
            with postgresql.lease(context, at) as session:
                if not postgresql.value(session, "SELECT pg_is_in_recovery()"):
                    return at
        except TransientError:
            continue  # another member may be the one that writes
    raise RefusedError(f"{cluster}: no member at {site} takes writes", ("continuity status --live",))
