"""Decides what an owner's own steps and what "done" means must say; must never derive a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.core.model import Component, DoneWrites, Estate, OwnStep, Runbook
from orchestrator.planning.extra import NO_OWN_STEPS
from orchestrator.runbook import rules_estate
from orchestrator.runbook.problems import YamlPath, suggest
from orchestrator.runbook.references import DONE_MARK, done_path
from orchestrator.runbook.sources import Parsed, Sources

CANARY = DoneWrites("").table


def check(sources: Sources, parsed: Parsed) -> None:
    """Note what is wrong with the steps and the proofs of one service."""
    runbook: Runbook = parsed.value
    _check_steps(sources, parsed, runbook)
    _check_writes(sources, parsed, runbook)
    if sources.known_estate is not None:
        _warn_of_weak_proof(sources, parsed, sources.known_estate)


# --- own steps ----------------------------------------------------------------------------------


def _check_steps(sources: Sources, parsed: Parsed, runbook: Runbook) -> None:
    names: set[str] = set()
    for index, step in enumerate(runbook.steps):
        place: YamlPath = ("steps", index)
        cut = any(parsed.document.was_cut((*place, key)) for key in ("before", "after"))
        side, stage = ("before", step.before) if step.before else ("after", step.after)
        if stage is not None and (side, stage) in NO_OWN_STEPS:
            message = f"step `{step.name}` stands {side} {stage}, where no step of an owner can"
            sources.note(parsed, (*place, side), message, NO_OWN_STEPS[side, stage])
        if (step.before is None) == (step.after is None) and not cut:
            message = (
                "says neither `before` nor `after`" if step.before is None else "says `before` and `after`"
            )
            sources.note(parsed, place, f"step `{step.name}` {message}", "name one stage: `after: start`")
        if step.timeout_ms <= 0:
            hint = "a step that nobody bounds can hold up a crisis for ever: write for example `timeout: 30s`"
            sources.note(parsed, (*place, "timeout"), "a step without timeout", hint)
        if step.name in names:
            hint = "give each step of a service a name of its own"
            sources.note(parsed, (*place, "name"), f"step `{step.name}` stands twice", hint)
        names.add(step.name)
        if sources.catalog is not None:
            _check_action(sources, parsed, runbook, step, place)


def _check_action(sources: Sources, parsed: Parsed, runbook: Runbook, step: OwnStep, place: YamlPath) -> None:
    assert sources.catalog is not None
    kinds = set(sources.catalog.kinds())
    if step.action not in kinds:
        hint = suggest(step.action, kinds)
        sources.note(parsed, (*place, "action"), f"unknown action `{step.action}`", hint)
        return
    estate = sources.known_estate
    if estate is None:
        return
    values = example_values(estate, runbook)
    rules_estate.try_bind(sources, parsed, (*place, "with"), step.action, step.with_, values)


def example_values(estate: Estate, runbook: Runbook) -> dict[str, str]:
    """Placeholders of an own step for a move from the first home to the first embassy."""
    values: dict[str, str] = {}
    for side, role in (("from", "home"), ("to", "embassy")):
        site = next((site.name for site in estate.sites.values() if site.role == role), "")
        values[f"{side}.name"] = site
        for name, component in runbook.components.items():
            at = _hosts_of(estate, component).get(site, ())
            host = estate.hosts.get(at[0]) if at else None
            values[f"{side}.{name}.address"] = host.address if host is not None else "192.0.2.1"
    return values


def _hosts_of(estate: Estate, component: Component) -> Mapping[str, Sequence[str]]:
    cluster = estate.clusters.get(getattr(component, "cluster", ""))
    if cluster is not None:
        return cluster.members
    at = getattr(component, "at", None)
    if not isinstance(at, Mapping):
        return {}
    return {site: hosts if isinstance(hosts, tuple) else (hosts.host,) for site, hosts in at.items()}


# --- done ---------------------------------------------------------------------------------------


def _check_writes(sources: Sources, parsed: Parsed, runbook: Runbook) -> None:
    """A write that proves something must never touch a legal register's rows (semantics of done)."""
    for index, writes in enumerate(runbook.done_when.writes):
        if writes.table != CANARY:
            path = done_path(("done-when", f"{DONE_MARK}writes", index, "table"), parsed.document.data)
            message = f"`{writes.table}` is not the table that proofs write to"
            hint = f"leave it out: a proof writes to {CANARY}, never to a register"
            sources.note(parsed, path, message, hint)


def _warn_of_weak_proof(sources: Sources, parsed: Parsed, estate: Estate) -> None:
    """Done is asked from outside both sites; a service that nobody asks for is never proven."""
    done = parsed.value.done_when
    asked = (*done.http, *done.dns)
    outside = {site.name for site in estate.sites.values() if site.role not in ("home", "embassy")}
    line, _ = parsed.document.place(("done-when",))
    where = f"{parsed.document.file}:{line}: done-when"
    if not (asked or done.writes or parsed.document.was_cut(("done-when",))):
        sources.warnings.append(f"{where}: nothing is asked, so nothing proves that the service serves")
    elif asked and outside and not any(outside & set(check.from_) for check in asked):
        names = ", ".join(sorted(outside))
        sources.warnings.append(f"{where}: nothing is asked from outside both sites (from: [{names}])")
