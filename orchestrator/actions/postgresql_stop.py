"""Decides how an old member is stopped so that it comes back as nothing but a standby: ``postgresql.stop``.

What counts as proof is seen on the host itself: standby.signal lies in the data directory of this very
cluster, and no process works there. A host that does not answer proves nothing, and nothing here ever
cancels a backend: one that waits for a synchronous standby would tell its client that the row is safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from orchestrator.core.model import Operation, ProofKind
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json
from orchestrator.drivers import postgresql, postgresql_facts, postgresql_host, postgresql_server, supervisor
from orchestrator.drivers.postgresql_member import Member, member
from orchestrator.errors import ContinuityError, PermanentError, TransientError
from orchestrator.ports import Context, Description

STATE = "Database cluster state"
SYSTEM = "Database system identifier"
CHECKPOINT = "Latest checkpoint location"
TIMELINE = "Latest checkpoint's TimeLineID"
CLEAN = "shut down"
ENDED = ("stopped", "exited", "fatal")
PATIENT_SHARE = 0.5  # of the step's time, before an unplanned stop becomes an immediate one
PROOF_SHARE = 0.1  # is left for the proof
READY_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class StopParams:
    """``fast`` sends what was committed to whoever streams; ``immediate`` leaves a crash to recover."""

    cluster: ClusterRef
    host: HostRef
    mode: Literal["fast", "immediate"] = "fast"


class Stop:
    """The fence of rank *demoted*: asked to stop, and seen to have stopped for good."""

    kind: ClassVar[str] = "postgresql.stop"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = StopParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: StopParams, parts: Parts) -> Description:
        at = member(parts, params.cluster, params.host)
        immediate = (postgresql_server.quit_text(at),) if params.mode == "immediate" else ()
        commands = (_signal_text(at), *immediate, postgresql_server.stop_text(at), *_proof_texts(at))
        return Description(
            commands, at.touches, Undo.UNDO, (_lift_text(at), postgresql_server.start_text(at))
        )

    def load(self, context: Context[StopParams]) -> None:
        supervisor.need_password(postgresql_server.manager_of(_member(context)), context.secrets)

    def check(self, context: Context[StopParams]) -> Finding:
        """The same evidence as ``execute``, or no proof."""

        def work() -> Finding:
            at = _member(context)
            unit = supervisor.state(postgresql_server.manager_of(at), at.cluster.unit, context.secrets)
            if unit.name == "stopping":
                return Finding(FindingKind.RUNNING, f"{at.cluster.unit} is being stopped")
            gone = postgresql_server.prove_gone(context, at, seconds=0.0)
            seen = postgresql_server.look(context, at)
            if unit.name not in ENDED:
                if seen["fenced_primary"]:
                    return Finding(FindingKind.CANNOT_TELL, f"half done: {at.cluster.unit} is {unit.name}")
                return Finding(FindingKind.NOT_DONE, f"{at.cluster.unit} is {unit.name}")
            problem = _problem(context, seen, gone)
            if not problem:
                return Finding(FindingKind.DONE, "", _evidence(at, seen, gone))
            is_half = seen["standby_signal"]
            return Finding(FindingKind.CANNOT_TELL if is_half else FindingKind.NOT_DONE, problem)

        return postgresql.found(work)

    def execute(self, context: Context[StopParams]) -> Outcome:
        def work() -> Outcome:
            at = _member(context)
            supervisor.need_password(postgresql_server.manager_of(at), context.secrets)
            context.record(_signal_text(at))
            arguments: dict[str, Json] = {
                "data_directory": at.data_directory,
                "note": f"attempt {context.attempt}",
                "system_id": _system_id(context),
            }
            postgresql_server.call(context, at, postgresql_host.fence_signal, arguments)
            try:
                _stop(context, at)
            except TransientError as error:
                return Unknown(f"standby.signal is written, and then: {error}")
            except PermanentError:
                return _taken_back(context, at)
            try:
                return _proven(context, at)
            except ContinuityError as error:
                return Unknown(f"{at.cluster.unit} is stopped, and then: {error}")

        return postgresql.settle(work)

    def undo(self, context: Context[StopParams]) -> Outcome:
        """Start it as what it was. Whether that is safe is for the core to decide."""

        def work() -> Outcome:
            at = _member(context)
            supervisor.need_password(postgresql_server.manager_of(at), context.secrets)
            seen = postgresql_server.look(context, at, control=False)
            if seen["fenced_primary"]:
                if seen["processes"] and not _is_primary(context, at):
                    postgresql_server.stop(context, at)  # somebody started it: it is a standby now
                    gone = postgresql_server.prove_gone(context, at)
                    if not gone["gone"]:
                        return Failed(_still_there(at, gone), retryable=True)
                _lift(context, at)
            postgresql_server.start(context, at)
            return Succeeded({"host": at.host.name, "writes": _wait_ready(context, at)})

        return postgresql.settle(work)


def _member(context: Context[StopParams]) -> Member:
    return member(context.parts, context.params.cluster, context.params.host)


def _signal_text(at: Member) -> str:
    return f"{at.host.name}: write {at.data_directory}/standby.signal"


def _lift_text(at: Member) -> str:
    return f"{at.host.name}: remove {at.data_directory}/standby.signal if a fence wrote it, and the freeze"


def _proof_texts(at: Member) -> tuple[str, ...]:
    return (
        f"{at.host.name}: until no process works in {at.data_directory}",
        f"{at.host.name}: {at.tool('pg_controldata')} -D {at.data_directory}",
    )


def _stop(context: Context[StopParams], at: Member) -> None:
    """Fast; where the old side is being given up, immediate when that takes too long.

    A fast stop waits for whoever streams: behind a link that is silently cut that takes until
    ``wal_sender_timeout``, which may be longer than the fences have.
    """
    left = context.seconds_left()
    if context.params.mode == "immediate":
        postgresql_server.stop(context, at, immediate=True, seconds=left * (1 - PROOF_SHARE))
        return
    if context.operation is not Operation.FAILOVER:
        postgresql_server.stop(context, at, seconds=left * (1 - PROOF_SHARE))
        return
    try:
        postgresql_server.stop(context, at, seconds=left * PATIENT_SHARE)
    except TimeoutError:
        seconds = context.seconds_left() * (1 - PROOF_SHARE)
        postgresql_server.stop(context, at, immediate=True, seconds=seconds)


def _proven(context: Context[StopParams], at: Member) -> Outcome:
    for text in _proof_texts(at):
        context.record(text)
    gone = postgresql_server.prove_gone(context, at, seconds=context.seconds_left() / 2)
    if not gone["gone"]:
        return Unknown(_still_there(at, gone))
    seen = postgresql_server.look(context, at)
    problem = _problem(context, seen, gone)
    return Unknown(problem) if problem else Succeeded(_evidence(at, seen, gone))


def _still_there(at: Member, gone: Mapping[str, Any]) -> str:
    return f"{at.host.name}: {', '.join(gone['processes'])} still work in {at.data_directory}"


def _lift(context: Context[StopParams], at: Member) -> None:
    context.record(_lift_text(at))
    arguments: dict[str, Json] = {"data_directory": at.data_directory}
    postgresql_server.call(context, at, postgresql_host.lift_signal, arguments)


def _taken_back(context: Context[StopParams], at: Member) -> Outcome:
    """The manager refused the order. A primary that goes on running keeps no signal: it would come up
    as a standby after its next crash, long after this run."""
    try:
        supervisor.state(postgresql_server.manager_of(at), at.cluster.unit, context.secrets)
        reason = f"{at.cluster.unit} could not be stopped"
    except PermanentError as error:
        reason = str(error)
    if not postgresql_server.look(context, at, control=False)["postmaster"]:
        return Unknown(f"{reason}, and yet no postmaster lives in {at.data_directory}")
    _lift(context, at)
    return Failed(reason)


def _is_primary(context: Context[StopParams], at: Member) -> bool:
    with postgresql.lease(context, at, looking=True, new=True) as session:
        return not postgresql.value(session, "SELECT pg_is_in_recovery()")


def _system_id(context: Context[StopParams]) -> str:
    """The cluster's system identifier as the inspection saw it, at whatever side; "" if it saw none."""
    found = (side.get("system_id") for _, side in postgresql_facts.inspected(context.evidence))
    return next((text for text in found if isinstance(text, str)), "")


