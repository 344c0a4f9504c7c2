"""Decides which number a lab gets and which labs exist; must never end a process that it did not identify.

A number is claimed by a listening socket at the lab's vantage, which the relay inherits: it is free again
exactly when the lab is gone, whoever started it. ``~/.continuity/labs/N.json`` names the labs of this person.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import RefusedError, WrongWordsError
from orchestrator.lab import layout, processes
from orchestrator.lab.layout import SITES, Lab

SHM_REMOVE = 0  # IPC_RMID
GONE_SECONDS_MAX = 1.0
LISTENS = "0A"  # in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Claim:
    """A number and the listening socket that keeps it."""

    number: int
    socket: socket.socket


def registry() -> Path:
    return layout.continuity_home() / "labs"


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One process of this person at a time chooses numbers or cleans up."""
    folder = registry()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / ".lock", "a", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def labs() -> list[Lab]:
    """Every lab of this person that is known, running or not, by number."""
    found = []
    for entry in sorted(registry().glob("*.json"), key=lambda path: path.stem.zfill(4)):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found.append(layout.load(json.loads(entry.read_text(encoding="utf-8"))["folder"]))
    return found


def find(number: int | None) -> Lab:
    """The lab with this number, or the only one. RefusedError where none is up, WrongWordsError says which there are."""
    known = labs()
    if number is not None:
        known = [lab for lab in known if lab.number == number]
        if not known:
            raise WrongWordsError(f"there is no lab {number}", ("continuity lab status", "continuity lab up"))
    if not known:
        raise RefusedError("no lab is up", ("continuity lab up",))
    if len(known) > 1:
        names = ", ".join(str(lab.number) for lab in known)
        raise WrongWordsError(
            f"there are several labs: {names}", tuple(f"--lab {lab.number}" for lab in known)
        )
    return known[0]


def register(lab: Lab) -> None:
    entry = {"number": lab.number, "folder": lab.folder, "estate": str(lab.estate), "state": lab.state}
    layout.write_file(registry() / f"{lab.number}.json", json.dumps(entry) + "\n")
    lab.save()


def unregister(lab: Lab) -> None:
    (registry() / f"{lab.number}.json").unlink(missing_ok=True)


def claim(wanted: int | None = None) -> Claim:
    """A number that no lab on this machine has and whose ports are all free. Call it under ``locked``.

    RefusedError names the port when a program that listens on every address stands in the way.
    """
    if wanted is not None and not 1 <= wanted <= layout.NUMBER_MAX:
        raise WrongWordsError(f"{wanted} is no lab's number", (f"--lab 1 … --lab {layout.NUMBER_MAX}",))
    taken = {lab.number for lab in labs()}
    numbers = [wanted] if wanted is not None else range(1, layout.NUMBER_MAX + 1)
    problem = ""
    for number in numbers:
        if number in taken:
            problem = f"lab {number} exists"
            continue
        holder = _listen(f"127.{number}.3.1", layout.CLAIM_PORT)
        if holder is None:
            problem = f"lab {number} belongs to somebody else"
            continue
        busy = _busy_port(number)
        if busy is None:
            return Claim(number, holder)
        holder.close()
        problem = f"port {busy} of 127.{number}.1.1 is taken"
    raise RefusedError(
        f"no lab number is free: {problem}",
        ("continuity lab status", "stop the program that listens on that port on every address"),
    )


def _busy_port(number: int) -> int | None:
    for site in (1, 2):
        for port in (
            layout.POSTGRES_PORT,
            layout.FRONT_PORT,
            layout.POPULATION_PORT,
            layout.LAND_PORT,
            layout.GAZETTE_PORT,
            layout.DNS_PORT,
            layout.SUPERVISOR_PORT,
        ):
            probe = _listen(f"127.{number}.{site}.1", port)
            if probe is None:
                return port
            probe.close()
    return None


def _listen(address: str, port: int) -> socket.socket | None:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((address, port))
        found.listen(1)
    except OSError as error:
        found.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    return found


