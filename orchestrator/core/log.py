"""Decides what goes into a log and comes out of it, and how the hash chain is linked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from orchestrator.core.events import Event

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Append:
    """Events for one stream, whose last stream_seq must be ``expected`` (0 = must not exist)."""

    stream: str
    expected: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event as it stands in the log. ``seq`` orders the whole log, never time."""

    seq: int
    stream: str
    stream_seq: int
    event: Event
    hash: str = ""


def sha256_of(text: str) -> str:
    """SHA-256 (hex) of a text in UTF-8: the name under which a plan lies beside the log."""
    return hashlib.sha256(text.encode()).hexdigest()


def broken_text(breaks: tuple[str, ...] | list[str]) -> str:
    """The first break, and exactly how many more there are."""
    left = len(breaks) - 1
    return breaks[0] + (f" and {left} more break{'s' if left > 1 else ''}" if left else "")


def link(
    prev: str, seq: int, stream: str, stream_seq: int, kind: str, at: int, body: str, schema: int
) -> str:
    """The hash of an entry: SHA-256 over the previous hash and every column, newline-separated.

    Only ``body`` may hold a newline-free text of any kind (canonical JSON has none), so the
    encoding is unambiguous.
    """
    text = f"{prev}\n{seq}\n{stream}\n{stream_seq}\n{kind}\n{at}\n{schema}\n{body}"
    return sha256_of(text)
