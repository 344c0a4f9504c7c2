"""Decides how a site's processes are started, stopped, looked at and found ready, through the host's manager
(``service.start``, ``service.stop``, ``service.status``, ``service.inspect``, ``service.ready``); must never keep a
connection to it, nor take back what a run did not do.
"""

from __future__ import annotations

import json as jsons
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

from orchestrator.core.model import Host
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Parts, Touch, Undo
from orchestrator.core.values import (
    HostRef,
    Json,
    Milliseconds,
    Template,
    UnitName,
)
from orchestrator.errors import ContinuityError, PermanentError, TransientError
from orchestrator.ports import Context, Description

if TYPE_CHECKING:
    from orchestrator.drivers import supervisor

POLL_SECONDS = (0.005, 0.05, 1.5)
EXCHANGE_SECONDS_MAX = 1.0
LOOK_SECONDS_MAX = 1.0  # of a look before the order
DOWN = ("stopped", "exited", "fatal")


@dataclass(frozen=True, slots=True)
class UnitParams:
    host: HostRef
    unit: UnitName


class _Unit:
    """What start and stop share: one order to the host's manager, and its opposite as undo where the unit was not
    already as ordered. A run that stopped nothing must start nothing when it is taken back."""

    order: ClassVar[Literal["start", "stop"]]
    version: ClassVar[int] = 2  # 2: an undo gives back what ran before this run, no more and no less
    params: ClassVar[type[Any]] = UnitParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: UnitParams, parts: Parts) -> Description:
        host = parts.hosts[params.host]
        endpoint = _endpoint(host)
        taken_back = f"stop {params.unit} unless" if self.order == "start" else f"start {params.unit} if"
        return Description(
            (f"{endpoint}: {self.order} {params.unit}",),
            (Touch(host.site, endpoint),),
            Undo.UNDO,
            (f"{endpoint}: {taken_back} it ran before",),
        )

    def load(self, context: Context[UnitParams]) -> None:
        from orchestrator.drivers import ran_before, supervisor  # noqa: F401

        supervisor.need_password(
            supervisor.manager_of(context.parts.hosts[context.params.host]), context.secrets
        )

    def check(self, context: Context[UnitParams]) -> Finding:
        from orchestrator.drivers import supervisor

        try:
            now = supervisor.state(
                supervisor.manager_of(context.parts.hosts[context.params.host]),
                context.params.unit,
                context.secrets,
                timeout_seconds=context.seconds_left(),
            )
        except ContinuityError as error:
            return Finding(FindingKind.CANNOT_TELL, str(error))
        done = ("running",) if self.order == "start" else DOWN
        if now.name in done:
            return Finding(FindingKind.DONE, "", _evidence(context.params, now))
        return Finding(FindingKind.NOT_DONE, f"{context.params.unit} is {now.name}")

    def execute(self, context: Context[UnitParams]) -> Outcome:
        return self._give(context, self.order)

    def undo(self, context: Context[UnitParams]) -> Outcome:
        from orchestrator.drivers import ran_before

        params = context.params
        try:
            ran = ran_before.asked(context)
        except (ContinuityError, TimeoutError) as error:
            return Failed(str(error), retryable=not isinstance(error, PermanentError))
        if ran is None or ran is (self.order == "start"):
            return Succeeded({"host": params.host, "unit": params.unit, "ran_before": ran})
        return self._give(context, "start" if ran else "stop")

    def _give(self, context: Context[UnitParams], order: Literal["start", "stop"]) -> Outcome:
        from orchestrator.drivers import ran_before, supervisor

        unit = context.params.unit
        give = supervisor.start if order == "start" else supervisor.stop
        try:
            manager = supervisor.manager_of(context.parts.hosts[context.params.host])
            supervisor.need_password(manager, context.secrets)
            if order == self.order:  # the order is not given before it is known what would take it back
                left = min(LOOK_SECONDS_MAX, context.seconds_left())
                before = supervisor.state(manager, unit, context.secrets, timeout_seconds=left)
                ran_before.note(context, before.name in supervisor.RUNS)
            context.record(f"{context.params.host}: {order} {unit}")
            now = give(manager, unit, context.secrets, context.seconds_left())
        except TimeoutError as error:
            return Unknown(str(error))
        except TransientError as error:
            return Failed(str(error), retryable=True)
        except PermanentError as error:
            return Failed(str(error), retryable=order == "start")
        return Succeeded(_evidence(context.params, now))


