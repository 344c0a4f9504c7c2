"""Estates to plan for: the lab's with the project's runbooks, the good one of the language's tests, and
a synthetic one that has every type of component, several members, proxies and records, and own steps.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from orchestrator.actions import ACTIONS
from orchestrator.components.dns import Dns, Record
from orchestrator.components.files import Files, FilesAt
from orchestrator.components.haproxy import HAProxy
from orchestrator.components.manual import Manual
from orchestrator.components.postgresql import PostgreSQL
from orchestrator.components.service import Expect, Ready, ReadyDns, Service
from orchestrator.core.groups import GroupState
from orchestrator.core.model import (
    Cluster,
    Component,
    Credentials,
    DoneDns,
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
from orchestrator.lab import estate as lab_estate
from orchestrator.lab.layout import Lab
from orchestrator.planning.bind import TableCatalog
from orchestrator.planning.compile import Compiled, compile_plan
from orchestrator.planning.select import membership
from orchestrator.runbook.parse import load_estate

ROOT = Path(__file__).parents[3]
GOOD = ROOT / "tests" / "cases" / "runbook_errors" / "good"
CATALOG = TableCatalog(ACTIONS)
GAZETTE_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1hRVqGmTB5dQ0hS5yzYp0d7GqT7f5mC0mJm3Zb0eXe chancellery\n"
PASSWORD = "secret://file/password"
EPOCH = 4


@dataclass(frozen=True, slots=True)
class Books:
    """An estate and its runbooks, with what a loader knows beside them."""

    estate: Estate
    runbooks: Mapping[str, Runbook]
    files: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Night:
    """What is ordered, and where every group stands then. ``states`` overrides single groups."""

    operation: Operation
    active: str = "home"
    protection: str = "protected"
    states: Mapping[str, GroupState] = field(default_factory=dict)


FAILOVER = Night(Operation.FAILOVER)
SWITCHOVER = Night(Operation.SWITCHOVER)
FAILBACK = Night(Operation.FAILBACK, "embassy", "unprotected")
FAILBACK_PROTECTED = Night(Operation.FAILBACK, "embassy")
REPROTECT = Night(Operation.REPROTECT, "embassy", "unprotected")
NIGHTS: Mapping[str, Night] = {
    "failover": FAILOVER,
    "switchover": SWITCHOVER,
    "failback": FAILBACK,
    "failback-protected": FAILBACK_PROTECTED,
    "reprotect": REPROTECT,
}


def standing(books: Books, night: Night) -> dict[str, GroupState]:
    """Every group as the night finds it; groups without data are never unprotected."""
    groups = membership(books.estate, books.runbooks)
    stateful = {
        group
        for service, group in groups.items()
        for component in books.runbooks[service].components.values()
        if isinstance(component, PostgreSQL | Files)
    }
    found = {
        group: GroupState(
            group, night.active, EPOCH, night.protection if group in stateful else "protected", adopted=True
        )
        for group in groups.values()
    }
    return found | dict(night.states)


def compiled(
    books: Books,
    night: Night,
    *,
    services: Sequence[str] = (),
    target: str | None = None,
    leave: Mapping[str, str] | None = None,
) -> Compiled:
    return compile_plan(
        books.estate, books.runbooks, night.operation, target=target, services=services,
        states=standing(books, night), catalog=CATALOG, leave=leave, file_digests=books.files,
    )  # fmt: skip


def plan_of(books: Books, night: Night) -> Plan:
    return compiled(books, night).plan


# --- from files -------------------------------------------------------------------------------


def read(estate: Path) -> Books:
    loaded = load_estate(estate, catalog=CATALOG)
    return Books(loaded.estate, loaded.runbooks, tuple(sorted(loaded.files.items())))


def good() -> Books:
    return read(GOOD / "estate.yaml")


def write_lab(folder: Path) -> Path:
    """What ``lab up`` would write for lab 7 in this folder, with the project's runbooks; no lab runs."""
    lab = Lab(7, str(folder), postgres="/usr/lib/postgresql", haproxy="/usr/sbin/haproxy")
    lab.estate.parent.mkdir(parents=True)
    lab.estate.write_text(yaml.safe_dump(lab_estate.document(lab), sort_keys=False))
    shutil.copytree(ROOT / "runbooks", lab.estate.parent / "runbooks")
    (lab.estate.parent / "gazette-key.pub").write_text(GAZETTE_KEY)
    return lab.estate


