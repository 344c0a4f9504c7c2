"""``continuity status`` and ``watch``: what is, from the log alone. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli._output import EstateOption, Output, OutputOption, RunArgument
from orchestrator.cli._status import show

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
    show(run, estate, output, live=live)


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
