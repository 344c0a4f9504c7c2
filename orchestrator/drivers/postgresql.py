"""Decides how PostgreSQL is spoken to: sessions, names, time limits, what an error means; must never repeat a change.

A session belongs to one step at a time and carries the attempt's name, so that a statement which
outlives its driver is seen in pg_stat_activity. Every wait on the network is bounded by the
attempt's deadline and ends when people cancel: the connection is then closed and the outcome unknown.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Unknown
from orchestrator.drivers.postgresql_member import Member
from orchestrator.errors import PermanentError, TransientError
from orchestrator.ports import Context

if TYPE_CHECKING:
    import psycopg

Session: TypeAlias = "psycopg.Connection[Any]"

NAME_BYTES_MAX = 63
CONNECT_SECONDS_MAX = 2  # psycopg's and libpq's least value
POLL_SECONDS = 0.01
LOOK_PREFIX = "cty-look:"
ATTEMPT_PREFIX = "cty:"

_OUTCOME_UNKNOWN = frozenset({"40003", "57014", "57P01", "57P02"})
_RETRYABLE_CLASSES = frozenset({"40", "53", "55", "57"})


# --- names ------------------------------------------------------------------------------------


def step_name(run: str, step: str) -> str:
    """What the application_name of every attempt of a step begins with (before ``/NUMBER``)."""
    name = f"{ATTEMPT_PREFIX}{run}/{step}"
    limit = NAME_BYTES_MAX - 4
    if len(name.encode()) <= limit and name.isascii():
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    kept = name.encode("ascii", "replace")[: limit - 13].decode()
    return f"{kept}~{digest}"


def attempt_name(context: Context[Any]) -> str:
    """application_name of an attempt, at most 63 bytes."""
    return f"{step_name(context.run, context.step)}/{context.attempt.rpartition('/')[2]}"


def quote(value: str | int) -> str:
    """A literal for SQL text that people are shown before it is sent."""
    if isinstance(value, int):
        return str(value)
    if "\\" in value or "\0" in value:
        raise PermanentError(f"not a plain text value: {value!r}")
    return "'" + value.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """An identifier for SQL text."""
    return '"' + name.replace('"', '""') + '"'


# --- time limits ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limit:
    """When a wait must end: a deadline on a monotonic clock, or people who cancel."""

    deadline: float
    monotonic: Callable[[], float]
    cancelled: threading.Event

    def check(self) -> None:
        """TimeoutError when the time is over."""
        if self.cancelled.is_set():
            raise TimeoutError("cancelled while the database was asked")
        if self.monotonic() >= self.deadline:
            raise TimeoutError("the database did not answer within the step's time")


def limit_of(context: Context[Any]) -> Limit:
    return Limit(context.deadline, context.clock.monotonic, context.cancelled)


def _bounded(generator: Generator[Any, Any, Any], limit: Limit) -> Generator[Any, Any, Any]:
    try:
        state = next(generator)
        while True:
            ready = yield state
            state = generator.send(ready)
            limit.check()
    except StopIteration as stop:
        return stop.value


@cache
def _session_class() -> Any:
    import psycopg

    class BoundedConnection(psycopg.Connection[Any]):
        """A connection whose every wait ends at its limit."""

        limit: Limit | None = None

        def wait(self, gen: Any, *args: Any, **more: Any) -> Any:
            if self.limit is None:
                return super().wait(gen, *args, **more)
            return super().wait(_bounded(gen, self.limit), POLL_SECONDS)

    return BoundedConnection


# --- sessions ---------------------------------------------------------------------------------


class Sessions:
    """The sessions of one (member, database, role): opened when needed, one per concurrent use."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._warming = threading.Lock()
        self._closed = False

    def take(self, name: str, limit: Limit, *, new: bool = False) -> Session:
        """A session that answers and is named. TransientError: none could be had, nothing was sent."""
        import psycopg

        while not new:
            with self._lock:
                if not self._idle:
                    break
                kept = self._idle.pop()
            kept.limit = limit
            try:
                _prepare(kept, name, limit)
                return kept  # type: ignore[no-any-return]
            except psycopg.Error:
                kept.close()
            except TimeoutError as error:
                kept.close()
                raise TransientError(f"{self._where}: {error}") from error
        return self._open(name, limit)

    def warm(self, name: str, limit: Limit, count: int = 1) -> None:
        """Have at least ``count`` idle sessions, and not one more for each step that asks at the same time:
        every session of a server reads its configuration again when it is reloaded."""
        with self._warming:
            while len(self._idle) < count:
                self.give_back(self._open(name, limit))

    def give_back(self, session: Session) -> None:
        """Keep a session for the next step if it is usable, else close it."""
        import psycopg

        usable = not session.closed and session.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with self._lock:
            if usable and not self._closed:
                self._idle.append(session)
                return
        session.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    @property
    def _where(self) -> str:
        given = self._parameters
        return f"{given['host']}:{given['port']}/{given['dbname']}"

    def _open(self, name: str, limit: Limit) -> Session:
        import psycopg

        try:
            limit.check()
            milliseconds = max(1, int((limit.deadline - limit.monotonic()) * 1000))
            options = f"{self._parameters['options']} -c statement_timeout={milliseconds}"
            session = _session_class().connect(
                **{**self._parameters, "options": options}, application_name=name
            )
        except psycopg.Error as error:
            raise TransientError(f"{self._where}: {error_text(error)}") from error
        except TimeoutError as error:
            raise TransientError(f"{self._where}: {error}") from error
        session.limit = limit
        return session  # type: ignore[no-any-return]


