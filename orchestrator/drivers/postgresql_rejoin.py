"""Decides how a data directory is kept, copied, rewound, cloned and put in place; must never change what is kept.

All work is done beside the data directory, where no unit starts anything: the directory itself is
either the old one, with standby.signal, or a finished new one. A finished one carries a mark; what
has none is a half and is removed, except a base backup that is seen to be whole.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.core.values import Json
from orchestrator.drivers import (
    postgresql_host,
    postgresql_keep_host,
    postgresql_server,
    postgresql_settings,
)
from orchestrator.drivers.postgresql_follower import prepare_files
from orchestrator.drivers.postgresql_member import Member, parse_control_data
from orchestrator.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from orchestrator.ports import Completed, Context

MARK = "continuity.rejoin"
TOOL_NAME = "continuity rejoin"
NOTE = "note.json"
STOP_SECONDS_MAX = 60.0
NOT_COPIED = ("standby.signal", "recovery.signal", "postmaster.pid")
ERROR_CHARACTERS = 600
LINK_TROUBLE = ("connection to server", "could not connect", "server closed the connection", "SSL connection")


@dataclass(frozen=True, slots=True)
class Places:
    """``new``: where the successor of ``data`` is made. ``kept``: where the old state is kept."""

    data: str
    new: str
    kept: str
    aside: str  # the same beside the data, for when ``kept`` is on another device

    @property
    def kept_data(self) -> str:
        return f"{self.kept}/data"


@dataclass(frozen=True, slots=True)
class View:
    """What lies where now. ``mark``: what the finished directory says of itself, where it is ours."""

    has_data: bool
    has_new: bool
    is_mount: bool
    is_cloned: bool
    is_kept: bool
    same_device: bool
    outside: Mapping[str, str]
    data_mark: Mapping[str, Json] | None
    new_mark: Mapping[str, Json] | None


def places(follower: Member, run: str) -> Places:
    data = follower.data_directory.rstrip("/")
    name = f"{follower.cluster.name}-{follower.host.name}-{run}"
    return Places(
        data, f"{data}.rejoin.new", f"{follower.evidence_directory}/{name}", f"{data}.evidence/{name}"
    )


def lock_name(follower: Member) -> str:
    return f"{follower.cluster.name}.rejoin"


# --- texts --------------------------------------------------------------------------------------


def signal_text(follower: Member) -> str:
    return f"{follower.host.name}: write {follower.data_directory}/standby.signal"


def move_text(follower: Member, source: str, destination: str) -> str:
    return f"{follower.host.name}: rename {source} to {destination}"


def remove_text(follower: Member, path: str) -> str:
    return f"{follower.host.name}: remove the unfinished {path}"


def finish_text(follower: Member, new: str) -> str:
    return f"{follower.host.name}: write {new}/{MARK}"


def copy_argv(source: str, destination: str) -> tuple[str, ...]:
    return ("cp", "-a", "--reflink=auto", source, destination)


def rewind_argv(source: Member, follower: Member, new: str) -> tuple[str, ...]:
    conninfo = postgresql_settings.conninfo(
        source, follower, role="rewind", database="postgres", name=TOOL_NAME
    )
    return (
        *(follower.tool("pg_rewind"), "--target-pgdata", new, "--source-server", conninfo),
        *("--config-file", recovery_file(follower), "--no-sync"),
    )


def clone_argv(source: Member, follower: Member, new: str) -> tuple[str, ...]:
    conninfo = postgresql_settings.conninfo(source, follower, role="replication", name=TOOL_NAME)
    return (
        *(follower.tool("pg_basebackup"), "--dbname", conninfo, "--pgdata", new, "--wal-method", "stream"),
        *("--checkpoint", "fast", "--slot", follower.slot),
    )


def sync_argv(path: str) -> tuple[str, ...]:
    """Everything there is on its disk when this ends. pg_rewind would ask for it file by file, and each new
    file costs a turn of the file system's own log: seconds, where this takes a tenth of one. pg_basebackup
    is left to do so: its manifest, which says that a clone is whole, must not be there before."""
    return ("sync", "--file-system", path)


def recovery_file(follower: Member) -> str:
    """The configuration by which a copy recovers from its crash before it is rewound."""
    return f"{follower.config_directory}/continuity.rewind.conf"


# --- looking ------------------------------------------------------------------------------------


def view(context: Context[Any], follower: Member, where: Places) -> View:
    arguments: dict[str, Json] = {"data": where.data, "new": where.new, "kept": where.kept, "mark": MARK}
    found = postgresql_server.call(context, follower, postgresql_keep_host.survey, arguments)
    return View(
        has_data=found["data"]["exists"],
        has_new=found["new"]["exists"],
        is_mount=found["is_mount"],
        is_cloned=found["is_cloned"],
        is_kept=found["is_kept"],
        same_device=found["same_device"],
        outside=found["outside"],
        data_mark=_ours(context, follower, found["data"]["mark"]),
        new_mark=_ours(context, follower, found["new"]["mark"]),
    )


def _ours(context: Context[Any], follower: Member, text: str | None) -> Mapping[str, Json] | None:
    """A mark travels with every copy of a directory: it counts only for its own run and host."""
    try:
        mark = json.loads(text or "null")
    except ValueError:
        return None
    if not isinstance(mark, dict):
        return None
    return mark if (mark.get("run"), mark.get("host")) == (context.run, follower.host.name) else None


def control_of(context: Context[Any], follower: Member, path: str) -> dict[str, str]:
    """pg_controldata of a directory that no server runs in; empty when it holds no database."""
    arguments: dict[str, Json] = {"data_directory": path, "control_tool": follower.tool("pg_controldata")}
    seen = postgresql_server.call(context, follower, postgresql_host.look, arguments)
    return parse_control_data(seen["control"])


def backup_label(context: Context[Any], follower: Member, path: str) -> str:
    arguments: dict[str, Json] = {"path": f"{path}/backup_label"}
    return str(postgresql_server.call(context, follower, postgresql_host.read_file, arguments)["text"] or "")


def room(context: Context[Any], follower: Member, where: Places, data: str) -> dict[str, Any]:
    arguments: dict[str, Json] = {"data": data, "new": where.new, "kept": where.kept}
    return dict(postgresql_server.call(context, follower, postgresql_keep_host.room, arguments))


# --- phases -------------------------------------------------------------------------------------


def stand_down(context: Context[Any], follower: Member, *, has_data: bool) -> None:
    """Whatever runs is stopped, and what is stopped comes up as nothing but a standby."""
    if has_data:
        context.record(signal_text(follower))
        arguments: dict[str, Json] = {
            "data_directory": follower.data_directory,
            "note": f"attempt {context.attempt}",
            "system_id": "",
        }
        postgresql_server.call(context, follower, postgresql_host.fence_signal, arguments)
    postgresql_server.stop(context, follower, seconds=STOP_SECONDS_MAX)
    gone = postgresql_server.prove_gone(context, follower)
    if not gone["gone"]:
        raise TransientError(
            f"{follower.host.name}: {', '.join(gone['processes'])} still work in {follower.data_directory}"
        )


def tidy(context: Context[Any], follower: Member, where: Places, now: View) -> None:
    """Remove a half; what it changed outside is first put back from what is kept."""
    if not now.has_new:
        return
    if now.is_kept and now.outside:
        folders: dict[str, Json] = dict(now.outside)
        arguments: dict[str, Json] = {"folders": folders, "kept": f"{where.kept}/outside"}
        context.record(f"{follower.host.name}: put back {', '.join(sorted(now.outside.values()))}")
        postgresql_server.call(context, follower, postgresql_keep_host.clear_outside, arguments)
        for key, folder in now.outside.items():
            _copy(context, follower, f"{where.kept}/outside/{key}/.", folder)
    _remove(context, follower, where.new)


def keep(context: Context[Any], follower: Member, where: Places, now: View, note: Mapping[str, Json]) -> None:
    """The whole old data directory, and all that lies outside, is in ``kept`` when this returns.

    On one device it is renamed: what is kept is then the very original.
    """
    if now.is_kept:
        return
    _note(context, follower, where.kept, note)
    if now.outside:
        _remove(context, follower, f"{where.kept}/outside.partial")
        for key, folder in now.outside.items():
            _make(context, follower, f"{where.kept}/outside.partial/{key}")
            _copy(context, follower, f"{folder}/.", f"{where.kept}/outside.partial/{key}")
        _sync(context, follower, where.kept)
        _move(context, follower, f"{where.kept}/outside.partial", f"{where.kept}/outside")
    if now.same_device:
        _move(context, follower, where.data, where.kept_data)
        return
    _remove(context, follower, f"{where.kept}/data.partial")
    _copy(context, follower, where.data, f"{where.kept}/data.partial")
    _sync(context, follower, where.kept)
    _move(context, follower, f"{where.kept}/data.partial", where.kept_data)


def copy_to_rewind(context: Context[Any], follower: Member, where: Places, now: View) -> None:
    """A copy of what is kept, or the original once a copy is kept, stands where it is worked on."""
    if now.same_device or not now.has_data:
        _copy(context, follower, where.kept_data, where.new)
    else:
        _move(context, follower, where.data, where.new)
    paths: list[Json] = [f"{where.new}/{name}" for name in NOT_COPIED]
    context.record(clean_text(follower, where.new))
    postgresql_server.call(context, follower, postgresql_host.write_files, {"files": {}, "remove": paths})


def clean_text(follower: Member, new: str) -> str:
    return f"{follower.host.name}: remove {', '.join(NOT_COPIED)} in {new}"


def rewind(context: Context[Any], source: Member, follower: Member, where: Places) -> tuple[str, str]:
    """(what pg_rewind said, why it could not do it or ""). TransientError when only the link failed.

    Single-user recovery, which it runs first, refuses standby.signal: the copy has none, and stands
    where nothing starts it.
    """
    text = f"include '{follower.config_file}'\ndata_directory = '{where.new}'\n"
    _write(context, follower, recovery_file(follower), text)
    done = _tool(context, follower, rewind_argv(source, follower, where.new))
    said = f"{done.stdout}\n{done.stderr}".strip()
    if done.exit_code == 0:
        _sync(context, follower, where.new)
        return said, ""
    short = " ".join(said[-ERROR_CHARACTERS:].split())
    if done.exit_code < 0 or any(sign in said for sign in LINK_TROUBLE):
        raise TransientError(f"pg_rewind: exit {done.exit_code}: {short}")
    return said, f"pg_rewind: {short}"


def clone(context: Context[Any], source: Member, follower: Member, where: Places) -> None:
    """A base backup with its own log. TransientError: it may be tried again."""
    _make(context, follower, where.new)
    done = _tool(context, follower, clone_argv(source, follower, where.new))
    if done.exit_code:
        short = " ".join(f"{done.stdout}\n{done.stderr}"[-ERROR_CHARACTERS:].split())
        raise TransientError(f"pg_basebackup: exit {done.exit_code}: {short}")


def finish(context: Context[Any], follower: Member, where: Places, mark: Mapping[str, Json]) -> None:
    """The new directory is whole: it can start as a standby only, and says whose it is."""
    prepare_files(context, follower, where.new)
    context.record(finish_text(follower, where.new))
    text = json.dumps({"run": context.run, "host": follower.host.name, **mark}, sort_keys=True) + "\n"
    files: dict[str, Json] = {f"{where.new}/{MARK}": text}
    postgresql_server.call(context, follower, postgresql_host.write_files, {"files": files})


def swap(context: Context[Any], follower: Member, where: Places, now: View, note: Mapping[str, Json]) -> None:
    """Put the finished directory in place; an old one that is still there is moved aside first."""
    if now.has_data:
        aside = where.kept if now.same_device and not now.is_kept else where.aside
        _note(context, follower, aside, note)
        _move(context, follower, where.data, f"{aside}/data")
    _move(context, follower, where.new, where.data)


# --- one thing each -----------------------------------------------------------------------------


def _tool(context: Context[Any], follower: Member, argv: Sequence[str]) -> Completed:
    """A long command: it holds the step's lock on the host for as long as it lives."""
    context.record(shlex.join(argv))
    return context.hosts.connect(follower.host).run(
        argv,
        timeout_seconds=context.seconds_left(),
        lock=lock_name(follower),
        cancelled=context.cancelled,
    )


