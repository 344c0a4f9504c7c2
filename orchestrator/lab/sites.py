"""Decides how a lab comes up, what it looks like, and how it goes: all of it, whatever state it is in.

``up`` leaves a lab that is whole or none at all. ``down`` leaves no process, port or folder.
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from orchestrator.errors import ContinuityError, PermanentError
from orchestrator.lab import (
    claims,
    estate,
    layout,
    link,
    names,
    pki,
    postgres,
    postgres_tools,
    power,
    processes,
    proxy,
    schema,
    supervise,
)
from orchestrator.lab.layout import SITES, Lab, SiteName

Adopt = Callable[[Path], None]
Say = Callable[[str], None]

READY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0
POLL_SECONDS = 0.01
FIRST_DOCUMENTS = {
    "2026/001.txt": "Act on the Data Embassy\n",
    "2026/002.txt": "Regulation on the Continuity of Registers\n",
    "index.txt": "2026/001.txt\n2026/002.txt\n",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a lab shall be. ``owned``: it ends with this process (its left-overs are cleaned by the next)."""

    durability: Literal["remote", "local"] = "remote"
    number: int | None = None
    owned: bool = False
    gazette: bool = True


def up(wanted: Wanted, say: Say = lambda line: None, adopt: Adopt | None = None) -> Lab:
    """Bring up a lab and return when both sites are in service. Raises ContinuityError; then nothing is left."""
    tools = postgres_tools.find()
    how = postgres_tools.wrapping()
    haproxy = postgres_tools.find_haproxy()
    supervise.find_supervisor()
    estate.runbook_folder()
    lab, claim = _begin(wanted, tools.folder, haproxy, say)
    try:
        _make(lab, how, claim, say)
        if adopt is not None:
            say("adopting the groups: the log begins at home, epoch 1")
            adopt(lab.estate)
        owner = _myself() if wanted.owned else (0, 0)
        lab = replace(lab, state="up", owner_pid=owner[0], owner_started=owner[1])
        claims.register(lab)
    except BaseException:
        claim.socket.close()
        claims.remove(lab)
        raise
    finally:
        claim.socket.close()
    return lab


def _begin(wanted: Wanted, tools: str, haproxy: str, say: Say) -> tuple[Lab, claims.Claim]:
    with claims.locked():
        for number in claims.clean_left_overs():
            say(f"cleaned up what was left of lab {number}")
        claim = claims.claim(wanted.number)
        folder = layout.labs_folder() / str(claim.number)
        if folder.exists():  # nobody knows it any more
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700, parents=True)
        pid, started = _myself()
        lab = Lab(
            number=claim.number,
            folder=str(folder),
            durability=wanted.durability,
            owner_pid=pid,
            owner_started=started,
            boot=processes.boot_id(),
            postgres=tools,
            haproxy=haproxy,
        )
        claims.register(lab)
        return lab, claim


def _myself() -> tuple[int, int]:
    found = processes.look(os.getpid())
    assert found is not None
    return found.pid, found.started


def _make(lab: Lab, how: postgres_tools.Wrapping, claim: claims.Claim, say: Say) -> None:
    say(f"lab {lab.number}: certificates, passwords, configuration")
    pki.make(lab)
    for site in SITES:
        postgres.write_configuration(lab, site)
        postgres.write_role(lab, site, "home", synchronous=False)
        names.write_configuration(lab, site)
        proxy.write_configuration(lab, site)
        supervise.write_services(lab, site)
    _make_documents(lab)
    estate.write(lab)
    postgres_tools.write_wrappers(lab, how)
    _start_outside(lab, claim.socket)
    say("home: a new database")
    postgres.initialise(lab, "home")
    power.reset(lab, "home", "On")
    _wait_managed(lab, "home")
    with ThreadPoolExecutor(1) as beside:
        with postgres.wait_ready(lab, "home") as session:
            schema.install(lab, session)
        say("embassy: a base backup through the link")
        routed = beside.submit(proxy.route_at_first, lab, "home", "home")
        postgres.base_backup(lab, "embassy")
        power.reset(lab, "embassy", "On")
        _wait_managed(lab, "embassy")
        postgres.wait_ready(lab, "embassy").close()
        routed.result()
    postgres.wait_streaming(lab, "home")
    _set_durability(lab)
    proxy.route_at_first(lab, "embassy", "home")
    say("both sites: waiting until every service answers")
    wait_in_service(lab)
    if lab.durability == "remote":
        postgres.wait_told(lab, "home")


