"""Decides what a plan is: a DAG of bound steps, as data; must never know how a step is performed.

``planning/`` makes plans; ``core.machine`` and the engine run them. A plan is complete in itself:
``parts`` holds the hosts, clusters, proxies and name servers its steps speak of, so a runbook that
changes afterwards changes nothing in a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.model import Cluster, Host, NameServer, Operation, ProofKind, Proxy, Site, Stage
from orchestrator.core.values import Json, Milliseconds

PLAN_SCHEMA = 1


class Role(StrEnum):
    """What a step is to the rules of the machine; ``ORDINARY`` has no rule of its own."""

    EVIDENCE = "evidence"  # read-only; taken again when it ages
    FREEZE = "freeze"
    DRAIN = "drain"
    FENCE = "fence"
    VERIFY = "verify"
    CLOSE = "close"
    LOSS = "loss"
    PROMOTE = "promote"
    EPOCH = "epoch"
    OPEN = "open"
    REJOIN = "rejoin"  # brings the old side back as a follower
    PROTECT = "protect"  # replication is whole again: the group becomes protected
    ROUTE = "route"
    DONE = "done"  # asked from outside
    ORDINARY = "ordinary"


CANNOT_BE_SKIPPED = frozenset(
    {
        Role.EVIDENCE,
        Role.FENCE,
        Role.CLOSE,
        Role.PROMOTE,
        Role.EPOCH,
        Role.OPEN,
        Role.VERIFY,
        Role.LOSS,
        Role.DRAIN,  # of documents it alone shows that nothing is left behind
    }
)
"""Steps that neither ``skip`` nor ``mark-done`` may satisfy (semantics 1.2)."""

URGENCY: Mapping[Role, int] = {
    Role.FENCE: 0,
    Role.CLOSE: 0,
    Role.PROMOTE: 0,
    Role.EPOCH: 0,
    Role.OPEN: 0,
    Role.LOSS: 0,
    Role.DRAIN: 0,
}
"""Of what the first write waits for, what is begun, and its result taken, first of all (see ``urgencies``)."""
URGENCY_NEXT, URGENCY_LAST = 1, 2
BEFORE_PROMOTION = frozenset({Stage.FREEZE, Stage.FENCE, Stage.VERIFY_DATA})
AT_ONCE = frozenset({Role.FENCE, Role.FREEZE, Role.DRAIN})
"""Roles that give way to nothing: they run side by side in one budget (semantics 1.5)."""
GIVE_WAY_MS = 500
"""For so long, from the first urgent step of a driver on, nothing else is started while something urgent is in
flight: on few cores it would only take from it. What waits loses no more than this."""

MANUAL = "manual.confirm"
"""The kind of a step that only people can do: it is never executed, they confirm it."""


class Gate(StrEnum):
    """A guard evaluated in the decision that starts a step (``core/guards.py``)."""

    AUTHORISED = "authorised"
    FENCED = "fenced"  # every old member of the step's unit has a valid proof
    VERIFIED = "verified"  # the unit's data checks passed, or people accepted the finding by name
    LOSS_ACCEPTED = "loss-accepted"
    GRANTED = "granted"  # the group's epoch is committed at the target


class Undo(StrEnum):
    NONE_NEEDED = "none-needed"
    UNDO = "undo"
    POINT_OF_NO_RETURN = "point-of-no-return"


@dataclass(frozen=True, slots=True)
class Touch:
    """An endpoint that a step speaks to, and the site it stands at."""

    site: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Retry:
    """At most ``attempts`` tries; the wait before try n+1 is ``delay_ms * 2**(n-1)``, bounded."""

    attempts: int = 1
    delay_ms: int = 200
    delay_ms_max: int = 5_000


@dataclass(frozen=True, slots=True)
class Draft:
    """What a component contributes: a step before it is bound to its action.

    ``key`` is unique in its unit. ``needs`` are keys in the same unit, or full step ids.
    ``unit`` is the cluster or ``SERVICE/COMPONENT`` that the step belongs to.
    ``up``: when this step has succeeded the component serves; dependents wait for all such steps.
    """

    key: str
    stage: Stage
    role: Role
    title: str
    why: str
    action: str
    arguments: Mapping[str, Json]
    timeout_ms: Milliseconds
    needs: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ()
    up: bool = False
    best_effort: bool = False
    retry: Retry = field(default_factory=Retry)
    fences: tuple[str, ...] = ()  # host names that a FENCE step proves
    proves: ProofKind | None = None
    undo: Undo | None = None  # None: the action's own answer


@dataclass(frozen=True, slots=True)
class Bound:
    """What binding an action to its arguments fixes into the step: pure facts."""

    kind: str
    kind_version: int
    arguments: Mapping[str, Json]
    commands: tuple[str, ...]
    touches: tuple[Touch, ...]
    undo: Undo
    undo_commands: tuple[str, ...]
    idempotent: bool
    mutates: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One bound step. ``id`` is ``UNIT/KEY``; ``needs`` are step ids, all of this plan.

    A FENCE step has no dependents: gates ask for its proof instead (core contract 3.7).
    """

    id: str
    unit: str
    group: str
    service: str  # "" for a step of a shared cluster
    stage: Stage
    role: Role
    title: str
    why: str
    action: Bound
    timeout_ms: int
    needs: tuple[str, ...]
    gates: tuple[Gate, ...]
    up: bool
    best_effort: bool
    retry: Retry
    fences: tuple[str, ...] = ()
    proves: ProofKind | None = None


