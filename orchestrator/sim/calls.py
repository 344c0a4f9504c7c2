"""Decides what a simulated action is given and may answer; must never act itself.

``Kind`` is to the simulator what ``ports.Action`` is to the engine: act, check, take back. The facts
(idempotent, mutates, undo) equal those of the real actions; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.core.outcomes import Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Plan, Step, Undo
from orchestrator.core.values import Json
from orchestrator.sim.servers import Cluster, Server
from orchestrator.sim.world import World


@dataclass(frozen=True, slots=True)
class Later:
    """Sent; whether it took effect is asked by ``check`` after ``ns`` nanoseconds."""

    ns: int


Answer: TypeAlias = Outcome | Later

DONE = Finding(FindingKind.DONE)
NOT_DONE = Finding(FindingKind.NOT_DONE, "the effect is not there")


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt (or check, or undo) of one step of one run, in the world as it is now."""

    world: World
    plan: Plan
    run: str
    step: Step
    attempt: int
    torn: bool = False  # only the first part of the effect happens

    def text(self, name: str) -> str:
        value = self.step.action.arguments.get(name, "")
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int:
        value = self.step.action.arguments.get(name, 0)
        return value if isinstance(value, int) else 0

    def flag(self, name: str) -> bool:
        return self.step.action.arguments.get(name) is True

    def names(self, name: str) -> tuple[str, ...]:
        value = self.step.action.arguments.get(name, ())
        return tuple(str(item) for item in value) if isinstance(value, list | tuple) else ()

    def databases(self) -> tuple[str, ...]:
        known = tuple(self.server().writers)
        return tuple(name for name in self.names("databases") if name in known) or known

    def cluster(self) -> Cluster:
        return self.world.clusters[self.text("cluster")]

    def server(self) -> Server:
        return self.cluster().servers[self.text("host")]

    def hosts(self) -> tuple[str, ...]:
        """The hosts that must answer for this call to be made at all."""
        found = [self.text("host")] if self.text("host") else []
        if self.text("proxy"):
            found.append(self.world.proxy_hosts[self.text("proxy")])
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Kind:
    """A simulated action. ``milliseconds``: how long it usually takes."""

    act: Callable[[Call], Answer]
    check: Callable[[Call], Finding]
    take_back: Callable[[Call], Outcome] | None = None
    idempotent: bool = True
    mutates: bool = True
    undo: Undo = Undo.NONE_NEEDED
    milliseconds: int = 5
    asks_hosts: bool = True  # needs its hosts to answer


def found(is_done: bool, **evidence: Json) -> Finding:
    return Finding(FindingKind.DONE, "", evidence) if is_done else NOT_DONE


def outcome_of(finding: Finding) -> Outcome | None:
    """What an execute that ends by looking reports; None = nothing to report yet."""
    return Succeeded(finding.evidence) if finding.kind is FindingKind.DONE else None


def always_done(call: Call) -> Finding:
    return DONE


def never_seen(call: Call) -> Finding:
    """Read-only steps leave nothing to look at: they are simply made again."""
    return Finding(FindingKind.NOT_DONE, "it is only read")


def nothing(call: Call) -> Outcome:
    return Succeeded()


def evidence_of(**items: Json) -> Mapping[str, Json]:
    return items
