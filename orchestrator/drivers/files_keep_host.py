"""Decides how documents that one side alone holds are kept aside on their own host; must never delete a document.

HostScripts: standard library only, nothing of orchestrator, JSON in and out. What is kept lies in a folder of
its own, whole or under a name that ends in ``.partial``; a second try goes on where the first one ended.

Whoever wrote the documents may have planted links among them: a link is kept as a link, and nothing is read,
measured or written through one. Only what the estate declares (the folder's own path) may lead over links.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LIST = "list.jsonl"
DOCUMENTS = "documents"
PROOFS = ("", ".sig")
CHUNK_BYTES = 1 << 20
MARGIN_BYTES = 16 * 1024 * 1024
IN_THE_WAY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR})
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def keep(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Copy documents from ``directory`` to ``folder``/documents, the manifest and its signature beside them.

    Arguments: directory, manifest (a path), folder, rows (one for each document: {document, lost, …}, written as
    ``folder``/list.jsonl), timeout_ms. A document that is not what its row says (``lost``: SHA-256) is kept
    as it is, and named; a name that climbs out of ``directory`` is listed and named, and nothing of it is read or
    written: the manifest is that of a side nobody trusts any more. So are its links: one in place of a document is
    kept as a link, and named; nothing is kept of what lies behind one. Result: {kept, bytes, changed: [name],
    problem}; ``problem``: why nothing was kept.
    """
    deadline = time.monotonic() + int(arguments["timeout_ms"]) / 1000
    directory, folder = Path(arguments["directory"]), Path(arguments["folder"])
    rows = list(arguments["rows"])
    if (folder / LIST).exists():
        return _kept(folder, rows)
    needed = MARGIN_BYTES + sum(_size(directory, name) for name in _names(rows))
    free = shutil.disk_usage(_existing(folder)).free
    if needed > free:
        problem = f"it takes {needed} bytes beside {folder.parent}, {free} are free"
        return {"kept": 0, "bytes": 0, "changed": [], "problem": problem}
    coming = folder.with_name(folder.name + ".partial")
    coming.mkdir(mode=0o700, parents=True, exist_ok=True)
    (coming / DOCUMENTS).mkdir(mode=0o700, exist_ok=True)
    for name in _names(rows):
        _copy(directory, coming / DOCUMENTS, name, deadline)
    manifest = Path(arguments["manifest"])
    for ending in PROOFS:
        _copy(manifest.parent, coming, manifest.name + ending, deadline)
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
    return {
        "rows": [json.loads(line) for line in text.split("\n") if line]
    }  # names hold what others end lines by


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
    """The names that lie inside the folder that they are told of, and that a file can have at all."""
    names = [str(row["document"]) for row in rows]
    return [name for name in names if not {"", ".", ".."} & set(name.split("/")) and "\0" not in name]


def _kept(folder: Path, rows: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    inside = set(_names(rows))
    hashes = {name: _hash(folder / DOCUMENTS, name) for name in inside}
    changed = [row["document"] for row in rows if hashes.get(row["document"]) != row["lost"]]
    total = sum(_size(folder / DOCUMENTS, name) for name in inside)
    return {"kept": len(rows), "bytes": total, "changed": changed, "problem": ""}


@contextlib.contextmanager
def _inside(base: Path, folders: Sequence[str], *, make: bool = False) -> Iterator[int | None]:
    """The folder below ``base``, one step after the other, none over a link. None: there is no such way."""
    with contextlib.ExitStack() as opened:

        def enter(name: str | Path, at: int | None, how: int) -> int:
            if make and at is not None:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=at)
            found = os.open(name, FOLDER | how, dir_fd=at)
            opened.callback(os.close, found)
            return found

        at: int | None = None
        try:
            at = enter(base, None, 0)
            for name in folders:
                at = enter(name, at, os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in IN_THE_WAY:
                raise
            at = None
        yield at


def _copy(directory: Path, target: Path, name: str, deadline: float) -> None:
    """A document that is gone is no reason to keep none of the others: its row says that it was there."""
    if time.monotonic() > deadline:
        raise TimeoutError("not all documents could be copied in time")
    *folders, last = name.split("/")
    with _inside(directory, folders) as source:
        found = _status(source, last)
        if found is None or not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            return
        with _inside(target, folders, make=True) as coming:
            if source is None or coming is None:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(last, dir_fd=coming)  # of an earlier try: a link there would be written through
            if stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink(last, dir_fd=source), last, dir_fd=coming)
            else:
                _copy_content(source, coming, last)
            os.fsync(coming)


def _copy_content(source: int, coming: int, name: str) -> None:
    made = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        os.fdopen(_open(source, name), "rb") as read,
        os.fdopen(os.open(name, made, 0o600, dir_fd=coming), "wb") as written,
    ):
        shutil.copyfileobj(read, written, CHUNK_BYTES)
        written.flush()
        os.fsync(written.fileno())


def _open(folder: int, name: str) -> int:
    """A regular file to read; whatever came in its place since it was looked at is neither followed nor waited for."""
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)


def _status(folder: int | None, name: str) -> os.stat_result | None:
    """What a name is, not what it may lead to; None where nothing is."""
    try:
        return None if folder is None else os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise
        return None


def _is_file(found: os.stat_result | None) -> bool:
    return found is not None and stat.S_ISREG(found.st_mode)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def _hash(base: Path, name: str) -> str:
    """ "" for what is no regular file."""
    *folders, last = name.split("/")
    with _inside(base, folders) as folder:
        if folder is None or not _is_file(_status(folder, last)):
            return ""
        with os.fdopen(_open(folder, last), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _size(base: Path, name: str) -> int:
    *folders, last = name.split("/")
    with _inside(base, folders) as folder:
        found = _status(folder, last)
        return found.st_size if found is not None and _is_file(found) else 0


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
