"""Decides what is done to a PostgreSQL server's files and processes on its own host.

HostScripts: standard library only, nothing of orchestrator, JSON in and out. A file is written whole
or not at all and belongs to whom its folder belongs to. A process is known by pid and start time; one
whose pid was given to another program counts as gone. Nothing here starts or stops a unit.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.005
FENCE_MARK = "# A primary that was fenced by continuity: it may come up only as a standby.\n"
FROZEN_SETTINGS = ("default_transaction_read_only",)
OWN_SETTINGS = (
    "default_transaction_read_only",
    "wal_retrieve_retry_interval",
    "synchronous_standby_names",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_target_timeline",
    "restore_command",
)


# --- reading ----------------------------------------------------------------------------------


def look(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """What is there: {exists, version, standby_signal, fenced_primary, processes, postmaster, control, tablespaces}.

    ``fenced_primary``: its standby.signal is the one that ``fence_signal`` wrote into a primary.
    Arguments: data_directory; control_tool (path of pg_controldata, "" for none).
    """
    data = str(arguments["data_directory"])
    exists = os.path.exists(f"{data}/PG_VERSION")
    found: dict[str, Any] = {
        "exists": exists,
        "version": Path(f"{data}/PG_VERSION").read_text().strip() if exists else "",
        "standby_signal": os.path.exists(f"{data}/standby.signal"),
        "fenced_primary": _is_fenced_primary(data),
        "postmaster": _postmaster(data),
        "processes": _processes(data),
        "boot_id": _boot_id(),
        "tablespaces": _tablespaces(data),
        "control": "",
    }
    if exists and arguments.get("control_tool"):
        found["control"] = _control(arguments)
    return found


def _is_fenced_primary(data: str) -> bool:
    try:
        return Path(f"{data}/standby.signal").read_text(encoding="utf-8").startswith(FENCE_MARK)
    except FileNotFoundError:
        return False


def read_file(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """{text} of one small file; null when there is none. Arguments: path."""
    try:
        return {"text": Path(arguments["path"]).read_text(encoding="utf-8")}
    except FileNotFoundError:
        return {"text": None}


def log_room(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """{free_bytes} where the server of ``data_directory`` keeps its log."""
    return {"free_bytes": shutil.disk_usage(os.path.realpath(f"{arguments['data_directory']}/pg_wal")).free}


def _control(arguments: Mapping[str, Any]) -> str:
    try:
        done = subprocess.run(
            [arguments["control_tool"], "-D", arguments["data_directory"]],
            capture_output=True,
            text=True,
            timeout=int(arguments["timeout_ms"]) / 1000,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"},
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError("pg_controldata did not end in time") from error
    if done.returncode:
        raise OSError(f"pg_controldata: {done.stderr.strip()[:300]}")
    return done.stdout


def _postmaster(data: str) -> dict[str, int] | None:
    """{pid, started} of a living postmaster; None when there is none. ``started``: clock ticks since boot."""
    try:
        pid = int(Path(f"{data}/postmaster.pid").read_text().split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return None
    started = _started(pid)
    if started is None or not _is_database(pid, data):
        return None
    return {"pid": pid, "started": started}


def _started(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _is_database(pid: int, data: str) -> bool:
    """Does this process work in the data directory, or, where that cannot be read, is it a postgres?"""
    try:
        return os.readlink(f"/proc/{pid}/cwd") == os.path.realpath(data)
    except PermissionError:
        try:
            return Path(f"/proc/{pid}/comm").read_text().startswith("postgres")
        except OSError:
            return True
    except OSError:
        return False


def _processes(data: str) -> list[int]:
    """Every process that works in the data directory: each child of a postmaster is a session leader."""
    wanted = os.path.realpath(data)
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.readlink(f"/proc/{name}/cwd") == wanted and _started(int(name)) is not None:
                    found.append(int(name))
            except OSError:
                continue
    return sorted(found)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "gone since"


def _tablespaces(data: str) -> dict[str, str]:
    folder = Path(data) / "pg_tblspc"
    if not folder.is_dir():
        return {}
    return {link.name: os.path.realpath(link) for link in sorted(folder.iterdir()) if link.is_symlink()}


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


# --- changing ---------------------------------------------------------------------------------


def write_files(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Write ``files`` ({path: text}) and remove ``remove`` ([path]), durably. {changed: [path]}."""
    changed = []
    for path, text in dict(arguments.get("files") or {}).items():
        if _replace(Path(path), str(text)):
            changed.append(path)
    for path in arguments.get("remove") or ():
        if os.path.exists(path):
            os.unlink(path)
            _sync_folder(Path(path).parent)
            changed.append(path)
    return {"changed": changed}


