"""Decides how units are started and stopped through supervisor; must never keep a connection.

Supervisor's XML-RPC interface over HTTP with basic authentication. Its usual transport stays broken
after one failed connect, and its own waiting costs a second (``startsecs``): so each call is a new
connection with a bound, ``wait`` is always false, and the state is polled.
"""

from __future__ import annotations

import time
import xmlrpc.client
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import urlsplit, urlunsplit

from orchestrator.core.model import Host, Manager
from orchestrator.drivers import http
from orchestrator.errors import ContinuityError, PermanentError, TransientError
from orchestrator.ports import Secrets

CALL_SECONDS_MAX = 2.0
POLL_SECONDS = 0.005
SPAWN_SECONDS = 0.05  # a signal that meets a unit between fork and exec is lost
SETTLED_POLLS = 3  # supervisor restarts an exited unit in the loop that answers the next call

_BAD_NAME, _SPAWN_ERROR, _ALREADY_STARTED, _NOT_RUNNING = 10, 50, 60, 70
_STARTED = (_ALREADY_STARTED, _SPAWN_ERROR)
"""Faults after which a look says more: one that ended before supervisor had answered is a spawn error to it."""

StateName = Literal["running", "stopped", "starting", "stopping", "exited", "fatal", "unknown"]

RUNS: frozenset[StateName] = frozenset({"running", "starting"})
"""It runs, or its manager is about to start it (again)."""

_STATES: dict[int, StateName] = {
    0: "stopped",
    10: "starting",
    20: "running",
    30: "starting",  # BACKOFF: waits to be started again
    40: "stopping",
    100: "exited",
    200: "fatal",
}


class NoSuchUnitError(PermanentError):
    """The manager answers and knows no unit of that name."""


@dataclass(frozen=True, slots=True)
class UnitState:
    """What the manager says of a unit. ``pid`` is 0 when no process lives; ``started_at`` is in
    seconds UTC and ``age_seconds`` counts from it, both by the manager's clock."""

    name: StateName
    pid: int
    started_at: int = 0
    age_seconds: int = 0
    detail: str = ""


def manager_of(host: Host) -> Manager:
    """The manager that a host declares. Raises PermanentError when it declares none."""
    if host.manager is None:
        raise PermanentError(f"{host.name}: no manager is declared that could start or stop units")
    return host.manager


def need_password(manager: Manager, secrets: Secrets) -> None:
    """Read the manager's password. InputError when it is not there: before anything is told or sent."""
    if manager.password:
        secrets.value(manager.password)


def start_command(host: Host, unit: str) -> str:
    """What people type to start a unit."""
    if host.manager is None:
        return f"start {unit} on {host.name}"
    user = f" -u {host.manager.user}" if host.manager.user else ""
    return f"supervisorctl -s {host.manager.url}{user} start {unit}"


def state(
    manager: Manager, unit: str, secrets: Secrets, *, timeout_seconds: float = CALL_SECONDS_MAX
) -> UnitState:
    """Ask for the state of a unit. TransientError: no answer; NoSuchUnitError: it knows none of that name."""
    answer = _call(manager, secrets, "supervisor.getProcessInfo", (unit,), time.monotonic() + timeout_seconds)
    info = cast("dict[str, Any]", answer)
    return UnitState(
        _STATES.get(int(info["state"]), "unknown"),
        int(info["pid"]),
        int(info["start"]),
        int(info["now"]) - int(info["start"]),
        str(info.get("spawnerr") or ""),
    )


def told(host: Host, unit: str, secrets: Secrets, timeout_seconds: float) -> str:
    """How a unit is now, for people, with what starts it where it does not run."""
    try:
        now = state(manager_of(host), unit, secrets, timeout_seconds=timeout_seconds)
    except (ContinuityError, TimeoutError) as error:
        return f"whether {unit} on {host.name} runs is not known: {error}"
    if now.name == "running":
        return f"{unit} on {host.name} runs"
    return f"{unit} on {host.name} is {now.name}: {start_command(host, unit)}"