class Start(_Unit):
    """Start a unit; ready is another step."""

    kind: ClassVar[str] = "service.start"
    order: ClassVar[Literal["start", "stop"]] = "start"


class Stop(_Unit):
    """Stop a unit; its process is gone when this has succeeded."""

    kind: ClassVar[str] = "service.stop"
    order: ClassVar[Literal["start", "stop"]] = "stop"


@dataclass(frozen=True, slots=True)
class StatusParams:
    """``state``: what the unit must be; one that ended by itself, or that its manager gave up, is stopped, too."""

    host: HostRef
    unit: UnitName
    state: Literal["running", "stopped"] = "running"


class Status:
    """Is a unit running, or stopped, as it should be now? It looks once and changes nothing."""

    kind: ClassVar[str] = "service.status"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = StatusParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: StatusParams, parts: Parts) -> Description:
        endpoint = _endpoint(parts.hosts[params.host])
        command = f"{endpoint}: {params.unit} is {params.state}"
        return Description((command,), (Touch(parts.hosts[params.host].site, endpoint),), Undo.NONE_NEEDED)

    def load(self, context: Context[StatusParams]) -> None:
        from orchestrator.drivers import supervisor  # noqa: F401

    def check(self, context: Context[StatusParams]) -> Finding:
        match self.execute(context):
            case Succeeded(evidence):
                return Finding(FindingKind.DONE, "", evidence)
            case Failed(message) | Unknown(message):
                return Finding(FindingKind.NOT_DONE, message)

    def execute(self, context: Context[StatusParams]) -> Outcome:
        from orchestrator.drivers import supervisor

        params = context.params
        context.record(f"{params.host}: state of {params.unit}")
        try:
            manager = supervisor.manager_of(context.parts.hosts[params.host])
            left = min(LOOK_SECONDS_MAX, context.seconds_left())
            now = supervisor.state(manager, params.unit, context.secrets, timeout_seconds=left)
        except ContinuityError as error:
            return Failed(
                f"{params.unit} on {params.host}: {error}", retryable=isinstance(error, TransientError)
            )
        evidence = _evidence(params, now)
        if now.name in (("running",) if params.state == "running" else DOWN):
            return Succeeded(evidence)
        why = f" ({now.detail})" if now.detail else ""
        text = f"{params.unit} on {params.host} is {now.name}{why}, not {params.state}"
        return Failed(text, retryable=True, evidence=evidence)

    def undo(self, context: Context[StatusParams]) -> Outcome:
        return Succeeded()


@dataclass(frozen=True, slots=True)
class InspectParams:
    """``standby``: a warm unit should run now, a cold one need only be known to the manager."""

    host: HostRef
    unit: UnitName
    standby: Literal["warm", "cold"] = "warm"


class Inspect:
    """Does a program that should wait warm run, can a cold one be started? Said before the order, while it
    can still be mended. What does not run stands in nobody's way: it may be started after the promotion,
    too. A cold one that the manager does not know fails: the run would promote and then stand still."""

    kind: ClassVar[str] = "service.inspect"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = InspectParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: InspectParams, parts: Parts) -> Description:
        host = parts.hosts[params.host]
        return Description(
            (f"{_endpoint(host)}: state of {params.unit}",),
            (Touch(host.site, _endpoint(host)),),
            Undo.NONE_NEEDED,
        )

    def load(self, context: Context[InspectParams]) -> None:
        from orchestrator.drivers import supervisor  # noqa: F401

    def check(self, context: Context[InspectParams]) -> Finding:
        outcome = self.execute(context)
        if isinstance(outcome, Succeeded):
            return Finding(FindingKind.DONE, "", outcome.evidence)
        return Finding(FindingKind.NOT_DONE, outcome.message)

    def execute(self, context: Context[InspectParams]) -> Outcome:
        from orchestrator.drivers import supervisor

        try:
            return Succeeded(self._look(context))
        except supervisor.NoSuchUnitError as error:
            params = context.params
            text = f"{params.unit} on {params.host}: its manager knows no unit of that name ({error})"
            mend = f"mend `unit` in the runbook, or give {params.host} the unit"
            finding: Json = {"text": text, "mend": mend}
            evidence = {"host": params.host, "unit": params.unit, "state": "unknown", "findings": [finding]}
            return Failed(f"{text}; {mend}", evidence=evidence)

    def undo(self, context: Context[InspectParams]) -> Outcome:
        return Succeeded()

    def _look(self, context: Context[InspectParams]) -> dict[str, Json]:
        from orchestrator.drivers import supervisor

        params = context.params
        host = context.parts.hosts[params.host]
        context.record(f"{_endpoint(host)}: state of {params.unit}")
        left = min(LOOK_SECONDS_MAX, context.seconds_left())
        try:
            now = supervisor.state(
                supervisor.manager_of(host), params.unit, context.secrets, timeout_seconds=left
            )
        except ContinuityError as error:
            if params.standby == "cold" and isinstance(error, supervisor.NoSuchUnitError):
                raise
            text = f"whether {params.unit} runs on {params.host} is not known: {error}"
            return {
                "host": params.host,
                "unit": params.unit,
                "state": "unknown",
                "findings": [{"text": text, "mend": f"look at the manager of {params.host}"}],
            }
        findings: list[Json] = []
        if params.standby == "warm" and now.name != "running":
            why = f" ({now.detail})" if now.detail else ""
            text = f"{params.unit} on {params.host} is {now.name}{why}: it should wait there, and nothing would answer"
            findings.append({"text": text, "mend": supervisor.start_command(host, params.unit)})
        return {**_evidence(params, now), "findings": findings}


