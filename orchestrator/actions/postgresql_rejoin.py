"""Decides how an old side whose history may have left the primary's comes back: ``postgresql.rejoin``.

What it looked like is kept whole before anything of it is changed. Every phase looks first at what
lies there, so an attempt that was interrupted anywhere is simply followed by the next. A history that
went on after the primary was promoted is a split brain: nothing of it is touched before people resolve it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json
from orchestrator.drivers import (
    postgresql,
    postgresql_facts,
    postgresql_follower,
    postgresql_rejoin,
    postgresql_rejoin_texts,
    postgresql_server,
    postgresql_upstream,
)
from orchestrator.drivers.postgresql_course import Course, Seen, Way, course, instead
from orchestrator.drivers.postgresql_foreign import Foreign, foreign
from orchestrator.drivers.postgresql_history import (
    SYSTEM_ID,
    History,
    Standing,
    backup_start,
    can_be_rewound,
    common_checkpoint,
    standing,
)
from orchestrator.drivers.postgresql_member import Member, member
from orchestrator.drivers.postgresql_rejoin import Places, View
from orchestrator.drivers.postgresql_rejoin_texts import CHECKPOINT, PLAIN_RUN
from orchestrator.errors import RefusedError, TransientError
from orchestrator.ports import Context, Description

RUN = "${run}"  # stands for the run's id where people see what is done


@dataclass(frozen=True, slots=True)
class RejoinParams:
    """``source``: the host of the primary. ``how``: what people chose; ``keep`` is not offered yet.

    ``resolved``: people have decided that the primary's history stands, whatever the other side wrote.
    """

    cluster: ClusterRef
    host: HostRef
    source: HostRef
    databases: tuple[str, ...]
    how: Literal["rewind", "reclone", "keep"] = "rewind"
    resolved: bool = False


class Rejoin:
    """Follow, rewind a copy, or clone anew; done when the primary sees it stream."""

    kind: ClassVar[str] = "postgresql.rejoin"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = RejoinParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: RejoinParams, parts: Parts) -> Description:
        """The commands for a history that diverged, or for a clone; less is done where less is needed."""
        source, follower = _sides(params, parts)
        _refuse_what_cannot_be(params, follower)
        others = postgresql_follower.others(parts, follower)
        told = postgresql_rejoin_texts.texts(params.how, source, follower, others)
        return Description(
            tuple(text.replace(PLAIN_RUN, RUN) for text in told),
            (source.touch, *follower.touches),
            Undo.POINT_OF_NO_RETURN,
        )

    def load(self, context: Context[RejoinParams]) -> None:
        source, follower = _sides(context.params, context.parts)
        postgresql_follower.load(context, source, follower)
        postgresql.warm(context, source, context.params.databases)

    def check(self, context: Context[RejoinParams]) -> Finding:
        def work() -> Finding:
            source, follower = _sides(context.params, context.parts)
            connection = context.hosts.connect(follower.host)
            if connection.is_running(postgresql_rejoin.lock_name(follower)):
                return Finding(FindingKind.RUNNING, f"a command is still at work at {follower.host.name}")
            found = postgresql_follower.streaming(context, source, follower)
            if found is None:
                return Finding(FindingKind.NOT_DONE, f"{follower.host.name} does not stream from here")
            where = postgresql_rejoin.places(follower, context.run)
            mark = postgresql_rejoin.view(context, follower, where).data_mark
            told = mark or Course(Way.FOLLOW, "it follows").evidence()
            evidence = postgresql_follower.evidence(follower, source, *found)
            return Finding(FindingKind.DONE, "", {**_told(told), **evidence})

        return postgresql.found(work)

    def execute(self, context: Context[RejoinParams]) -> Outcome:
        return postgresql.settle(lambda: _rejoin(context))

    def undo(self, context: Context[RejoinParams]) -> Outcome:
        return Failed("its old history is kept as evidence, and nothing puts it back by itself")


def _sides(params: RejoinParams, parts: Parts) -> tuple[Member, Member]:
    return member(parts, params.cluster, params.source), member(parts, params.cluster, params.host)


def _refuse_what_cannot_be(params: RejoinParams, follower: Member) -> None:
    if params.how == "keep":
        raise RefusedError(
            f"{params.cluster}: rejoin 'keep' (two servers that both keep their history) is not offered",
            ("rejoin by rewind", "rejoin by reclone"),
        )
    data = follower.data_directory.rstrip("/")
    if (follower.config_directory.rstrip("/") + "/").startswith(data + "/"):
        raise RefusedError(
            f"{params.cluster}: the configuration lies in the data directory ({follower.config_directory}):"
            " a rewind or a clone replaces it by the other side's",
            ("declare a config-directory outside the data-directory",),
        )


# --- the course ---------------------------------------------------------------------------------


def _rejoin(context: Context[RejoinParams]) -> Outcome:
    source, follower = _sides(context.params, context.parts)
    try:
        _refuse_what_cannot_be(context.params, follower)
    except RefusedError as error:
        return Failed(str(error))
    postgresql_follower.need_secrets(context, follower)
    history = _history(context, source)
    refusal = _no_right_to_write(context, source)
    if refusal:
        return Failed(refusal)
    if context.hosts.connect(follower.host).is_running(postgresql_rejoin.lock_name(follower)):
        return Failed(
            f"a command of an earlier attempt is still at work at {follower.host.name}", retryable=True
        )
    where = postgresql_rejoin.places(follower, context.run)
    now = postgresql_rejoin.view(context, follower, where)
    if now.is_mount:
        return Failed(f"{where.data} is a mount point and cannot be replaced: declare a folder below it")
    if now.data_mark is not None:
        return _come_up(context, now.data_mark)
    if now.new_mark is not None:
        postgresql_rejoin.swap(context, follower, where, now, now.new_mark)
        return _come_up(context, now.new_mark)
    if not postgresql_follower.is_running(context, follower):
        return _go(context, where, history)
    followed = _follow_as_it_is(context, source, follower, history)
    if followed is not None:
        return followed
    refusal = _holds_a_later_epoch(context, source, follower)
    return Failed(refusal) if refusal else _go(context, where, history)


def _follow_as_it_is(
    context: Context[RejoinParams], source: Member, follower: Member, history: History
) -> Outcome | None:
    """A running standby is pointed to the primary. None: it must be stopped, and more be done.

    One that streams already is whole, whatever way people chose.
    """
    try:
        found = postgresql_follower.streaming(context, source, follower)
    except TransientError:
        found = None
    told = Course(Way.FOLLOW, "it runs as a standby").evidence()
    if found is not None:
        return Succeeded({**_told(told), **postgresql_follower.evidence(follower, source, *found)})
    if context.params.how != "rewind" or not postgresql_follower.is_standby(context, follower):
        return None
    followed = postgresql_follower.follow(context, source, follower, history)
    if followed.has_left:
        return None
    if followed.stream is None:
        return Failed(f"{follower.host.name}: {followed.problem}", retryable=True)
    evidence = postgresql_follower.evidence(follower, source, followed.stream, followed.timeline)
    return Succeeded({**_told(told), **evidence})


def _go(context: Context[RejoinParams], where: Places, history: History) -> Outcome:
    """Stop it, judge what it left, and bring it back the way that can be gone."""
    source, follower = _sides(context.params, context.parts)
    has_database = bool(postgresql_server.look(context, follower, control=False)["exists"])
    before = postgresql_rejoin.view(context, follower, where)
    split = _split_brain(context, _foreign(context, where, before, history))
    if split is not None:
        return split  # a server that runs goes on running: so its rows can be listed
    postgresql_rejoin.stand_down(context, follower, has_data=has_database)
    now = postgresql_rejoin.view(context, follower, where)
    cloned = _whole_clone(context, where, now, history)
    if not cloned:
        postgresql_rejoin.tidy(context, follower, where, now)
        now = postgresql_rejoin.view(context, follower, where)
    seen, control = _look(context, where, now, history)
    old = _foreign(context, where, now, history)
    split = _split_brain(context, old)
    if split is not None:
        return split
    chosen = instead(seen, "an earlier attempt has cloned it") if cloned else course(seen)
    if chosen.problem:
        return Failed(f"{chosen.because}: {chosen.problem}", evidence=_room(seen, chosen))
    if chosen.way is Way.FOLLOW:
        return _come_up(context, chosen.evidence())
    _prepare_source(context, source, follower)
    later = "" if old is None else old.text()
    note: dict[str, Json] = {**chosen.evidence(), **_room(seen, chosen), "control": control, "later": later}
    told = {**chosen.evidence(), "later": later}
    if chosen.way is Way.REWIND:
        postgresql_rejoin.keep(context, follower, where, now, note)
        common, refusal = _rewind(context, where, now)
        told |= {"common_checkpoint": common}
        if refusal:
            now = postgresql_rejoin.view(context, follower, where)
            postgresql_rejoin.tidy(context, follower, where, now)
            chosen = instead(seen, f"{chosen.because}; {refusal}")
            if chosen.problem:
                return Failed(f"{chosen.because}: {chosen.problem}", evidence=_room(seen, chosen))
            told = {**chosen.evidence(), "later": later}
    if chosen.way is Way.RECLONE and not cloned:
        postgresql_rejoin.clone(context, source, follower, where)
    is_kept = now.is_kept or chosen.way is Way.REWIND
    kept = where.kept if now.same_device or is_kept else where.aside
    told["kept"] = f"{kept}/data" if now.has_data or is_kept else ""
    postgresql_rejoin.finish(context, follower, where, told)
    now = postgresql_rejoin.view(context, follower, where)
    postgresql_rejoin.swap(context, follower, where, now, told)
    return _come_up(context, told)


def _prepare_source(context: Context[RejoinParams], source: Member, follower: Member) -> None:
    """The log is held back from now on, and the control file tells the new timeline.

    pg_rewind reads the timeline from that file: before the first checkpoint after a promotion it would
    say that there is nothing to do. The tools find their password beside the role file.
    """
    with postgresql.lease(context, source) as session:
        postgresql_upstream.keep_slot(context, session, follower)
        context.record(CHECKPOINT)
        postgresql.rows(session, CHECKPOINT)
    postgresql_follower.write_role(context, source, follower)


def _rewind(context: Context[RejoinParams], where: Places, now: View) -> tuple[str, str]:
    """(the last checkpoint that both histories share, why it could not be rewound or "")."""
    source, follower = _sides(context.params, context.parts)
    if "rewind" not in follower.cluster.roles:
        return "", "no rewind role is declared"
    postgresql_rejoin.copy_to_rewind(context, follower, where, now)
    said, refusal = postgresql_rejoin.rewind(context, source, follower, where)
    common = common_checkpoint(said)
    if refusal:
        return common, refusal
    history = _history(context, source)
    judged, reason = standing(postgresql_rejoin.control_of(context, follower, where.new), history)
    if judged is not Standing.FOLLOWS:
        return common, f"pg_rewind ended, and yet {reason}"
    start = backup_start(postgresql_rejoin.backup_label(context, follower, where.new))
    if start and not history.has_log_from(start):
        return common, f"rewound, it needs the log from {start}, and the primary's begins at {history.oldest}"
    return common, ""


def _come_up(context: Context[RejoinParams], told: Mapping[str, Json]) -> Outcome:
    """Start what lies in place as the primary's standby and wait until it streams."""
    source, follower = _sides(context.params, context.parts)
    history = _history(context, source)
    followed = postgresql_follower.follow(context, source, follower, history)
    if followed.stream is None:
        return Failed(f"{follower.host.name}: {followed.problem}", retryable=True, evidence=_told(told))
    evidence = postgresql_follower.evidence(follower, source, followed.stream, followed.timeline)
    return Succeeded({**_told(told), **evidence})