def start(manager: Manager, unit: str, secrets: Secrets, timeout_seconds: float) -> UnitState:
    """Start a unit and return when it runs; one that runs already is fine.

    TransientError: the order was surely not given. TimeoutError: nobody knows how it ended.
    PermanentError: the unit does not exist, cannot be spawned or ended at once.
    """
    deadline = time.monotonic() + timeout_seconds
    _order(manager, secrets, "supervisor.startProcess", unit, deadline, *_STARTED)
    ordered_again = False
    while True:
        now = _look(manager, unit, secrets, deadline)
        if now.name == "running":
            return now
        if now.name in ("fatal", "exited"):
            raise PermanentError(f"{unit}: ended at once ({now.name}) {now.detail}".rstrip())
        if now.name == "stopped" and ordered_again:
            raise PermanentError(f"{unit}: was stopped by somebody else while it was started")
        if now.name == "stopped":  # it was being stopped when the order came
            _order(manager, secrets, "supervisor.startProcess", unit, deadline, *_STARTED)
            ordered_again = True
        _pause(deadline, f"{unit}: {now.name}, not running after {timeout_seconds:g} s")


def stop(manager: Manager, unit: str, secrets: Secrets, timeout_seconds: float) -> UnitState:
    """Stop a unit and return when its process is gone and will not be started again by the manager.

    A unit that does not run is fine. Errors as ``start``.
    """
    deadline = time.monotonic() + timeout_seconds
    now = state(manager, unit, secrets, timeout_seconds=min(CALL_SECONDS_MAX, timeout_seconds))
    settled = 0
    while True:
        if now.name == "stopped":
            return now
        if now.name in ("exited", "fatal"):
            settled += 1
            if settled > SETTLED_POLLS:
                return now
        elif now.name != "stopping":
            settled = 0
            if now.age_seconds <= 1:
                time.sleep(min(SPAWN_SECONDS, _left(deadline)))
            _order(manager, secrets, "supervisor.stopProcess", unit, deadline, _NOT_RUNNING)
        now = _look(manager, unit, secrets, deadline)
        if now.name != "stopped":
            _pause(deadline, f"{unit}: {now.name}, not stopped after {timeout_seconds:g} s")


def _order(manager: Manager, secrets: Secrets, method: str, unit: str, deadline: float, *fine: int) -> None:
    try:
        _call(manager, secrets, method, (unit, False), deadline, *fine)
    except http.NoAnswerError as error:
        raise TimeoutError(str(error)) from error


def _look(manager: Manager, unit: str, secrets: Secrets, deadline: float) -> UnitState:
    try:
        return state(manager, unit, secrets, timeout_seconds=min(CALL_SECONDS_MAX, _left(deadline)))
    except TransientError as error:
        raise TimeoutError(f"{unit}: ordered, then no answer: {error}") from error


def _pause(deadline: float, message: str) -> None:
    if time.monotonic() + POLL_SECONDS >= deadline:
        raise TimeoutError(message)
    time.sleep(POLL_SECONDS)


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _call(
    manager: Manager,
    secrets: Secrets,
    method: str,
    arguments: tuple[Any, ...],
    deadline: float,
    *fine: int,
) -> Any:
    if not manager.url:
        raise PermanentError("the host's manager has no url")
    parts = urlsplit(manager.url)
    url = urlunsplit(parts._replace(path="/RPC2" if parts.path in ("", "/") else parts.path))
    headers = {"Content-Type": "text/xml"}
    if manager.user:
        password = secrets.value(manager.password) if manager.password else ""
        headers |= http.basic_authorisation(manager.user, password)
    answer = http.exchange(
        "POST",
        url,
        headers=headers,
        body=xmlrpc.client.dumps(arguments, method).encode(),
        timeout_seconds=min(CALL_SECONDS_MAX, _left(deadline)),
    )
    if answer.status != 200:
        raise PermanentError(f"{url}: {method} answered HTTP {answer.status}")
    try:
        values, _ = xmlrpc.client.loads(answer.body.decode("utf-8", "replace"))
    except xmlrpc.client.Fault as fault:
        if fault.faultCode in fine:
            return None
        if fault.faultCode == _BAD_NAME:
            raise NoSuchUnitError(f"{method}({arguments[0]}): no such unit") from fault
        raise PermanentError(f"{method}({arguments[0]}): {fault.faultString}") from fault
    except Exception as error:  # the XML parsers raise many kinds; all mean: not supervisor
        raise http.NoAnswerError(
            f"{url}: {method}: the answer is not XML-RPC ({type(error).__name__})"
        ) from error
    return values[0]
