"""Decides which documents a side that may not publish holds alone, and whether it published them when it had no
right to; must never open anything.

A side whose last documents are older than its closing, or that was never closed, published them itself. What a
closed side got later came from the other one: it follows, and holds nothing of its own. Of documents that
differ, those published after the other side had been granted the right are a second history; those before are a
loss like that of rows that never arrived. Both hosts' clocks are trusted as far as they are for a stated loss.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.core.values import Json

OPEN = "full"

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<path>.+)")


@dataclass(frozen=True, slots=True)
class Right:
    """Whose right to publish a side knows of. ``at_ns``: since when, 0 where that is not known; ``closed_ns``:
    since when it surely takes nothing under it, 0 where that was never seen."""

    epoch: int
    site: str
    at_ns: int = 0
    closed_ns: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """What one side shows: name → SHA-256. ``since_ns``: when its manifest was written, by its own clock.
    ``before``: the right that ``right`` has replaced. ``unread``: the first line of the manifest that names no
    document that could be compared; 0: there is none."""

    documents: Mapping[str, str]
    since_ns: int = 0
    mode: str = ""
    right: Right | None = None
    before: Right | None = None
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Different:
    """One document of the other side. ``lost``: its SHA-256 there; ``kept``: that of the same name at the side
    that may publish, "" when there is none."""

    document: str
    lost: str
    kept: str = ""

    @property
    def kind(self) -> str:
        return "differs" if self.kept else "only"


@dataclass(frozen=True, slots=True)
class Beyond:
    """What a side holds beyond the one that may publish. ``is_second``: a history of its own, and not only
    what had not arrived when the other took over at ``moved_ns`` (0: not known)."""

    documents: tuple[Different, ...] = ()
    published_ns: int = 0
    moved_ns: int = 0
    is_second: bool = False

    @property
    def only(self) -> int:
        return sum(not each.kept for each in self.documents)

    @property
    def differ(self) -> int:
        return len(self.documents) - self.only

    def text(self) -> str:
        if not self.documents:
            return "it holds nothing that the other has not"
        told = f"{self.only} documents only there, {self.differ} with other content"
        if not self.is_second:
            return f"{told}, published before the other side took over"
        moved = f" ({_utc(self.moved_ns)})" if self.moved_ns else ""
        return f"{told}, the last published at {_utc(self.published_ns)}, after the other took over{moved}"

    def evidence(self) -> dict[str, Json]:
        return {
            "only": self.only,
            "differ": self.differ,
            "published_ns": self.published_ns,
            "moved_ns": self.moved_ns,
            "is_second": self.is_second,
        }


def parse(text: str | None) -> dict[str, str]:
    """A manifest as ``sha256sum`` writes it; a line that is not one is left out (``unread``)."""
    found = (_LINE.fullmatch(line) for line in _lines(text))
    return {line["path"]: line["digest"] for line in found if line is not None}


def unread(text: str | None) -> int:
    """The number of the first line that is none of a manifest, 0 without one. So ``sha256sum`` writes a name that
    holds a newline, too: it must not be taken for another, and not be left out without a word."""
    numbers = (number for number, line in enumerate(_lines(text), start=1) if not _LINE.fullmatch(line))
    return next(numbers, 0)


def _lines(text: str | None) -> list[str]:
    """Lines end by a newline and nothing else: U+2028, form feeds and their like may stand in names."""
    return (text or "").removesuffix("\n").split("\n") if text else []


def holding(seen: Mapping[str, Any]) -> Holding:
    """What ``files_host.holding`` says, as values."""
    entry = seen["entry"]
    return Holding(
        parse(seen["text"]), int(seen["modified_ns"]), str(seen["mode"] or ""), _right(entry),
        _right(entry and entry.get("before")), unread(seen["text"]),
    )  # fmt: skip


def _right(entry: Mapping[str, Any] | None) -> Right | None:
    if not entry:
        return None
    at_ns, closed_ns = (int(entry.get(name) or 0) for name in ("at_ns", "closed_ns"))
    return Right(int(entry["epoch"]), str(entry.get("site", "")), at_ns, closed_ns)


def beyond(kept: Holding, other: Holding, epoch: int, site: str) -> Beyond:
    """What ``other`` holds that ``kept``, which may publish since ``epoch`` of ``site``, has not."""
    if _follows(other, epoch, site):
        return Beyond()
    found = different(kept, other)
    moved_ns = _moved_ns(kept, epoch, site)
    later = other.since_ns > moved_ns if moved_ns else other.mode == OPEN
    return Beyond(found, other.since_ns, moved_ns, bool(found) and later)


def different(kept: Holding, other: Holding) -> tuple[Different, ...]:
    """Every document of ``other`` that ``kept`` has not, or has with other content."""
    return tuple(
        Different(name, digest, kept.documents.get(name, ""))
        for name, digest in sorted(other.documents.items())
        if kept.documents.get(name) != digest
    )


def _follows(other: Holding, epoch: int, site: str) -> bool:
    """Did all that it holds come from the side that may publish?"""
    right = other.right
    if right is None:
        return True  # nothing was ever published there
    is_closed = right.site == site and right.epoch >= epoch and other.mode != OPEN
    return is_closed and 0 < right.closed_ns <= other.since_ns


def _moved_ns(kept: Holding, epoch: int, site: str) -> int:
    """Since when ``site`` may publish; 0 when its claims do not tell."""
    rights = (right for right in (kept.right, kept.before) if right is not None)
    return next((right.at_ns for right in rights if (right.epoch, right.site) == (epoch, site)), 0)


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
