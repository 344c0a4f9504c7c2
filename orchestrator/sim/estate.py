"""Decides the estate that simulated nights are about: two sites, one shared cluster, documents, names
and proxies, all in memory; must never read a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.core.model import (
    Cluster,
    Credentials,
    Estate,
    Fence,
    Group,
    Host,
    NameServer,
    ProofKind,
    Proxy,
    Site,
)
from orchestrator.core.plan import Bound, Parts
from orchestrator.core.values import Json
from orchestrator.errors import InputError
from orchestrator.sim.adapters import KINDS

CLUSTER = "registers-db"
DATABASES = ("population", "land")


class SimulatedCatalog:
    """``ports.Catalog`` over the simulated kinds."""

    def kinds(self) -> Iterable[str]:
        return KINDS.keys()

    def bind(self, action: str, arguments: Mapping[str, Json], parts: Parts) -> Bound:
        kind = KINDS.get(action)
        if kind is None:
            raise InputError(f"the simulator has no action {action!r}")
        told = f"{action} {' '.join(f'{k}={v}' for k, v in sorted(arguments.items()))}"
        undo = (f"undo {told}",) if kind.take_back else ()
        return Bound(action, 1, arguments, (told,), (), kind.undo, undo, kind.idempotent, kind.mutates)


def _power(host: str) -> Fence:
    address = f"http://power.example/{host}"
    wanted: dict[str, Json] = {
        "method": "POST",
        "url": f"{address}/reset",
        "json": {"ResetType": "ForceOff"},
        "expect_status": 204,
        "check": {"url": address, "status": 200, "json": {"PowerState": "Off"}},
    }
    return Fence(ProofKind.POWER_OFF, "http.request", host, wanted)


def estate() -> Estate:
    """Home with two database hosts, the embassy with one; power at home can be cut from outside."""
    someone = Credentials("someone", "secret://env/NONE")
    hosts = {"h1": "home", "h2": "home", "e1": "embassy"}
    return Estate(
        "simulated",
        sites={
            "home": Site("home", "home"),
            "embassy": Site("embassy", "embassy"),
            "vantage": Site("vantage", "observer"),
        },
        hosts={name: Host(name, site, f"{name}.example") for name, site in hosts.items()},
        clusters={
            CLUSTER: Cluster(
                CLUSTER,
                {"home": ("h1", "h2"), "embassy": ("e1",)},
                "data",
                "config",
                "bin",
                "postgresql",
                {"control": someone, "replication": someone, "rewind": someone},
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
        fences={
            "home": (_power("h1"), _power("h2"), Fence(ProofKind.SITE_LOST, "declare")),
            "embassy": (Fence(ProofKind.SITE_LOST, "declare"),),
        },
        groups={"registers": Group("registers", ("population-register", "land-register"))},
    )
