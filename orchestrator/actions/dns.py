"""Decides how a name comes to point at a site (``dns.update``) and how that is asked afterwards
(``dns.query-check``); must never send an update whose prerequisite the server would not evaluate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.core.model import NameServer
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Parts, Touch, Undo
from orchestrator.core.values import (
    DnsName,
    Milliseconds,
    NameServerRef,
    Secret,
    SiteRef,
)
from orchestrator.errors import ContinuityError, TransientError
from orchestrator.ports import Context, Description

if TYPE_CHECKING:
    from orchestrator.drivers import dns

POLL_SECONDS = (0.005, 0.1)
QUERY_SECONDS_MAX = 2.0
MOVED_TRIES_MAX = 2


@dataclass(frozen=True, slots=True)
class UpdateParams:
    """``value``: one or more values separated by spaces (A, AAAA), or the value of another type.

    ``expect_site`` and ``expect_epoch``: the claim that the group had before this run; a server that
    missed earlier changes has an older one, which is found in the evidence as ``was_behind``.
    """

    server: NameServerRef
    zone: DnsName
    name: DnsName
    type: str
    ttl_ms: Milliseconds
    value: str
    key_name: DnsName
    key_algorithm: str
    key: Secret
    site: SiteRef
    epoch: int
    expect_site: SiteRef
    expect_epoch: int

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(self.value.split()) if self.type in ("A", "AAAA") else (self.value,)


class Update:
    """Point a name at a site; the claim beside it decides, on the server, who may."""

    kind: ClassVar[str] = "dns.update"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = UpdateParams
    idempotent: ClassVar[bool] = True  # the prerequisite makes a second message change nothing
    mutates: ClassVar[bool] = True

    def describe(self, params: UpdateParams, parts: Parts) -> Description:
        server = parts.name_servers[params.server]
        where = f"{server.address}:{server.port}"
        claim = f"_continuity.{params.name} TXT"
        commands = (
            f"update {where} zone {params.zone} signed by {params.key_name} ({params.key_algorithm}, {params.key})",
            f"prerequisite: {claim} is the claim of epoch {params.expect_epoch} site {params.expect_site}, as read",
            f'replace {claim} "epoch={params.epoch} site={params.site} run=RUN"',
            f"replace {params.name} {params.ttl_ms // 1000} {params.type} {params.value}",
        )
        undo = (
            f"replace {params.name} {params.type} with its value before, if the claim is still this run's",
        )
        return Description(commands, (Touch(server.site, where),), Undo.UNDO, undo)

    def load(self, context: Context[UpdateParams]) -> None:
        from orchestrator.drivers import dns

        dns.load()
        context.secrets.value(context.params.key)

    def check(self, context: Context[UpdateParams]) -> Finding:

        params = context.params
        server = context.parts.name_servers[params.server]
        deadline = time.monotonic() + min(QUERY_SECONDS_MAX, context.seconds_left())
        try:
            claim, answer = _asked(server, params, deadline)
        except ContinuityError as error:
            return Finding(FindingKind.CANNOT_TELL, str(error))
        if claim is None or (claim.epoch, claim.run) != (params.epoch, context.run):
            return Finding(FindingKind.NOT_DONE, f"the claim is {claim.text if claim else 'absent'}")
        if answer.values != _normal(params):
            return Finding(FindingKind.NOT_DONE, f"{params.name} is {' '.join(answer.values)}")
        return Finding(FindingKind.DONE, "", _evidence(params, claim))

    def execute(self, context: Context[UpdateParams]) -> Outcome:
        context.secrets.value(context.params.key)  # InputError before anything is asked or told
        outcome = self._once(context)
        for _ in range(MOVED_TRIES_MAX):
            if not (isinstance(outcome, Failed) and outcome.evidence.get("moved")):
                break
            outcome = self._once(context)  # somebody changed the claim between our look and our message
        return outcome

    def _once(self, context: Context[UpdateParams]) -> Outcome:
        from orchestrator.drivers import dns

        params = context.params
        server = context.parts.name_servers[params.server]
        after = dns.claim(params.epoch, params.site, context.run)
        deadline = time.monotonic() + min(QUERY_SECONDS_MAX, context.seconds_left())
        try:
            before, old = _asked(server, params, deadline)
        except TransientError as error:
            return Failed(str(error), retryable=True)
        except ContinuityError as error:
            return Failed(str(error))
        if refusal := _refusal(before, params, context.run):
            return Failed(f"{server.name}: {refusal}")
        outcome = self._send(context, before, after, params.values)
        if not isinstance(outcome, Succeeded):
            return outcome
        behind = before is not None and before.epoch < params.expect_epoch
        kept = (
            _kept(context, old.values)
            if before is not None and before.run == context.run
            else list(old.values)
        )
        return Succeeded(_evidence(params, after) | {"before": kept, "was_behind": behind})

    def undo(self, context: Context[UpdateParams]) -> Outcome:
        """Give the former value back; the claim stays, because epochs only grow."""
        params = context.params
        kept = _kept(context, ())
        if not kept:
            return Failed("the value before is not known; a new plan can set it")
        from orchestrator.drivers import dns

        claim = dns.claim(params.epoch, params.site, context.run)
        return self._send(context, claim, claim, tuple(kept))

    def _send(
        self,
        context: Context[UpdateParams],
        before: dns.Claim | None,
        after: dns.Claim,
        values: tuple[str, ...],
    ) -> Outcome:
        from orchestrator.drivers import dns

        params = context.params
        server = context.parts.name_servers[params.server]
        key = dns.Key(params.key_name, params.key_algorithm, context.secrets.value(params.key))
        context.record(
            f"update {server.address}:{server.port} {params.name} {params.type} {' '.join(values)}"
        )
        try:
            dns.update(
                server,
                zone=params.zone,
                name=params.name,
                kind=params.type,
                ttl_seconds=max(0, params.ttl_ms // 1000),
                values=values,
                key=key,
                before=before,
                after=after,
                timeout_seconds=context.seconds_left(),
            )
        except dns.NotSentError as error:
            return Failed(str(error), retryable=True)
        except dns.NoReplyError as error:
            return Unknown(str(error))
        except dns.RefusedByServerError as error:
            moved = error.code in ("NXRRSET", "YXRRSET", "NXDOMAIN")
            if moved:
                return Failed(
                    f"{error}: the claim has changed meanwhile", retryable=True, evidence={"moved": True}
                )
            return Failed(str(error), retryable=error.code == "SERVFAIL")
        return Succeeded()


def _asked(server: NameServer, params: UpdateParams, deadline: float) -> tuple[dns.Claim | None, dns.Answer]:
    """The claim and the value that stand, both within one deadline."""
    from orchestrator.drivers import dns

    claim = dns.read_claim(server, params.name, timeout_seconds=dns.seconds_until(deadline))
    left = dns.seconds_until(deadline)
    return claim, dns.query(server, params.name, params.type, timeout_seconds=left)


def _refusal(before: dns.Claim | None, params: UpdateParams, run: str) -> str:
    """Why this run may not change the name, '' when it may (semantics 2.2)."""
    if before is None:
        if params.expect_epoch == 0:
            return ""
        return f"_continuity.{params.name} is missing: nobody can say whose the name is"
    if before.epoch > params.epoch:
        return f"epoch {params.epoch} is stale: the name is claimed by {before.text}"
    if before.epoch == params.epoch and before.run != run:
        return f"epoch {params.epoch} was used by another run: {before.text}"
    if params.expect_epoch < before.epoch < params.epoch:
        return f"expected epoch {params.expect_epoch} of {params.expect_site}, found {before.text}"
    if before.epoch == params.expect_epoch and before.site != params.expect_site:
        return f"expected epoch {params.expect_epoch} of {params.expect_site}, found {before.text}"
    return ""


def _kept(context: Context[UpdateParams], otherwise: tuple[str, ...]) -> list[str]:
    """The value before this run's first change, from this step's own evidence."""
    kept = context.evidence.get(context.step, {}).get("before")
    return [str(value) for value in kept] if isinstance(kept, (list, tuple)) else list(otherwise)


def _normal(params: UpdateParams) -> tuple[str, ...]:
    values = params.values if params.type != "TXT" else tuple(f'"{value}"' for value in params.values)
    return tuple(sorted(values))


def _evidence(params: UpdateParams, claim: dns.Claim) -> dict[str, Any]:
    return {
        "server": params.server,
        "name": params.name,
        "type": params.type,
        "values": list(params.values),
        "claim": claim.text,
        "ttl_ms": params.ttl_ms,
    }


@dataclass(frozen=True, slots=True)
class QueryParams:
    """Every server in ``servers`` must answer ``expect`` (values separated by spaces), in time."""

    name: DnsName
    servers: tuple[NameServerRef, ...]
    expect: str
    type: str = "A"
    within_ms: Milliseconds = 5_000
    from_site: SiteRef = ""


class QueryCheck:
    """Ask the authoritative servers what citizens' resolvers will be told."""

    kind: ClassVar[str] = "dns.query-check"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = QueryParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: QueryParams, parts: Parts) -> Description:
        servers = [parts.name_servers[name] for name in params.servers]
        commands = tuple(
            f"ask {s.address}:{s.port} {params.name} {params.type}: {params.expect}" for s in servers
        )
        touches = tuple(Touch(s.site, f"{s.address}:{s.port}") for s in servers)
        return Description(commands, touches, Undo.NONE_NEEDED)

    def load(self, context: Context[QueryParams]) -> None:
        from orchestrator.drivers import dns, waiting

        dns.load()
        waiting.load()

    def check(self, context: Context[QueryParams]) -> Finding:
        return self._look(context, context.seconds_left())

    def _look(self, context: Context[QueryParams], left_seconds: float) -> Finding:
        problems = self._problems(context, min(QUERY_SECONDS_MAX, left_seconds))
        if problems:
            return Finding(FindingKind.NOT_DONE, "; ".join(problems))
        return Finding(FindingKind.DONE, "", self._evidence(context.params))

    def execute(self, context: Context[QueryParams]) -> Outcome:
        from orchestrator.drivers import waiting

        within = context.params.within_ms / 1000
        found = waiting.until_done(
            context, lambda left: self._look(context, left), within, waiting.Pace(*POLL_SECONDS)
        )
        if found.kind is FindingKind.DONE:
            return Succeeded(found.evidence)
        return Failed(found.reason, retryable=True)

    def undo(self, context: Context[QueryParams]) -> Outcome:
        return Succeeded()

    def _problems(self, context: Context[QueryParams], timeout_seconds: float) -> list[str]:
        from orchestrator.drivers import dns

        params = context.params
        problems = []
        servers = [context.parts.name_servers[name] for name in params.servers]
        for server, share_seconds in dns.shares(servers, timeout_seconds):
            try:
                answer = dns.query(server, params.name, params.type, timeout_seconds=share_seconds)
            except TransientError as error:
                problems.append(str(error))
                continue
            if answer.values != tuple(sorted(params.expect.split())):
                problems.append(f"{server.name}: {params.name} is {' '.join(answer.values) or answer.code}")
        return problems

    def _evidence(self, params: QueryParams) -> dict[str, Any]:
        return {"name": params.name, "values": params.expect.split(), "servers": list(params.servers)}
