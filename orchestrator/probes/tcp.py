"""Decides whether something accepts connections; must never say that it also answers."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.ports import Hosts, Report, Secrets


@dataclass(frozen=True, slots=True)
class TcpProbeParams:
    address: str
    port: int


class TcpProbe:
    """up: accepted (a stopped process does that, too) · down: refused · unknown: neither."""

    kind: ClassVar[str] = "tcp"
    params: ClassVar[type[Any]] = TcpProbeParams

    def look(
        self, params: TcpProbeParams, *, timeout_seconds: float, hosts: Hosts, secrets: Secrets
    ) -> Report:
        del hosts, secrets
        where = f"{params.address}:{params.port}"
        begin = time.monotonic_ns()
        try:
            socket.create_connection((params.address, params.port), timeout=timeout_seconds).close()
        except ConnectionRefusedError:
            return Report("down", f"{where} refuses connections")
        except OSError as error:
            return Report("unknown", f"{where}: {error}")
        took_ms = (time.monotonic_ns() - begin) // 1_000_000
        return Report("up", f"{where} accepts connections", {"took_ms": took_ms})
