"""Decides what an authoritative server's answer says; must never ask a resolver that remembers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.model import NameServer
from orchestrator.core.values import Json
from orchestrator.errors import ContinuityError
from orchestrator.ports import Hosts, Report, Secrets


@dataclass(frozen=True, slots=True)
class DnsProbeParams:
    """``expect``: values separated by spaces; '': any. The name's claim is told as ``claim``."""

    server: NameServer
    name: str
    type: str = "A"
    expect: str = ""


class DnsProbe:
    """up: answered as expected · degraded: other values · down: answered without a value ·
    unknown: no answer."""

    kind: ClassVar[str] = "dns"
    params: ClassVar[type[Any]] = DnsProbeParams

    def look(
        self, params: DnsProbeParams, *, timeout_seconds: float, hosts: Hosts, secrets: Secrets
    ) -> Report:
        del hosts, secrets
        from orchestrator.drivers import dns

        server, deadline = params.server, time.monotonic() + timeout_seconds
        try:
            answer = dns.query(server, params.name, params.type, timeout_seconds=timeout_seconds)
            claim = dns.query(
                server, dns.claim_name(params.name), "TXT", timeout_seconds=dns.seconds_until(deadline)
            )
        except ContinuityError as error:
            return Report("unknown", str(error))
        held = dns.parse_claim(claim.values[0]) if len(claim.values) == 1 else None
        facts: dict[str, Json] = {
            "code": answer.code,
            "values": list(answer.values),
            "ttl_ms": answer.ttl_seconds * 1000,
            "claim": held.text if held else "",
        }
        if not answer.values:
            return Report("down", f"{params.name} {params.type}: {answer.code}, no value", facts)
        said = " ".join(answer.values)
        if params.expect and answer.values != tuple(sorted(params.expect.split())):
            return Report("degraded", f"{params.name} is {said}, not {params.expect}", facts)
        return Report("up", f"{params.name} is {said}", facts)