def _set_durability(lab: Lab) -> None:
    """From here a commit at home waits for the embassy, unless the lab is asynchronous."""
    if lab.durability == "local":
        return
    postgres.write_role(lab, "home", "home", synchronous=True)
    with postgres.connect(lab, "home", "postgres") as session:
        session.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not session.execute(
            "SELECT 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
        ).fetchone():
            if time.monotonic() > deadline:
                raise PermanentError("home's commits do not wait for the embassy")
            time.sleep(POLL_SECONDS)


def _make_documents(lab: Lab) -> None:
    """The gazette's first edition, published at home at epoch 1; the embassy's replicator fetches it."""
    from orchestrator.drivers import files_host
    from orchestrator.lab.gazette import Gazette

    private, public = pki.make_signing_key(lab.path / "pki")
    shutil.copy2(public, lab.estate.parent / public.name)
    for site in SITES:
        folder = lab.site(site).gazette
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy2(private, folder / private.name)
        shutil.copy2(public, folder / public.name)
    folder = lab.site("home").gazette
    gazette = Gazette({"site": "home", "folder": folder, "key_file": folder / private.name})
    gazette.publish_all({name: text.encode() for name, text in FIRST_DOCUMENTS.items()})
    said = files_host.publish(
        {
            "directory": str(folder / "current" / "documents"),
            "published": str(folder / "published"),
            "mode": "full",
            "epoch": 1,
            "site": "home",
            "run": schema.FIRST_RUN,
            "timeout_ms": 5000,
        }
    )
    if said["result"] != "done":
        raise PermanentError(f"the gazette cannot be published at home: {said['message']}")


def _start_outside(lab: Lab, claim: socket.socket) -> None:
    """Start the link and the power controller. The link keeps the lab's number claimed."""
    import json

    folder = lab.path / "outside"
    folder.mkdir(mode=0o700, exist_ok=True)
    layout.write_file(folder / "relay.json", json.dumps(link.relay_configuration(lab)) + "\n")
    for name, argument, kept in (
        ("relay", str(folder / "relay.json"), (claim.fileno(),)),
        ("power", lab.folder, ()),
    ):
        processes.spawn(
            [sys.executable, "-m", f"orchestrator.lab.{name}", argument],
            environment=supervise.environment(lab, "outside"),
            folder=folder,
            out=folder / f"{name}.log",
            kept=kept,
        )
    _wait_until("the link and the power controller", lambda: _outside_answers(lab), folder / "power.log")


def _outside_answers(lab: Lab) -> bool:
    from orchestrator.drivers import http

    try:
        link.order(lab, "status")
        return http.exchange("GET", f"{lab.power_url}{power.SYSTEMS}", timeout_seconds=1.0).status == 200
    except ContinuityError:
        return False


