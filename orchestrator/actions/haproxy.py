"""Decides how a front door is routed to one site: ``haproxy.route``; must never lower an epoch.

The change is one host command under a lock (``drivers/haproxy_host.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.model import Proxy
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Parts, Touch, Undo
from orchestrator.core.values import (
    BackendName,
    ProxyRef,
    SiteRef,
)
from orchestrator.errors import ContinuityError, TransientError
from orchestrator.ports import Context, Description

LEFT = "sessions_left"
"""Where evidence says why sessions to the closed side may go on, although clients are routed for good."""


@dataclass(frozen=True, slots=True)
class RouteParams:
    """``here``: true routes the proxy to its own site's server, false to the other site's.

    ``end_sessions`` also cuts sessions that are open to the server that is closed (never in a
    planned switchover: they are requests that still get their answer).
    """

    proxy: ProxyRef
    backend: BackendName
    here: bool
    site: SiteRef
    epoch: int
    end_sessions: bool = False


class Route:
    """Route one backend of one proxy, under an epoch, so that a reload and a restart keep it."""

    kind: ClassVar[str] = "haproxy.route"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = RouteParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: RouteParams, parts: Parts) -> Description:
        proxy = parts.proxies[params.proxy]
        host = parts.hosts[proxy.host]
        ready, closed = ("here", "there") if params.here else ("there", "here")
        backend = params.backend
        commands = [
            f"under lock {proxy.epoch_file}.lock: refuse unless epoch {params.epoch} is newer for {backend}",
            f"write {proxy.epoch_file}: {backend} epoch {params.epoch} site {params.site}",
            f"{proxy.socket}: set server {backend}/{ready} state ready; set server {backend}/{closed} state maint",
            f"{proxy.socket}: show servers state > {proxy.state_file}",
            f"read back: {backend}/{ready} ready, {backend}/{closed} maint, in the proxy and in its file",
        ]
        if params.end_sessions:
            commands.insert(3, f"{proxy.socket}: shutdown sessions server {backend}/{closed}")
            if proxy.master_socket:
                commands.append(
                    f"{proxy.master_socket}: shutdown session, of each that an older worker has to {backend}/{closed}"
                )
        touches = (Touch(host.site, f"{host.address} {proxy.socket}"),)
        return Description(
            tuple(commands), touches, Undo.UNDO, (f"{proxy.socket}: the states of {backend} before this run",)
        )

    def load(self, context: Context[RouteParams]) -> None:
        from orchestrator.drivers import haproxy, haproxy_host  # noqa: F401

    def check(self, context: Context[RouteParams]) -> Finding:
        from orchestrator.drivers import haproxy_host

        params = context.params
        try:
            seen = self._call(context, haproxy_host.look)
        except ContinuityError as error:
            return Finding(FindingKind.CANNOT_TELL, str(error))
        if seen["message"]:
            return Finding(FindingKind.CANNOT_TELL, seen["message"])
        entry, wanted = seen["entry"], _states(params.here)
        if entry is None or (entry["epoch"], entry["run"]) != (params.epoch, context.run):
            return Finding(FindingKind.NOT_DONE, f"routed by {_owner(entry)}")
        if seen["runtime"] != wanted or seen["file"] != wanted:
            return Finding(FindingKind.NOT_DONE, f"proxy {seen['runtime']}, file {seen['file']}")
        return Finding(FindingKind.DONE, "", _evidence(params, wanted))

    def execute(self, context: Context[RouteParams]) -> Outcome:
        return self._route(context, undo=False)

    def undo(self, context: Context[RouteParams]) -> Outcome:
        return self._route(context, undo=True)

    def _route(self, context: Context[RouteParams], *, undo: bool) -> Outcome:
        from orchestrator.drivers import haproxy_host

        proxy = context.parts.proxies[context.params.proxy]
        context.record(f"{proxy.name}: {'undo ' if undo else ''}route {context.params.backend}")
        try:
            answer = self._call(context, haproxy_host.route, undo=undo)
        except TransientError as error:
            return Failed(str(error), retryable=True)
        except (ContinuityError, TimeoutError) as error:
            return Unknown(str(error))
        match answer["result"]:
            case "done":
                evidence = _evidence(context.params, answer["after"]) | {"before": answer["before"]}
                return Succeeded(evidence | ({LEFT: answer["left"]} if answer["left"] else {}))
            case "refused":
                return Failed(f"{proxy.name}: {answer['message']}")
            case "failed":
                return Failed(f"{proxy.name}: {answer['message']}", retryable=True)
            case _:
                return Unknown(f"{proxy.name}: {answer['message']}")

    def _call(self, context: Context[RouteParams], script: Any, *, undo: bool = False) -> Any:
        from orchestrator.drivers import haproxy

        params = context.params
        proxy: Proxy = context.parts.proxies[params.proxy]
        arguments = haproxy.arguments(
            proxy,
            params.backend,
            here=params.here,
            site=params.site,
            epoch=params.epoch,
            run=context.run,
            undo=undo,
            end_sessions=params.end_sessions,
        )
        connection = context.hosts.connect(context.parts.hosts[proxy.host])
        return connection.call(script, arguments, timeout_seconds=context.seconds_left())


def _states(here: bool) -> dict[str, str]:
    return {"here": "ready" if here else "maint", "there": "maint" if here else "ready"}


def _owner(entry: Any) -> str:
    return f"run {entry['run']} at epoch {entry['epoch']}" if entry else "nobody yet"


def _evidence(params: RouteParams, states: Any) -> dict[str, Any]:
    return {
        "proxy": params.proxy,
        "backend": params.backend,
        "epoch": params.epoch,
        "site": params.site,
        **states,
    }
