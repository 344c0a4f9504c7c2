"""Decides what an estate and a runbook are, as values; must never read a file or a socket.

After ``runbook/`` nobody sees a dict: these frozen dataclasses are all there is. Component types
live one file each in ``components/`` and are reached here only through the ``Component`` protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

from orchestrator.core.values import (
    Bytes,
    ComponentRef,
    DnsName,
    HostRef,
    Json,
    Milliseconds,
    Name,
    Secret,
    ServiceRef,
    SiteRef,
    Template,
    UnitName,
)


class Operation(StrEnum):
    """What a run is for."""

    FAILOVER = "failover"
    SWITCHOVER = "switchover"
    FAILBACK = "failback"
    REPROTECT = "reprotect"
    DRILL = "drill"


class Stage(StrEnum):
    """Where in an operation a step belongs; for people. Order comes from needs and gates."""

    PREFLIGHT = "preflight"
    AUTHORISE = "authorise"
    FREEZE = "freeze"
    DRAIN = "drain"
    FENCE = "fence"
    VERIFY_DATA = "verify-data"
    PROMOTE = "promote"
    START = "start"
    CHECK = "check"
    CUTOVER = "cutover"
    WIDEN = "widen"
    COMMIT = "commit"


class ProofKind(StrEnum):
    """What shows that a site cannot write, strongest first (semantics 1.1)."""

    DEMOTED = "demoted"
    POWER_OFF = "power-off"
    NETWORK_CUT = "network-cut"
    LEASE_EXPIRED = "lease-expired"
    SITE_LOST = "site-lost"


# --- the estate -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Site:
    """A place. ``role``: home and embassy hold services, observer asks from outside."""

    name: Name
    role: Literal["home", "embassy", "observer"] = "embassy"
    jurisdiction: str = ""
    networks: tuple[str, ...] = ()
    host_notice: str = ""


@dataclass(frozen=True, slots=True)
class Manager:
    """Who starts and stops units on a host. ``supervisor``: its XML-RPC interface over HTTP."""

    type: Literal["supervisor"] = "supervisor"
    url: Template = ""
    user: str = ""
    password: Secret = ""


@dataclass(frozen=True, slots=True)
class Host:
    """A machine. ``reach``: an HTTP address on it that must answer before any command is given to a
    ``via: local`` host, so that a host sharing this machine can be lost like one that does not."""

    name: Name
    site: SiteRef
    address: str
    via: Literal["local"] = "local"
    reach: str = ""
    run_directory: str = ""  # where step locks and claims are kept on the host
    manager: Manager | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    user: str
    password: Secret


@dataclass(frozen=True, slots=True)
class Tls:
    mode: Literal["disable", "require", "verify-ca", "verify-full"] = "verify-full"
    ca: Template = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond these people accept the stated loss or delay."""

    lag_ms: Milliseconds = 10_000
    backlog_bytes: Bytes = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReplicationPath:
    """Where the other site reaches this site's primary for replication, if not at its address."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """A database cluster, named once however many services use it (semantics 6.1)."""

    name: Name
    members: Mapping[SiteRef, tuple[HostRef, ...]]
    data_directory: Template
    config_directory: Template
    bin_directory: str
    unit: UnitName
    roles: Mapping[Literal["control", "replication", "rewind"], Credentials]
    type: Literal["postgresql"] = "postgresql"
    port: int = 5432
    tls: Tls = field(default_factory=Tls)
    replicate_from: Mapping[SiteRef, ReplicationPath] = field(default_factory=dict)
    evidence_directory: Template = ""  # where a diverged history is kept before a rewind
    archiver_absent_at: tuple[SiteRef, ...] = ()  # declared: nothing is archived there, so no backup
    limits: Limits = field(default_factory=Limits)
    durability: Literal["remote", "local"] = "remote"


@dataclass(frozen=True, slots=True)
class Proxy:
    """One HAProxy. ``state_file`` is the map or state file that its configuration loads;
    ``front_address`` is where clients meet it, which DNS records may take by naming the component.
    ``master_socket``: the master CLI (``haproxy -S``), by which a failover also ends the sessions that a worker from
    before a reload still has.
    """

    name: Name
    host: HostRef
    socket: str
    config: str
    state_file: str
    epoch_file: str
    front_address: str = ""
    master_socket: str = ""


@dataclass(frozen=True, slots=True)
class NameServer:
    """One authoritative server that takes RFC 2136 updates."""

    name: Name
    site: SiteRef
    address: str
    port: int = 53


@dataclass(frozen=True, slots=True)
class Fence:
    """One way to show that a site cannot write; ``with_`` (written ``with``) may use ``${host.…}``.

    ``action: declare`` takes no ``with``: people declare the site lost.
    """

    proves: ProofKind
    action: str
    on: HostRef | None = None
    with_: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    name: Name
    services: tuple[ServiceRef, ...]


@dataclass(frozen=True, slots=True)
class Policies:
    fence_budget_ms: Milliseconds = 5_000
    proof_age_ms: Milliseconds = 5_000
    parallel_steps: int = 32


@dataclass(frozen=True, slots=True)
class Estate:
    name: str
    sites: Mapping[str, Site]
    hosts: Mapping[str, Host] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    proxies: Mapping[str, Proxy] = field(default_factory=dict)
    name_servers: Mapping[str, NameServer] = field(default_factory=dict)
    fences: Mapping[SiteRef, tuple[Fence, ...]] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    policies: Policies = field(default_factory=Policies)


# --- a runbook --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Objectives:
    rto_ms: Milliseconds
    rpo_ms: Milliseconds
    mtpd_ms: Milliseconds


@dataclass(frozen=True, slots=True)
class OwnStep:
    """A step that the owner adds before or after a stage of this service."""

    name: str
    action: str
    timeout_ms: Milliseconds
    undo: Literal["none-needed", "point-of-no-return"]
    with_: Mapping[str, Json] = field(default_factory=dict)
    before: Stage | None = None
    after: Stage | None = None
    idempotent: bool = False
    needs_home: bool = False


@dataclass(frozen=True, slots=True)
class DoneHttp:
    """Asked through the front door from each vantage; ``json`` are equalities by key."""

    url: Template
    status: int = 200
    json: Mapping[str, Json] = field(default_factory=dict)
    from_: tuple[SiteRef, ...] = ()


@dataclass(frozen=True, slots=True)
class DoneWrites:
    """A canary row through the service's own database path; never a legal register's row."""

    through: ComponentRef
    table: str = "continuity.canary"
    within_ms: Milliseconds = 5_000


@dataclass(frozen=True, slots=True)
class DoneRefuses:
    """The old side refuses writes, where it can be reached."""

    at: Template


@dataclass(frozen=True, slots=True)
class DoneDns:
    """Every name server at the target answers exactly ``expect``; asked from each vantage."""

    name: DnsName
    expect: tuple[str, ...]
    type: Literal["A", "AAAA", "CNAME", "MX", "NS", "TXT"] = "A"
    from_: tuple[SiteRef, ...] = ()


@dataclass(frozen=True, slots=True)
class DoneWhen:
    http: tuple[DoneHttp, ...] = ()
    dns: tuple[DoneDns, ...] = ()
    writes: tuple[DoneWrites, ...] = ()
    refuses_writes: tuple[DoneRefuses, ...] = ()


@runtime_checkable
class Component(Protocol):
    """One part of a service. Implementations are frozen dataclasses in ``components/``."""

    @property
    def name(self) -> str: ...
    @property
    def needs(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Runbook:
    """What one service is made of; how it moves is derived.

    ``tier``: how important it is, 0 first. Where not all steps can go on at once the lowest tier goes first, and
    for a moment the others give way to the first write of the lowest tier that holds state. ``client_timeout``: the
    longest that a client waits on a connection that nobody answers; the plan states it beside the expected time.
    ``modes``: what it may
    offer, in this order; documents are opened read-only first where it says so, and no other component keeps one.
    """

    name: str
    owner: str
    legal_basis: str
    tier: int
    objectives: Objectives
    components: Mapping[str, Component]
    depends_on: tuple[ServiceRef, ...] = ()
    reachable_from: tuple[ServiceRef, ...] = ()  # needs of other sites that may stay where they are
    modes: tuple[Literal["read-only", "limited-write", "full"], ...] = ("full",)
    client_timeout_ms: Milliseconds = 0
    steps: tuple[OwnStep, ...] = ()
    done_when: DoneWhen = field(default_factory=DoneWhen)


def group_of(estate: Estate, service: str) -> str:
    """The group a service moves with; one that no group names is a group of its own."""
    for name, group in estate.groups.items():
        if service in group.services:
            return name
    return service
