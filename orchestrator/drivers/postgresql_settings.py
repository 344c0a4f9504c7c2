"""Decides how settings of a running server are changed and when a change is in force; must never restart it.

A reload is asynchronous. The postmaster passes the signal on to its children only after it has read
the files itself, so once a session that was open before sees the reload, every session that starts
from then on has the new values. Waiting for that costs 1 ms, a new session 8 ms. What a role or a
database sets for itself overrides both: ``overrides`` names it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.drivers.postgresql import Session, limit_of, quote, row, rows, value
from orchestrator.drivers.postgresql_member import Member
from orchestrator.errors import PermanentError

if TYPE_CHECKING:
    from orchestrator.ports import Context

RELOAD = "SELECT pg_reload_conf()"
RELOAD_SECONDS_MAX = 5.0
POLL_SECONDS = 0.0005
LOADED = "(extract(epoch FROM pg_conf_load_time()) * 1000000)::bigint"


def alter_statement(name: str, setting: str | None) -> str:
    """``ALTER SYSTEM`` to a value, or back to what the files say (None)."""
    return f"ALTER SYSTEM RESET {name}" if setting is None else f"ALTER SYSTEM SET {name} = {quote(setting)}"


def statements(settings: Mapping[str, str | None]) -> tuple[str, ...]:
    """The exact statements of ``change``, for people."""
    return (*(alter_statement(name, setting) for name, setting in settings.items()), RELOAD)


def change(
    context: Context[Any], session: Session, settings: Mapping[str, str | None], read: str = "NULL"
) -> tuple[Any, ...]:
    """Set or reset settings and return when every new session has them. Each is idempotent.

    ``read``: SQL expressions whose values are wanted from then on; they cost no round trip of their own.
    PermanentError when a configuration file has an error, which PostgreSQL answers by changing nothing.
    """
    for name, setting in settings.items():
        text = alter_statement(name, setting)
        context.record(text)
        rows(session, text)
    return reload(context, session, read)


def reload(context: Context[Any], session: Session, read: str = "NULL") -> tuple[Any, ...]:
    """Have the server read its files and return, when every new session has the new values, what ``read`` says."""
    context.record(RELOAD)
    before, _ = row(
        session, f"SELECT {LOADED}, pg_reload_conf()"
    )  # this session hears of it after the statement
    limit = limit_of(context)
    deadline = time.monotonic() + RELOAD_SECONDS_MAX
    while True:
        loaded, *values = row(session, f"SELECT {LOADED}, {read}")
        if loaded != before:
            return tuple(values)
        limit.check()
        if time.monotonic() >= deadline:
            raise PermanentError(f"the reload changes nothing: {_file_errors(session)}")
        time.sleep(POLL_SECONDS)


def _file_errors(session: Session) -> str:
    found = rows(
        session,
        "SELECT sourcefile, sourceline, name, error FROM pg_file_settings"
        " WHERE error IS NOT NULL AND error NOT LIKE '%restart%'",
    )
    return (
        "; ".join(f"{file}:{line}: {name}: {error}" for file, line, name, error in found) or "no reason found"
    )


def overrides_text(name: str) -> str:
    """SQL for an array of where ROLE or DATABASE settings override this one for new sessions:
    ``role in database: value``."""
    return (
        "(SELECT coalesce(array_agg(coalesce(rolname, 'every role') || ' in ' ||"
        " coalesce(datname, 'every database') || ': ' || setting), '{}')"
        " FROM pg_db_role_setting LEFT JOIN pg_roles ON pg_roles.oid = setrole"
        " LEFT JOIN pg_database ON pg_database.oid = setdatabase, unnest(setconfig) AS setting"
        f" WHERE starts_with(setting, {quote(name + '=')}))"
    )


def overrides(session: Session, name: str) -> list[str]:
    """Where ROLE or DATABASE settings override this setting for new sessions."""
    found: list[str] = value(session, f"SELECT {overrides_text(name)}")
    return found


WRITING = overrides_text("default_transaction_read_only")


def that_let_write(found: Sequence[str]) -> list[str]:
    """Of what ``WRITING`` gave: roles and databases whose sessions write although the default is read-only."""
    return [text for text in found if text.rpartition("=")[2] != "on"]


def lets_write(session: Session) -> list[str]:
    """Roles and databases whose sessions write although ``default_transaction_read_only`` is on."""
    return that_let_write(value(session, f"SELECT {WRITING}"))


def read_settings(session: Session, names: tuple[str, ...]) -> dict[str, str]:
    """The settings as this session has them."""
    found = row(session, f"SELECT {settings_text(names)}")
    return dict(zip(names, found, strict=True))


def settings_text(names: Iterable[str]) -> str:
    """SQL for the settings, one expression each."""
    return ", ".join(f"current_setting({quote(name)})" for name in names)


# --- the role file ----------------------------------------------------------------------------


def conninfo(source: Member, follower: Member, *, role: str, database: str = "", name: str = "") -> str:
    """How ``follower``'s host reaches the server ``source``; the password stands in a file there.

    ``name``: what a tool is called there. Only the standby itself has its host's name: commits wait for it.
    """
    cluster = source.cluster
    path = cluster.replicate_from.get(source.host.site)
    parts = {
        "host": path.address if path else source.host.address,
        "port": str(path.port if path else cluster.port),
        "user": cluster.roles[role].user,  # type: ignore[index]
        "passfile": follower.password_file,
        "sslmode": cluster.tls.mode,
    }
    if follower.ca:
        parts["sslrootcert"] = follower.ca
    if name or role == "replication":
        parts["application_name"] = name or follower.host.name
    if database:
        parts["dbname"] = database
    return " ".join(f"{name}={_conninfo_value(text)}" for name, text in parts.items())


def _conninfo_value(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{plain}'" if not text or any(c in text for c in " '\\=") else text


def standby_file(source: Member, follower: Member) -> str:
    """The role file of a server that follows ``source``."""
    text = conninfo(source, follower, role="replication").replace("'", "''")
    return (
        "# Written by continuity at each role change.\n"
        f"primary_conninfo = '{text}'\nprimary_slot_name = '{follower.slot}'\n"
        "recovery_target_timeline = 'latest'\n"
        "synchronous_standby_names = ''\n"
        "restore_command = ''\n"
    )


def primary_file(synchronous_standby_names: str) -> str:
    """The role file of a server that others follow."""
    names = synchronous_standby_names.replace("'", "''")
    return f"# Written by continuity at each role change.\nsynchronous_standby_names = '{names}'\n"


def synchronous_names(followers: tuple[Member, ...]) -> str:
    """Commits wait for any one of these."""
    listed = ", ".join('"' + member.host.name.replace('"', '""') + '"' for member in followers)
    return f"ANY 1 ({listed})"


def password_lines(member: Member, passwords: Mapping[str, str]) -> str:
    """The password file of a host's server: one line for each role it uses."""

    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace(":", "\\:")

    roles: Any = member.cluster.roles
    return "".join(
        f"*:*:*:{escaped(roles[name].user)}:{escaped(secret)}\n" for name, secret in passwords.items()
    )
