"""Decides what a component is told when it contributes its steps to an operation, and how it answers;
holds no rule of any type of component.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from orchestrator.core.claims import Witness
from orchestrator.core.model import Component, Estate, Operation, ProofKind, Runbook, Stage
from orchestrator.core.plan import Draft, Gate, Retry
from orchestrator.core.templates import host_values, resolve, resolve_json
from orchestrator.core.values import Json
from orchestrator.errors import InputError

STANDARD_RETRY = Retry(3, 200, 2_000)
ONCE = Retry(1)
AUTHORISED = (Gate.AUTHORISED,)
OPENS = (Gate.AUTHORISED, Gate.GRANTED)
FENCE_RETRY = Retry(3, 100, 1_000)
QUICK_RETRY = Retry(3, 20, 500)  # between the order and the first served citizen


@dataclass(frozen=True, slots=True)
class Move:
    """One group's part of an operation: from ``source`` (may be lost) to ``target``.

    ``is_planned``: switchover and the second half of a failback; the source is reachable and is
    drained. ``reprotects``: first ``target`` is made to follow ``source``, which is active (reprotect,
    and a failback of an unprotected group). ``databases``: all that the group uses, by cluster.
    """

    operation: Operation
    estate: Estate
    group: str
    source: str
    target: str
    epoch_seen: int
    epoch_next: int
    is_planned: bool
    reprotects: bool
    moves: bool  # False for reprotect: nobody's epoch changes
    taken_back: tuple[str, ...] = ()  # runs whose claims on a newer epoch are void
    databases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rejoin: str = "rewind"
    is_resolved: bool = False  # people have decided whose history stands after a split brain
    stands: bool = False  # people kept ``target``: its databases take writes, and all else follows them there

    @property
    def holder(self) -> str:
        """The site that holds ``epoch_seen``."""
        return self.target if self.stands else self.source

    def site_is_lost(self) -> bool:
        """May the source be unreachable, so that its steps are best effort?"""
        return self.moves and not self.is_planned

    def retry_at_source(self) -> Retry:
        """How often a best effort is made at the old side: one that is lost costs a time-out each."""
        return ONCE if self.site_is_lost() else STANDARD_RETRY

    def declared_fence(self, action: str) -> Mapping[str, Json]:
        """What the estate says beside a fence whose arguments the component fills in."""
        for fence in self.estate.fences.get(self.source, ()):
            if fence.action == action and fence.proves is ProofKind.DEMOTED:
                return fence.with_
        return {}


@dataclass(frozen=True, slots=True)
class Placed:
    """A service's runbook beside the move of its group."""

    move: Move
    runbook: Runbook

    def text(self, text: str, host: str = "") -> str:
        """A template of this service resolved; with ``host`` it may use that host's values."""
        return resolve(text, self._values(host)) if "${" in text else text

    def json(self, value: Mapping[str, Json], host: str = "") -> Mapping[str, Json]:
        """The same for JSON arguments."""
        if not value:
            return {}
        resolved = resolve_json(value, self._values(host))
        assert isinstance(resolved, Mapping)
        return resolved

    def _values(self, host: str) -> dict[str, str]:
        move = self.move
        values = {"from.name": move.source, "to.name": move.target}
        for name, component in self.runbook.components.items():
            for side, site in (("from", move.source), ("to", move.target)):
                address = as_moving(component).address_at(move.estate, site)
                if address:
                    values[f"{side}.{name}.address"] = address
        return values | host_values(move.estate.hosts[host]) if host else values


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one unit adds to a plan. ``fence_hosts``: the old side's members that must be proven unable
    to write. ``service`` "" for a unit that services share. ``witnesses``: where claims stand beside what
    this unit switches, at both sites."""

    unit: str
    service: str
    drafts: tuple[Draft, ...]
    fence_hosts: tuple[str, ...] = ()
    is_stateful: bool = False
    witnesses: tuple[Witness, ...] = ()


class Moves(Component, Protocol):
    """A component type: says which unit it is part of and what that unit does in an operation."""

    def unit_in(self, service: str) -> str: ...
    def contribute(self, placed: Placed) -> Contribution: ...
    def address_at(self, estate: Estate, site: str) -> str:
        """The address of the first host that it has at a site, "" if it has none."""


def as_moving(component: Component) -> Moves:
    """A component of the model as what it can do; every class of COMPONENTS is one."""
    return cast("Moves", component)


def must_stand_at(what: str, site: str, found: tuple[str, ...]) -> tuple[str, ...]:
    """The parts that a component has at a site. InputError if there are none."""
    if not found:
        raise InputError(f"{what}: nothing is declared at {site}, so it cannot move there")
    return found


BEFORE_OPEN = frozenset(
    {
        Stage.PREFLIGHT,
        Stage.AUTHORISE,
        Stage.FREEZE,
        Stage.DRAIN,
        Stage.FENCE,
        Stage.VERIFY_DATA,
        Stage.PROMOTE,
    }
)
"""Stages whose steps do not wait for the components and services that theirs needs."""
