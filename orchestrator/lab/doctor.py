"""Decides what to say of this machine before a lab is tried; changes nothing."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.errors import RefusedError
from orchestrator.lab import claims, estate, layout, postgres_tools, supervise


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    ok: bool
    detail: str


def examine() -> list[Finding]:
    """Every part that a lab needs: what would be used, or what is missing and how to get it."""
    return [
        _ask("system", _system),
        _ask("PostgreSQL", _postgresql),
        _ask("PostgreSQL's user", _user),
        _ask("HAProxy", postgres_tools.find_haproxy),
        _ask("supervisor", supervise.find_supervisor),
        _ask("Python packages", _packages),
        _ask("runbooks", lambda: str(estate.runbook_folder())),
        _ask("addresses and ports", _number),
        _ask("folder", lambda: str(layout.labs_folder())),
    ]


def _ask(part: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part, ok=True, detail=look())
    except RefusedError as error:
        return Finding(part, ok=False, detail="; ".join([error.message, *error.instead]))
    except OSError as error:
        return Finding(part, ok=False, detail=str(error))


def _system() -> str:
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        raise RefusedError("the lab needs Linux 5.3 or newer")
    return f"Linux {os.uname().release}, {os.cpu_count()} processors"


def _postgresql() -> str:
    found = postgres_tools.find()
    return f"{found.version} ({found.source}) in {found.folder}"


def _user() -> str:
    texts = {
        "none": "this user",
        "namespace": "root, through a user namespace with one uid",
        "nobody": "root, as the user nobody (user namespaces are refused here)",
    }
    return texts[postgres_tools.wrapping()]


def _packages() -> str:
    names = ("psycopg", "dns", "cryptography", "yaml", "pydantic")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise RefusedError(f"not installed: {', '.join(missing)}", ("make setup",))
    return ", ".join(names)


def _number() -> str:
    with claims.locked():
        claim = claims.claim()
    claim.socket.close()
    return f"lab {claim.number} would be next: 127.{claim.number}.1.1 and 127.{claim.number}.2.1"
