"""A thousand services, twenty thousand steps: compiled in time that grows with their number."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable

import pytest

from orchestrator.components.dns import Dns, Record
from orchestrator.components.haproxy import HAProxy
from orchestrator.components.postgresql import PostgreSQL
from orchestrator.components.service import Ready, Service
from orchestrator.core.model import (
    Cluster,
    Credentials,
    DoneHttp,
    DoneRefuses,
    DoneWhen,
    DoneWrites,
    Estate,
    Fence,
    Host,
    NameServer,
    Objectives,
    ProofKind,
    Proxy,
    Runbook,
    Site,
)
from orchestrator.core.values import Json
from orchestrator.planning.codec import plan_to_json
from orchestrator.planning.flow import expectations, waves
from orchestrator.planning.render import plan_text
from tests.unit.planning.estates import FAILBACK, FAILOVER, SWITCHOVER, Books, Night, named, plan_of

SECRET = "secret://file/x"
SERVICES = 1_000
GROWTH_MAX = 20.0  # ten times the services: ten times the work, with room for a noisy machine
ROUNDS = 2
OFF: dict[str, Json] = {
    "argv": ["off", "${host.name}"],
    "check": {"argv": ["is-on", "${host.name}"], "expect": "no"},
}


def estate_of(count: int) -> Books:
    """Services with a cluster each, in chains of ten that depend on each other."""
    someone = Credentials("someone", SECRET)
    hosts, clusters, books = {}, {}, {}
    for number in range(count):
        at = {"home": (f"h{number}",), "embassy": (f"e{number}",)}
        for site, (name,) in at.items():
            net = 1 if site == "home" else 2
            hosts[name] = Host(name, site, f"10.{net}.{number // 250}.{number % 250 + 1}")
        clusters[f"db{number}"] = Cluster(
            f"db{number}", at, "/srv/${host.name}", "/etc/pg", "/usr/bin", "postgresql",
            {"control": someone, "replication": someone, "rewind": someone},
        )  # fmt: skip
        books[f"s{number}"] = _runbook(number, at)
    estate = Estate(
        "big",
        {"home": Site("home", "home"), "embassy": Site("embassy"), "vantage": Site("vantage", "observer")},
        hosts, clusters,
        {"ph": Proxy("ph", "h0", "s", "c", "st", "ep", "192.0.2.1"),
         "pe": Proxy("pe", "e0", "s", "c", "st", "ep", "198.51.100.1")},
        {"nh": NameServer("nh", "home", "192.0.2.2"), "ne": NameServer("ne", "embassy", "198.51.100.2")},
        {"home": (Fence(ProofKind.POWER_OFF, "command.run", "e0", OFF),)},
    )  # fmt: skip
    return Books(estate, books)


def _runbook(number: int, at: dict[str, tuple[str, ...]]) -> Runbook:
    name = f"s{number}"
    return Runbook(
        name, "owner", "law", 1, Objectives(1_000, 1_000, 1_000),
        named(
            PostgreSQL("database", f"db{number}", "main"),
            Service("application", "unit", at, "cold", Ready("http://${host.address}:8201/"), needs=("database",)),
            HAProxy("door", {"home": ("ph",), "embassy": ("pe",)}, name, needs=("application",)),
            Dns("name", {"home": "nh", "embassy": "ne"}, SECRET, (Record(f"{name}.example.", 5_000, proxy="door"),),
                needs=("door",)),
        ),
        depends_on=(f"s{number - 1}",) if number % 10 else (),
        done_when=DoneWhen(
            http=(DoneHttp(f"http://{name}.example/", json={"site": "${to.name}"}, from_=("vantage",)),),
            writes=(DoneWrites("database"),),
            refuses_writes=(DoneRefuses("${from.name}"),),
        ),
    )  # fmt: skip


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The least processor time of some rounds: neighbours on the machine do not count."""
    least = float("inf")
    for _ in range(rounds):
        begin = time.process_time()
        work()
        least = min(least, time.process_time() - begin)
    return least


@pytest.mark.slow
@pytest.mark.parametrize(
    "night", [FAILOVER, SWITCHOVER, FAILBACK], ids=["failover", "switchover", "failback"]
)
def test_compiling_grows_with_the_number_of_steps(night: Night) -> None:
    small, big = estate_of(SERVICES // 10), estate_of(SERVICES)
    plan = plan_of(big, night)
    assert len(plan.steps) >= 20_000
    steps = plan_to_json(plan)["steps"]

    def floor() -> str:
        text = json.dumps(steps, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    least, tenth, bare = (
        seconds(lambda: plan_of(big, night)),
        seconds(lambda: plan_of(small, night)),
        seconds(floor),
    )
    print(
        f"\n{len(plan.steps)} steps: compiled in {least:.2f} s of processor time, {least / bare:.1f} × their"
        f" canonical JSON and hash ({bare:.2f} s), {least / tenth:.1f} × a tenth of them ({tenth:.3f} s)"
    )
    assert least / tenth < GROWTH_MAX


@pytest.mark.slow
def test_telling_a_big_plan_grows_with_it_too() -> None:
    small, big = plan_of(estate_of(SERVICES // 10), FAILOVER), plan_of(estate_of(SERVICES), FAILOVER)
    for what in (waves, lambda plan: expectations(plan, {}), lambda plan: plan_text(plan, {}, (), None)):
        tenth, whole = seconds(lambda what=what: what(small)), seconds(lambda what=what: what(big))  # type: ignore[misc]
        print(f"\n{whole:.2f} s for {len(big.steps)} steps, {whole / tenth:.1f} × a tenth of them")
        assert whole / tenth < 2 * GROWTH_MAX