@dataclass(frozen=True, slots=True)
class ReadyParams:
    """``json``: equalities by key that the answer must hold."""

    host: HostRef
    unit: UnitName
    url: Template
    status: int = 200
    json: Mapping[str, Json] = field(default_factory=dict)
    within_ms: Milliseconds = 30_000


class Ready:
    """Wait until a service says that it is ready."""

    kind: ClassVar[str] = "service.ready"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = ReadyParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: ReadyParams, parts: Parts) -> Description:
        wanted = f"HTTP {params.status}" + (
            f" {jsons.dumps(params.json, sort_keys=True)}" if params.json else ""
        )
        command = f"until GET {params.url}: {wanted}, at most {params.within_ms} ms"
        touches = (Touch(parts.hosts[params.host].site, urlsplit(params.url).netloc),)
        return Description((command,), touches, Undo.NONE_NEEDED)

    def load(self, context: Context[ReadyParams]) -> None:
        from orchestrator.drivers import http, waiting  # noqa: F401

        waiting.load()

    def check(self, context: Context[ReadyParams]) -> Finding:
        return self._look(context, context.seconds_left())

    def _look(self, context: Context[ReadyParams], left_seconds: float) -> Finding:
        problem, evidence = self._ask(context, min(EXCHANGE_SECONDS_MAX, left_seconds))
        return Finding(FindingKind.NOT_DONE if problem else FindingKind.DONE, problem, evidence)

    def execute(self, context: Context[ReadyParams]) -> Outcome:
        from orchestrator.drivers import waiting

        params = context.params
        found = waiting.until_done(
            context,
            lambda left: self._look(context, left),
            params.within_ms / 1000,
            waiting.Pace(*POLL_SECONDS),
        )
        if found.kind is FindingKind.DONE:
            return Succeeded(found.evidence)
        return Failed(f"{params.unit} is not ready: {found.reason}", retryable=True)

    def undo(self, context: Context[ReadyParams]) -> Outcome:
        return Succeeded()

    def _ask(self, context: Context[ReadyParams], timeout_seconds: float) -> tuple[str, dict[str, Any]]:
        from orchestrator.drivers import http

        params = context.params
        try:
            answer = http.exchange("GET", params.url, timeout_seconds=timeout_seconds)
        except ContinuityError as error:
            return str(error), {}
        problems = [] if answer.status == params.status else [f"HTTP {answer.status}, not {params.status}"]
        problems += http.mismatches(params.json, answer.json()) if params.json else ()
        return "; ".join(problems), {"unit": params.unit, "status": answer.status, "address": answer.address}


def _evidence(params: UnitParams | StatusParams | InspectParams, now: supervisor.UnitState) -> dict[str, Any]:
    return {"host": params.host, "unit": params.unit, "state": now.name, "pid": now.pid}


def _endpoint(host: Host) -> str:
    return urlsplit(host.manager.url).netloc if host.manager else host.address
