"""Decides whether what stands beside names, routes and documents agrees with the log: ``continuity.claims``.

Read-only and asked of both sites side by side. A silent old side is what a failover is for; a target
that does not answer, or a claim that is newer than the log, stops the run before anything is changed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.claims import CONTRADICTIONS, Claimed, contradictions, places
from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Touch, Undo
from orchestrator.core.values import Json, SiteRef
from orchestrator.errors import ContinuityError
from orchestrator.ports import Context, Description

ASK_SECONDS_MAX = 0.5  # the old side may be silent: each order waits for this
MEND_PROXY = (
    "mend that proxy's configuration and reload it, or the name in the runbook: nothing could be routed there"
)
REASONS_MAX = 3
REASON_CHARACTERS_MAX = 120


@dataclass(frozen=True, slots=True)
class Asked:
    """A witness: ``kind`` dns | haproxy | files, the part that is asked and what it is asked about."""

    kind: str
    part: str
    subject: str


@dataclass(frozen=True, slots=True)
class ClaimsParams:
    """The log knows ``expect_epoch`` of ``expect_site``; what stands at ``target`` must answer."""

    group: str
    witnesses: tuple[Asked, ...]
    target: SiteRef
    expect_site: SiteRef
    expect_epoch: int
    taken_back: tuple[str, ...] = ()  # runs of this log whose claims on a newer epoch are void


@dataclass(frozen=True, slots=True)
class _Answer:
    where: str
    claim: Claimed | None = None
    silent: str = ""  # why there is no answer
    lacks: tuple[str, ...] = ()  # it answers, and this would refuse what is asked of it later


class Claims:
    """Compare every claim that can be read with the log."""

    kind: ClassVar[str] = "continuity.claims"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = ClaimsParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: ClaimsParams, parts: Parts) -> Description:
        commands = tuple(f"read the claim of {_where(asked)}" for asked in params.witnesses)
        touches = tuple(dict.fromkeys(_touch(asked, parts) for asked in params.witnesses))
        return Description(commands, touches, Undo.NONE_NEEDED)

    def load(self, context: Context[ClaimsParams]) -> None:
        from orchestrator.drivers import dns, files_host, haproxy, haproxy_host  # noqa: F401

        dns.load()

    def check(self, context: Context[ClaimsParams]) -> Finding:
        outcome = self.execute(context)
        if isinstance(outcome, Succeeded):
            return Finding(FindingKind.DONE, "", outcome.evidence)
        return Finding(FindingKind.NOT_DONE, outcome.message)

    def execute(self, context: Context[ClaimsParams]) -> Outcome:
        params = context.params
        answers = _ask_all(context, params.witnesses)
        claims = [answer.claim for answer in answers if answer.claim]
        silent = [f"{answer.where}: {answer.silent}" for answer in answers if answer.silent]
        evidence: dict[str, Json] = {"claims": [claim.evidence() for claim in claims], "silent": list(silent)}
        against = contradictions(claims, params.expect_epoch, params.expect_site, params.taken_back)
        if against:
            return Failed("; ".join(against), evidence={**evidence, CONTRADICTIONS: list(against)})
        lacks = [
            (f"{asked.part}: {lack}", _site(asked, context.parts))
            for asked, answer in zip(params.witnesses, answers, strict=True)
            for lack in answer.lacks
        ]
        evidence["findings"] = [{"text": text, "mend": MEND_PROXY} for text, _ in lacks]
        at_target = [text for text, site in lacks if site == params.target]
        if at_target and context.operation is not Operation.REPROTECT:  # that routes nothing
            return Failed(f"{_few(at_target)}; {MEND_PROXY}", evidence=evidence)
        needed: dict[str, list[str]] = {}
        for asked, answer in zip(params.witnesses, answers, strict=True):
            if answer.silent and _site(asked, context.parts) == params.target:
                needed.setdefault(answer.silent, []).append(answer.where)
        if needed:
            texts = [f"{places(wheres)}: {_short(why)}" for why, wheres in needed.items()]
            return Failed(_few(texts), retryable=True, evidence=evidence)
        return Succeeded(evidence)

    def undo(self, context: Context[ClaimsParams]) -> Outcome:
        return Succeeded()


def _few(texts: Sequence[str]) -> str:
    more = len(texts) - REASONS_MAX
    shown = [*texts[:REASONS_MAX], *([f"{more} more reasons, all in the evidence"] if more > 0 else [])]
    return "; ".join(shown)


def _short(text: str) -> str:
    """One line that can be read at night; the evidence keeps the whole."""
    line = " ".join(text.split())
    return line if len(line) <= REASON_CHARACTERS_MAX else f"{line[: REASON_CHARACTERS_MAX - 1]}…"


def _ask_all(context: Context[ClaimsParams], witnesses: Sequence[Asked]) -> list[_Answer]:
    """Each in a thread of its own: a site that hangs costs one bound, not one for each question."""
    answers = [_Answer(_where(asked), silent="no answer in time") for asked in witnesses]
    seconds = min(ASK_SECONDS_MAX, context.seconds_left())

    def ask(place: int) -> None:
        answers[place] = _ask(context, witnesses[place], seconds)

    threads = [threading.Thread(target=ask, args=(place,), daemon=True) for place in range(len(witnesses))]
    for thread in threads:
        thread.start()
    end = context.clock.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - context.clock.monotonic()))
    return list(answers)


def _ask(context: Context[ClaimsParams], asked: Asked, seconds: float) -> _Answer:
    where = _where(asked)
    try:
        found, lacks = _read(context, asked, seconds)
    except (ContinuityError, TimeoutError) as error:
        return _Answer(where, silent=str(error))
    if found is None:
        return _Answer(where, lacks=lacks)
    epoch, site, run = found
    return _Answer(where, Claimed(where, _site(asked, context.parts), epoch, site, run), lacks=lacks)


def _read(
    context: Context[ClaimsParams], asked: Asked, seconds: float
) -> tuple[tuple[int, str, str] | None, tuple[str, ...]]:
    """(epoch, site, run) of one claim, None where nothing was ever claimed; and what is lacking there."""
    if asked.kind == "dns":
        from orchestrator.drivers import dns

        claim = dns.read_claim(context.parts.name_servers[asked.part], asked.subject, timeout_seconds=seconds)
        return None if claim is None else (claim.epoch, claim.site, claim.run), ()
    look = _look_at_proxy if asked.kind == "haproxy" else _look_at_files
    seen = look(context, asked, seconds)
    if seen["message"]:
        raise ContinuityError(seen["message"])
    entry = seen["entry"]
    claimed = None if entry is None else (int(entry["epoch"]), str(entry["site"]), str(entry["run"]))
    return claimed, tuple(seen.get("lacks", ()))


def _look_at_proxy(context: Context[ClaimsParams], asked: Asked, seconds: float) -> Any:
    from orchestrator.drivers import haproxy, haproxy_host

    proxy = context.parts.proxies[asked.part]
    arguments = haproxy.arguments(proxy, asked.subject, here=True, site="", epoch=0, run="")
    connection = context.hosts.connect(context.parts.hosts[proxy.host])
    return connection.call(haproxy_host.look, arguments, timeout_seconds=seconds)


def _look_at_files(context: Context[ClaimsParams], asked: Asked, seconds: float) -> Any:
    from orchestrator.drivers import files_host

    connection = context.hosts.connect(context.parts.hosts[asked.part])
    return connection.call(files_host.look, {"published": asked.subject}, timeout_seconds=seconds)


def _where(asked: Asked) -> str:
    return f"{asked.subject} at {asked.part}"


def _site(asked: Asked, parts: Parts) -> str:
    if asked.kind == "dns":
        return parts.name_servers[asked.part].site
    host = parts.proxies[asked.part].host if asked.kind == "haproxy" else asked.part
    return parts.hosts[host].site


def _touch(asked: Asked, parts: Parts) -> Touch:
    if asked.kind == "dns":
        server = parts.name_servers[asked.part]
        return Touch(server.site, f"{server.address}:{server.port}")
    host = parts.hosts[parts.proxies[asked.part].host if asked.kind == "haproxy" else asked.part]
    return Touch(host.site, host.address)