def _wait_until(what: str, is_so: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while not is_so():
        if time.monotonic() > deadline:
            end = log.read_text(encoding="utf-8", errors="replace")[-800:] if log.exists() else ""
            raise PermanentError(f"{what}: not in service after {READY_SECONDS_MAX:g} s\n{end}")
        time.sleep(POLL_SECONDS)


# --- what it looks like -----------------------------------------------------------------------


def warm_services(site: SiteName) -> list[str]:
    """The services that run at a site when it is not the active one, and always answer."""
    return [name for name in layout.SERVICE_PORTS if site == "home" or name != "land-register"]


def wait_in_service(lab: Lab) -> None:
    """Wait until every service that runs by itself answers, and the front door at home leads to it."""
    for site in SITES:
        logs = lab.site(site).logs
        for service in warm_services(site):
            answers = functools.partial(_is_ready, lab, site, service)
            _wait_until(f"{service} at {site}", answers, logs / f"{service}.log")
        _wait_until(
            f"name server at {site}", functools.partial(_resolves, lab, site), logs / "nameserver.log"
        )
    front = f"http://{lab.address('home')}:{layout.FRONT_PORT}/readyz"
    for service, host in layout.SERVICE_HOSTS.items():
        answers = functools.partial(_is_open, front, host)
        _wait_until(f"front door to {service}", answers, lab.site("home").logs / "haproxy.log")


def _wait_managed(lab: Lab, site: SiteName) -> None:
    """Wait until a site's process manager answers. Asked, it starts its programs at once, and not a second later."""
    answers = functools.partial(_answers, f"http://{lab.address(site)}:{layout.SUPERVISOR_PORT}/")
    _wait_until(f"supervisor at {site}", answers, lab.site(site).logs / "supervisord.log")


def wait_powered(lab: Lab, site: SiteName, *, with_database: bool) -> None:
    """Wait until a site that was given power answers: its process manager, name server, proxy, database."""
    _wait_managed(lab, site)
    logs, front = lab.site(site).logs, f"http://{lab.address(site)}:{layout.FRONT_PORT}/"
    _wait_until(f"proxy at {site}", functools.partial(_answers, front), logs / "haproxy.log")
    _wait_until(f"name server at {site}", functools.partial(_resolves, lab, site), logs / "nameserver.log")
    if with_database:
        postgres.wait_ready(lab, site).close()


def _answers(url: str) -> bool:
    from orchestrator.drivers import http

    try:
        return http.exchange("GET", url, timeout_seconds=1.0).status > 0
    except ContinuityError:
        return False


def _is_open(url: str, host: str) -> bool:
    from orchestrator.drivers import http

    try:
        return http.exchange("GET", url, headers={"Host": host}, timeout_seconds=1.0).status == 200
    except ContinuityError:
        return False


def _is_ready(lab: Lab, site: SiteName, service: str) -> bool:
    return _ready(lab, site, service) is not None


def _ready(lab: Lab, site: SiteName, service: str) -> dict[str, Any] | None:
    import json

    from orchestrator.drivers import http

    try:
        url = f"http://{lab.address(site)}:{layout.SERVICE_PORTS[service]}/readyz"
        answer = http.exchange("GET", url, timeout_seconds=1.0)
        found: dict[str, Any] = json.loads(answer.body)
        return found if answer.status == 200 else None
    except (ContinuityError, ValueError):
        return None


def _resolves(lab: Lab, site: SiteName) -> bool:
    return bool(_addresses(lab, site, "population.example"))


def _addresses(lab: Lab, site: SiteName, name: str) -> list[str]:
    from orchestrator.core.model import NameServer
    from orchestrator.drivers import dns

    server = NameServer(layout.NAME_SERVER_NAMES[site], site, lab.address(site), layout.DNS_PORT)
    try:
        return list(dns.query(server, name, "A", timeout_seconds=0.5).values)
    except ContinuityError:
        return []


def status(lab: Lab) -> dict[str, Any]:
    """How a lab is, seen from outside and without changing anything."""
    try:
        way: dict[str, Any] = link.order(lab, "status")
    except ContinuityError as error:
        way = {"link": "unknown", "error": str(error)}
    return {
        "number": lab.number,
        "folder": lab.folder,
        "estate": str(lab.estate),
        "state": lab.state,
        "durability": lab.durability,
        "link": way,
        "sites": {site: _site_status(lab, site) for site in SITES},
        "load": load_processes(lab),
    }


def load_processes(lab: Lab) -> list[int]:
    return list(processes.of_part(lab.mark("load"), lab.load_folder))


def _site_status(lab: Lab, site: SiteName) -> dict[str, Any]:
    members = processes.of_part(lab.mark(site), lab.site(site).path)
    stopped = sum(process.state in "Tt" for process in members.values())
    state = "gone" if not members else "hung" if stopped == len(members) else "running"
    found: dict[str, Any] = {
        "address": lab.address(site),
        "state": state,
        "processes": len(members),
        "front_door": f"http://{lab.address(site)}:{layout.FRONT_PORT}",
    }
    if state == "running":
        found["services"] = {service: _ready(lab, site, service) for service in layout.SERVICE_PORTS}
        found["names"] = {host: _addresses(lab, site, host) for host in layout.SERVICE_HOSTS.values()}
    return found


def active_site(lab: Lab) -> SiteName | None:
    """The site whose database is a primary and carries its own name in the epoch row; None if not exactly one."""
    import psycopg

    found: list[SiteName] = []
    for site in SITES:
        try:
            with postgres.connect(lab, site, "population", options="-c statement_timeout=2000") as session:
                row = session.execute(
                    "SELECT site FROM continuity.writer WHERE NOT pg_is_in_recovery()"
                ).fetchone()
        except psycopg.Error:
            continue
        if row and row[0] == site:
            found.append(site)
    return found[0] if len(found) == 1 else None


# --- how it goes ------------------------------------------------------------------------------


def down(lab: Lab, *, keep: bool = False) -> int:
    """End every process of a lab and delete its folder (``keep``: not the folder). Returns processes ended."""
    claims.register(replace(lab, state="stopping"))
    before = len(processes.of_part(lab.mark(""), lab.path))
    if keep:
        claims.end(lab)
        claims.unregister(lab)
    else:
        claims.remove(lab)
    return before
