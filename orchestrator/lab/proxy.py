"""Decides each site's HAProxy configuration in the lab, and its first routing; must never route later."""

from __future__ import annotations

import time

from orchestrator.core.model import Proxy
from orchestrator.drivers import haproxy, haproxy_host
from orchestrator.errors import PermanentError
from orchestrator.lab import layout, schema
from orchestrator.lab.layout import (
    HOST_NAMES,
    PROXY_NAMES,
    SERVICE_HOSTS,
    SERVICE_PORTS,
    Lab,
    SiteName,
    other,
    write_file,
)

READY_SECONDS_MAX = 10.0
ROUTE_SECONDS_MAX = 5.0
POLL_SECONDS = 0.01


def proxy(lab: Lab, site: SiteName) -> Proxy:
    """The proxy as the estate declares it."""
    folder = lab.site(site).haproxy
    return Proxy(
        name=PROXY_NAMES[site],
        host=HOST_NAMES[site],
        socket=str(folder / "admin.sock"),
        config=str(folder / "haproxy.cfg"),
        state_file=str(folder / "server-state"),
        epoch_file=str(folder / "epoch"),
        front_address=lab.address(site),
    )


def write_configuration(lab: Lab, site: SiteName) -> None:
    """``here``: this site's application. ``there``: the other site's, met through the link."""
    declared = proxy(lab, site)
    routes = [(SERVICE_HOSTS[service], service) for service in SERVICE_PORTS]
    parts = [
        haproxy.render_global(declared),
        haproxy.render_frontend("front", f"{lab.address(site)}:{layout.FRONT_PORT}", routes),
    ]
    parts += [
        haproxy.render_backend(service, f"{lab.address(site)}:{port}", f"{lab.way_to(other(site))}:{port}")
        for service, port in SERVICE_PORTS.items()
    ]
    write_file(lab.site(site).haproxy / "haproxy.cfg", "\n".join(parts))


def route_at_first(lab: Lab, site: SiteName, active: SiteName) -> None:
    """Route every service to the active site at epoch 1. PermanentError when the proxy will not."""
    declared = proxy(lab, site)
    deadline = time.monotonic() + READY_SECONDS_MAX
    for service in SERVICE_PORTS:
        arguments = haproxy.arguments(
            declared, service, here=site == active, site=active, epoch=1, run=schema.FIRST_RUN
        )
        while True:
            said = haproxy_host.route({**arguments, "timeout_ms": int(ROUTE_SECONDS_MAX * 1000)})
            if said["result"] == "done":
                break
            if said["result"] != "failed" or time.monotonic() > deadline:
                raise PermanentError(f"proxy at {site}: {said['message']}")
            time.sleep(POLL_SECONDS)
