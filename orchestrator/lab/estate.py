"""Decides how the lab is declared to continuity: an ordinary estate, with nothing that a real one could not say.

The estate, its secrets and copies of the project's runbooks stand together in ``LAB/estate``, outside both
sites; its log will be ``LAB/estate/.continuity/journal.db``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from orchestrator.errors import RefusedError
from orchestrator.lab import layout, power, proxy, supervise
from orchestrator.lab.layout import (
    HOST_NAMES,
    NAME_SERVER_NAMES,
    PROXY_NAMES,
    SITES,
    Lab,
    SiteName,
    write_file,
)
from orchestrator.lab.postgres import CONTROL, REPLICATION, REWIND

HEADER = "# A lab's estate, written by `continuity lab up`. Everything in it may be changed and tried.\n"
REGISTER_SERVICES = ("population-register", "land-register")


def runbook_folder() -> Path:
    """Where the project's runbooks stand: beside the package in a clone. RefusedError when they do not."""
    folder = Path(__file__).resolve().parents[2] / "runbooks"
    if not list(folder.glob("*.yaml")):
        raise RefusedError(
            f"there are no runbooks in {folder}: the lab runs from a clone of the project", ("make setup",)
        )
    return folder


def write(lab: Lab) -> None:
    """Write estate.yaml and copy the runbooks beside it. The secrets are there already."""
    import yaml

    text = yaml.safe_dump(document(lab), sort_keys=False, allow_unicode=True, width=110)
    write_file(lab.estate, HEADER + text)
    target = lab.estate.parent / "runbooks"
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for runbook in sorted(runbook_folder().glob("*.yaml")):
        shutil.copyfile(runbook, target / runbook.name)


def document(lab: Lab) -> dict[str, Any]:
    """The estate as plain values, in the order people read it."""
    return {
        "apiVersion": "continuity/v1",
        "kind": "Estate",
        "name": f"Lab {lab.number}",
        "sites": {
            "home": {"role": "home", "jurisdiction": "EX", "networks": [f"127.{lab.number}.1.0/24"]},
            "embassy": {"role": "embassy", "jurisdiction": "LU", "networks": [f"127.{lab.number}.2.0/24"]},
            "vantage": {"role": "observer", "jurisdiction": "FI", "networks": [f"127.{lab.number}.3.0/24"]},
        },
        "groups": {"registers": {"services": list(REGISTER_SERVICES)}},
        "hosts": {HOST_NAMES[site]: _host(lab, site) for site in SITES},
        "clusters": {"registers-db": _cluster(lab)},
        "proxies": {PROXY_NAMES[site]: _proxy(lab, site) for site in SITES},
        "name-servers": {
            NAME_SERVER_NAMES[site]: {
                "site": site,
                "address": lab.control_address(site),
                "port": layout.DNS_PORT,
            }
            for site in SITES
        },
        "fences": {site: _fences(lab, site) for site in SITES},
        "policies": {"fence-budget": "5s", "proof-age": "5s"},
    }


def _host(lab: Lab, site: SiteName) -> dict[str, Any]:
    url = f"http://{lab.control_address(site)}:{layout.SUPERVISOR_PORT}/"
    return {
        "site": site,
        "address": lab.control_address(site),
        "via": "local",
        "reach": url,
        "run-directory": str(lab.site(site).run),
        "manager": {
            "type": "supervisor",
            "url": url,
            "user": supervise.USER,
            "password": "secret://file/supervisor",
        },
    }


def _cluster(lab: Lab) -> dict[str, Any]:
    base = f"{lab.folder}/${{host.site}}/postgresql"
    return {
        "type": "postgresql",
        "members": {site: [HOST_NAMES[site]] for site in SITES},
        "port": layout.POSTGRES_PORT,
        "data-directory": f"{base}/data",
        "config-directory": f"{base}/config",
        "evidence-directory": f"{base}/evidence",
        "bin-directory": str(lab.bin),
        "unit": "postgresql",
        "tls": {"mode": "verify-full", "ca": str(lab.ca)},
        "roles": {
            "control": {"user": CONTROL, "password": "secret://file/pg-control"},
            "replication": {"user": REPLICATION, "password": "secret://file/pg-replication"},
            "rewind": {"user": REWIND, "password": "secret://file/pg-rewind"},
        },
        "replicate-from": {
            site: {"address": lab.way_to(site), "port": layout.POSTGRES_PORT} for site in SITES
        },
        "archiver-absent-at": list(SITES),
        "limits": {"lag": "10s", "backlog": "64MiB"},
        "durability": lab.durability,
    }


def _proxy(lab: Lab, site: SiteName) -> dict[str, Any]:
    declared = proxy.proxy(lab, site)
    return {
        "host": declared.host,
        "socket": declared.socket,
        "config": declared.config,
        "state-file": declared.state_file,
        "epoch-file": declared.epoch_file,
        "front-address": declared.front_address,
    }


def _fences(lab: Lab, site: SiteName) -> list[dict[str, Any]]:
    """Ask the database to stop; cut the power by a controller outside the site; let people declare it lost."""
    system = f"{lab.power_url}{power.SYSTEMS}/{site}"
    return [
        {"proves": "demoted", "action": "postgresql.stop"},
        {
            "proves": "power-off",
            "action": "http.request",
            "with": {
                "method": "POST",
                "url": f"{system}/{power.ACTION}",
                "json": {"ResetType": "ForceOff"},
                "expect_status": 200,
                "check": {"url": system, "status": 200, "json": {"PowerState": "Off"}},
            },
        },
        {"proves": "site-lost", "action": "declare"},
    ]
