"""Decides how a service's front doors are routed; must never route before the epoch is committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.values import ComponentRef, Name, ProxyRef, SiteRef


@dataclass(frozen=True, slots=True)
class HAProxy:
    """A backend of the proxies at each site. The target's must succeed; the old site's are best effort."""

    name: Name
    proxies: Mapping[SiteRef, tuple[ProxyRef, ...]]
    backend: str
    needs: tuple[ComponentRef, ...] = ()
