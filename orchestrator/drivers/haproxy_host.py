"""Decides how one HAProxy is routed on its own host: the whole change is one command under a lock.

A HostScript: standard library only, nothing of orchestrator. HAProxy has no compare-and-set and
forgets runtime changes at a reload, so the epoch is compared in a file here, the change is made over
the runtime socket, and the state file that the configuration loads is written before anybody is told
that it is done. It must never lower an epoch. ``drivers/haproxy.py`` is the other side.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVERS = ("here", "there")
SECTIONS = frozenset(
    "backend cache defaults fcgi-app frontend global http-errors listen log-forward mailers peers program resolvers ring"
    " userlist".split()
)
SHOW = ("show", "servers", "state")
NO_BACKEND = "{}: the proxy has no such backend with servers here and there"
FORCED_MAINTENANCE = 0x01
CONFIGURED_DISABLED = 0x04  # still shown after `set server … state ready`: it does not count
RUNNING = 2
WORD = re.compile(r"(@!)?[A-Za-z0-9_.:][A-Za-z0-9_.:/-]*")
"""What a word on the socket may be: there ``;`` and a new line begin another command."""
ANSWER_BYTES_MAX = 8 * 1024 * 1024
OLDER_SECONDS_MAX = 0.5  # older workers may cost the way to the first write this much
CONFIG_BYTES_MAX = 4 * 1024 * 1024


class _StopError(Exception):
    """Ends the script with a result that is an answer, not a crash."""

    def __init__(self, result: str, message: str) -> None:
        self.result = result
        super().__init__(message)


def route(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Route ``backend`` to ``here`` or ``there`` if the epoch allows it, and make it last.

    Arguments: socket, master_socket, config, state_file, epoch_file, backend, here, site, epoch, run, end_sessions,
    undo, timeout_ms. Result: {result: done | refused | failed | unknown, message, …}; ``failed`` means that nothing
    was changed, ``left`` why sessions of older workers may go on although all else is done.
    """
    deadline = time.monotonic() + int(arguments["timeout_ms"]) / 1000
    try:
        _require_configuration(arguments)
        with _Locked(arguments["epoch_file"], deadline):
            return _route_locked(arguments, deadline)
    except _StopError as stop:
        return {"result": stop.result, "message": str(stop)}


