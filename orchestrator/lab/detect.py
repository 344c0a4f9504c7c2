"""Decides when somebody outside both sites has noticed that the front door no longer serves."""

from __future__ import annotations

import time

from orchestrator.core.model import NameServer
from orchestrator.errors import PermanentError
from orchestrator.lab import layout
from orchestrator.lab.layout import NAME_SERVER_NAMES, SERVICE_HOSTS, SITES, Lab

INTERVAL_SECONDS = 0.1
ANSWER_SECONDS_MAX = 0.25
BAD_IN_A_ROW = 3
NOTICED_SECONDS_MAX = 30.0


def wait_for_an_outage(lab: Lab, service: str = "population-register") -> int:
    """Ask as clients do, ten times a second; when three answers in a row are bad, return the monotonic time.

    PermanentError when the service goes on answering.
    """
    from orchestrator.bootstrap.secrets import FolderSecrets
    from orchestrator.drivers.hosts import LocalHosts
    from orchestrator.probes.http import HttpProbe, HttpProbeParams

    servers = tuple(
        NameServer(NAME_SERVER_NAMES[site], site, lab.address(site), layout.DNS_PORT)
        for site in reversed(SITES)
    )
    url = f"http://{SERVICE_HOSTS[service]}:{layout.FRONT_PORT}/readyz"
    asked = HttpProbeParams(url, resolve_at=servers)
    probe, hosts, secrets = HttpProbe(), LocalHosts(), FolderSecrets(lab.secrets)
    deadline = time.monotonic() + NOTICED_SECONDS_MAX
    bad = 0
    while bad < BAD_IN_A_ROW:
        begun = time.monotonic()
        if begun > deadline:
            raise PermanentError(f"{service} goes on answering: nobody would notice an outage")
        report = probe.look(asked, timeout_seconds=ANSWER_SECONDS_MAX, hosts=hosts, secrets=secrets)
        bad = 0 if report.verdict in ("up", "degraded") else bad + 1
        if bad < BAD_IN_A_ROW:
            time.sleep(max(0.0, INTERVAL_SECONDS - (time.monotonic() - begun)))
    return time.monotonic_ns()
