"""Decides what an attempt may come back with: three outcomes and four findings, never two.

``Unknown`` is an outcome of its own: a time-out or a lost connection of a mutating step says
nothing about whether it happened. A ``check`` then turns it into a ``Finding``.
Evidence is JSON without floats and is journalled: never put a secret into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from orchestrator.core.values import Json


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The effect is there. For FENCE steps ``evidence`` carries what was seen (see ``Step.proves``)."""

    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The effect is surely not there. ``retryable``: the same again may succeed."""

    message: str
    retryable: bool = False
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows whether the effect is there; the step's ``check`` is asked next."""

    message: str


Outcome: TypeAlias = Succeeded | Failed | Unknown


class FindingKind(StrEnum):
    DONE = "done"
    NOT_DONE = "not-done"
    RUNNING = "running"
    CANNOT_TELL = "cannot-tell"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a read-only, bounded ``check`` found. ``DONE`` carries the same evidence as ``execute``.

    ``RUNNING``: an attempt of ours is still alive at the target (its session or its lock is seen).
    """

    kind: FindingKind
    reason: str = ""
    evidence: Mapping[str, Json] = field(default_factory=dict)