# --- looking ------------------------------------------------------------------------------------


def _history(context: Context[RejoinParams], source: Member) -> History:
    with postgresql.lease(context, source) as session:
        return postgresql_upstream.history(session, source.host.name)


def _look(
    context: Context[RejoinParams], where: Places, now: View, history: History
) -> tuple[Seen, Mapping[str, str]]:
    """Both sides, and what pg_controldata says of the old one."""
    source, follower = _sides(context.params, context.parts)
    old = where.kept_data if now.is_kept else where.data
    control = postgresql_rejoin.control_of(context, follower, old)
    judged, reason = standing(control, history)
    with postgresql.lease(context, source) as session:
        source_bytes = postgresql_upstream.size_bytes(session)
        tablespaces = postgresql_upstream.tablespaces(session)
    room = postgresql_rejoin.room(context, follower, where, old)
    seen = Seen(
        wanted=context.params.how,
        standing=judged,
        reason=reason,
        refusal=can_be_rewound(control, history) if judged is Standing.DIVERGED else "",
        used_bytes=room["used_bytes"],
        source_bytes=source_bytes,
        free_bytes=room["free_bytes"],
        kept_free_bytes=room["kept_free_bytes"],
        same_device=now.same_device,
        has_data=now.has_data,
        is_kept=now.is_kept,
        shares=room["shares"],
        tablespaces=tablespaces,
    )
    return seen, control