# --- every type of component ------------------------------------------------------------------


def synthetic() -> Books:
    books = (_names(), _citizens(), _taxes(), _archive(), _post())
    return Books(_estate(), {book.name: book for book in books}, (("./key.pub", "0" * 64),))


def _estate() -> Estate:
    someone = Credentials("someone", PASSWORD)
    manager = Manager("supervisor", "http://${host.address}:9001/", "someone", PASSWORD)
    sites = {"a1": "home", "a2": "home", "b1": "embassy", "b2": "embassy", "bmc": "embassy", "w1": "vantage"}
    addresses = {
        "a1": "10.1.0.1", "a2": "10.1.0.2", "b1": "10.2.0.1", "b2": "10.2.0.2", "bmc": "10.2.0.9", "w1": "10.3.0.1",
    }  # fmt: skip
    hosts = {
        name: Host(name, site, addresses[name], run_directory=f"/run/{name}", manager=manager)
        for name, site in sites.items()
    }
    return Estate(
        "Synthetic",
        sites={"home": Site("home", "home"), "embassy": Site("embassy"), "vantage": Site("vantage", "observer")},
        hosts=hosts,
        clusters={
            "main": Cluster(
                "main", {"home": ("a1", "a2"), "embassy": ("b1",)}, "/srv/${host.name}/data", "/etc/pg/main",
                "/usr/bin", "postgresql", {"control": someone, "replication": someone, "rewind": someone},
                evidence_directory="/srv/${host.name}/evidence",
            )
        },
        proxies={
            name: Proxy(name, host, f"/run/{name}.sock", f"/etc/{name}.cfg", f"/etc/{name}.state",
                        f"/etc/{name}.epoch", front)
            for name, host, front in (
                ("pa1", "a1", "10.1.0.101"), ("pa2", "a2", "10.1.0.102"),
                ("pb1", "b1", "10.2.0.101"), ("pb2", "b2", "10.2.0.102"),
            )
        },
        name_servers={"na": NameServer("na", "home", "10.1.0.53"), "nb": NameServer("nb", "embassy", "10.2.0.53")},
        fences={
            "home": (
                Fence(ProofKind.DEMOTED, "postgresql.stop"),
                Fence(ProofKind.POWER_OFF, "command.run", "bmc",
                      {"argv": ["power", "off", "${host.name}"],
                       "check": {"argv": ["power", "status", "${host.name}"], "expect": "off"}}),
                Fence(ProofKind.NETWORK_CUT, "http.request", None,
                      {"method": "POST", "url": "http://10.2.0.9/cut/${host.address}",
                       "check": {"url": "http://10.2.0.9/cut/${host.address}", "json": {"cut": True}}}),
                Fence(ProofKind.SITE_LOST, "declare"),
            ),
            "embassy": (Fence(ProofKind.DEMOTED, "postgresql.stop"), Fence(ProofKind.SITE_LOST, "declare")),
        },
        groups={"registers": Group("registers", ("citizens", "taxes"))},
    )  # fmt: skip


AT: Mapping[str, tuple[str, ...]] = {"home": ("a1", "a2"), "embassy": ("b1", "b2")}
GOALS = Objectives(900_000, 30_000, 14_400_000)


def named(*components: Component) -> dict[str, Component]:
    return {component.name: component for component in components}


def _names() -> Runbook:
    ready = Ready(dns=ReadyDns("example.", "ns.example.", {"home": "na", "embassy": "nb"}, "NS"))
    return Runbook(
        "names", "State Office", "", 0, GOALS,
        named(Service("server", "nameserver", {"home": ("a1",), "embassy": ("b1",)}, "warm", ready)),
        done_when=DoneWhen(dns=(DoneDns("example.", ("ns.example.",), "NS", ("vantage",)),)),
    )  # fmt: skip


