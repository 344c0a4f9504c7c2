"""Decides which probes exist: kind → where its class stands; must never import them.

A new probe is one file in this folder and one line here. Probes read and report, never change. What
cannot be told is ``unknown``, never ``down``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from orchestrator.errors import InputError
from orchestrator.ports import Probe

PROBES: Mapping[str, str] = {
    "command": "orchestrator.probes.command:CommandProbe",
    "dns": "orchestrator.probes.dns:DnsProbe",
    "files": "orchestrator.probes.files:FilesProbe",
    "http": "orchestrator.probes.http:HttpProbe",
    "postgresql": "orchestrator.probes.postgresql:PostgresqlProbe",
    "tcp": "orchestrator.probes.tcp:TcpProbe",
}


def probe(kind: str) -> Probe[Any]:
    """The probe of a kind, imported on first use. InputError for a kind that does not exist."""
    if kind not in PROBES:
        raise InputError(f"no probe {kind!r}; there are: {', '.join(sorted(PROBES))}")
    module, _, name = PROBES[kind].partition(":")
    made: Probe[Any] = getattr(import_module(module), name)()
    return made
