"""Decides how the replication of documents is stopped and proven stopped, and started the other way
(``files.stop-replicator``, ``files.start-replicator``); must never call a site closed that still takes new
documents, nor start a replicator where documents are published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from orchestrator.core.model import ProofKind
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Parts, Touch, Undo
from orchestrator.core.values import HostRef, Json, Milliseconds, SiteRef, Template, UnitName, duration_text
from orchestrator.errors import ContinuityError, PermanentError, TransientError
from orchestrator.ports import Context, Description

POLL_SECONDS = (0.02, 0.2)
SCRIPT_SECONDS_MAX = 5.0
TOLD_SECONDS_MAX = 1.0


@dataclass(frozen=True, slots=True)
class StopReplicatorParams:
    """``directory``: where the unit writes, for people. ``published``: a link that the service there reads;
    with it no new document is taken there under ``epoch`` of ``site``, and only that proves `demoted`.
    ``follows``: the right stays with ``site``; this side was left behind, and is closed for good."""

    host: HostRef
    unit: UnitName
    directory: Template = ""
    published: Template = ""
    epoch: int = 0
    site: SiteRef = ""
    follows: bool = False


class StopReplicator:
    """Take no new documents where they are published, stop the replicator there and see its process gone."""

    kind: ClassVar[str] = "files.stop-replicator"
    version: ClassVar[int] = 2  # 2: an undo gives back what ran before this run, no more and no less
    params: ClassVar[type[Any]] = StopReplicatorParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: StopReplicatorParams, parts: Parts) -> Description:
        where = _endpoint(params.host, parts)
        commands = [
            f"{where}: stop {params.unit}",
            f"its process is gone: nothing writes {params.directory}".rstrip(),
        ]
        touches, undo = [_touch(params.host, parts)], [f"{where}: start {params.unit} if it ran before"]
        if params.published:
            host = parts.hosts[params.host]
            commands[:0] = [
                f"{host.name}: under lock {params.published}.lock: refuse unless epoch {params.epoch} is newer",
                f"{host.name}: write {params.published}.mode: read-only; nobody holds {params.published}.taking",
            ]
            touches.append(Touch(host.site, host.address))
            if not params.follows:
                undo.insert(0, f"{host.name}: {params.published}.mode as it was before this run")
        return Description(tuple(commands), tuple(touches), Undo.UNDO, tuple(undo))

    def load(self, context: Context[StopReplicatorParams]) -> None:
        from orchestrator.drivers import files_host, files_keep_host, ran_before, supervisor  # noqa: F401

        supervisor.manager_of(context.parts.hosts[context.params.host])

    def check(self, context: Context[StopReplicatorParams]) -> Finding:
        from orchestrator.drivers import supervisor

        params = context.params
        try:
            manager = supervisor.manager_of(context.parts.hosts[params.host])
            now = supervisor.state(
                manager, params.unit, context.secrets, timeout_seconds=context.seconds_left()
            )
        except ContinuityError as error:
            return Finding(FindingKind.CANNOT_TELL, str(error))
        if now.name not in ("stopped", "exited", "fatal") or now.pid:
            return Finding(FindingKind.NOT_DONE, f"{params.unit} is {now.name}")
        return self._check_closed(context, now.name)

    def _check_closed(self, context: Context[StopReplicatorParams], state: str) -> Finding:
        from orchestrator.drivers import files_host

        params = context.params
        if not params.published:
            return Finding(FindingKind.DONE, "", _stopped(params, state, {}))
        try:
            seen = _script(context, files_host.look, {"published": params.published})
        except (ContinuityError, TimeoutError) as error:
            return Finding(FindingKind.CANNOT_TELL, str(error))
        if seen["message"]:
            return Finding(FindingKind.CANNOT_TELL, seen["message"])
        entry = seen["entry"]
        if entry is None or not self._is_closed_by(entry, context):
            return Finding(FindingKind.NOT_DONE, f"{params.published} was not closed by this run")
        if seen["mode"] != files_host.CLOSED or seen["taking"]:
            taking = ", and a document is being taken" if seen["taking"] else ""
            return Finding(FindingKind.NOT_DONE, f"{params.published} is {seen['mode']}{taking}")
        return Finding(FindingKind.DONE, "", _stopped(params, state, {"mode": seen["mode"]}))

    def _is_closed_by(self, entry: Any, context: Context[StopReplicatorParams]) -> bool:
        params = context.params
        if params.follows and (entry["epoch"], entry["site"]) == (params.epoch, params.site):
            return True
        return (entry["epoch"], entry["run"]) == (params.epoch, context.run)

    def execute(self, context: Context[StopReplicatorParams]) -> Outcome:
        """New documents first: they are what would be lost. Then the replicator."""
        if (
            not context.params.published
        ):  # closing what is published needs no manager, and is done in any case
            _need_password(context.params.host, context)
        if problem := self._close(context, undo=False):
            return problem
        return self._stop(context)

    def _close(self, context: Context[StopReplicatorParams], *, undo: bool) -> Outcome | None:
        """None: it is as wanted (also where nothing is published)."""
        from orchestrator.drivers import files_host

        params = context.params
        if not params.published:
            return None
        context.record(f"{params.host}: {'undo ' if undo else ''}take no new documents at {params.published}")
        arguments: dict[str, Json] = {
            "published": params.published, "epoch": params.epoch, "site": params.site, "run": context.run,
            "undo": undo, "follows": params.follows,
        }  # fmt: skip
        try:
            answer = _script(context, files_host.close, arguments)
        except TransientError as error:
            return Failed(str(error), retryable=True)
        except (PermanentError, TimeoutError) as error:
            return Unknown(str(error))
        match answer["result"]:
            case "done":
                return None
            case "refused":
                return Failed(answer["message"])
            case _:
                return Unknown(answer["message"])

    def _stop(self, context: Context[StopReplicatorParams]) -> Outcome:
        from orchestrator.drivers import files_host, files_keep_host, ran_before, supervisor

        params = context.params
        context.record(f"{params.host}: stop {params.unit}")
        try:
            manager = supervisor.manager_of(context.parts.hosts[params.host])
            bound = min(SCRIPT_SECONDS_MAX, context.seconds_left())
            before = supervisor.state(manager, params.unit, context.secrets, timeout_seconds=bound)
            was_running = ran_before.note(context, bool(before.pid))
            now = supervisor.stop(manager, params.unit, context.secrets, context.seconds_left())
            seen: dict[str, Any] = {}
            if before.pid:
                seen = _script(context, files_keep_host.process, {"pid": before.pid})
                if seen["alive"]:
                    return Unknown(
                        f"{params.unit} is {now.name}, but a process lives under its pid {before.pid}"
                    )
        except TimeoutError as error:
            return Unknown(str(error))
        except TransientError as error:
            return Failed(str(error), retryable=True)
        except PermanentError as error:
            return Failed(str(error))
        more: dict[str, Any] = {
            "ran_before": was_running, "pid_before": before.pid, "boot": seen.get("boot", ""),
        }  # fmt: skip
        return Succeeded(
            _stopped(params, now.name, more | ({"mode": files_host.CLOSED} if params.published else {}))
        )

    def undo(self, context: Context[StopReplicatorParams]) -> Outcome:
        """A replicator that did not run before this run must not begin to write over what is published."""
        from orchestrator.drivers import ran_before

        params = context.params
        if not params.follows and (problem := self._close(context, undo=True)):
            return problem
        try:
            was_running = ran_before.asked(context)
        except (ContinuityError, TimeoutError) as error:
            return Failed(str(error), retryable=not isinstance(error, PermanentError))
        if not was_running:
            return Succeeded({"host": params.host, "unit": params.unit, "ran_before": False})
        return _start(params.host, params.unit, context)


@dataclass(frozen=True, slots=True)
class StartReplicatorParams:
    """``manifest`` at ``host`` must become equal to ``source_manifest`` at ``source_host``; both '': the
    unit only has to run. ``published``: what must not be taking new documents at ``host``; '': nothing is."""

    host: HostRef
    unit: UnitName
    source_host: HostRef
    manifest: Template = ""
    source_manifest: Template = ""
    published: Template = ""
    within_ms: Milliseconds = 60_000


class StartReplicator:
    """Start the replicator of the other direction and wait until both sites have an equal manifest. It waits once:
    publication may stand still meanwhile."""

    kind: ClassVar[str] = "files.start-replicator"
    version: ClassVar[int] = 2  # 2: an undo gives back what ran before this run, no more and no less
    params: ClassVar[type[Any]] = StartReplicatorParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: StartReplicatorParams, parts: Parts) -> Description:
        where = _endpoint(params.host, parts)
        commands = [f"{where}: start {params.unit}"]
        touches = [_touch(params.host, parts)]
        if params.published:
            commands.insert(0, f"refuse while {params.host}:{params.published} takes new documents")
        if params.manifest:
            commands.append(
                f"until {params.host}:{params.manifest} equals {params.source_host}:{params.source_manifest}"
            )
            touches.append(_touch(params.source_host, parts))
        undo = f"{where}: stop {params.unit} unless it ran before"
        return Description(tuple(commands), tuple(touches), Undo.UNDO, (undo,))

    def load(self, context: Context[StartReplicatorParams]) -> None:
        from orchestrator.drivers import files_host, ran_before, supervisor, waiting  # noqa: F401

        waiting.load()
        supervisor.manager_of(context.parts.hosts[context.params.host])

    def check(self, context: Context[StartReplicatorParams]) -> Finding:
        from orchestrator.drivers import supervisor

        params = context.params
        try:
            manager = supervisor.manager_of(context.parts.hosts[params.host])
            now = supervisor.state(
                manager, params.unit, context.secrets, timeout_seconds=context.seconds_left()
            )
            if now.name != "running":
                return Finding(FindingKind.NOT_DONE, f"{params.unit} is {now.name}")
            if refusal := self._refusal(context):
                return Finding(FindingKind.NOT_DONE, refusal)
        except (ContinuityError, TimeoutError) as error:
            return Finding(FindingKind.CANNOT_TELL, str(error))
        return self._compare(context)

    def _refusal(self, context: Context[StartReplicatorParams]) -> str:
        """Why nothing may be copied to this host, or "": what it takes itself would be listed nowhere."""
        from orchestrator.drivers import files_host

        params = context.params
        if not params.published:
            return ""
        seen = _script(context, files_host.look, {"published": params.published})
        if seen["mode"] != files_host.TAKES and not seen["taking"]:
            return ""
        return (
            f"{params.host} still takes new documents at {params.published}: reprotect closes it and lists what it"
            " alone holds, before anything is copied over it"
        )

    def _compare(self, context: Context[StartReplicatorParams]) -> Finding:
        try:
            here, there = self._digests(context)
        except (ContinuityError, TimeoutError) as error:
            return Finding(FindingKind.CANNOT_TELL, str(error))
        if here != there:
            return Finding(FindingKind.NOT_DONE, "the manifests are not equal yet")
        return Finding(FindingKind.DONE, "", {"unit": context.params.unit, "manifest_sha256": here})

    def execute(self, context: Context[StartReplicatorParams]) -> Outcome:
        from orchestrator.drivers import supervisor, waiting

        params = context.params
        try:
            if refusal := self._refusal(context):
                return Failed(refusal)
            self._note(context)
        except (ContinuityError, TimeoutError) as error:  # nothing was started
            return Failed(str(error), retryable=isinstance(error, TransientError | TimeoutError))
        outcome = _start(params.host, params.unit, context)
        if not isinstance(outcome, Succeeded):
            return outcome
        within = min(params.within_ms / 1_000, context.seconds_left() - TOLD_SECONDS_MAX)
        found = waiting.until_done(
            context, lambda _: self._compare(context), within, waiting.Pace(*POLL_SECONDS)
        )
        if found.kind is FindingKind.DONE:
            return Succeeded(found.evidence)
        host = context.parts.hosts[params.host]
        told = supervisor.told(host, params.unit, context.secrets, TOLD_SECONDS_MAX)
        # not tried again by itself: it waited its whole bound, and publication may stand still meanwhile
        return Failed(f"{found.reason} after {duration_text(params.within_ms)}; {told}")

    def _note(self, context: Context[StartReplicatorParams]) -> None:
        """Whether the replicator runs before this run starts it, for the undo."""
        from orchestrator.drivers import ran_before, supervisor

        params = context.params
        _need_password(params.host, context)
        manager = supervisor.manager_of(context.parts.hosts[params.host])
        bound = min(SCRIPT_SECONDS_MAX, context.seconds_left())
        now = supervisor.state(manager, params.unit, context.secrets, timeout_seconds=bound)
        ran_before.note(context, now.name in supervisor.RUNS)

    def undo(self, context: Context[StartReplicatorParams]) -> Outcome:
        """A replicator that ran before this run goes on: without it the next loss of the other side loses documents."""
        from orchestrator.drivers import ran_before, supervisor

        params = context.params
        try:
            was_running = ran_before.asked(context)
            if was_running is not False:
                return Succeeded({"unit": params.unit, "ran_before": was_running})
            _need_password(params.host, context)
            context.record(f"{params.host}: stop {params.unit}")
            manager = supervisor.manager_of(context.parts.hosts[params.host])
            supervisor.stop(manager, params.unit, context.secrets, context.seconds_left())
        except TimeoutError as error:
            return Unknown(str(error))
        except ContinuityError as error:
            return Failed(str(error), retryable=isinstance(error, TransientError))
        return Succeeded({"unit": params.unit, "ran_before": False})

    def _digests(self, context: Context[StartReplicatorParams]) -> tuple[str, str]:
        """The manifests' digests at host and source; equal ones only count when there is a manifest."""
        from orchestrator.drivers import files_host

        params = context.params
        if not params.manifest:
            return "", ""
        found = []
        for host, path in ((params.host, params.manifest), (params.source_host, params.source_manifest)):
            connection = context.hosts.connect(context.parts.hosts[host])
            bound = min(SCRIPT_SECONDS_MAX, context.seconds_left())
            found.append(
                str(connection.call(files_host.digest, {"manifest": path}, timeout_seconds=bound)["digest"])
            )
        if not found[1]:
            raise PermanentError(f"{params.source_host}: {params.source_manifest}: there is no manifest")
        return found[0], found[1]


