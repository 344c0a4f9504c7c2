"""Decides what a program under a process manager contributes; must never start a cold one before the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.core.model import Estate, Stage
from orchestrator.core.move import (
    AUTHORISED,
    ONCE,
    OPENS,
    QUICK_RETRY,
    STANDARD_RETRY,
    Contribution,
    Placed,
    must_stand_at,
)
from orchestrator.core.plan import Draft, Role, Undo
from orchestrator.core.values import (
    ComponentRef,
    DnsName,
    HostRef,
    Json,
    Milliseconds,
    Name,
    NameServerRef,
    SiteRef,
    Template,
    UnitName,
)

INSPECT_MS = 3_000
START_MS = 60_000
STOP_MS = 60_000
READY_EXTRA_MS = 1_000  # beyond what the owner allows, so that the action itself says that it was too slow


@dataclass(frozen=True, slots=True)
class Expect:
    """What an answer must be: its status and, where given, equalities by key of its JSON."""

    status: int = 200
    json: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadyDns:
    """A name that the site's server must answer with these values (separated by spaces)."""

    name: DnsName
    expect: str
    servers: Mapping[SiteRef, NameServerRef]
    type: str = "A"


@dataclass(frozen=True, slots=True)
class Ready:
    """How a program says that it is ready: by HTTP, by an answer of its name server, or both."""

    http: Template = ""
    expect: Expect = field(default_factory=Expect)
    dns: ReadyDns | None = None
    within_ms: Milliseconds = 30_000


@dataclass(frozen=True, slots=True)
class Service:
    """A program that a process manager runs. Warm: it runs abroad and refuses writes. Cold: the run starts it."""

    name: Name
    unit: UnitName
    at: Mapping[SiteRef, tuple[HostRef, ...]]
    standby: Literal["warm", "cold"] = "warm"
    ready: Ready | None = None
    needs: tuple[ComponentRef, ...] = ()

    def unit_in(self, service: str) -> str:
        return f"{service}/{self.name}"

    def address_at(self, estate: Estate, site: str) -> str:
        hosts = self.at.get(site, ())
        return estate.hosts[hosts[0]].address if hosts else ""

    def contribute(self, placed: Placed) -> Contribution:
        service = placed.runbook.name
        return Contribution(self.unit_in(service), service, tuple(self._drafts(placed)))

    def _drafts(self, placed: Placed) -> Iterator[Draft]:
        move = placed.move
        if not move.moves:
            yield from self._at_the_waiting_side(move.target)
            return
        hosts = must_stand_at(self.unit_in(placed.runbook.name), move.target, self.at.get(move.target, ()))
        for host in hosts:
            if not move.reprotects:
                yield self._inspect(host)
            if self.standby == "cold":
                yield Draft(
                    f"start-{host}", Stage.START, Role.ORDINARY, f"start {self.unit} on {host}",
                    f"it does not run at {move.target} while another site serves",
                    "service.start", {"host": host, "unit": self.unit}, START_MS, (), OPENS,
                    up=self.ready is None, retry=STANDARD_RETRY,
                )  # fmt: skip
            else:  # unplanned: it should run already, and nothing on the way to the first write waits for this
                yield self._start_warm(host, best_effort=not move.is_planned and self.ready is not None)
            yield from self._ready(placed, host)
        if move.is_planned and self.standby == "cold":
            yield from self._stop(move.source, Stage.COMMIT)

    def _at_the_waiting_side(self, site: str) -> Iterator[Draft]:
        """Reprotect: a warm program waits there again, a cold one must not run there."""
        if self.standby == "cold":
            yield from self._stop(site, Stage.AUTHORISE)
            return
        for host in self.at.get(site, ()):
            yield self._start_warm(host)

    def _inspect(self, host: str) -> Draft:
        arguments: dict[str, Json] = {"host": host, "unit": self.unit}
        title = f"see whether {self.unit} runs on {host}"
        why = "a program that waits there, and does not, would be found out only after the promotion"
        if self.standby == "cold":
            arguments["standby"] = "cold"
            title = f"see whether {self.unit} can be started on {host}"
            why = "a unit that its manager does not know would be found out only after the promotion"
        return Draft(
            f"inspect-{host}", Stage.PREFLIGHT, Role.EVIDENCE, title, why, "service.inspect", arguments,
            INSPECT_MS, (), (), retry=ONCE,
        )  # fmt: skip

    def _start_warm(self, host: str, *, best_effort: bool = False) -> Draft:
        return Draft(
            f"start-{host}", Stage.AUTHORISE, Role.ORDINARY, f"make sure that {self.unit} runs on {host}",
            "it waits there warm and refuses writes, so that a move costs no start; it stays where a run is taken back",
            "service.start", {"host": host, "unit": self.unit}, START_MS, (), AUTHORISED,
            best_effort=best_effort, retry=STANDARD_RETRY, undo=Undo.NONE_NEEDED,
        )  # fmt: skip

    def _stop(self, site: str, stage: Stage) -> Iterator[Draft]:
        """Never taken back: this side has not the epoch, whatever becomes of the run."""
        for host in self.at.get(site, ()):
            yield Draft(
                f"stop-{host}", stage, Role.ORDINARY, f"stop {self.unit} on {host}",
                f"it is cold: it runs only where it serves, and {site} does not serve it",
                "service.stop", {"host": host, "unit": self.unit}, STOP_MS, (), AUTHORISED,
                best_effort=True, retry=STANDARD_RETRY, undo=Undo.NONE_NEEDED,
            )  # fmt: skip

    def _ready(self, placed: Placed, host: str) -> Iterator[Draft]:
        ready = self.ready
        if ready is None:
            return
        move = placed.move
        starts = (f"start-{host}",) if self.standby == "cold" or move.is_planned else ()
        why = "started is not ready: nothing is routed to a program that does not say so itself"
        if ready.http:
            arguments: dict[str, Json] = {
                "host": host, "unit": self.unit, "url": placed.text(ready.http, host),
                "status": ready.expect.status, "within_ms": ready.within_ms,
            }  # fmt: skip
            if ready.expect.json:
                arguments["json"] = placed.json(ready.expect.json, host)
            yield Draft(
                f"ready-{host}", Stage.CHECK, Role.ORDINARY, f"wait until {self.unit} on {host} is ready", why,
                "service.ready", arguments, ready.within_ms + READY_EXTRA_MS, starts, AUTHORISED, up=True,
                retry=QUICK_RETRY,
            )  # fmt: skip
        server = ready.dns.servers.get(move.target) if ready.dns else None
        if ready.dns and server:
            yield Draft(
                f"answers-{host}", Stage.CHECK, Role.ORDINARY, f"wait until {server} answers for {ready.dns.name}",
                why, "dns.query-check",
                {
                    "name": ready.dns.name, "servers": [server], "expect": ready.dns.expect,
                    "type": ready.dns.type, "within_ms": ready.within_ms,
                },
                ready.within_ms + READY_EXTRA_MS, starts, AUTHORISED, up=True, retry=QUICK_RETRY,
            )  # fmt: skip
