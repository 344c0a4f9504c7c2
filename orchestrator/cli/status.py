"""``continuity status`` and ``watch``: what is, from the log alone. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestrator.cli._output import EstateOption, Output, OutputOption, RunArgument, emit, paint

WATCH_POLL_SECONDS = 0.05


def register(app: typer.Typer) -> None:
    app.command("status")(status)
    app.command("watch")(watch)


def status(
    run: RunArgument = None,
    live: Annotated[
        bool, typer.Option("--live", help="Also ask the sites now; a split brain is journalled.")
    ] = False,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show each group's state and the open run: what holds it, and the exact next commands.

    Examples:

      continuity status
      continuity status failover-7k3q --output json
      continuity status --live
    """
    from orchestrator.bootstrap.app import open_app
    from orchestrator.errors import RefusedError

    app = open_app(estate)
    if not app.has_log:
        raise RefusedError(
            "this estate has no log yet: it has never been adopted", ("continuity adopt --all",)
        )
    body, text = snapshot(app, run)
    if live:
        from orchestrator.bootstrap.observe import look_for_conflicts

        seen = look_for_conflicts(app)
        body, text = snapshot(app, run)
        body["live"] = seen.document
        text += "\n" + seen.text
    emit(output, "continuity/status/v1", body, text)


def snapshot(app: Any, name: str | None) -> tuple[dict[str, Any], str]:
    """Groups and the run people mean, as a document and as text."""
    from orchestrator.bootstrap.operations import changed_sources, changed_text, open_run
    from orchestrator.engine import lock
    from orchestrator.errors import RefusedError
    from orchestrator.reports.state import group_document, run_document, run_text

    journal = app.journal
    groups = journal.groups()
    lines = [
        f"{state['name']:<20} {_coloured(state['label'])}  epoch {state['epoch']}"
        + (f"  held by {state['claim']}" if state["claim"] else "")
        for state in map(group_document, groups.values())
    ]
    document: dict[str, Any] = {"groups": [group_document(g) for g in groups.values()], "run": None}
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


def _coloured(label: str) -> str:
    if label in ("split_brain", "no_active_site"):
        return paint(label, "red")
    return paint(label, "yellow" if label.endswith("unprotected") else "green")


def watch(
    run: RunArgument = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Follow a run until it is over or held: one line per event (JSON Lines with --output json).

    Example: continuity watch
    """
    import json
    import time

    from orchestrator.bootstrap.app import open_app
    from orchestrator.bootstrap.operations import open_run
    from orchestrator.engine.journal import RUN, moment
    from orchestrator.reports.history import event_document, event_text

    app = open_app(estate)
    journal = app.journal
    name = open_run(journal, run)
    tracked = journal.load(name)
    seen = 0
    while True:
        for entry in journal.store.read(RUN + name, seen):
            seen = entry.stream_seq
            if output is Output.JSON:
                print(json.dumps(event_document(entry)), flush=True)
            else:
                print(f"{moment(entry.event.at)}  {event_text(entry.event)}", flush=True)
        journal.refresh(tracked)
        if tracked.run.is_final or tracked.run.state.value in ("held", "ready"):
            raise typer.Exit
        time.sleep(WATCH_POLL_SECONDS)