def _need_password(host: str, context: Context[Any]) -> None:
    from orchestrator.drivers import supervisor

    if manager := context.parts.hosts[host].manager:
        supervisor.need_password(manager, context.secrets)


def _start(host: str, unit: str, context: Context[Any]) -> Outcome:
    from orchestrator.drivers import supervisor

    _need_password(host, context)
    context.record(f"{host}: start {unit}")
    try:
        supervisor.start(
            supervisor.manager_of(context.parts.hosts[host]), unit, context.secrets, context.seconds_left()
        )
    except TimeoutError as error:
        return Unknown(str(error))
    except ContinuityError as error:
        return Failed(str(error), retryable=isinstance(error, TransientError))
    return Succeeded({"host": host, "unit": unit})


def _script(context: Context[Any], script: Any, arguments: dict[str, Json]) -> Any:
    """What a script says on the host, within its share of the time."""
    connection = context.hosts.connect(context.parts.hosts[context.params.host])
    bound = min(SCRIPT_SECONDS_MAX, context.seconds_left())
    return connection.call(script, arguments, timeout_seconds=bound)


def _endpoint(host: str, parts: Parts) -> str:
    manager = parts.hosts[host].manager
    return urlsplit(manager.url).netloc if manager else parts.hosts[host].address


def _touch(host: str, parts: Parts) -> Touch:
    return Touch(parts.hosts[host].site, _endpoint(host, parts))


def _stopped(params: StopReplicatorParams, state: str, more: dict[str, Any]) -> dict[str, Any]:
    """A replicator that stands still proves nothing about new documents: only a closed mode does."""
    proof = {"proof": str(ProofKind.DEMOTED)} if params.published else {}
    return {**proof, "host": params.host, "unit": params.unit, "state": state, **more}
