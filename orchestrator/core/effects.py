"""Decides what the machine may order. Orders follow from a run's state alone and are never stored.

Order of things (the contract of the whole engine): the events of a decision are durable BEFORE any
order that follows from them is carried out. Equal orders are one order: a dispatcher that already
works on it does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Execute:
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Check:
    """Look whether the effect of an attempt is there; read-only. Not before ``due_mono_ns``."""

    step: str
    attempt: int
    number: int
    due_mono_ns: int


@dataclass(frozen=True, slots=True)
class UndoStep:
    step: str
    number: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Close what the attempt has in flight; its outcome is then unknown."""

    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Come back with ``Woke(name)`` when the monotonic clock shows ``mono_ns``."""

    name: str
    mono_ns: int


Effect: TypeAlias = Execute | Check | UndoStep | Cancel | WakeAt
