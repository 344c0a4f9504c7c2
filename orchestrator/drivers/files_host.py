"""Decides which documents are published on a host: flipped there, closed, and looked at.

HostScripts: standard library only, nothing of orchestrator. They must never delete a document.

A service that takes new documents holds ``published.taking`` shared (flock) while it reads
``published.mode`` and takes one. A mode other than full is in force only when nobody holds that lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

MANIFEST_BYTES_MAX = 64 * 1024 * 1024
CLOSED = "read-only"
TAKES = "full"


def digest(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """The SHA-256 of a manifest alone: {digest} ('' when it is not there)."""
    text = _read(str(arguments["manifest"]))
    return {"digest": "" if text is None else hashlib.sha256(text.encode()).hexdigest()}


def publish(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Point ``published`` at the directory and write its mode beside it, if the epoch allows it.

    Arguments: directory, published, mode, epoch, site, run, undo, timeout_ms. Read-only pins what the
    directory is now (links resolved); full follows it. Beside ``published`` stand ``.mode`` (one word)
    and ``.epoch``. Result: {result: done | refused | failed, message, before}.
    """
    deadline = time.monotonic() + int(arguments["timeout_ms"]) / 1000
    published = str(arguments["published"])
    os.makedirs(os.path.dirname(published), exist_ok=True)
    with _locked(published + ".lock", deadline) as is_held:
        if not is_held:
            return {"result": "failed", "message": "another change of what is published holds the lock"}
        return _publish_locked(arguments, published, deadline)