def look(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Read, change nothing: {entry, runtime, file} of one backend; ``message`` says what could not be read,
    ``lacks`` what is read and would refuse a route."""
    deadline = time.monotonic() + int(arguments["timeout_ms"]) / 1000
    found: dict[str, Any] = {"entry": None, "runtime": None, "file": None, "message": "", "lacks": []}
    problems = []
    try:
        found["entry"] = _entries(arguments["epoch_file"]).get(arguments["backend"])
        if os.path.exists(arguments["state_file"]):
            found["file"] = _admin_states(_read(arguments["state_file"]), arguments["backend"])
    except _StopError as stop:
        problems.append(str(stop))
    try:
        text = _ask(arguments["socket"], ((*SHOW, str(arguments["backend"])),), deadline)
        found["runtime"] = _admin_states(text, arguments["backend"])
    except _StopError as stop:
        problems.append(str(stop))
    try:
        _require_configuration(arguments)
    except _StopError as stop:
        if stop.result == "refused":
            found["lacks"].append(str(stop))
        else:
            problems.append(str(stop))
    if found["runtime"] is None and not (problems or found["lacks"]):
        found["lacks"].append(NO_BACKEND.format(arguments["backend"]))
    found["message"] = "; ".join(problems)
    return found


def _route_locked(arguments: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
    backend, run, epoch = str(arguments["backend"]), str(arguments["run"]), int(arguments["epoch"])
    entries = _entries(arguments["epoch_file"])
    entry = entries.get(backend)
    undo = bool(arguments.get("undo"))
    _compare(entry, run, epoch, undo)
    before = _runtime(arguments, deadline)
    own = entry is not None and entry["run"] == run and entry["epoch"] == epoch
    previous = entry["previous"] if own and entry is not None else _administrative(before)
    wanted = dict(previous) if undo else _wanted(bool(arguments["here"]))
    # The claim is visible to every other process before the change. It reaches the disk after it, so as not to
    # delay it, and before the state: after a power cut no proxy routes by a state whose epoch it does not know.
    # An undo gives the routing back, never the epoch: epochs only grow.
    site = str(entry["site"]) if undo and entry is not None else str(arguments["site"])
    entries[backend] = {"epoch": epoch, "site": site, "run": run, "previous": previous, "undone": undo}
    _write(arguments["epoch_file"], json.dumps(entries, sort_keys=True, indent=1) + "\n", durable=False)
    _change(arguments, wanted, deadline)
    left = _end_older(arguments, wanted, min(deadline, time.monotonic() + OLDER_SECONDS_MAX))
    state = _ask(arguments["socket"], (SHOW,), deadline)
    _sync(arguments["epoch_file"])
    _write(arguments["state_file"], state, durable=True)
    after = _runtime(arguments, deadline)
    saved = _admin_states(_read(arguments["state_file"]), backend)
    if after != wanted or saved != wanted:
        raise _StopError("unknown", f"{backend}: wanted {wanted}, the proxy shows {after}, its file {saved}")
    return {
        "result": "done", "message": "", "before": before, "after": after, "epoch": epoch, "site": site, "left": left,
    }  # fmt: skip


def _compare(entry: Mapping[str, Any] | None, run: str, epoch: int, undo: bool) -> None:
    if entry is None:
        if undo:
            raise _StopError("refused", "nothing of this run to undo: the epoch file knows no change")
        return
    if undo and (entry["run"] != run or entry["epoch"] != epoch):
        raise _StopError("refused", f"run {entry['run']} has routed at epoch {entry['epoch']} since")
    if epoch < entry["epoch"]:
        raise _StopError(
            "refused", f"epoch {epoch} is stale: epoch {entry['epoch']} (site {entry['site']}) rules here"
        )
    if epoch == entry["epoch"] and run != entry["run"]:
        raise _StopError("refused", f"epoch {epoch} was used here by another run ({entry['run']})")


def _change(arguments: Mapping[str, Any], wanted: Mapping[str, str], deadline: float) -> None:
    backend = arguments["backend"]
    order = sorted(SERVERS, key=lambda server: wanted[server] != "ready")  # open before closing: no gap
    commands: list[tuple[str, ...]] = [
        ("set", "server", f"{backend}/{server}", "state", wanted[server]) for server in order
    ]
    if arguments.get("end_sessions"):
        # Whatever it was before: an earlier move, or an attempt that died, may have closed it and left them open.
        closed = [server for server in SERVERS if wanted[server] == "maint"]
        commands += [("shutdown", "sessions", "server", f"{backend}/{server}") for server in closed]
    answer = _ask(arguments["socket"], commands, deadline, changing=True).strip()
    if answer:
        raise _StopError("unknown", f"{backend}: the proxy answered: {answer[:300]}")


def _end_older(arguments: Mapping[str, Any], wanted: Mapping[str, str], deadline: float) -> str:
    """End what workers from before a reload still have open to the side that is closed: they no longer listen on the
    runtime socket, and refuse orders for a whole server. Why something may be left; "": nothing is. What cannot be
    asked holds nothing up: new sessions are routed by then."""
    master = str(arguments.get("master_socket") or "")
    if not (arguments.get("end_sessions") and master):
        return ""
    closed = {(str(arguments["backend"]), server) for server in SERVERS if wanted[server] == "maint"}
    try:
        older = _older_workers(_ask(master, (("show", "proc"),), deadline, is_master=True))
        while found := [each for worker in older for each in _sessions(master, worker, closed, deadline)]:
            if time.monotonic() >= deadline:
                return f"{master}: older workers still have {len(found)} sessions"
            for to, session in found:
                _ask(master, ((to, "shutdown", "session", session),), deadline, is_master=True)
            time.sleep(OLDER_SECONDS_MAX / 50)
    except _StopError as stop:
        return str(stop)
    return ""


def _older_workers(text: str) -> list[str]:
    """What addresses each worker of before the last reload, from the output of `show proc`."""
    _, _, older = text.partition("# old workers")
    lines = (line.split() for line in older.partition("# programs")[0].split("\n"))
    return [f"@!{fields[0]}" for fields in lines if fields and fields[0].isdigit()]


def _sessions(
    master: str, worker: str, closed: set[tuple[str, str]], deadline: float
) -> list[tuple[str, str]]:
    """(worker, session) of what a worker has open to these servers; a worker that has gone has nothing."""
    found = []
    for line in _ask(master, ((worker, "show", "sess"),), deadline, is_master=True).split("\n"):
        session, _, rest = line.partition(":")
        facts = dict(word.partition("=")[::2] for word in rest.split())
        if (facts.get("be", ""), facts.get("srv", "")) in closed:
            found.append((worker, session))
    return found


def _administrative(states: Mapping[str, str]) -> dict[str, str]:
    """What people set, whatever health checks made of it."""
    return {server: "maint" if state == "maint" else "ready" for server, state in states.items()}


def _wanted(here: bool) -> dict[str, str]:
    return {"here": "ready" if here else "maint", "there": "maint" if here else "ready"}


def _runtime(arguments: Mapping[str, Any], deadline: float) -> dict[str, str]:
    backend = arguments["backend"]
    states = _admin_states(_ask(arguments["socket"], ((*SHOW, backend),), deadline), backend)
    if states is None:
        raise _StopError("failed", NO_BACKEND.format(backend))
    return states


def _admin_states(text: str, backend: str) -> dict[str, str] | None:
    """server → ready | maint | down, from the output of `show servers state`; None without the backend."""
    columns: list[str] = []
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if line.startswith("# "):
            columns = line[2:].split()
        elif columns and len(fields := line.split()) >= len(columns):
            row = dict(zip(columns, fields, strict=False))
            if row["be_name"] == backend and row["srv_name"] in SERVERS:
                found[row["srv_name"]] = _state(int(row["srv_op_state"]), int(row["srv_admin_state"]))
    return found if set(found) == set(SERVERS) else None


def _state(operational: int, administrative: int) -> str:
    if administrative & FORCED_MAINTENANCE:
        return "maint"
    if operational == RUNNING and not administrative & ~CONFIGURED_DISABLED:
        return "ready"
    return "down"


def _require_configuration(arguments: Mapping[str, Any]) -> None:
    problems = configuration_problems(
        _read(arguments["config"]), arguments["state_file"], arguments["backend"]
    )
    if problems:
        raise _StopError("refused", f"{arguments['config']}: " + "; ".join(problems))


def configuration_problems(text: str, state_file: str, backend: str) -> list[str]:
    """What a HAProxy configuration lacks for routing that survives a reload; empty when nothing."""
    settings, servers, loads, named = {"server-state-base": ""}, set(), False, False
    section, in_backend = "", False
    defaults: dict[str, bool] = {}  # does what takes its defaults from there load a saved state?
    latest = ""
    for line in text.split("\n"):
        words = line.partition("#")[0].split()
        if not words:
            continue
        keyword, name = words[0], words[1] if words[1:] else ""
        if keyword in SECTIONS:
            section, in_backend = keyword, keyword in ("backend", "listen") and name == backend
            named = named or in_backend
            given = words[words.index("from") + 1] if "from" in words[1:-1] else None
            if (
                keyword == "defaults"
            ):  # it begins anew: nothing of the one before holds, unless it is taken over
                latest = name if name != "from" else ""
                defaults[latest] = given is not None and defaults.get(given, False)
            elif in_backend:
                loads = defaults.get(latest if given is None else given, False)
        elif keyword == "load-server-state-from-file":
            if section == "defaults":
                defaults[latest] = words[1:] == ["global"]
            elif in_backend:
                loads = words[1:] == ["global"]
        elif section == "global":
            settings[keyword] = name
        elif in_backend and keyword == "server" and name:
            servers.add(name)
    problems = []
    if os.path.join(settings["server-state-base"], settings.get("server-state-file", "")) != state_file:
        problems.append(f"the global section has no `server-state-file {state_file}`")
    if not named:
        problems.append(f"there is no backend {backend}")
    else:
        if not loads:
            lack = "loads no saved state (`load-server-state-from-file global`)"
            problems.append(f"backend {backend} {lack}: a reload would undo a failover")
        if not servers >= set(SERVERS):
            problems.append(f"backend {backend} needs the servers here and there")
    return problems


class _Locked:
    """Holds the lock beside the epoch file; ended with the process however it ends."""

    def __init__(self, epoch_file: str, deadline: float) -> None:
        self._path, self._deadline, self._descriptor = epoch_file + ".lock", deadline, -1

    def __enter__(self) -> None:
        Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= self._deadline:
                    os.close(self._descriptor)
                    raise _StopError("failed", "another change of this proxy holds its lock") from None
                time.sleep(0.001)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _entries(path: str) -> dict[str, Any]:
    """backend → {epoch, site, run, previous}. A file that is there but broken is never taken as empty."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        for entry in entries.values():
            int(entry["epoch"]), str(entry["run"]), str(entry["site"]), dict(entry["previous"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _StopError(
            "refused", f"{path}: cannot be understood ({type(error).__name__}): people decide"
        ) from error
    return dict(entries)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(CONFIG_BYTES_MAX)
    except OSError as error:
        raise _StopError("failed", f"{path}: cannot be read: {error.strerror}") from error


def _write(path: str, text: str, *, durable: bool) -> None:
    """Replace a file in one step: readers see the old or the new, never a part."""
    temporary = f"{path}.new"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            _sync_directory(path)
    except OSError as error:
        raise _StopError("unknown", f"{path}: cannot be written: {error.strerror}") from error


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync_directory(path)


def _sync_directory(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ask(
    path: str,
    commands: Sequence[Sequence[str]],
    deadline: float,
    *,
    changing: bool = False,
    is_master: bool = False,
) -> str:
    """One line of commands to the runtime socket, the whole answer back. Every wait ends at the deadline.
    ``is_master``: the master's answers end only once it is told that no more commands come.

    Whatever came in: a word that could begin another command is refused before anything is connected.
    """
    for word in (word for command in commands for word in command):
        if not WORD.fullmatch(word):
            raise _StopError("refused", f"{word!r} is not sent to the proxy: it is not one plain word")
    line = "; ".join(" ".join(command) for command in commands)
    received = bytearray()
    connected = False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(max(0.001, deadline - time.monotonic()))
            stream.connect(path)
            connected = True
            stream.sendall(line.encode("ascii") + b"\n")
            if is_master:
                stream.shutdown(socket.SHUT_WR)
            while len(received) < ANSWER_BYTES_MAX:
                stream.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = stream.recv(65536)
                if not chunk:
                    return received.decode("utf-8", "replace")
                received += chunk
    except OSError as error:
        result = "unknown" if changing and connected else "failed"
        raise _StopError(result, f"{path}: {error.strerror or error}") from error
    raise _StopError("unknown" if changing else "failed", f"{path}: the answer does not end")
