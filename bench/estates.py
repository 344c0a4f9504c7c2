"""Decides what a large estate looks like: services like the lab's, ten to a cluster, as YAML files.

Real component types and nothing else, so that what is loaded and compiled here is what a state's own
runbooks would be.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.core.groups import GroupState

SERVICES_PER_CLUSTER = 10
LIKE_THE_ISSUE = 1_000  # services; about twenty steps each
SITES = {"home": ("192.0.2", "h"), "embassy": ("198.51.100", "e")}
RECORDS = ("www", "api", "forms", "archive")

ESTATE_HEAD = """\
apiVersion: continuity/v1
kind: Estate
name: Large
sites:
  home: {role: home, jurisdiction: EX, networks: [192.0.2.0/24]}
  embassy: {role: embassy, jurisdiction: LU, networks: [198.51.100.0/24]}
  vantage: {role: observer, jurisdiction: FI, networks: [203.0.113.0/24]}
"""


def write(folder: Path, services: int) -> Path:
    """Write an estate of this many services; returns the path of its estate.yaml."""
    runbooks = folder / "runbooks"
    runbooks.mkdir(parents=True)
    estate = folder / "estate.yaml"
    clusters = -(-services // SERVICES_PER_CLUSTER)
    estate.write_text(ESTATE_HEAD + _groups(services) + _parts(clusters), encoding="utf-8")
    for number in range(services):
        (runbooks / f"{service_name(number)}.yaml").write_text(_runbook(number), encoding="utf-8")
    return estate


def states(services: int) -> dict[str, GroupState]:
    """Every group at home, protected, at epoch 3."""
    names = [_group_name(cluster) for cluster in range(-(-services // SERVICES_PER_CLUSTER))]
    return {name: GroupState(name, "home", 3, "protected", adopted=True) for name in names}


def service_name(number: int) -> str:
    return f"register-{number:04}"


def _group_name(cluster: int) -> str:
    return f"group-{cluster:03}"


def _groups(services: int) -> str:
    lines = ["groups:"]
    for cluster, first in enumerate(range(0, services, SERVICES_PER_CLUSTER)):
        members = [service_name(n) for n in range(first, min(services, first + SERVICES_PER_CLUSTER))]
        lines.append(f"  {_group_name(cluster)}: {{services: [{', '.join(members)}]}}")
    return "\n".join(lines) + "\n"


def _parts(clusters: int) -> str:
    """Hosts, clusters, proxies and name servers: two application hosts and one database host a cluster."""
    hosts, proxies, databases = ["hosts:"], ["proxies:"], ["clusters:"]
    for number in range(clusters):
        for site, (network, letter) in SITES.items():
            for kind, place in (("d", 0), ("a", 1), ("b", 2)):
                host = f"{letter}{kind}{number:03}"
                address = f"{network}.{(number * 3 + place) % 250 + 1}"
                hosts.append(
                    f"  {host}: {{site: {site}, address: {address}, run-directory: /run/continuity, manager: "
                    f'{{type: supervisor, url: "http://{address}:9001/", user: continuity, '
                    f"password: secret://file/supervisor}}}}"
                )
                if kind != "d":
                    proxies.append(
                        f"  p-{host}: {{host: {host}, socket: /run/haproxy/admin.sock, config: "
                        f"/etc/haproxy/haproxy.cfg, state-file: /var/lib/haproxy/state, "
                        f"epoch-file: /var/lib/haproxy/epoch, front-address: {address}}}"
                    )
        databases.append(CLUSTER.format(number=number))
    return "\n".join([*hosts, *databases, *proxies]) + "\n" + PARTS_END


CLUSTER = """\
  db-{number:03}:
    type: postgresql
    members: {{home: [hd{number:03}], embassy: [ed{number:03}]}}
    data-directory: /var/lib/postgresql/data
    config-directory: /etc/postgresql
    evidence-directory: /var/lib/postgresql/evidence
    bin-directory: /usr/lib/postgresql/17/bin
    unit: postgresql
    tls: {{mode: verify-full, ca: /etc/ssl/state-ca.pem}}
    roles:
      control: {{user: continuity, password: secret://file/pg-control}}
      replication: {{user: replicator, password: secret://file/pg-replication}}
      rewind: {{user: rewind, password: secret://file/pg-rewind}}"""

PARTS_END = """\
name-servers:
  nh: {site: home, address: 192.0.2.253}
  ne: {site: embassy, address: 198.51.100.253}
fences:
  home: [{proves: demoted, action: postgresql.stop}, {proves: site-lost, action: declare}]
  embassy: [{proves: demoted, action: postgresql.stop}, {proves: site-lost, action: declare}]
"""


def _runbook(number: int) -> str:
    cluster = number // SERVICES_PER_CLUSTER
    is_first = number % SERVICES_PER_CLUSTER == 0
    first = service_name(cluster * SERVICES_PER_CLUSTER)
    hosts = {site: [f"{letter}{kind}{cluster:03}" for kind in "ab"] for site, (_, letter) in SITES.items()}
    at = "{" + ", ".join(f"{site}: [{', '.join(names)}]" for site, names in hosts.items()) + "}"
    doors = (
        "{" + ", ".join(f"{s}: [{', '.join('p-' + n for n in names)}]" for s, names in hosts.items()) + "}"
    )
    name = service_name(number)
    records = "\n".join(
        f"      - {{name: {label}.{name}.example., type: A, ttl: 5s, proxy: front-door}}" for label in RECORDS
    )
    return RUNBOOK.format(
        name=name,
        depends="" if is_first else f"depends-on: [{first}]\n",
        tier=1 + number % 3,
        cluster=cluster,
        database=f"register_{number % SERVICES_PER_CLUSTER}",
        at=at,
        doors=doors,
        records=records,
        port=8200 + number % SERVICES_PER_CLUSTER,
    )


RUNBOOK = """\
apiVersion: continuity/v1
kind: Runbook
name: {name}
owner: Ministry of the Interior
legal-basis: "Registers Act, section 5"
tier: {tier}
objectives: {{rto: 15m, rpo: 30s, mtpd: 4h}}
{depends}
components:
  database: {{type: postgresql, cluster: db-{cluster:03}, database: {database}}}
  application:
    type: service
    needs: [database]
    unit: {name}
    standby: warm
    at: {at}
    ready: {{http: "http://${{host.address}}:{port}/readyz", expect: {{status: 200}}}}
  front-door:
    type: haproxy
    needs: [application]
    proxies: {doors}
    backend: {name}
  name:
    type: dns
    needs: [front-door]
    servers: {{home: nh, embassy: ne}}
    key: secret://file/tsig
    records:
{records}

done-when:
  - http: {{url: "http://www.{name}.example/entries/1", json: {{site: "${{to.name}}"}}, from: [vantage]}}
  - writes: {{through: database}}
  - refuses-writes: {{at: "${{from.name}}"}}
"""