@dataclass(frozen=True, slots=True)
class GroupMove:
    """What happens to a group: it is seen at (``active``, ``epoch_seen``) and gets ``epoch_next``.

    ``units``: its clusters and stateful components. ``fence_hosts``: per unit, the old side's
    members that must be proven unable to write.
    """

    name: str
    services: tuple[str, ...]
    active: str
    epoch_seen: int
    epoch_next: int
    units: tuple[str, ...]
    fence_hosts: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What people are shown of a service when they confirm, and what it is measured against."""

    name: str
    group: str
    tier: int
    owner: str
    legal_basis: str
    rto_ms: int
    rpo_ms: int
    mtpd_ms: int
    client_timeout_ms: int = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """The declared things that the steps speak of, with every template resolved but secrets."""

    sites: Mapping[str, Site] = field(default_factory=dict)
    hosts: Mapping[str, Host] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    proxies: Mapping[str, Proxy] = field(default_factory=dict)
    name_servers: Mapping[str, NameServer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanLimits:
    fence_budget_ms: int = 5_000
    proof_age_ms: int = 5_000
    parallel_steps: int = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """One operation, compiled. ``digest`` binds everything else in it (core contract 4.4)."""

    operation: Operation
    source: str  # the site that is left ("" for reprotect)
    target: str
    groups: Mapping[str, GroupMove]
    services: Mapping[str, ServiceFacts]
    steps: Mapping[str, Step]  # in a topological order, then by id
    parts: Parts
    limits: PlanLimits
    digest: str
    leave: Mapping[str, str] = field(default_factory=dict)  # service left behind -> reason
    stops: tuple[str, ...] = ()  # what its fences stop although it stays, as people are told
    schema: int = PLAN_SCHEMA


def asked(step: Step) -> str:
    """What people are asked by a step of theirs, on one line: its title, and its prompt where that says more."""
    prompt = " ".join(str(step.action.arguments.get("prompt", "")).split())
    return step.title if prompt in ("", step.title) else f"{step.title}: {prompt}"


def accepted_with(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Unit with a step that waits for an accepted loss → the units whose loss that is: its own, and what else of its
    group is measured but has no such step. Documents beside a database come too late with their own: once it is
    promoted nothing can be taken back any more."""
    asking = {step.unit: step.group for step in plan.steps.values() if Gate.LOSS_ACCEPTED in step.gates}
    beside: dict[str, list[str]] = {group: [] for group in asking.values()}
    for step in plan.steps.values():
        if step.role is Role.LOSS and step.unit not in asking and step.group in beside:
            beside[step.group].append(step.unit)
    return {unit: tuple(dict.fromkeys([unit, *beside[group]])) for unit, group in asking.items()}


def strictest_rpo_ms(plan: Plan, group: str) -> int:
    """What may be lost of a group at most by its own objectives; 0 where no service of it states one."""
    return min((facts.rpo_ms for facts in plan.services.values() if facts.group == group), default=0)


def tiers_of_units(plan: Plan) -> dict[str, int]:
    """Each unit has the tier of its service; a shared one the lowest of its group. 0 comes first."""
    groups = {
        name: min((plan.services[service].tier for service in move.services), default=0)
        for name, move in plan.groups.items()
    }
    found: dict[str, int] = {}
    for step in plan.steps.values():
        facts = plan.services.get(step.service)
        tier = facts.tier if facts else groups[step.group]
        found[step.unit] = min(tier, found.get(step.unit, tier))
    return found


def urgencies(plan: Plan) -> dict[str, int]:
    """How urgent each step is: 0 first, ``URGENCY_LAST`` for what the first write does not wait for.

    The first write is that of the lowest tier that holds state. It waits for the right to write, for the steps that
    route to it (but for the debts at a lost side) and for all that these need after the preflight; whatever
    belongs before the promotion is done before it, and until it is seen from outside it is not there.
    """
    tiers = tiers_of_units(plan)
    stateful = [tiers[unit] for move in plan.groups.values() for unit in move.units if unit in tiers]
    first = min(stateful or tiers.values(), default=0)

    def is_wanted(step: Step) -> bool:
        is_debt = step.best_effort and plan.operation is Operation.FAILOVER
        leads_there = step.role in (Role.EPOCH, Role.OPEN, Role.ROUTE, Role.DONE) and not is_debt
        return tiers[step.unit] <= first and (leads_there or step.stage in BEFORE_PROMOTION)

    found = dict.fromkeys(plan.steps, URGENCY_LAST)
    for step in reversed(tuple(plan.steps.values())):
        if step.stage is Stage.PREFLIGHT:
            found[step.id] = URGENCY_LAST
        elif found[step.id] < URGENCY_LAST or is_wanted(step):
            found[step.id] = URGENCY.get(step.role, URGENCY_NEXT)
            found.update((need, URGENCY_NEXT) for need in step.needs)
    return found
