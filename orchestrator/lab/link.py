"""Decides how the lab's link is set up, ordered about and asked: the other side of ``relay.py``."""

from __future__ import annotations

import json
import socket
from typing import Any

from orchestrator.errors import TransientError
from orchestrator.lab import layout
from orchestrator.lab.layout import SITES, Lab

ANSWER_SECONDS_MAX = 2.0
TO_EITHER_SITE = (
    layout.POSTGRES_PORT,
    layout.FRONT_PORT,
    layout.POPULATION_PORT,
    layout.LAND_PORT,
    layout.GAZETTE_PORT,
    layout.DNS_PORT,
    layout.SUPERVISOR_PORT,
)


def relay_configuration(lab: Lab) -> dict[str, Any]:
    """What ``relay.py`` is started with: every port of either site, met at the way to that site."""
    ways = [(lab.way_to(site), port, lab.address(site), port) for site in SITES for port in TO_EITHER_SITE]
    return {
        "socket": str(lab.relay_socket),
        "tcp": ways,
        "udp": [way for way in ways if way[1] == layout.DNS_PORT],
    }


def order(lab: Lab, action: str, delay_ms: int = 0) -> dict[str, Any]:
    """``cut``, ``slow``, ``heal`` or ``status``: the link's state afterwards. TransientError: no relay."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(ANSWER_SECONDS_MAX)
            stream.connect(str(lab.relay_socket))
            stream.sendall(json.dumps({"do": action, "delay_ms": delay_ms}).encode() + b"\n")
            received = b""
            while not received.endswith(b"\n") and (chunk := stream.recv(65536)):
                received += chunk
    except OSError as error:
        raise TransientError(f"the link's relay does not answer: {error}") from error
    answer: dict[str, Any] = json.loads(received)
    if "error" in answer:
        raise TransientError(str(answer["error"]))
    return answer
