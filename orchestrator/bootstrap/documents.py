"""Decides what is known of documents at a site that may not publish: what it holds alone, and whether it published
after the other had taken over. Reads both sides' manifests; changes nothing at either.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from orchestrator.actions import files_measure
from orchestrator.bootstrap.expected import Expected
from orchestrator.components.files import Files, FilesAt, joined
from orchestrator.core.model import Operation, group_of
from orchestrator.core.templates import host_values, resolve
from orchestrator.core.values import Json, duration_text
from orchestrator.engine.clock import now
from orchestrator.engine.journal import utc_text
from orchestrator.errors import ContinuityError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.core.groups import GroupState
    from orchestrator.core.plan import Plan
    from orchestrator.drivers.files_history import Beyond, Holding
    from orchestrator.ports import Context, HostScript

LOOK_SECONDS = 2.0
STEP = "documents"
LEFT_OUT = "what it names is not compared"


@dataclass(frozen=True, slots=True)
class Apart:
    """Documents of one component that a site holds beyond the one that may publish. ``unread``: (site, line) of
    manifests that name something no comparison can: what it is, nobody knows."""

    group: str
    unit: str
    site: str
    found: Beyond
    unread: tuple[tuple[str, int], ...] = ()

    def text(self) -> str:
        told = [self.found.text()] if self.found.documents else []
        told += [
            f"line {line} of the manifest at {site} cannot be read: {LEFT_OUT}" for site, line in self.unread
        ]
        return "; ".join(told)

    def evidence(self) -> dict[str, Json]:
        unread: list[Json] = [{"site": site, "line": line} for site, line in self.unread]
        return {"documents": self.unit, "site": self.site, **self.found.evidence(), "unread": unread}


def documents_apart(app: App) -> list[Apart]:
    """What every reachable site that may not publish holds alone, of each group that no run moves now."""
    if not app.has_log:
        return []
    found = []
    with app.context("observe", STEP, LOOK_SECONDS) as context:
        for group, unit, files in _components(app):
            state = app.journal.group(group)
            if state.adopted and state.active in files.at and not state.claim:
                found += list(_apart(context, state, unit, files))
    return found


def expected_of_documents(app: App, plan: Plan) -> dict[str, Expected]:
    """Unit → what a failover would say now of documents that never arrived; where no replicator says until when all
    were here, nothing but how old those are that did. A group whose target publishes already loses nothing by the
    move."""
    if plan.operation is not Operation.FAILOVER:
        return {}
    moving = {unit for move in plan.groups.values() if move.active != plan.target for unit in move.units}
    found = {}
    for _, unit, files in _components(app):
        if unit in moving and plan.target in files.at:
            with app.context(
                "observe", STEP, LOOK_SECONDS
            ) as context:  # a silent host says nothing of the others
                found[unit] = _expected(context, files, plan.target, now(app.clock).utc_ns)
    return found


def _expected(context: Context[Any], files: Files, site: str, now_utc_ns: int) -> Expected:
    from orchestrator.drivers import files_as_of_host

    place = files.at[site]
    if not place.as_of:
        return Expected(_unmeasured(context, files, site), is_measured=False)
    arguments: dict[str, Json] = {"as_of": _here(context, place, place.as_of)}
    try:
        seen = _asked(context, place, files_as_of_host.as_of, arguments)
    except (ContinuityError, TimeoutError) as error:
        return Expected(f"unknown (the host at {site} does not say: {error})")
    if seen["at_ns"] is None:
        return Expected(f"unknown ({seen['message'] or files_measure.WITHOUT})")
    at_ns = int(seen["at_ns"])
    age_ms = max(0, (now_utc_ns - at_ns) // 1_000_000)
    return Expected(f"up to {duration_text(age_ms)} (all documents were here at {utc_text(at_ns)})", at_ns)


def _unmeasured(context: Context[Any], files: Files, site: str) -> str:
    try:
        seen = _holding(context, files, site)
    except (ContinuityError, TimeoutError) as error:
        return f"not measured; the manifest at {site} was not seen ({error})"
    if not seen.since_ns:
        return f"not measured; there is no manifest at {site}"
    return f"not measured; last signed manifest at {site} is of {utc_text(seen.since_ns)}"


def list_documents(
    context: Context[Any], app: App, group: str, keep: str, handle: IO[str]
) -> tuple[list[str], dict[str, Json], list[Json]]:
    """One JSON line for each document that another site than ``keep`` holds alone or with other content:
    (lines for people, counts by component and site, what could not be seen)."""
    lines: list[str] = []
    counts: dict[str, Json] = {}
    unseen: list[Json] = []
    for _, unit, files in _components(app, group):
        for site in files.at:
            if site == keep or keep not in files.at:
                continue
            asked = keep
            try:
                kept = _holding(context, files, keep)
                asked = site
                other = _holding(context, files, site)
            except (ContinuityError, TimeoutError) as error:
                unseen.append({"documents": unit, "site": asked})
                lines.append(f"{unit} at {asked}: not seen ({error}): what differs there is not known")
                continue
            for at, held in ((keep, kept), (site, other)):
                if held.unread:
                    unseen.append({"documents": unit, "site": at})
                    lines.append(
                        f"{unit} at {at}: line {held.unread} of the manifest cannot be read: {LEFT_OUT}"
                    )
            only, differ = _write(unit, (site, keep), (other, kept), handle)
            counts[f"{unit}@{site}"] = {"only": only, "differ": differ}
            lines.append(
                f"{unit}: {only} documents only at {site}, {differ} with other content than at {keep}"
            )
    return lines, counts, unseen


def _write(
    unit: str, sites: tuple[str, str], sides: tuple[Holding, Holding], handle: IO[str]
) -> tuple[int, int]:
    from orchestrator.drivers.files_history import different

    found = different(sides[1], sides[0])
    for each in found:
        row = {
            "unit": unit, "site": sites[0], "keep": sites[1], "kind": each.kind, "document": each.document,
            "lost": each.lost, "kept": each.kept or None,
        }  # fmt: skip
        handle.write(json.dumps(row, ensure_ascii=False) + "\n")
    only = sum(each.kind == "only" for each in found)
    return only, len(found) - only


def _components(app: App, wanted: str = "") -> Iterator[tuple[str, str, Files]]:
    """(group, unit, component) of everything that is replicated as files."""
    for service, runbook in app.loaded.runbooks.items():
        group = group_of(app.loaded.estate, service)
        for component in runbook.components.values():
            if isinstance(component, Files) and wanted in ("", group):
                yield group, component.unit_in(service), component


def _apart(context: Context[Any], state: GroupState, unit: str, files: Files) -> Iterator[Apart]:
    """A side that does not answer is no evidence of anything."""
    from orchestrator.drivers import files_history

    try:
        kept = _holding(context, files, state.active)
    except (ContinuityError, TimeoutError):
        return
    for site in files.at:
        if site == state.active:
            continue
        try:
            other = _holding(context, files, site)
        except (ContinuityError, TimeoutError):
            continue
        found = files_history.beyond(kept, other, state.epoch, state.active)
        unread = [(at, held.unread) for at, held in ((state.active, kept), (site, other)) if held.unread]
        if found.documents or unread:
            yield Apart(state.name, unit, site, found, tuple(unread))


def _holding(context: Context[Any], files: Files, site: str) -> Holding:
    from orchestrator.drivers import files_history, files_host
    from orchestrator.errors import PermanentError

    place = files.at[site]
    arguments: dict[str, Json] = {
        "published": _here(context, place, place.published),
        "manifest": joined(_here(context, place, place.directory), files.manifest),
    }
    seen = _asked(context, place, files_host.holding, arguments)
    if seen["message"]:
        raise PermanentError(str(seen["message"]))
    return files_history.holding(seen)


def _asked(context: Context[Any], place: FilesAt, script: HostScript, arguments: Mapping[str, Json]) -> Any:
    connection = context.hosts.connect(context.parts.hosts[place.host])
    bound = min(LOOK_SECONDS, context.seconds_left())
    return connection.call(script, arguments, timeout_seconds=bound)


def _here(context: Context[Any], place: FilesAt, text: str) -> str:
    return resolve(text, host_values(context.parts.hosts[place.host]))