def _foreign(context: Context[RejoinParams], where: Places, now: View, history: History) -> Foreign | None:
    source, follower = _sides(context.params, context.parts)
    old = where.kept_data if now.is_kept else where.data
    control = postgresql_rejoin.control_of(context, follower, old)
    with postgresql.lease(context, source) as session:
        return foreign(context, session, follower, old, control, history)


def _split_brain(context: Context[RejoinParams], old: Foreign | None) -> Failed | None:
    """Why it is not brought back: it accepted work after the fork, and people have not resolved that."""
    if old is None or not old.commits or context.params.resolved:
        return None
    return Failed(
        f"{context.params.host} is of a split brain: {old.text()}; none of its data were changed. People decide"
        " first whose history stands: continuity abort --reason TEXT, then continuity status --live, which names the group",
        evidence={"conflict": old.evidence()},
    )


def _whole_clone(context: Context[RejoinParams], where: Places, now: View, history: History) -> bool:
    """A base backup of this cluster whose driver died: its manifest is put in place last of all."""
    if not now.is_cloned:
        return False
    _, follower = _sides(context.params, context.parts)
    control = postgresql_rejoin.control_of(context, follower, where.new)
    start = backup_start(postgresql_rejoin.backup_label(context, follower, where.new))
    return control.get(SYSTEM_ID) == history.system_id and bool(start) and history.has_log_from(start)


