"""Decides what an HTTP answer says of a service; must never follow it elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from orchestrator.core.model import NameServer
from orchestrator.core.values import Json
from orchestrator.errors import ContinuityError
from orchestrator.ports import Hosts, Report, Secrets


@dataclass(frozen=True, slots=True)
class HttpProbeParams:
    """``status`` 0: any answer counts. ``json``: equalities by key. ``resolve_at``: the name servers to ask for the URL's host, best first."""

    url: str
    status: int = 200
    json: Mapping[str, Json] = field(default_factory=dict)
    slow_ms: int = 0
    resolve_at: tuple[NameServer, ...] = ()
    ca: str = ""


class HttpProbe:
    """up: as expected · degraded: it answers, but otherwise or slowly · down: nobody listens or 5xx ·
    unknown: no answer."""

    kind: ClassVar[str] = "http"
    params: ClassVar[type[Any]] = HttpProbeParams

    def look(
        self, params: HttpProbeParams, *, timeout_seconds: float, hosts: Hosts, secrets: Secrets
    ) -> Report:
        del hosts, secrets
        from orchestrator.drivers import dns, http

        resolve = (
            dns.resolver(params.resolve_at, timeout_seconds=timeout_seconds / 2)
            if params.resolve_at
            else None
        )
        begin = time.monotonic_ns()
        try:
            answer = http.exchange(
                "GET", params.url, timeout_seconds=timeout_seconds, resolve=resolve, ca_file=params.ca
            )
        except http.NobodyListensError as error:
            return Report("down", str(error))
        except ContinuityError as error:
            return Report("unknown", str(error))
        took_ms = (time.monotonic_ns() - begin) // 1_000_000
        facts: dict[str, Json] = {"status": answer.status, "address": answer.address, "took_ms": took_ms}
        if params.status and answer.status != params.status:
            verdict = "down" if answer.status >= 500 else "degraded"
            return Report(verdict, f"HTTP {answer.status}, not {params.status}", facts)
        if problems := http.mismatches(params.json, answer.json()) if params.json else ():
            return Report("degraded", "; ".join(problems), facts)
        if params.slow_ms and took_ms > params.slow_ms:
            return Report("degraded", f"answered after {took_ms} ms", facts)
        return Report("up", f"HTTP {answer.status} in {took_ms} ms", facts)
