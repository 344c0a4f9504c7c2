"""Decides which facts the streams of groups hold. Additive only, like every event of the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from orchestrator.core.moment import At
from orchestrator.core.values import Json


@dataclass(frozen=True, slots=True)
class GroupAdopted:
    """The first event of a group: what people confirmed of the evidence (semantics 3.1)."""

    KIND: ClassVar[str] = "group.adopted"
    at: At
    group: str
    active: str
    epoch: int
    protection: str
    by: str
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupClaimed:
    KIND: ClassVar[str] = "group.claimed"
    at: At
    group: str
    run: str
    by: str
    machine: str
    epoch_next: int


@dataclass(frozen=True, slots=True)
class GroupWithdrawn:
    """From here no site holds the group's right to write."""

    KIND: ClassVar[str] = "group.withdrawn"
    at: At
    group: str
    run: str


@dataclass(frozen=True, slots=True)
class GroupGranted:
    KIND: ClassVar[str] = "group.granted"
    at: At
    group: str
    run: str
    site: str
    epoch: int
    protection: str


@dataclass(frozen=True, slots=True)
class GroupProtected:
    KIND: ClassVar[str] = "group.protected"
    at: At
    group: str
    run: str


@dataclass(frozen=True, slots=True)
class GroupReleased:
    """``left``: the site that lost the epoch by a run which people ended as it is: names and routes may still
    lead there."""

    KIND: ClassVar[str] = "group.released"
    at: At
    group: str
    run: str
    outcome: str
    left: str = ""


@dataclass(frozen=True, slots=True)
class GroupConflictSeen:
    """Two sites write, or wrote. ``evidence`` names them and counts what differs."""

    KIND: ClassVar[str] = "group.conflict-seen"
    at: At
    group: str
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupKeepReserved:
    """People keep the site that does not hold the epoch: ``epoch`` is the one it is going to hold, under
    the name ``id``. Nothing is written at any site before this, and it is not granted before group.resolved."""

    KIND: ClassVar[str] = "group.keep-reserved"
    at: At
    group: str
    keep: str
    id: str
    epoch: int
    by: str
    reason: str
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupResolved:
    """Whose history stands. ``epoch``, ``id``: what was reserved and now stands in every row of the kept
    site; 0 and "" where it held the epoch already."""

    KIND: ClassVar[str] = "group.resolved"
    at: At
    group: str
    keep: str
    by: str
    reason: str
    evidence: Mapping[str, Json] = field(default_factory=dict)
    epoch: int = 0
    id: str = ""


@dataclass(frozen=True, slots=True)
class GroupProtectionLost:
    """Replication to the other side is known to be relaxed or gone."""

    KIND: ClassVar[str] = "group.protection-lost"
    at: At
    group: str
    reason: str


GroupEvent: TypeAlias = (
    GroupAdopted
    | GroupClaimed
    | GroupWithdrawn
    | GroupGranted
    | GroupProtected
    | GroupReleased
    | GroupConflictSeen
    | GroupKeepReserved
    | GroupResolved
    | GroupProtectionLost
)
