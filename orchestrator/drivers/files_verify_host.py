"""Decides what documents on a host are: read, hashed and compared with their manifest there.

HostScripts: standard library only, nothing of orchestrator; they only read. The signature of a manifest is judged
by whoever asks (``actions/files.py``), not on the host.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

MANIFEST_BYTES_MAX = 64 * 1024 * 1024
CHUNK_BYTES = 1 << 20
NAMED_PROBLEMS_MAX = 20

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<path>.+)")


def verify(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Compare a directory with its manifest (``sha256sum`` format, paths from the directory).

    Arguments: directory, manifest (a path; relative: from the directory), timeout_ms. Result:
    {manifest, signature, problems: [text], problem_count, files, bytes, digest, written_ns}; every listed
    file must be there and equal, and nothing else may be there. ``written_ns``: the manifest, by this clock.
    """
    deadline = time.monotonic() + int(arguments["timeout_ms"]) / 1000
    directory = str(arguments["directory"])
    path = os.path.join(directory, str(arguments["manifest"]))
    text, signature = _read(path), _read(path + ".sig")
    problems: list[str] = []
    if not os.path.isdir(directory):
        problems.append(f"{directory}: there is no such directory")
    if text is None:
        problems.append(f"{path}: there is no manifest")
    if signature is None:
        problems.append(f"{path}.sig: the manifest has no signature")
    listed = _parse(text or "", problems)
    read_bytes = 0
    for name, digest in listed.items():
        if time.monotonic() > deadline:
            raise TimeoutError("not all documents could be read in time")
        found, size = _hash(os.path.join(directory, name), deadline)
        read_bytes += size
        if found != digest:
            problems.append(
                f"{_said(name)}: {'is missing' if found is None else 'is not what the manifest says'}"
            )
    own = {os.path.realpath(path), os.path.realpath(path + ".sig")}
    for name, full in _present(directory):
        if name not in listed and os.path.realpath(full) not in own:
            problems.append(f"{_said(name)}: is not in the manifest")
    return {
        "manifest": text or "",
        "signature": signature or "",
        "problems": problems[:NAMED_PROBLEMS_MAX],
        "problem_count": len(problems),
        "files": len(listed),
        "bytes": read_bytes,
        "written_ns": _modified_ns(path),
        "digest": hashlib.sha256((text or "").encode()).hexdigest(),
    }


def names(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Compare the names in a directory with those of its manifest; no document is opened.

    Arguments: directory, manifest, timeout_ms. Result: {is_there, manifest, signature, problems: [text],
    problem_count, files, is_whole, now_ns}; ``is_whole``: all names were compared in time. A listed name that is no
    regular file is missing, as in ``verify``.
    """
    deadline = time.monotonic() + int(arguments["timeout_ms"]) / 1000
    directory = str(arguments["directory"])
    path = os.path.join(directory, str(arguments["manifest"]))
    text, signature = _read(path), _read(path + ".sig")
    problems: list[str] = []
    listed = _parse(text or "", problems)
    own = {os.path.realpath(path), os.path.realpath(path + ".sig")}
    found, is_whole = set(), True
    for name, full in _present(directory):
        if time.monotonic() > deadline:
            is_whole = False
            break
        if name not in listed and os.path.realpath(full) not in own:
            problems.append(f"{_said(name)}: is not in the manifest")
        elif os.path.isfile(full) and not os.path.islink(full):
            found.add(name)
    if is_whole:
        problems += [f"{_said(name)}: is missing" for name in listed if name not in found]
    return {
        "is_there": os.path.isdir(directory),
        "manifest": text,
        "signature": signature,
        "problems": problems[:NAMED_PROBLEMS_MAX],
        "problem_count": len(problems),
        "files": len(listed),
        "is_whole": is_whole,
        "now_ns": time.time_ns(),
    }


def _parse(text: str, problems: list[str]) -> dict[str, str]:
    """Lines end by a newline and nothing else: U+2028, form feeds and their like may stand in names."""
    listed: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), start=1):
        found = _LINE.fullmatch(line)
        name = found["path"] if found else ""
        if line.startswith("\\"):
            problems.append(
                f"manifest line {number}: a name that holds a newline or a backslash is not taken"
            )
        elif found is None or any(part in ("", ".", "..") for part in name.split("/")):
            problems.append(f"manifest line {number}: not `HASH  PATH` with a path inside the directory")
        elif name in listed:
            problems.append(f"manifest line {number}: {_said(name)} is listed twice")
        else:
            listed[name] = found["digest"]
    return listed


def _said(name: str) -> str:
    """A name as people can read it on one line."""
    return name if name.isprintable() else repr(name)


def _present(directory: str) -> Iterator[tuple[str, str]]:
    """(path from the directory, whole path) of everything that is not a directory; links are not followed."""
    for folder, folders, files in os.walk(directory):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in (*files, *links):
            full = os.path.join(folder, name)
            yield os.path.relpath(full, directory), full


def _hash(path: str, deadline: float) -> tuple[str | None, int]:
    """(digest or None when it is no regular file, its size)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None, 0
    with os.fdopen(descriptor, "rb") as file:
        if not os.path.isfile(f"/proc/self/fd/{file.fileno()}"):
            return None, 0
        total, size = hashlib.sha256(), 0
        while chunk := file.read(CHUNK_BYTES):
            total.update(chunk)
            size += len(chunk)
            if time.monotonic() > deadline:
                raise TimeoutError("not all documents could be read in time")
        return total.hexdigest(), size


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read(MANIFEST_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _modified_ns(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0
