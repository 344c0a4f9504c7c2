"""Decides what a program under a process manager contributes; must never start a cold one before the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.core.values import (
    ComponentRef,
    HostRef,
    Json,
    Milliseconds,
    Name,
    NameServerRef,
    SiteRef,
    Template,
)


@dataclass(frozen=True, slots=True)
class Expect:
    """What an answer must be: its status and, where given, equalities by key of its JSON."""

    status: int = 200
    json: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadyDns:
    """A name that the site's server must answer with these values (separated by spaces)."""

    name: str
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
    unit: str
    at: Mapping[SiteRef, tuple[HostRef, ...]]
    standby: Literal["warm", "cold"] = "warm"
    ready: Ready | None = None
    needs: tuple[ComponentRef, ...] = ()
