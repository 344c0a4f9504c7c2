"""Decides which component types exist: type → where its class stands; must never import them.

A component is a frozen dataclass (its fields are what YAML says of it) with pure methods that tell
what it contributes to each operation, as drafts (``core/move.py``). A new type is one file in this
folder and one line here; loader, JSON Schema, lint and plan text follow from the class.
"""

from __future__ import annotations

from collections.abc import Mapping

COMPONENTS: Mapping[str, str] = {
    "dns": "orchestrator.components.dns:Dns",
    "files": "orchestrator.components.files:Files",
    "haproxy": "orchestrator.components.haproxy:HAProxy",
    "manual": "orchestrator.components.manual:Manual",
    "postgresql": "orchestrator.components.postgresql:PostgreSQL",
    "service": "orchestrator.components.service:Service",
}