def close(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Take no new documents here, if the epoch allows it; what is shown stays shown.

    Arguments: published, epoch, site, run, undo, follows, timeout_ms. ``undo`` gives back what this run found,
    and is done where this run has closed nothing. ``follows``: the right stays with ``site``, whichever run
    was granted it; this side is only closed under it. Result: {result: done | refused | failed, message, mode}.
    """
    deadline = time.monotonic() + int(arguments["timeout_ms"]) / 1000
    published = str(arguments["published"])
    if arguments.get("follows"):
        os.makedirs(os.path.dirname(published), exist_ok=True)
    if not os.path.isdir(os.path.dirname(published)):
        return {"result": "refused", "message": f"{published}: nothing was ever published here"}
    with _locked(published + ".lock", deadline) as is_held:
        if not is_held:
            return {"result": "failed", "message": "another change of what is published holds the lock"}
        return _close_locked(arguments, published, deadline)


def _close_locked(arguments: Mapping[str, Any], published: str, deadline: float) -> Mapping[str, Any]:
    run, epoch, undo = str(arguments["run"]), int(arguments["epoch"]), bool(arguments.get("undo"))
    entry, problem = _entry(published)
    is_own = entry is not None and (entry["run"], entry["epoch"]) == (run, epoch)
    if undo and not problem and not is_own and (entry is None or entry["epoch"] < epoch):
        return {"result": "done", "message": "nothing was closed", "mode": _mode(published)}
    if undo:
        return _publish_locked(arguments, published, deadline)
    right = (epoch, str(arguments["site"]))
    known = entry and (entry["epoch"], str(entry.get("site", "")))
    stands = bool(arguments.get("follows")) and known == right
    closed_ns = _closed_ns(published, entry, is_own or stands)
    if not stands:
        if refusal := problem or _refusal(entry, run, epoch, undo=False):
            return {"result": "refused", "message": refusal}
        _set_claim(published, arguments, entry)  # first: it remembers the mode
    elif not closed_ns:
        _note_closed(published, 0)
    _set_mode(published, CLOSED)
    _sync_directory(published)
    mode = _mode(published)
    if mode != CLOSED:
        return {"result": "failed", "message": f"wanted {CLOSED}, found {mode}", "mode": mode}
    if problem := _still_taken(published, deadline):
        return {"result": "failed", "message": problem, "mode": mode}
    _note_closed(published, closed_ns or time.time_ns())
    return {"result": "done", "message": "", "mode": mode}


def _closed_ns(published: str, entry: Mapping[str, Any] | None, stands: bool) -> int:
    """Since when it is closed under the right that stands; 0 where it is open, or was never seen to be closed."""
    return int(entry.get("closed_ns", 0)) if entry and stands and _mode(published) == CLOSED else 0


def _note_closed(published: str, closed_ns: int) -> None:
    """Since when nothing is taken here, seen under the lock: what comes later, comes from the other side."""
    claim = json.loads(_read(published + ".epoch") or "{}")
    _replace(published + ".epoch", json.dumps({**claim, "closed_ns": closed_ns}, sort_keys=True) + "\n")
    _sync_directory(published)


def look(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """What is published: {entry, target, mode, taking, has_folder, is_free, message}; None where there is nothing.
    ``taking``: a document is being taken at this moment, perhaps under a mode that was changed since. ``is_free``:
    nothing stands in the way of the link."""
    published = str(arguments["published"])
    entry, problem = _entry(published)
    mode, taking = _mode(published), _still_taken(published, time.monotonic()) != ""
    return {
        "entry": entry,
        "target": _target(published),
        "mode": mode,
        "taking": taking,
        "has_folder": os.path.isdir(os.path.dirname(published)),
        "is_free": os.path.islink(published) or not os.path.lexists(published),
        "message": problem,
    }


def holding(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """What a side holds and by which right: {text, modified_ns, entry, mode, taking, message}.

    Arguments: published, manifest (a path). ``text`` of the manifest is None where there is none;
    ``modified_ns``: when it was written, by this host's clock. An entry that does not tell since when
    (``at_ns``, ``closed_ns``) is as old as its file.
    """
    manifest, path = str(arguments["manifest"]), str(arguments["published"]) + ".epoch"
    found = dict(look(arguments))
    text = _read(manifest)
    if found["entry"] is not None and "at_ns" not in found["entry"]:
        found["entry"] |= {"at_ns": _modified_ns(path), "closed_ns": _modified_ns(path)}
    return {**found, "text": text, "modified_ns": 0 if text is None else _modified_ns(manifest)}


def _modified_ns(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def _still_taken(published: str, deadline: float) -> str:
    """Wait until nobody takes a document any more; what is wrong when somebody still does at the deadline."""
    path = published + ".taking"
    if not os.path.exists(path):
        return ""
    with _locked(path, deadline) as is_held:
        return "" if is_held else f"{path} is held: a document is still being taken"


def _publish_locked(arguments: Mapping[str, Any], published: str, deadline: float) -> Mapping[str, Any]:
    run, epoch, undo = str(arguments["run"]), int(arguments["epoch"]), bool(arguments.get("undo"))
    entry, problem = _entry(published)
    refusal = problem or _refusal(entry, run, epoch, undo)
    if not refusal and os.path.lexists(published) and not os.path.islink(published):
        refusal = f"{published} is not a link: it was made by somebody else"
    if not refusal and not undo and not os.path.isdir(str(arguments["directory"])):
        refusal = f"{arguments['directory']}: there is no such directory"
    if refusal:
        return {"result": "refused", "message": refusal}
    before = {"target": _target(published), "mode": _mode(published)}
    is_own = entry is not None and (entry["run"], entry["epoch"]) == (run, epoch)
    closed_ns = _closed_ns(published, entry, is_own)
    previous = _set_claim(published, arguments, entry)
    wanted = dict(previous) if undo else wanted_state(arguments)
    if wanted["mode"] != TAKES:  # closing comes before the flip, opening after it
        _set_mode(published, wanted["mode"])
    _point(published, wanted["target"])
    _set_mode(published, wanted["mode"])
    _sync_directory(published)
    after = {"target": _target(published), "mode": _mode(published)}
    if after != wanted:
        return {"result": "failed", "message": f"wanted {wanted}, found {after}"}
    if wanted["mode"] != TAKES and (problem := _still_taken(published, deadline)):
        return {"result": "failed", "message": problem}
    if wanted["mode"] == CLOSED:
        _note_closed(published, closed_ns or time.time_ns())
    return {"result": "done", "message": "", "before": before, **after}


def _set_claim(
    published: str, arguments: Mapping[str, Any], entry: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Write whose right is known here now; returns what stood here before this run's first change.

    ``at_ns``: when this run wrote it first. ``before``: the right that it replaced, and since when that stood.
    """
    run, epoch, site = str(arguments["run"]), int(arguments["epoch"]), str(arguments["site"])
    now: dict[str, Any] = {"epoch": epoch, "site": site, "run": run}
    if entry is not None and (entry["run"], entry["epoch"]) == (run, epoch):
        kept = {name: entry[name] for name in ("at_ns", "before") if name in entry}
        site = entry["site"] if arguments.get("undo") else site
        claim = {**now, "site": site, **kept, "previous": entry["previous"]}
    else:
        before = {"target": _target(published), "mode": _mode(published)}
        replaced = entry and {name: entry.get(name, 0) for name in ("epoch", "site", "at_ns")}
        claim = {**now, "at_ns": time.time_ns(), "before": replaced, "previous": before}
    _replace(published + ".epoch", json.dumps(claim, sort_keys=True) + "\n")
    return dict(claim["previous"])


def wanted_state(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What ``publish`` brings about: {target, mode}."""
    directory, mode = str(arguments["directory"]), str(arguments["mode"])
    return {"target": directory if mode == TAKES else os.path.realpath(directory), "mode": mode}


def _refusal(entry: Mapping[str, Any] | None, run: str, epoch: int, undo: bool) -> str:
    if entry is None:
        return "nothing of this run to undo" if undo else ""
    if undo and (entry["run"], entry["epoch"]) != (run, epoch):
        return f"run {entry['run']} has published at epoch {entry['epoch']} since"
    if epoch < entry["epoch"]:
        return f"epoch {epoch} is stale: epoch {entry['epoch']} (site {entry['site']}) rules here"
    if epoch == entry["epoch"] and run != entry["run"]:
        return f"epoch {epoch} was used here by another run ({entry['run']})"
    return ""


def _entry(published: str) -> tuple[dict[str, Any] | None, str]:
    path = published + ".epoch"
    text = _read(path)
    if text is None:
        return None, ""
    try:
        found = json.loads(text)
        known = {"epoch": int(found["epoch"]), "run": str(found["run"]), "previous": dict(found["previous"])}
        return {**found, **known}, ""
    except (ValueError, KeyError, TypeError):
        return None, f"{path}: cannot be understood: people decide"


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read(MANIFEST_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _target(published: str) -> str | None:
    return os.readlink(published) if os.path.islink(published) else None


def _mode(published: str) -> str | None:
    text = _read(published + ".mode")
    return text.strip() if text is not None else None


def _set_mode(published: str, mode: str | None) -> None:
    if mode is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(published + ".mode")
    else:
        _replace(published + ".mode", mode + "\n")


def _point(link: str, target: str | None) -> None:
    temporary = f"{link}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary if target else link)
    if target:
        os.symlink(target, temporary)
        os.replace(temporary, link)


def _replace(path: str, text: str) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def _sync_directory(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(path: str, deadline: float) -> Iterator[bool]:
    """Yields whether the lock could be had in time; it ends with the process however that ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.001)
            else:
                yield True
                return
    finally:
        os.close(descriptor)
