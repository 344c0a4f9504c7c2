"""Decides how events of the log are told, one line each, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from orchestrator.core.events import Event
from orchestrator.core.inputs import At
from orchestrator.core.log import Recorded
from orchestrator.engine.journal import moment

QUIET = frozenset({"at", "run", "group", "evidence", "incarnation", "boot", "digest"})


def names_of(event: Event) -> list[str]:
    """The fields that an event holds."""
    return [field.name for field in fields(event)]


def event_document(entry: Recorded) -> dict[str, Any]:
    """One entry of the log as JSON; times as UTC text, the monotonic clock beside it."""
    event = entry.event
    body: dict[str, Any] = {}
    for name in names_of(event):
        value = getattr(event, name)
        if not isinstance(value, At):
            body[name] = list(value) if isinstance(value, tuple) else value
    return {
        "seq": entry.seq,
        "stream": entry.stream,
        "stream_seq": entry.stream_seq,
        "at": moment(event.at),
        "monotonic_ns": event.at.mono_ns,
        "kind": event.KIND,
        "body": body,
        "hash": entry.hash or None,
    }


def event_text(event: Event) -> str:
    """``step.succeeded registers-db/promote attempt=1`` and the like."""
    words = [event.KIND]
    for name in names_of(event):
        value = getattr(event, name)
        if name in QUIET or _says_nothing(value):
            continue
        if name == "step":
            words.append(str(value))
        elif isinstance(value, tuple):
            words.append(f"{name}=[{'; '.join(map(str, value))}]")
        else:
            words.append(f"{name}={value}")
    return " ".join(words)


def _says_nothing(value: object) -> bool:
    """Absent or empty. Zero says something: a stated loss of 0 is not an unknown one."""
    return value is None or value is False or (isinstance(value, str | tuple | Mapping) and not value)
