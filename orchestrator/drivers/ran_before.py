"""Decides where it is kept whether a unit ran before a run first changed it; must never take a run's own doing for that.

The host remembers it, not the run: an attempt whose end nobody learnt of may have changed the unit, and what it saw
before must not be lost with it. So it is noted before the order is given.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from orchestrator.core.values import Json
from orchestrator.drivers import ran_before_host
from orchestrator.ports import Context

SCRIPT_SECONDS_MAX = 5.0


def note(context: Context[Any], ran: bool) -> bool:
    """Note what is seen of the unit now, before it is changed; what this run noted first of this step stands, and is
    the answer."""
    return bool(_remember(context, ran))


def asked(context: Context[Any]) -> bool | None:
    """Did the unit run before this run's step first changed it? None: the step changed nothing."""
    found = _remember(context, None)
    return None if found is None else bool(found)


def _remember(context: Context[Any], ran: bool | None) -> Any:
    """Each step has a file of its own: nothing that another one notes meanwhile can be lost."""
    host = context.parts.hosts[context.params.host]
    name = f"{quote(context.step, safe='')}.before"
    arguments: dict[str, Json] = {
        "path": f"{host.run_directory}/{name}" if host.run_directory else name,
        "host": host.name, "run": context.run, "step": context.step, "ran": ran,
    }  # fmt: skip
    bound = min(SCRIPT_SECONDS_MAX, context.seconds_left())
    connection = context.hosts.connect(host)
    return connection.call(ran_before_host.remember, arguments, timeout_seconds=bound)["ran"]