def become_standby_files(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Make a stopped server's files those of a standby: standby.signal, and no setting of ours in auto.conf.

    Arguments: data_directory. {kept: [line]} is what auto.conf still says.
    """
    data = Path(arguments["data_directory"])
    _replace(data / "standby.signal", "")
    return {"kept": _clear_settings(data, OWN_SETTINGS)}


def fence_signal(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Make sure that the server comes up as nothing but a standby, whatever starts it: {written}.

    The file that a primary gets tells it from a standby's, so that the fence can be lifted. The server
    may be running. Arguments: data_directory, note (who fenced it), system_id ("" for any): nothing is
    written into the directory of another cluster.
    """
    data = Path(arguments["data_directory"])
    if not (data / "PG_VERSION").exists():
        raise FileNotFoundError(f"{data} holds no database")
    system_id = _system_id(data)
    if arguments["system_id"] not in ("", system_id):
        raise ValueError(f"{data} is of system {system_id}, not {arguments['system_id']}")
    if (data / "standby.signal").exists():
        return {"written": False}
    return {"written": _replace(data / "standby.signal", f"{FENCE_MARK}# {arguments['note']}\n")}


def lift_signal(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Take back ``fence_signal``, and at a stopped server the freeze with it: {lifted}.

    A standby stays a standby. Arguments: data_directory.
    """
    data = Path(arguments["data_directory"])
    if not _is_fenced_primary(str(data)):
        return {"lifted": False}
    if _postmaster(str(data)) is None:
        _clear_settings(data, FROZEN_SETTINGS)
    os.unlink(data / "standby.signal")
    _sync_folder(data)
    return {"lifted": True}


def _system_id(data: Path) -> str:
    """The first field of pg_control, as pg_controldata prints it."""
    with (data / "global" / "pg_control").open("rb") as handle:
        return str(int.from_bytes(handle.read(8), sys.byteorder))


def _clear_settings(data: Path, names: tuple[str, ...]) -> list[str]:
    """Remove settings from auto.conf of a stopped server; what it still says."""
    automatic = data / "postgresql.auto.conf"
    text = automatic.read_text(encoding="utf-8") if automatic.exists() else ""
    kept = [
        line
        for line in text.removesuffix("\n").split("\n")  # and nothing else: a value may hold U+2028
        if line.partition("=")[0].strip().lower() not in names or line.lstrip().startswith("#")
    ]
    _replace(automatic, "\n".join(kept) + "\n")
    return [line for line in kept if line.strip() and not line.startswith("#")]


def move(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Rename ``source`` to ``destination`` on the same file system, durably. {moved}.

    Already moved (no source, destination there) is fine.
    """
    source, destination = Path(arguments["source"]), Path(arguments["destination"])
    if not source.exists() and destination.exists():
        return {"moved": False}
    if destination.exists():
        raise FileExistsError(f"{destination} exists already")
    destination.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _own(destination.parent, source.parent)
    os.rename(source, destination)
    _sync_folder(destination.parent)
    _sync_folder(source.parent)
    return {"moved": True}


def remove_folder(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Remove the unfinished folder ``path``, whose name must end in ``.partial`` or ``.new``."""
    path = Path(arguments["path"])
    if path.suffix not in (".partial", ".new"):
        raise ValueError(f"{path}: not an unfinished copy")
    existed = path.exists()
    if existed:
        shutil.rmtree(path)
    return {"removed": existed}


def make_folder(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Make the folder ``path`` with its parents, owned like ``beside``. {made}."""
    path = Path(arguments["path"])
    existed = path.exists()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not existed:
        _own(path, Path(arguments["beside"]))
    return {"made": not existed}


def signal_postmaster(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Send ``signal`` (HUP | INT | QUIT) to the living postmaster of ``data_directory``. {sent, pid}."""
    number = {"HUP": signal.SIGHUP, "INT": signal.SIGINT, "QUIT": signal.SIGQUIT}[str(arguments["signal"])]
    found = _postmaster(str(arguments["data_directory"]))
    if found is None:
        return {"sent": False, "pid": 0}
    os.kill(found["pid"], number)
    return {"sent": True, "pid": found["pid"]}


def wait_gone(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Wait until no process works in ``data_directory``: {gone, processes [``PID (command)``], boot_id, at_ns}."""
    data = str(arguments["data_directory"])
    deadline = time.monotonic() + int(arguments["timeout_ms"]) / 1000
    while True:
        alive = _processes(data)
        postmaster = _postmaster(data)
        if postmaster is not None and postmaster["pid"] not in alive:
            alive.append(postmaster["pid"])
        if not alive or time.monotonic() >= deadline:
            named = [f"{pid} ({_command(pid)})" for pid in alive]
            return {"gone": not alive, "processes": named, "boot_id": _boot_id(), "at_ns": time.time_ns()}
        time.sleep(POLL_SECONDS)


def claim(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Put ``content`` (JSON) into the claim file ``path`` unless another run holds it: {held_by, taken}.

    ``held_by`` is what the file held before, null for nothing.
    """
    path = Path(arguments["path"])
    held = read_file({"path": str(path)})["text"]
    before = json.loads(held) if held else None
    if before is not None and before.get("run") != arguments["content"]["run"] and before.get("open"):
        return {"held_by": before, "taken": False}
    _replace(path, json.dumps(arguments["content"], sort_keys=True) + "\n")
    return {"held_by": before, "taken": True}


def _replace(path: Path, text: str) -> bool:
    """Write the whole file and sync it; False when it holds this text already."""
    content = text.encode()
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        _own(Path(temporary), path.parent)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(path.parent)
    return True


def _own(path: Path, like: Path) -> None:
    if os.geteuid() == 0:
        owner = os.stat(like)
        os.chown(path, owner.st_uid, owner.st_gid)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
