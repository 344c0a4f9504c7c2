"""Decides what a simulated action is given and may answer; must never act itself.

``Kind`` is to the simulator what ``ports.Action`` is to the engine: act, check, take back. The facts
(idempotent, mutates, undo) equal those of the real actions; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

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

    def remember(self, found: Any) -> None:
        """What this run found here before its first change, for its undo."""
        self.world.before.setdefault((self.run, self.step.id), found)

    def remembered(self) -> Any:
        return self.world.before.get((self.run, self.step.id))

    def silent(self) -> str:
        """The host or name server that this call is made to, if it does not answer now; else ""."""
        world = self.world
        host = self.text("host") or world.proxy_hosts.get(self.text("proxy"), "")
        if host and not world.answers(host):
            return host
        server = self.text("server")
        return server if server and not world.name_server_answers(server) else ""


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


def always_done(call: Call) -> Finding:
    return DONE


def looked_again(act: Callable[[Call], Answer]) -> Callable[[Call], Finding]:
    """The check of what only reads: it is read again."""

    def check(call: Call) -> Finding:
        answer = act(call)
        return Finding(FindingKind.DONE, "", answer.evidence) if isinstance(answer, Succeeded) else NOT_DONE

    return check


def never_seen(call: Call) -> Finding:
    """Read-only steps leave nothing to look at: they are simply made again."""
    return Finding(FindingKind.NOT_DONE, "it is only read")