def _problem(context: Context[StopParams], seen: Mapping[str, Any], gone: Mapping[str, Any]) -> str:
    """Why this is no proof; "" when it is one."""
    at = _member(context)
    if not seen["exists"]:
        return f"{at.host.name}: {at.data_directory} holds no database"
    if not seen["standby_signal"]:
        return f"{at.host.name}: no standby.signal in {at.data_directory}"
    if not gone["gone"]:
        return _still_there(at, gone)
    system, expected = seen["control"].get(SYSTEM, ""), _system_id(context)
    if expected and system != expected:
        return f"{at.host.name}: {at.data_directory} is of system {system}, not {expected}"
    return ""


def _evidence(at: Member, seen: Mapping[str, Any], gone: Mapping[str, Any]) -> dict[str, Json]:
    """``shutdown_checkpoint`` is there only after a clean shutdown of a primary."""
    control: Mapping[str, str] = seen["control"]
    evidence: dict[str, Json] = {
        "proof": str(ProofKind.DEMOTED),
        "host": at.host.name,
        "unit": at.cluster.unit,
        "state": control.get(STATE, ""),
        "system_id": control.get(SYSTEM, ""),
        "timeline": int(control.get(TIMELINE, "0")),
        "standby_signal": bool(seen["standby_signal"]),
        "processes": list(gone["processes"]),
        "boot_id": gone["boot_id"],
        "seen_ns": gone["at_ns"],
    }
    if control.get(STATE) == CLEAN:
        evidence["shutdown_checkpoint"] = control[CHECKPOINT]
    return evidence


def _wait_ready(context: Context[StopParams], at: Member) -> bool:
    """Wait until it answers as what its files say: does it take writes? TimeoutError at the deadline."""
    limit = postgresql.limit_of(context)
    while True:
        try:
            with postgresql.lease(context, at, looking=True, new=True) as session:
                standby, read_only = postgresql.row(
                    session,
                    "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'",
                )
            if not standby or postgresql_server.look(context, at, control=False)["standby_signal"]:
                return not standby and not read_only
        except TransientError:
            limit.check()
        limit.check()
        context.cancelled.wait(READY_POLL_SECONDS)
