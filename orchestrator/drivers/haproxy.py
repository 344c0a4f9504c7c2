"""Decides what continuity needs of a HAProxy configuration and what it asks of a proxy's host.

The change itself is ``haproxy_host.route``, one command on the proxy's host; it must never be made
in several commands from here. Each backend has the servers ``here`` (this site's application) and
``there`` (the other site's): one of them is ready, the other in maintenance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.core.model import Proxy
from orchestrator.core.values import Json
from orchestrator.drivers import haproxy_host


def required_configuration(proxy: Proxy, backend: str) -> str:
    """The lines that a configuration must hold so that routing survives a reload and a restart."""
    return f"""global
  stats socket {proxy.socket} mode 600 level admin
  server-state-file {proxy.state_file}
defaults
  load-server-state-from-file global
backend {backend}
  server here ADDRESS:PORT disabled
  server there ADDRESS:PORT disabled
"""


def configuration_problems(text: str, proxy: Proxy, backend: str) -> tuple[str, ...]:
    """What of ``required_configuration`` a configuration's text lacks; empty when nothing."""
    return tuple(haproxy_host.configuration_problems(text, proxy.state_file, backend))


def render_global(proxy: Proxy) -> str:
    """The sections ``global`` and ``defaults``: a short connect time-out, because retries wait for it."""
    return f"""global
  stats socket {proxy.socket} mode 600 level admin
  server-state-file {proxy.state_file}
defaults
  mode http
  timeout connect 50ms
  timeout client 10s
  timeout server 10s
  timeout queue 5s
  load-server-state-from-file global
"""


def render_frontend(name: str, bind: str, routes: Sequence[tuple[str, str]]) -> str:
    """A frontend on ``bind`` (ADDRESS:PORT). ``routes``: (Host header, backend); the first is the default."""
    lines = [f"frontend {name}", f"  bind {bind}"]
    lines += [f"  use_backend {backend} if {{ hdr(host),field(1,:) -i {host} }}" for host, backend in routes]
    lines.append(f"  default_backend {routes[0][1]}")
    return "\n".join(lines) + "\n"


def render_backend(name: str, here: str, there: str) -> str:
    """A backend whose applications keep the contract 503 = surely not done, 500 = nobody knows.

    What an application surely refused is sent again until the other site takes it, so a planned
    switchover loses no request (`retries` × the application's pacing of 10 ms bounds the pause).
    Both servers start disabled: without its saved state a proxy routes nowhere rather than anywhere.
    """
    return f"""backend {name}
  option redispatch 1
  option http-buffer-request
  retry-on conn-failure 503
  retries 800
  server here {here} disabled
  server there {there} disabled
"""


def arguments(
    proxy: Proxy,
    backend: str,
    *,
    here: bool,
    site: str,
    epoch: int,
    run: str,
    undo: bool = False,
    end_sessions: bool = False,
) -> Mapping[str, Json]:
    """What ``haproxy_host.route`` and ``haproxy_host.look`` take."""
    return {
        "socket": proxy.socket,
        "master_socket": proxy.master_socket,
        "config": proxy.config,
        "state_file": proxy.state_file,
        "epoch_file": proxy.epoch_file,
        "backend": backend,
        "here": here,
        "site": site,
        "epoch": epoch,
        "run": run,
        "undo": undo,
        "end_sessions": end_sessions,
    }