def _citizens() -> Runbook:
    """A warm service on the shared cluster with two proxies and two names, people and own steps."""
    warm_up = {"method": "POST", "url": "http://${to.application.address}:8201/warm"}
    records = (
        Record("citizens.example.", 5_000, proxy="doors"),
        Record("www.citizens.example.", 60_000, at={"home": ("10.1.0.101",), "embassy": ("10.2.0.101",)}),
    )
    return Runbook(
        "citizens", "Ministry of the Interior", "Population Register Act, section 5", 1, GOALS,
        named(
            PostgreSQL("database", "main", "citizens"),
            Service("application", "citizens", AT, "warm",
                    Ready("http://${host.address}:8201/readyz", Expect(200, {"site": "${to.name}"})),
                    needs=("database",)),
            HAProxy("doors", {"home": ("pa1", "pa2"), "embassy": ("pb1", "pb2")}, "citizens",
                    needs=("application",)),
            Dns("name", {"home": "na", "embassy": "nb"}, PASSWORD, records, needs=("doors",)),
            Manual("desk", {Stage.FREEZE: "tell the counters of ${from.name} to stop writing",
                            Stage.CUTOVER: "tell the counters that ${to.name} serves"}, needs=("application",)),
        ),
        client_timeout_ms=10_000,
        depends_on=("names",),
        steps=(
            OwnStep("stop the batch jobs", "manual.confirm", 60_000, "none-needed",
                    {"prompt": "are the batch jobs stopped?"}, before=Stage.FREEZE),
            OwnStep("warm up the cache", "http.request", 30_000, "none-needed", warm_up, after=Stage.START),
            OwnStep("count the rows", "manual.confirm", 60_000, "none-needed",
                    {"prompt": "do the counts agree?"}, after=Stage.FREEZE),
        ),
        done_when=DoneWhen(
            http=(DoneHttp("http://citizens.example/1", json={"site": "${to.name}"}, from_=("vantage",)),),
            writes=(DoneWrites("database", within_ms=20_000),),
            refuses_writes=(DoneRefuses("${from.name}"),),
        ),
    )  # fmt: skip


def _taxes() -> Runbook:
    """Cold, on the same cluster; one of its components has nothing to say of itself."""
    return Runbook(
        "taxes", "Tax Board", "Tax Act, section 2", 2, GOALS,
        named(
            PostgreSQL("database", "main", "taxes"),
            Service("helper", "helper", AT, "warm", needs=("database",)),
            Service("application", "taxes", AT, "cold", Ready("http://${host.address}:8202/readyz"),
                    needs=("helper",)),
            HAProxy("door", {"home": ("pa1",), "embassy": ("pb1",)}, "taxes", needs=("application",)),
        ),
        depends_on=("citizens",),
        done_when=DoneWhen(http=(DoneHttp("http://taxes.example/", from_=("vantage",)),)),
    )  # fmt: skip


def _archive() -> Runbook:
    """Documents, read-only first."""
    places = {
        site: FilesAt(hosts[0], "/srv/docs/${site.name}", "/srv/published", "replicator", "/srv/as-of")
        for site, hosts in AT.items()
    }
    return Runbook(
        "archive", "Chancellery", "Promulgation Act", 2, GOALS,
        named(
            Files("documents", places, "/etc/key.pub"),
            Service("application", "archive", AT, "warm", Ready("http://${host.address}:8203/readyz"),
                    needs=("documents",)),
        ),
        depends_on=("names",),
        modes=("read-only", "full"),
        steps=(
            OwnStep("see the index", "service.status", 5_000, "none-needed", {"host": "w1", "unit": "index"},
                    after=Stage.COMMIT),
        ),
        done_when=DoneWhen(http=(DoneHttp("http://archive.example/"),)),
    )  # fmt: skip


def _post() -> Runbook:
    """Nothing but people."""
    return Runbook(
        "post", "Post", "", 3, GOALS,
        named(Manual("vans", {Stage.START: "send the vans from ${to.name}"})),
        depends_on=("citizens",),
    )  # fmt: skip
