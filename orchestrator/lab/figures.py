"""Decides the demo's figures from three sources: the checker's report, the run's record, the monotonic clock.

``verified`` is the checker's word and nobody else's. Times are of one clock, CLOCK_MONOTONIC of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.lab import schema
from orchestrator.lab.evidence import Recorded
from orchestrator.lab.layout import DATABASES
from orchestrator.reports.record import driven_seconds

SCHEMA = "continuity/lab-demo/v1"
CONFIRM = "manual.confirm"
COUNTED = (
    "verified",
    "acked",
    "kept",
    "lost",
    "lost_max",
    "changed",
    "duplicated",
    "refused_present",
    "unknown_kept",
    "unknown_absent",
)


def operation(recorded: Recorded, check: Mapping[str, Any], started_ns: int, at: str) -> dict[str, Any]:
    """What one operation reached. ``check``: the checker on the ledgers of the clients that saw it."""
    run, record = recorded.run, recorded.document
    assert run.authorised is not None
    windows = {}
    for service, database in DATABASES.items():
        epoch = run.plan.groups[run.plan.services[service].group].epoch_next
        windows[service] = window(check, schema.TABLES[database], at, epoch)
    first = min((w["first_verified_ns"] for w in windows.values() if w["first_verified_ns"]), default=None)
    outages = [w["outage_seconds"] for w in windows.values()]
    return {
        "run": record["run"],
        "outcome": record["outcome"],
        "verified": bool(check["verified"]) and first is not None,
        "order_to_first_verified_write_seconds": _between(run.authorised.mono_ns, first),
        "command_to_first_verified_write_seconds": _between(started_ns, first),
        "client_outage_seconds": None if None in outages else max(outages),
        "acknowledged_writes": check["acked"],
        "acknowledged_writes_at_target": sum(w["acked"] for w in windows.values()),
        "lost_acknowledged_writes": check["lost"],
        "failed_requests": check["failed_requests"],
        "diverged_rows": None if check.get("diverged") is None else len(check["diverged"]),
        "stated_loss": stated_loss(recorded),
        "services": {
            name: {
                **{key: facts[key] for key in SERVICE_FACTS},
                "client_outage_seconds": windows[name]["outage_seconds"] if name in windows else None,
                "order_to_first_verified_write_seconds": (
                    _between(run.authorised.mono_ns, windows[name]["first_verified_ns"])
                    if name in windows
                    else None
                ),
            }
            for name, facts in record["services"].items()
        },
        "longest_step": longest_step(recorded),
        "check": judgement(check),
    }


SERVICE_FACTS = (
    "tier",
    "rto_seconds",
    "rto_objective_seconds",
    "rto_met",
    "rpo_seconds",
    "rpo_basis",
    "rpo_objective_seconds",
    "rpo_met",
)


def window(check: Mapping[str, Any], table: str, at: str, epoch: int) -> dict[str, Any]:
    """The same writers around a cutover: the last acknowledgement before it and the first after it."""
    before = [
        entry for entry in check["by_epoch"].values() if entry["table"] == table and entry["site"] != at
    ]
    after = [
        entry
        for entry in check["by_epoch"].values()
        if entry["table"] == table and entry["site"] == at and entry["epoch"] == epoch
    ]
    last = max((entry["last_ack_ns"] for entry in before), default=None)
    first = min((entry["first_ack_ns"] for entry in after), default=None)
    verified = [entry["first_verified_ns"] for entry in after if entry["first_verified_ns"] is not None]
    return {
        "outage_seconds": _between(last, first),
        "first_verified_ns": min(verified, default=None),
        "acked": sum(entry["acked"] for entry in after),
    }


def _between(begin_ns: int | None, end_ns: int | None) -> float | None:
    return None if begin_ns is None or end_ns is None else round((end_ns - begin_ns) / 1e9, 4)


def stated_loss(recorded: Recorded) -> dict[str, Any]:
    """The loss of all databases together, which the ledger's rows are compared with: the longest time, the sum of
    bytes and rows; one unknown makes it unknown. ``units``: each by itself, documents too."""
    by_unit: Mapping[str, Mapping[str, Any]] = recorded.document["stated_loss"]
    databases = [loss for unit, loss in by_unit.items() if unit in recorded.run.plan.parts.clusters]
    seconds = [loss["seconds"] for loss in databases]
    return {
        "seconds": None if None in seconds else max(seconds, default=0.0),
        "bytes": _sum(loss["bytes"] for loss in databases),
        "rows_bound": _sum(loss["rows_bound"] for loss in databases),
        "units": dict(by_unit),
    }


def _sum(values: Any) -> int | None:
    known = list(values)
    return None if None in known else sum(known)


def longest_step(recorded: Recorded) -> dict[str, Any] | None:
    """The step that took longest after the order, and how long; waiting for people or for a driver is no work."""
    run = recorded.run
    assert run.authorised is not None
    late = [
        step
        for step in recorded.document["steps"]
        if step["seconds"] is not None
        and step["action"] != CONFIRM
        and (started := run.step(step["id"]).started) is not None
        and started.mono_ns >= run.authorised.mono_ns
    ]
    if not late:
        return None
    longest = max(late, key=driven_seconds)
    return {"step": longest["id"], "seconds": round(driven_seconds(longest), 4)}


def judgement(check: Mapping[str, Any]) -> dict[str, Any]:
    """The checker's counts, as it gave them."""
    return {"survivor": check["survivor"], **{name: check[name] for name in COUNTED}}
