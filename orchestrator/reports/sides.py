"""Decides how the evidence of the sites about one group is told before people confirm what follows from it.

All of it, also who gave no answer: a conclusion alone is the program's word, and people sign what they saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.core.groups import GroupState, label
from orchestrator.engine.journal import utc_text
from orchestrator.reports.state import group_document

Evidence = Mapping[str, Mapping[str, Any]]  # cluster or group → what a look at it saw


def site_text(found: Mapping[str, Any]) -> str:
    """One side of a cluster: its role, how far its log reaches, and whose epoch its rows know."""
    if not found.get("reachable"):
        return f"does not answer ({found.get('error') or 'no answer'})"
    rows = sorted((found.get("writers") or {}).items())
    rights = ", ".join(f"{database}: {right_text(row)}" for database, row in rows)
    writes = "takes writes" if found.get("serves_writes") else "takes no writes"
    return f"{found.get('role')}, {writes}; {_reach(found)}{rights or 'no epoch row'}"


def right_text(right: Mapping[str, Any]) -> str:
    """The right to write as a row or a claim knows it."""
    by = f" (run {right['run']})" if right.get("run") else ""
    return f"epoch {right['epoch']} of {right['site']}{by}"


def _reach(found: Mapping[str, Any]) -> str:
    """How much of the history is there; nothing where a look did not say it."""
    facts = []
    if lsn := found.get("receive_lsn") or found.get("lsn"):
        facts.append(f"LSN {lsn}")
    if timeline := found.get("timeline"):
        facts.append(f"timeline {timeline}")
    if isinstance(last := found.get("last_commit_ns"), int):
        facts.append(f"last commit {utc_text(last)}")
    return f"{', '.join(facts)}; " if facts else ""


def side_lines(evidence: Evidence, unseen: Mapping[str, str]) -> Iterator[str]:
    """One line per side of each cluster, and per right that is claimed beside names, routes and documents.
    ``unseen``: what could not be looked at, and why."""
    for unit, found in evidence.items():
        sites = found.get("sites") or {}
        yield from (f"{unit} at {site}: {site_text(said)}" for site, said in sites.items())
        yield from _claim_lines(found.get("claims") or ())
        yield from (f"no answer: {text}" for text in found.get("silent") or ())
    yield from (f"{unit}: not seen: {why or 'no answer in time'}" for unit, why in unseen.items())


def _claim_lines(claims: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rights: dict[tuple[int, str, str], list[str]] = {}
    for claim in claims:
        text = right_text(claim)
        rights.setdefault((-int(claim["epoch"]), text, claim["at"]), []).append(claim["where"])
    for (_, text, site), places in sorted(rights.items()):
        yield f"claims at {site}: {text}: {', '.join(places)}"


def log_text(state: GroupState) -> str:
    """What the log believed before people let the evidence speak."""
    if not state.adopted:
        return "the log: has never seen this group"
    active = f"active {state.active}" if state.active else "no site is active"
    return f"the log: {label(state)}: {active}, epoch {state.epoch}, {state.protection}"


def sides_document(state: GroupState, evidence: Evidence, unseen: Mapping[str, str]) -> dict[str, Any]:
    """The same as JSON: whole, as it was seen."""
    return {"log": group_document(state), "seen": dict(evidence), "not_seen": dict(unseen)}
