"""Decides how a service's names come to point at the active site; must never update without the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.core.values import ComponentRef, Milliseconds, Name, NameServerRef, Secret, SiteRef


@dataclass(frozen=True, slots=True)
class Record:
    """One name. Its value at a site is the front address of ``proxy``'s first proxy there, or stands in ``at``."""

    name: str
    ttl_ms: Milliseconds
    type: Literal["A", "AAAA", "CNAME"] = "A"
    proxy: ComponentRef = ""
    at: Mapping[SiteRef, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dns:
    """Names on authoritative servers of both sites, changed by signed updates that compare the epoch.

    ``zone``: left out, what follows the first label of each record's name.
    """

    name: Name
    servers: Mapping[SiteRef, NameServerRef]
    key: Secret
    records: tuple[Record, ...]
    key_name: str = "continuity."
    key_algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"
    zone: str = ""
    needs: tuple[ComponentRef, ...] = ()
