"""Decides how a whole server is stopped, proven gone, prepared and started on its host; must never leave
a stopped primary that could come up as one: standby.signal is written before anything may start it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.core.values import Json
from orchestrator.drivers import postgresql_host, supervisor
from orchestrator.drivers.postgresql_member import Member, parse_control_data
from orchestrator.errors import PermanentError

if TYPE_CHECKING:
    from orchestrator.core.model import Manager
    from orchestrator.ports import Context, HostScript

GONE_SECONDS_MAX = 5.0


def call(context: Context[Any], member: Member, script: HostScript, arguments: Mapping[str, Json]) -> Any:
    """Run a script of ``postgresql_host`` on the member's host."""
    connection = context.hosts.connect(member.host)
    return connection.call(script, arguments, timeout_seconds=context.seconds_left())


def manager_of(member: Member) -> Manager:
    """PermanentError when the estate names no process manager for the host."""
    if member.host.manager is None:
        raise PermanentError(
            f"{member.host.name}: no manager declared that starts and stops {member.cluster.unit}"
        )
    return member.host.manager


def look(context: Context[Any], member: Member, *, control: bool = True) -> dict[str, Any]:
    """``postgresql_host.look`` with pg_controldata parsed into ``control`` (empty without data)."""
    arguments = {
        "data_directory": member.data_directory,
        "control_tool": member.tool("pg_controldata") if control else "",
    }
    seen = dict(call(context, member, postgresql_host.look, arguments))
    seen["control"] = parse_control_data(seen["control"])
    return seen


def stop(
    context: Context[Any], member: Member, *, immediate: bool = False, seconds: float | None = None
) -> None:
    """Stop the unit through its manager, at most ``seconds``. Raises as ``supervisor.stop``."""
    manager = manager_of(member)
    if immediate:
        context.record(quit_text(member))
        arguments = {"data_directory": member.data_directory, "signal": "QUIT"}
        call(context, member, postgresql_host.signal_postmaster, arguments)
    context.record(stop_text(member))
    left = context.seconds_left()
    supervisor.stop(
        manager, member.cluster.unit, context.secrets, left if seconds is None else min(seconds, left)
    )


def start(context: Context[Any], member: Member) -> None:
    """Start the unit through its manager. Raises as ``supervisor.start``."""
    context.record(start_text(member))
    supervisor.start(manager_of(member), member.cluster.unit, context.secrets, context.seconds_left())


def quit_text(member: Member) -> str:
    return f"{member.host.name}: kill -QUIT the postmaster of {member.data_directory}"


def stop_text(member: Member) -> str:
    return f"supervisor at {member.host.name}: stop {member.cluster.unit}"


def start_text(member: Member) -> str:
    return f"supervisor at {member.host.name}: start {member.cluster.unit}"


def prove_gone(context: Context[Any], member: Member, *, seconds: float = GONE_SECONDS_MAX) -> dict[str, Any]:
    """Wait until no process works in the data directory; {gone, processes, boot_id, at_ns}.

    A postmaster's children each lead a session of their own and outlive it: every one is looked for.
    """
    connection = context.hosts.connect(member.host)
    found = connection.call(
        postgresql_host.wait_gone,
        {"data_directory": member.data_directory},
        timeout_seconds=min(seconds, GONE_SECONDS_MAX, context.seconds_left()),
    )
    return dict(found)


def write_role(
    context: Context[Any],
    member: Member,
    text: str,
    *,
    passwords: Mapping[str, str] | None = None,
) -> None:
    """Rewrite the role file and, where given, the password file of a server."""
    from orchestrator.drivers.postgresql_settings import password_lines

    files = {member.role_file: text}
    if passwords is not None:
        files[member.password_file] = password_lines(member, passwords)
    context.record(f"write {member.role_file} at {member.host.name}")
    call(context, member, postgresql_host.write_files, {"files": files})


def follower_passwords(context: Context[Any], member: Member) -> dict[str, str]:
    """What a following server needs: to stream, and to be rewound."""
    roles = member.cluster.roles
    return {
        name: context.secrets.value(roles[name].password)
        for name in ("replication", "rewind")
        if name in roles
    }


# --- the claim ----------------------------------------------------------------------------------


def claim_file(member: Member) -> str:
    folder = member.host.run_directory or member.config_directory
    return f"{folder}/{member.cluster.name}.claim"


def take_claim(context: Context[Any], member: Member, **more: Json) -> None:
    """Write into the target's claim file which attempt is about to promote it."""
    content = {"run": context.run, "attempt": context.attempt, "open": False, **more}
    call(context, member, postgresql_host.claim, {"path": claim_file(member), "content": content})


def read_claim(context: Context[Any], member: Member) -> dict[str, Any] | None:
    """What the claim file says; None when there is none."""
    text = call(context, member, postgresql_host.read_file, {"path": claim_file(member)})["text"]
    return dict(json.loads(text)) if text else None