# --- what is left of labs that were killed ----------------------------------------------------


def is_left_over(lab: Lab) -> bool:
    """Was this lab cut off: by a reboot, by the end of its owner, or while it was coming up?"""
    if lab.boot != processes.boot_id():
        return True
    if lab.owner_pid and not processes.is_alive(lab.owner_pid, lab.owner_started):
        return True
    return lab.state == "up" and not is_claimed(lab)


def is_claimed(lab: Lab) -> bool:
    """Does a living relay hold this lab's number? True also for processes that this person cannot look into."""
    holder = _listen(f"127.{lab.number}.3.1", layout.CLAIM_PORT)
    if holder is None:
        return True
    holder.close()
    return False


def clean_left_overs() -> list[int]:
    """Remove every lab that was cut off. Returns their numbers. Call it under ``locked``."""
    cleaned = []
    for lab in labs():
        if is_left_over(lab):
            remove(lab)
            cleaned.append(lab.number)
    return cleaned


def end(lab: Lab) -> int:
    """End every process of a lab and free its memory segments. Returns how many were killed.

    RefusedError, with nothing deleted, when processes of it are out of reach.
    """
    if lab.boot != processes.boot_id():
        return 0
    killed = processes.kill_all(lambda: processes.of_part(lab.mark(""), lab.path))
    _require_gone(lab)
    for site in SITES:
        free_shared_memory(lab.site(site).data)
    return killed


def remove(lab: Lab) -> int:
    """End a lab and delete its folder. Returns the number of processes killed. Errors as ``end``."""
    killed = end(lab)
    shutil.rmtree(lab.path, ignore_errors=True)
    if lab.path.exists():  # something was still being written while it was deleted
        shutil.rmtree(lab.path)
    unregister(lab)
    return killed


def _is_taken(lab: Lab) -> bool:
    """Has another lab taken this number since? Then a process that can be looked into, and is none of this lab's,
    listens there."""
    own = processes.of_part(lab.mark(""), lab.path)
    address = "".join(f"{part:02X}" for part in (1, 3, lab.number, 127)) + f":{layout.CLAIM_PORT:04X}"
    rows = (row.split() for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:])
    wanted = {f"socket:[{row[9]}]" for row in rows if row[1] == address and row[3] == LISTENS}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        if int(folder.parent.name) in (*own, os.getpid()):
            continue
        with contextlib.suppress(OSError):
            if any(os.readlink(descriptor) in wanted for descriptor in folder.iterdir()):
                return True
    return False


def _require_gone(lab: Lab) -> None:
    deadline = time.monotonic() + GONE_SECONDS_MAX
    while is_claimed(lab) and not _is_taken(lab):
        if time.monotonic() > deadline:
            raise RefusedError(
                f"lab {lab.number} still runs, and this person may not end its processes",
                ("go to the user, container or namespace that started it",),
            )
        time.sleep(processes.PASS_SECONDS)


def forget_server(data: Path) -> None:
    """Do for a killed PostgreSQL what the end of its machine would have done: free its memory, drop its pid.

    The pid may belong to a zombie that nobody has reaped yet, or to somebody else by now; either would keep
    the server from starting again.
    """
    free_shared_memory(data)
    (data / "postmaster.pid").unlink(missing_ok=True)


def free_shared_memory(data: Path) -> None:
    """Free the System V segment that a killed PostgreSQL left. Its key and id stand in postmaster.pid."""
    import ctypes

    file = data / "postmaster.pid"
    try:
        fields = file.read_text(encoding="utf-8").splitlines()[6].split()
        key, identifier, user = int(fields[0]), int(fields[1]), file.stat().st_uid
    except (OSError, IndexError, ValueError):
        return
    for line in Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]:
        found = line.split()
        is_it = (int(found[0]), int(found[1]), int(found[7])) == (key, identifier, user)
        if is_it and found[6] == "0":
            ctypes.CDLL(None, use_errno=True).shmctl(identifier, SHM_REMOVE, None)