def _prepare(session: Any, name: str, limit: Limit) -> None:
    milliseconds = max(1, int((limit.deadline - limit.monotonic()) * 1000))
    session.execute(
        f"SELECT set_config('application_name', {quote(name)}, false),"
        f" set_config('statement_timeout', '{milliseconds}', false)"
    )


def pool(context: Context[Any], member: Member, database: str = "postgres") -> Sessions:
    """The control role's sessions at a member; opens nothing yet."""

    def make() -> Sessions:
        return Sessions(parameters(context, member, database))

    return context.resources.get(("postgresql", member.cluster.name, member.host.name, database), make)


def parameters(context: Context[Any], member: Member, database: str) -> dict[str, Any]:
    """How the control role connects to a member."""
    import psycopg

    role = member.cluster.roles["control"]
    found: dict[str, Any] = {
        "host": member.host.address,
        "port": member.cluster.port,
        "dbname": database,
        "user": role.user,
        "password": context.secrets.value(role.password),
        "sslmode": member.cluster.tls.mode,
        "connect_timeout": CONNECT_SECONDS_MAX,
        "gssencmode": "disable",
        "options": "-c client_connection_check_interval=100ms -c lock_timeout=0",
        "autocommit": True,
        "prepare_threshold": None,
    }
    if member.ca:
        found["sslrootcert"] = member.ca
    if psycopg.pq.version() >= 160000:
        found["require_auth"] = "scram-sha-256"
    return found


@contextmanager
def lease(
    context: Context[Any],
    member: Member,
    database: str = "postgres",
    *,
    looking: bool = False,
    new: bool = False,
    limit: Limit | None = None,
) -> Iterator[Session]:
    """A session for this attempt. It is kept when the block ends well, else closed.

    ``looking`` names it apart, for checks that search pg_stat_activity for the attempt itself;
    ``new`` opens one in any case. TransientError only before anything was sent.
    """
    sessions = pool(context, member, database)
    name = attempt_name(context)
    if looking:
        name = LOOK_PREFIX + name[len(ATTEMPT_PREFIX) : NAME_BYTES_MAX - len(LOOK_PREFIX)]
    session = sessions.take(name, limit or limit_of(context), new=new)
    try:
        yield session
    except BaseException:
        session.close()
        raise
    sessions.give_back(session)


def warm(
    context: Context[Any], member: Member, databases: Sequence[str] = ("postgres",), count: int = 1
) -> None:
    """Open sessions before the order. TransientError when the server does not answer."""
    for database in databases:
        pool(context, member, database).warm(attempt_name(context), limit_of(context), count)


# --- statements -------------------------------------------------------------------------------


def rows(session: Session, text: str) -> list[tuple[Any, ...]]:
    """Send SQL text of one or more statements; the rows of the last one that has any."""
    cursor = session.execute(text)
    found: list[tuple[Any, ...]] = []
    while True:
        if cursor.description is not None:
            found = cursor.fetchall()
        if not cursor.nextset():
            return found


def row(session: Session, text: str) -> tuple[Any, ...]:
    """The only row. PermanentError when there is none."""
    found = rows(session, text)
    if not found:
        raise PermanentError(f"no row: {text[:120]}")
    return found[0]


def value(session: Session, text: str) -> Any:
    """The first column of the only row."""
    return row(session, text)[0]


def is_alive(session: Session, context: Context[Any]) -> bool:
    """Does a statement of an attempt of this step still run at this server (core contract 3.2)?"""
    prefix = quote(step_name(context.run, context.step) + "/")
    text = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state <> 'idle'"
        f" AND starts_with(application_name, {prefix}))"
    )
    return bool(value(session, text))


def poll(context: Context[Any], done: Callable[[], bool], every_seconds: float = 0.002) -> None:
    """Ask until ``done``. TimeoutError at the deadline or when cancelled."""
    limit = limit_of(context)
    while not done():
        limit.check()
        time.sleep(every_seconds)


# --- what an error means ----------------------------------------------------------------------


def error_text(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:400]


def outcome_of(error: psycopg.Error) -> Outcome:
    """What an error of a statement that changes something says about the change.

    The server's own refusal is surely not done; a lost connection, a time-out and a terminated
    session leave it unknown.
    """
    state = error.sqlstate
    if state is None or state in _OUTCOME_UNKNOWN or state.startswith("08"):
        return Unknown(f"the answer was lost: {error_text(error)}")
    return Failed(f"{state}: {error_text(error)}", retryable=state[:2] in _RETRYABLE_CLASSES)


def settle(work: Callable[[], Outcome]) -> Outcome:
    """Run the body of ``execute`` or ``undo`` and turn what it raises into an outcome.

    TransientError is raised before anything is sent only, or by idempotent actions.
    """
    import psycopg

    try:
        return work()
    except TransientError as error:
        return Failed(str(error), retryable=True)
    except PermanentError as error:
        return Failed(str(error))
    except TimeoutError as error:
        return Unknown(str(error))
    except psycopg.Error as error:
        return outcome_of(error)


def found(work: Callable[[], Finding]) -> Finding:
    """Run the body of ``check``: whatever stops it from seeing means that it cannot tell."""
    import psycopg

    try:
        return work()
    except (TransientError, PermanentError, TimeoutError, psycopg.Error) as error:
        return Finding(FindingKind.CANNOT_TELL, error_text(error))
