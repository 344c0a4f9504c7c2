"""Decides how a copy of a stopped server's data is made ready to be read by us alone, on its own host.

HostScripts: standard library only, nothing of orchestrator, JSON in and out. Nothing here touches what the copy
was made from.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TABLESPACES, LOG = "pg_tblspc", "pg_wal"
NOT_KEPT = (
    "standby.signal",
    "recovery.signal",
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf",
    "pg_hba.conf",
    "postgresql.conf",
)


def links(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """{outside: {key: folder}}: what ``data`` only links to (tablespaces, a log on its own volume).

    Arguments: data, kept: where the same folders were kept as they were at the time of these data, as
    ``kept``/KEY; the link's own target where they were not.
    """
    data, kept = Path(arguments["data"]), Path(arguments["kept"])
    found = {}
    for link in (data / LOG, *sorted((data / TABLESPACES).glob("*"))):
        if link.is_symlink():
            aside = kept / link.name
            found[link.name] = str(aside) if aside.is_dir() else os.path.realpath(link)
    return {"outside": found}


def prepare(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Cut a copied data directory off from all that the old server knew: {socket}, a folder for its socket.

    Arguments: data (the copy), folder (that it lies in), outside ({key: folder of the copy}), files ({path: text}).
    """
    data = Path(arguments["data"])
    for name in NOT_KEPT:
        (data / name).unlink(missing_ok=True)
    for key, folder in dict(arguments["outside"]).items():
        link = data / LOG if key == LOG else data / TABLESPACES / key
        link.unlink()
        link.symlink_to(folder)
    socket = _socket(str(arguments["folder"]))
    os.mkdir(socket, 0o700)  # a name that somebody else has taken is an error
    for path, text in dict(arguments["files"]).items():
        Path(path).write_text(str(text).replace("@socket@", socket), encoding="utf-8")
    if os.geteuid() == 0:
        owner = os.stat(data)
        for each in (socket, *arguments["files"]):
            os.chown(each, owner.st_uid, owner.st_gid)
    return {"socket": socket}


def remove(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Remove the copy in ``folder``, whose name must end in ``.partial``, and its socket's folder: {removed}."""
    folder = Path(arguments["folder"])
    if folder.suffix != ".partial":
        raise ValueError(f"{folder}: not a copy of ours")
    existed = folder.exists()
    for each in (folder, Path(_socket(str(folder)))):
        if each.exists():
            shutil.rmtree(each)
    return {"removed": existed}


def _socket(folder: str) -> str:
    """A socket's path must be short: a folder of its own, whose name whoever cleans up can tell."""
    return os.path.join(tempfile.gettempdir(), f"cty-{hashlib.sha256(folder.encode()).hexdigest()[:24]}")


def append_lines(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Append ``text`` to the file ``path``, readable by its owner only; ``begin``: as its first: {}."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if arguments["begin"] else os.O_APPEND)
    descriptor = os.open(str(arguments["path"]), flags, 0o600)
    with os.fdopen(descriptor, "w" if arguments["begin"] else "a", encoding="utf-8") as file:
        file.write(str(arguments["text"]))
        file.flush()
        os.fsync(file.fileno())
    return {}
