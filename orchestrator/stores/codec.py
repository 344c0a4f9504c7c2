"""Decides how events become JSON and back; must never drop a field it does not know how to write.

Bodies are canonical JSON (sorted keys, no floats). Unknown fields of a newer minor version are
ignored on reading, missing ones take their default: events change additively only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from orchestrator.core.events import EVENT_KINDS, Event
from orchestrator.core.moment import At
from orchestrator.core.values import canonical
from orchestrator.errors import JournalError

EVENT_SCHEMA = 1

_FIELDS: Mapping[type, tuple[tuple[str, str], ...]] = {
    kind: tuple((f.name, str(f.type)) for f in fields(kind)) for kind in EVENT_KINDS.values()
}


def encode(event: Event) -> str:
    """The body of an event as canonical JSON; ``at`` is ``[utc_ns, mono_ns]``."""
    body: dict[str, Any] = {}
    for name, _ in _FIELDS[type(event)]:
        value = getattr(event, name)
        body[name] = [value.utc_ns, value.mono_ns] if isinstance(value, At) else value
    return canonical(body)


def decode(kind: str, body: str) -> Event:
    """The event behind a kind and a body. Raises JournalError for a kind this program lacks, and for
    a body that is none."""
    event_type = EVENT_KINDS.get(kind)
    if event_type is None:
        raise JournalError(f"the log holds {kind!r}, which this program does not know: install a newer one")
    try:
        return _decoded(event_type, json.loads(body))
    except (ValueError, TypeError, LookupError) as error:
        raise JournalError(f"the body of this {kind} cannot be understood ({error})") from error


def _decoded(event_type: type, data: Mapping[str, Any]) -> Event:
    values: dict[str, Any] = {}
    for name, type_text in _FIELDS[event_type]:
        if name not in data:
            continue
        value = data[name]
        if type_text == "At":
            value = At(int(value[0]), int(value[1]))
        elif type_text.startswith("tuple"):
            value = tuple(value)
        values[name] = value
    event: Event = event_type(**values)
    return event