def _copy(context: Context[Any], follower: Member, source: str, destination: str) -> None:
    done = _tool(context, follower, copy_argv(source, destination))
    if done.exit_code:
        raise PermanentError(f"{follower.host.name}: cp: {' '.join(done.stderr[-ERROR_CHARACTERS:].split())}")


def _sync(context: Context[Any], follower: Member, path: str) -> None:
    done = _tool(context, follower, sync_argv(path))
    if done.exit_code:
        raise PermanentError(f"{follower.host.name}: sync: {done.stderr.strip()[-ERROR_CHARACTERS:]}")


def _move(context: Context[Any], follower: Member, source: str, destination: str) -> None:
    context.record(move_text(follower, source, destination))
    arguments: dict[str, Json] = {"source": source, "destination": destination}
    postgresql_server.call(context, follower, postgresql_host.move, arguments)


def _remove(context: Context[Any], follower: Member, path: str) -> None:
    context.record(remove_text(follower, path))
    postgresql_server.call(context, follower, postgresql_host.remove_folder, {"path": path})


def _make(context: Context[Any], follower: Member, path: str) -> None:
    beside = follower.data_directory.rstrip("/").rpartition("/")[0]
    arguments: dict[str, Json] = {"path": path, "beside": beside}
    postgresql_server.call(context, follower, postgresql_host.make_folder, arguments)


def _note(context: Context[Any], follower: Member, folder: str, note: Mapping[str, Json]) -> None:
    """What is kept in ``folder``, for whoever finds it later."""
    _make(context, follower, folder)
    told = {"run": context.run, "cluster": follower.cluster.name, "host": follower.host.name, **note}
    _write(context, follower, f"{folder}/{NOTE}", json.dumps(told, indent=1, sort_keys=True) + "\n")


def _write(context: Context[Any], follower: Member, path: str, text: str) -> None:
    context.record(f"{follower.host.name}: write {path}")
    files: dict[str, Json] = {path: text}
    postgresql_server.call(context, follower, postgresql_host.write_files, {"files": files})
