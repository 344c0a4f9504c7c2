"""Decides what is seen and replaced of a whole data directory on its own host, and what of it lies elsewhere.

HostScripts: standard library only, nothing of orchestrator, JSON in and out. Folders that a data
directory only links to (tablespaces, a log on its own volume) are called outside; nothing is ever
removed from one that is not kept in full elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FICLONE = 0x40049409  # Linux: share another file's blocks
TABLESPACES, LOG = "pg_tblspc", "pg_wal"


def survey(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """What lies where of a rejoin.

    Arguments: data, new (where its successor is made), kept (where its old state is kept), mark (the
    name of the file that says that a directory is finished).
    {data, new: {exists, mark (text or null)}, is_mount, is_cloned (a whole base backup lies in new),
    is_kept, outside: {key: path} of data or of what is kept, same_device (of data and kept)}.
    """
    data, new, kept = (Path(arguments[name]) for name in ("data", "new", "kept"))
    is_kept = (kept / "data").exists()
    return {
        "data": {"exists": data.exists(), "mark": _text(data / arguments["mark"])},
        "new": {"exists": new.exists(), "mark": _text(new / arguments["mark"])},
        "is_mount": os.path.ismount(data),
        "is_cloned": (new / "backup_manifest").exists(),
        "is_kept": is_kept,
        "outside": _outside(kept / "data" if is_kept else data),
        "same_device": _existing(data.parent).stat().st_dev == _existing(kept).stat().st_dev,
    }


def room(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """{used_bytes, free_bytes, kept_free_bytes, shares}: of the directory ``data`` with all that lies
    outside, of the room beside ``new`` and where ``kept`` will be; ``shares``: copies cost nothing there.
    """
    data, new, kept = (Path(arguments[name]) for name in ("data", "new", "kept"))
    used = 0
    for folder in (data, *map(Path, _outside(data).values())):
        for root, _, files in os.walk(folder):
            for name in files:
                try:
                    used += os.lstat(os.path.join(root, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
    return {
        "used_bytes": used,
        "free_bytes": shutil.disk_usage(_existing(new)).free,
        "kept_free_bytes": shutil.disk_usage(_existing(kept)).free,
        "shares": _shares_blocks(_existing(new.parent)),
    }


def clear_outside(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Empty the ``folders`` ({key: path}) of what the database put there, each only if it is kept whole
    in ``kept``/KEY. {cleared: [key]}."""
    cleared = []
    for key, folder in dict(arguments["folders"]).items():
        if not os.path.isdir(os.path.join(arguments["kept"], key)):
            raise FileNotFoundError(f"{folder} is not kept in {arguments['kept']}: nothing is removed")
        for entry in Path(folder).iterdir():
            if key != LOG and not entry.name.startswith("PG_"):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        cleared.append(key)
    return {"cleared": cleared}


def _outside(data: Path) -> dict[str, str]:
    links = [data / LOG, *sorted((data / TABLESPACES).glob("*"))]
    return {link.name: os.path.realpath(link) for link in links if link.is_symlink()}


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _shares_blocks(folder: Path) -> bool:
    """Can a file of this file system be copied by sharing its blocks?"""
    try:
        with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as copy:
            source.write(b"x" * 4096)
            source.flush()
            fcntl.ioctl(copy.fileno(), FICLONE, source.fileno())
    except OSError:
        return False
    return True
