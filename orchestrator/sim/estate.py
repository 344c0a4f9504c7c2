"""Decides the estate that simulated nights are about, and compiles its plans as production does: two
sites, one shared cluster, documents, names and proxies. Must never read a file.

The runbooks are made of the real component types and bound to the real actions' parameters; only
what an action does to the world is simulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from orchestrator.actions import ACTIONS
from orchestrator.components.dns import Dns
from orchestrator.components.dns import Record as Name
from orchestrator.components.files import Files, FilesAt
from orchestrator.components.haproxy import HAProxy
from orchestrator.components.manual import Manual
from orchestrator.components.postgresql import PostgreSQL
from orchestrator.components.service import Ready, Service
from orchestrator.core.groups import GroupState
from orchestrator.core.model import (
    Cluster,
    Component,
    Credentials,
    DoneHttp,
    DoneRefuses,
    DoneWhen,
    DoneWrites,
    Estate,
    Fence,
    Group,
    Host,
    Manager,
    NameServer,
    Objectives,
    Operation,
    OwnStep,
    ProofKind,
    Proxy,
    Runbook,
    Site,
    Stage,
)
from orchestrator.core.plan import Plan
from orchestrator.core.values import Json
from orchestrator.errors import RefusedError
from orchestrator.planning.bind import TableCatalog
from orchestrator.planning.compile import compile_plan

CLUSTER = "registers-db"
DATABASES = ("population", "land")
EPOCH = 3
SOMEONE = Credentials("someone", "secret://env/NONE")
PLACES = {"home": ("h1",), "embassy": ("e1",)}
DOORS = {"home": ("ph",), "embassy": ("pe",)}
NAMES = {"home": "nh", "embassy": "ne"}


def _power() -> Fence:
    address = "http://power.example/${host.name}"
    wanted: dict[str, Json] = {
        "method": "POST",
        "url": f"{address}/reset",
        "json": {"ResetType": "ForceOff"},
        "expect_status": 204,
        "check": {"url": address, "status": 200, "json": {"PowerState": "Off"}},
    }
    return Fence(ProofKind.POWER_OFF, "http.request", None, wanted)


def estate() -> Estate:
    """Home with two database hosts, the embassy with one; power at home can be cut from outside."""
    sites = {"h1": "home", "h2": "home", "e1": "embassy"}
    addresses = {"h1": "192.0.2.1", "h2": "192.0.2.2", "e1": "198.51.100.1"}
    manager = Manager("supervisor", "http://${host.address}:9001/RPC2", "someone", "secret://env/NONE")
    hosts = {
        name: Host(name, site, addresses[name], run_directory="run", manager=manager)
        for name, site in sites.items()
    }
    lost = Fence(ProofKind.SITE_LOST, "declare")
    return Estate(
        "simulated",
        sites={
            "home": Site("home", "home"),
            "embassy": Site("embassy", "embassy"),
            "vantage": Site("vantage", "observer"),
        },
        hosts=hosts,
        clusters={
            CLUSTER: Cluster(
                CLUSTER,
                {"home": ("h1", "h2"), "embassy": ("e1",)},
                "data/${host.name}",
                "config/${host.name}",
                "bin",
                "postgresql",
                {"control": SOMEONE, "replication": SOMEONE, "rewind": SOMEONE},
                evidence_directory="evidence/${host.name}",
            )
        },
        proxies={
            "ph": Proxy("ph", "h1", "socket", "config", "state", "epoch", "192.0.2.1"),
            "pe": Proxy("pe", "e1", "socket", "config", "state", "epoch", "198.51.100.1"),
        },
        name_servers={
            "nh": NameServer("nh", "home", "192.0.2.1"),
            "ne": NameServer("ne", "embassy", "198.51.100.1"),
        },
        fences={"home": (_power(), lost), "embassy": (lost,)},
        groups={"registers": Group("registers", ("population-register", "land-register"))},
    )


def runbooks() -> dict[str, Runbook]:
    """A register that waits warm, one that waits cold on the same cluster, and a gazette of files."""
    books = (_population(), _land(), _gazette())
    return {book.name: book for book in books}


def _population() -> Runbook:
    return Runbook(
        "population-register", "the ministry", "the act", 1, Objectives(900_000, 30_000, 14_400_000),
        _named(
            PostgreSQL("database", CLUSTER, DATABASES[0]),
            Service("application", "population", PLACES, "warm", Ready("http://${host.address}:8201/readyz"),
                    needs=("database",)),
            HAProxy("front-door", DOORS, "population", needs=("application",)),
            Dns("name", NAMES, "secret://env/NONE", (Name("population.example.", 5_000, proxy="front-door"),),
                needs=("front-door",)),
        ),
        done_when=DoneWhen(
            http=(DoneHttp("http://population.example/1", json={"site": "${to.name}"}, from_=("vantage",)),),
            writes=(DoneWrites("database"),),
            refuses_writes=(DoneRefuses("${from.name}"),),
        ),
    )  # fmt: skip


def _land() -> Runbook:
    """Cold abroad, with an owner's own command after its start."""
    told: dict[str, Json] = {"argv": ["warm-the-cache"], "host": "e1"}
    return Runbook(
        "land-register", "the board", "the act", 2, Objectives(3_600_000, 30_000, 86_400_000),
        _named(
            PostgreSQL("database", CLUSTER, DATABASES[1]),
            Service("application", "land", PLACES, "cold", needs=("database",)),
            HAProxy("front-door", DOORS, "land", needs=("application",)),
        ),
        depends_on=("population-register",),
        steps=(
            OwnStep("warm the cache", "command.run", 10_000, "none-needed", told, after=Stage.START),
        ),
        done_when=DoneWhen(writes=(DoneWrites("database"),)),
    )  # fmt: skip


