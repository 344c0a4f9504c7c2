"""Decides what one look at a PostgreSQL server says: role, freshness, and how long a promotion would
take. Must never write, and never call a server down that merely did not answer.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from orchestrator.core.model import Cluster, Host
from orchestrator.core.values import Json, duration_text, size_text
from orchestrator.errors import ContinuityError, TransientError
from orchestrator.ports import Hosts, Report, Secrets

NAME = "cty-probe"
REFUSED = "Connection refused"
CONNECT_SECONDS_MAX = 2


@dataclass(frozen=True, slots=True)
class PostgresqlProbeParams:
    """``expect``: what the member should be now; '' takes either. ``database``: where the heartbeat and
    epoch rows are. ``lag_ms`` and ``backlog_bytes`` are limits of the cluster (semantics 4)."""

    cluster: Cluster
    host: Host
    database: str = "postgres"
    expect: Literal["", "primary", "standby"] = ""


class PostgresqlProbe:
    """up: the expected role, writable or fresh · degraded: it lags, replays late or has the other role ·
    down: nobody listens · unknown: no answer, or it does not let us in."""

    kind: ClassVar[str] = "postgresql"
    params: ClassVar[type[Any]] = PostgresqlProbeParams

    def look(
        self, params: PostgresqlProbeParams, *, timeout_seconds: float, hosts: Hosts, secrets: Secrets
    ) -> Report:
        del hosts
        from orchestrator.drivers.postgresql_member import Member

        member = Member(params.cluster, params.host)
        try:
            facts = _facts(params, member, timeout_seconds, secrets)
        except (ContinuityError, TimeoutError) as error:  # also a secret that is not there
            return Report("down" if REFUSED in str(error) else "unknown", str(error))
        problems = _problems(params, facts)
        text = f"{facts['role']}, {'writable' if facts['writable'] else 'read-only'}"
        if facts["role"] == "standby":
            backlog = size_text(int(str(facts["backlog_bytes"])))
            text += f", {_lag_text(facts)}, {backlog} to replay"
        text += f", promotes in about {facts['predicted_promote_ms']} ms"
        return Report("degraded" if problems else "up", "; ".join([text, *problems]), facts)


def _facts(
    params: PostgresqlProbeParams, member: Any, timeout_seconds: float, secrets: Secrets
) -> dict[str, Json]:
    import psycopg

    from orchestrator.drivers import postgresql, postgresql_facts
    from orchestrator.drivers.postgresql_member import bytes_between, promote_ms

    limit = postgresql.Limit(time.monotonic() + timeout_seconds, time.monotonic, threading.Event())
    session = postgresql.Sessions(_parameters(params, member.ca, secrets)).take(NAME, limit, new=True)
    try:
        seen = postgresql_facts.facts(session)
        heartbeat = postgresql_facts.heartbeat_ns(session)
    except psycopg.Error as error:
        raise TransientError(f"{member.endpoint}: {postgresql.error_text(error)}") from error
    finally:
        session.close()
    newest = max(seen.last_commit_ns or 0, heartbeat or 0)
    lag_bytes: int | None = 0
    if seen.in_recovery:  # who does not stream does not know how far the primary went on
        streams = seen.evidence()["receiver"] == "streaming"
        lag_bytes = bytes_between(seen.home_lsn, seen.received_lsn) if streams else None
    return {
        **seen.evidence(),
        "writable": not seen.in_recovery and not seen.read_only,
        "lag_bytes": lag_bytes,
        "lag_ms": max(0, (seen.now_ns - newest) // 1_000_000) if seen.in_recovery and newest else None,
        "backlog_bytes": seen.backlog_bytes,
        "predicted_promote_ms": promote_ms(seen.backlog_bytes),
        "heartbeat_ns": heartbeat,
    }


def _lag_text(facts: dict[str, Json]) -> str:
    size, age = facts["lag_bytes"], facts["lag_ms"]
    behind = f"{size_text(size)} behind" if isinstance(size, int) else "unknown how many bytes behind"
    return f"{behind}, newest change {duration_text(age)} old" if isinstance(age, int) else behind


def _parameters(params: PostgresqlProbeParams, ca: str, secrets: Secrets) -> dict[str, Any]:
    """A session of the control role; the probe sends nothing but reads."""
    role = params.cluster.roles["control"]
    return {
        "host": params.host.address,
        "port": params.cluster.port,
        "dbname": params.database,
        "user": role.user,
        "password": secrets.value(role.password),
        "sslmode": params.cluster.tls.mode,
        **({"sslrootcert": ca} if ca else {}),
        "connect_timeout": CONNECT_SECONDS_MAX,
        "gssencmode": "disable",
        "options": "",
        "autocommit": True,
        "prepare_threshold": None,
    }


def _problems(params: PostgresqlProbeParams, facts: dict[str, Json]) -> list[str]:
    problems = []
    if params.expect and facts["role"] != params.expect:
        problems.append(f"is a {facts['role']}, not a {params.expect}")
    if facts["role"] == "primary":
        return problems if facts["writable"] else [*problems, "default_transaction_read_only is on"]
    if facts["receiver"] != "streaming":
        problems.append("does not stream")
    if facts["replay"] != "not paused":
        problems.append(f"replay is {facts['replay']}")
    if str(facts["apply_delay"]) not in ("0", "0ms"):
        problems.append(f"replay is delayed by {facts['apply_delay']}")
    limits = params.cluster.limits
    if isinstance(facts["backlog_bytes"], int) and facts["backlog_bytes"] > limits.backlog_bytes:
        problems.append(f"{size_text(facts['backlog_bytes'])} wait to be replayed")
    if isinstance(facts["lag_ms"], int) and facts["lag_ms"] > limits.lag_ms:
        problems.append(f"the newest change is {duration_text(facts['lag_ms'])} old")
    return problems
