"""Decides how documents that one side alone holds are kept aside on their own host, and how a host remembers what
ran there before a run; must never delete a document.

HostScripts: standard library only, nothing of orchestrator, JSON in and out. What is kept lies in a folder of
its own, whole or under a name that ends in ``.partial``; a second try goes on where the first one ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIST = "list.jsonl"
DOCUMENTS = "documents"
PROOFS = ("", ".sig")
CHUNK_BYTES = 1 << 20
MARGIN_BYTES = 16 * 1024 * 1024


def keep(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Copy documents from ``directory`` to ``folder``/documents, the manifest and its signature beside them.

    Arguments: directory, manifest (a path), folder, rows (one for each document: {document, lost, …}, written as
    ``folder``/list.jsonl), timeout_ms. A document that is not what its row says (``lost``: SHA-256) is kept
    as it is, and named; a name that climbs out of ``directory`` is listed and named, and nothing of it is read or
    written: the manifest is that of a side nobody trusts any more. Links inside ``directory`` are followed. Result: {kept, bytes, changed: [name], problem}; ``problem``: why nothing was kept.
    """
    deadline = time.monotonic() + int(arguments["timeout_ms"]) / 1000
    directory, folder = Path(arguments["directory"]), Path(arguments["folder"])
    rows = list(arguments["rows"])
    if (folder / LIST).exists():
        return _kept(folder, rows)
    needed = MARGIN_BYTES + sum(_size(directory / name) for name in _names(rows))
    free = shutil.disk_usage(_existing(folder)).free
    if needed > free:
        problem = f"it takes {needed} bytes beside {folder.parent}, {free} are free"
        return {"kept": 0, "bytes": 0, "changed": [], "problem": problem}
    coming = folder.with_name(folder.name + ".partial")
    coming.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _names(rows):
        _copy(directory / name, coming / DOCUMENTS / name, deadline)
    manifest = Path(arguments["manifest"])
    for ending in PROOFS:
        _copy(manifest.with_name(manifest.name + ending), coming / (manifest.name + ending), deadline)
    text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
    _write(coming / LIST, text)
    os.rename(coming, folder)
    _sync(folder.parent)
    return _kept(folder, rows)


def look(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """What lies in ``folder``: {rows} as they were given, null where nothing is kept whole."""
    try:
        text = (Path(arguments["folder"]) / LIST).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {"rows": None}
    return {"rows": [json.loads(line) for line in text.splitlines()]}


def remember(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """What ran before a run's step first stopped it: {ran}, null where that was never noted.

    Arguments: path, run, step, ran (null: only ask). The first that a run notes of a step stands.
    """
    path, run, step = Path(arguments["path"]), str(arguments["run"]), str(arguments["step"])
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    noted = known.get("steps", {}) if known.get("run") == run else {}
    if arguments["ran"] is not None and step not in noted:
        noted = {**noted, step: bool(arguments["ran"])}
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        coming = path.with_name(path.name + ".new")
        _write(coming, json.dumps({"run": run, "steps": noted}, sort_keys=True) + "\n")
        os.replace(coming, path)
        _sync(path.parent)
    return {"ran": noted.get(step)}


def process(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """What lives under a pid: {alive, started_ticks, boot}; a zombie is not alive."""
    try:
        with open(f"/proc/{int(arguments['pid'])}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
    except FileNotFoundError:
        fields = []
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    alive = bool(fields) and fields[0] not in ("Z", "X")
    return {"alive": alive, "started_ticks": int(fields[19]) if alive else 0, "boot": boot}


def _names(rows: list[Mapping[str, Any]]) -> list[str]:
    """The names that lie inside the folder that they are told of."""
    names = [str(row["document"]) for row in rows]
    return [name for name in names if not {"", ".", ".."} & set(name.split("/"))]


def _kept(folder: Path, rows: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    inside = set(_names(rows))
    hashes = {name: _hash(folder / DOCUMENTS / name) for name in inside}
    changed = [row["document"] for row in rows if hashes.get(row["document"]) != row["lost"]]
    total = sum(_size(folder / DOCUMENTS / name) for name in inside)
    return {"kept": len(rows), "bytes": total, "changed": changed, "problem": ""}


def _copy(source: Path, target: Path, deadline: float) -> None:
    """A document that is gone is no reason to keep none of the others: its row says that it was there."""
    if time.monotonic() > deadline:
        raise TimeoutError("not all documents could be copied in time")
    if not source.is_file():
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, CHUNK_BYTES)
        written.flush()
        os.fsync(written.fileno())
    _sync(target.parent)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