def _no_right_to_write(context: Context[RejoinParams], source: Member) -> str:
    """Why nobody may be made to follow ``source``, or "": its rows must name its own site."""
    rows = postgresql_facts.writers(context, source, context.params.databases)
    for database, writer in rows.items():
        if writer is None or writer.site != source.host.site:
            said = f"names {writer.site}" if writer else "is missing"
            return f"{source.host.name} does not hold the right to write: the row of {database} {said}"
    return ""


def _holds_a_later_epoch(context: Context[RejoinParams], source: Member, follower: Member) -> str:
    """Why the running server must not be touched, or "": then it is the source that is the old side."""
    try:
        theirs = postgresql_facts.writers(context, follower, context.params.databases)
    except TransientError:
        return ""
    ours = postgresql_facts.writers(context, source, context.params.databases)
    for database, writer in theirs.items():
        own = ours[database]
        if writer is not None and own is not None and writer.epoch > own.epoch:
            return (
                f"{follower.host.name} holds epoch {writer.epoch} of {database}, {source.host.name} only"
                f" epoch {own.epoch}: the later one is not overwritten"
            )
    return ""


def _room(seen: Seen, chosen: Course) -> dict[str, Json]:
    return {
        "how": str(chosen.way),
        "needed_bytes": chosen.needed_bytes,
        "used_bytes": seen.used_bytes,
        "source_bytes": seen.source_bytes,
        "free_bytes": seen.free_bytes,
        "kept_free_bytes": seen.kept_free_bytes,
    }


def _told(told: Mapping[str, Json]) -> dict[str, Json]:
    """How it was brought back, as every outcome of this step says it."""
    names = ("how", "because", "kept", "common_checkpoint", "needed_bytes", "predicted_ms", "later")
    return {name: told.get(name, "") for name in names}