def _gazette() -> Runbook:
    places = {
        site: FilesAt(hosts[0], "documents", "published", "replicator", "as-of")
        for site, hosts in PLACES.items()
    }
    return Runbook(
        "state-gazette", "the chancellery", "the act", 2, Objectives(1_800_000, 600_000, 86_400_000),
        _named(
            Files("documents", places, "key"),
            Service("application", "gazette", PLACES, "warm", needs=("documents",)),
            HAProxy("front-door", DOORS, "gazette", needs=("application",)),
            Manual("notice", {Stage.CUTOVER: "tell the press that ${to.name} publishes"}, needs=("application",)),
            Dns("name", NAMES, "secret://env/NONE",
                (Name("gazette.example.", 5_000, at={s: (f"addr-{s}",) for s in PLACES}),),
                needs=("application",)),
        ),
        modes=("read-only", "full"),
        done_when=DoneWhen(http=(DoneHttp("http://gazette.example/", from_=("vantage",)),)),
    )  # fmt: skip


def _named(*components: Component) -> dict[str, Component]:
    return {component.name: component for component in components}


@dataclass(frozen=True, slots=True)
class Setting:
    """Where every group stands when the plan is made. ``left``: people have kept ``active``, and what stands
    beside the databases still leads there."""

    operation: Operation
    active: str
    protection: str
    left: str = ""


SETTINGS: Mapping[str, Setting] = {
    "failover": Setting(Operation.FAILOVER, "home", "protected"),
    "switchover": Setting(Operation.SWITCHOVER, "home", "protected"),
    "failback": Setting(Operation.FAILBACK, "embassy", "unprotected"),
    "failback-protected": Setting(Operation.FAILBACK, "embassy", "protected"),
    "reprotect": Setting(Operation.REPROTECT, "embassy", "unprotected"),
    "kept": Setting(Operation.FAILOVER, "home", "unprotected", left="embassy"),
}


@cache
def catalog() -> TableCatalog:
    """The real actions: their parameters, commands and facts, never their effects."""
    return TableCatalog(ACTIONS)


@cache
def _books() -> tuple[Estate, dict[str, Runbook]]:
    return estate(), runbooks()


@cache
def plan_of(setting: str) -> Plan:
    """The plan of one setting, compiled once per process."""
    chosen = SETTINGS[setting]
    names = ("registers", "state-gazette")
    states = {name: GroupState(name, chosen.active, EPOCH, chosen.protection, adopted=True) for name in names}
    if chosen.left:
        states["registers"] = replace(states["registers"], left=chosen.left, is_resolved=True, reserved=EPOCH)
    return _compiled(chosen.operation, states, chosen.active if chosen.left else None)


def again(setting: str, states: Mapping[str, GroupState]) -> Plan:
    """The same operation from where the groups stand now; what has no copy abroad is protected first.

    RefusedError if neither can be planned."""
    operation = SETTINGS[setting].operation
    target = None if operation is Operation.FAILBACK else plan_of(setting).target
    try:
        return _compiled(operation, states, target)
    except RefusedError as refused:
        try:
            return _compiled(Operation.REPROTECT, states)
        except RefusedError as again:
            raise RefusedError(f"{refused}; {again}") from again


def way_home(states: Mapping[str, GroupState]) -> Plan:
    """The failback of all that is abroad."""
    return _compiled(Operation.FAILBACK, states)


def _compiled(operation: Operation, states: Mapping[str, GroupState], target: str | None = None) -> Plan:
    where, books = _books()
    services: tuple[str, ...] = ()
    if any(state.left for state in states.values()):  # an owner's step abroad cannot be part of leaving it
        books = {name: replace(book, steps=()) for name, book in books.items()}
        services = ("population-register",)  # its group; the documents stay where they are
    return compile_plan(
        where, books, operation, target=target, services=services, states=states, catalog=catalog()
    ).plan
