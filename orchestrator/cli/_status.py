"""Decides what ``continuity status`` shows. Loads no parser: it is asked while services are down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.cli._intact import looked_at
from orchestrator.cli._print import Output, emit, paint
from orchestrator.core.groups import adopt_command

if TYPE_CHECKING:
    from orchestrator.core.groups import GroupState

BY_THE_LOG = "by the log; `continuity status --live` asks the sites"


def show(run: str | None, estate: str | None, output: Output, *, live: bool = False) -> None:
    """Print each group's state and the run that people mean."""
    from orchestrator.bootstrap.app import open_app
    from orchestrator.errors import RefusedError

    app = open_app(estate)
    if not app.has_log:
        raise RefusedError(
            "this estate has no log yet: it has never been adopted", ("continuity adopt --all --by NAME",)
        )
    body, text = snapshot(app, run)
    if live:
        from orchestrator.bootstrap.observe import look_for_conflicts

        seen = look_for_conflicts(app)
        body, text = snapshot(app, run)
        body["live"] = seen.document
        text = "\n".join([text, seen.text, *(f"  {line}" for line in seen.findings)])
    else:
        text = f"{BY_THE_LOG}\n{text}"
    body["basis"] = "live" if live else "log"
    emit(output, "continuity/status/v1", {**body, **looked_at(app)}, text)


def snapshot(app: Any, name: str | None) -> tuple[dict[str, Any], str]:
    """Groups and the run people mean, as a document and as text."""
    from orchestrator.bootstrap.looking import changed_sources, changed_text, open_run
    from orchestrator.engine import lock
    from orchestrator.errors import RefusedError
    from orchestrator.reports.state import group_document, run_document, run_text

    journal = app.journal
    shown_groups = [
        {**group_document(group), "next": _next(app, group)} for group in journal.groups().values()
    ]
    lines = [line for each in shown_groups for line in _group_lines(each)]
    document: dict[str, Any] = {"groups": shown_groups, "run": None}
    try:
        shown = open_run(journal, name)
    except RefusedError:
        if name is not None:
            raise
        return document, "\n".join(lines)
    run = journal.load(shown).run
    pid = lock.driver_pid(app.settings.log_folder, shown)
    changed = [] if run.is_final else changed_sources(app, run)
    document["run"] = {**run_document(run, pid), "changed_sources": changed}
    notes = [f"  {changed_text(changed)}"] if changed else []
    return document, "\n".join([*lines, "", run_text(run, pid), *notes])


def _group_lines(group: dict[str, Any]) -> Iterator[str]:
    """A group's state, and the outage that it does not show: its site serves nobody while its names lead away."""
    claimed = f"  claimed by {group['claim']}" if group["claim"] else ""
    yield f"{group['name']:<20} {_coloured(group['label'])}  epoch {group['epoch']}{claimed}"
    if group["names_lead_to"]:
        yield paint(f"  names and routes still lead to {group['names_lead_to']}; next:", "red")
        yield from (f"    {command}" for command in group["next"])


def _next(app: Any, group: GroupState) -> list[str]:
    """What brings names and routes to the site that holds the epoch. The runbooks are read only where they lead
    away; where they cannot be read, the last of the commands still helps."""
    if not group.left:
        return []
    if group.claim:
        return [f"continuity status {group.claim}"]
    if not group.active:
        return [adopt_command(group.name)]
    from orchestrator.bootstrap.following import next_commands
    from orchestrator.errors import InputError

    try:
        return list(next_commands(app, group))
    except InputError:
        return [f"continuity failover --to {group.active}", "continuity runbook lint"]


def _coloured(label: str) -> str:
    if label in ("split_brain", "no_active_site"):
        return paint(label, "red")
    return paint(label, "yellow" if label.endswith("unprotected") else "green")
