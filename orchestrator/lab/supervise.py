"""Decides what runs at a site and starts the site: a real supervisord with one program per service.

Whatever runs at a site is started by its supervisord and carries the site's mark, so all of it can be found
when the site is to be lost. It must never start anything at a site whose power is off (``power.py`` asks).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.lab import layout, postgres, processes
from orchestrator.lab.layout import DATABASES, MARK, SERVICE_PORTS, Lab, SiteName, other, write_file

USER = "continuity"
HELD_WHEN_NOT_ACTIVE = ("postgresql",)  # the registers refuse by themselves, a primary would not


@dataclass(frozen=True, slots=True)
class Program:
    """One unit. ``restarts``: started again when it ends by itself."""

    name: str
    command: tuple[str, ...]
    autostart: bool = True
    restarts: bool = True
    stop_signal: str = "TERM"


def programs(lab: Lab, site: SiteName) -> list[Program]:
    """The units of a site. Cold abroad: land-register; the replicator runs where documents are received."""
    paths = lab.site(site)
    abroad = site == "embassy"

    def module(name: str, config: str) -> tuple[str, ...]:
        return (sys.executable, "-m", f"orchestrator.lab.{name}", str(paths.run / config))

    return [
        Program(
            "postgresql",
            (
                *(str(lab.bin / "postgres"), "-D", str(paths.data)),
                *("-c", f"config_file={paths.config / 'postgresql.conf'}"),
            ),
            restarts=False,
            stop_signal="INT",
        ),
        Program("haproxy", (lab.haproxy, "-db", "-f", str(paths.haproxy / "haproxy.cfg"))),
        Program("nameserver", module("nameserver", "nameserver.json")),
        Program("population-register", module("registry", "population-register.json")),
        Program("land-register", module("registry", "land-register.json"), autostart=not abroad),
        Program("state-gazette", module("gazette", "state-gazette.json")),
        Program("gazette-replicator", module("replicator", "gazette-replicator.json"), autostart=abroad),
    ]


def write_configuration(lab: Lab, site: SiteName, held: Collection[str] = ()) -> None:
    """Write supervisord's file. ``held``: programs that are there but not started by themselves."""
    paths = lab.site(site)
    user = "user=root\n" if os.getuid() == 0 else ""
    text = f"""[supervisord]
nodaemon=true
logfile={paths.logs}/supervisord.log
pidfile={paths.run}/supervisord.pid
childlogdir={paths.logs}
identifier={site}
{user}
[inet_http_server]
port={lab.address(site)}:{layout.SUPERVISOR_PORT}
username={USER}
password={lab.secret("supervisor")}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    for program in programs(lab, site):
        starts = program.autostart and program.name not in held
        text += f"""
[program:{program.name}]
command={" ".join(_quoted(word) for word in program.command)}
directory={paths.run}
autostart={str(starts).lower()}
autorestart={str(program.restarts).lower()}
startsecs=0
stopsignal={program.stop_signal}
stopwaitsecs=30
redirect_stderr=true
stdout_logfile={paths.logs}/{program.name}.log
stdout_logfile_maxbytes=0
"""
    write_file(paths.supervisor, text)
    paths.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)


def _quoted(word: str) -> str:
    escaped = word.replace("%", "%%")
    return f'"{escaped}"' if " " in escaped else escaped


def write_services(lab: Lab, site: SiteName) -> None:
    """Write the configuration of the site's own programs (registers, gazette, replicator)."""
    paths = lab.site(site)
    for service, database in DATABASES.items():
        config = {
            "site": site,
            "address": lab.address(site),
            "port": SERVICE_PORTS[service],
            "table": "persons" if database == "population" else "parcels",
            "persons_at": [lab.address(site), layout.POPULATION_PORT] if database == "land" else None,
            "database": {
                "host": lab.address(site),
                "port": layout.POSTGRES_PORT,
                "dbname": database,
                "user": postgres.APPLICATION_ROLES[database],
                "password_file": str(paths.run / f"password-{database}"),
                "sslmode": "verify-full",
                "sslrootcert": str(paths.config / "ca.pem"),
                "application_name": service,
                "connect_timeout": 1,
            },
        }
        write_file(paths.run / f"password-{database}", lab.secret(f"pg-{database}") + "\n")
        write_file(paths.run / f"{service}.json", json.dumps(config, indent=1) + "\n")
    gazette = {
        "site": site,
        "address": lab.address(site),
        "port": layout.GAZETTE_PORT,
        "folder": str(paths.gazette),
        "key_file": str(paths.gazette / "gazette-key"),
    }
    write_file(paths.run / "state-gazette.json", json.dumps(gazette, indent=1) + "\n")
    replicator = {
        "source": f"http://{lab.way_to(other(site))}:{layout.GAZETTE_PORT}",
        "folder": str(paths.gazette),
        "public_key_file": str(paths.gazette / "gazette-key.pub"),
    }
    write_file(paths.run / "gazette-replicator.json", json.dumps(replicator, indent=1) + "\n")


def environment(lab: Lab, part: str) -> dict[str, str]:
    """What a process of a lab is started with: nothing of the caller's but PATH and HOME, and its mark."""
    names = ("PATH", "HOME", "TMPDIR", *(("CONTINUITY_HOME",) if part == "outside" else ()))
    kept = {name: os.environ[name] for name in names if name in os.environ}
    above = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {
        "PATH": os.defpath,
        **kept,
        "LC_ALL": "C",
        "PYTHONPATH": above,
        "PYTHONUNBUFFERED": "1",
        MARK: lab.mark(part),
    }


def start(lab: Lab, site: SiteName, held: Collection[str] = ()) -> None:
    """Start a site's supervisord; it starts what is not held. Returns at once."""
    write_configuration(lab, site, held)
    paths = lab.site(site)
    processes.spawn(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(paths.supervisor)],
        environment=environment(lab, site),
        folder=paths.run,
        out=paths.logs / "supervisord.out",
    )


def find_supervisor() -> str:
    """The version of supervisor. RefusedError names the package when it is not there."""
    import importlib.metadata

    from orchestrator.errors import RefusedError

    try:
        return importlib.metadata.version("supervisor")
    except importlib.metadata.PackageNotFoundError:
        raise RefusedError("the lab needs supervisor, which is not installed", ("make setup",)) from None
