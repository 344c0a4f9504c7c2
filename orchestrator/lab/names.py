"""Decides the lab's zone: what each name server knows at first, and how it is configured."""

from __future__ import annotations

import json

from orchestrator.drivers import dns
from orchestrator.lab import layout, schema
from orchestrator.lab.layout import (
    SERVICE_HOSTS,
    SITES,
    TSIG_ALGORITHM,
    TSIG_NAME,
    ZONE,
    Lab,
    SiteName,
    write_file,
)

TTL_SECONDS = 5


def write_configuration(lab: Lab, site: SiteName) -> None:
    """Write the zone as it is at first and the server's configuration; both servers hold the whole zone."""
    folder = lab.site(site).nameserver
    write_file(folder / "initial.zone", initial_zone(lab))
    write_file(folder / "key", lab.secret("tsig") + "\n")
    config = {
        "address": lab.address(site),
        "port": layout.DNS_PORT,
        "zone": ZONE,
        "initial_file": str(folder / "initial.zone"),
        "zone_file": str(folder / "zone"),
        "refuse_file": str(folder / "refuse-updates"),
        "key_name": TSIG_NAME,
        "key_algorithm": TSIG_ALGORITHM,
        "key_file": str(folder / "key"),
    }
    write_file(lab.site(site).run / "nameserver.json", json.dumps(config, indent=1) + "\n")


def initial_zone(lab: Lab) -> str:
    """Every service at home, epoch 1."""
    claim = dns.claim(1, "home", schema.FIRST_RUN).text
    lines = [
        f"$TTL {TTL_SECONDS}",
        f"{ZONE} IN SOA ns-embassy.{ZONE} hostmaster.{ZONE} 1 5 5 5 5",
        *(f"{ZONE} IN NS ns-{site}.{ZONE}" for site in SITES),
        *(f"ns-{site}.{ZONE} IN A {lab.address(site)}" for site in SITES),
    ]
    for host in SERVICE_HOSTS.values():
        lines += [f"{host}. IN A {lab.address('home')}", f'{dns.claim_name(host)} IN TXT "{claim}"']
    return "\n".join(lines) + "\n"
