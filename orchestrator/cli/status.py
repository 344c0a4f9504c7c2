"""``continuity status`` and ``watch``: what is, from the log alone. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import _streams
from orchestrator.cli._exits import NotDrivenError, write_line
from orchestrator.cli._intact import warn
from orchestrator.cli._output import EstateOption, Output, OutputOption, RunArgument, say
from orchestrator.cli._status import show
from orchestrator.core.states import RunState

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.core.log import Recorded
    from orchestrator.core.plan import Plan

WAITS_FOR_PEOPLE = frozenset({RunState.READY, RunState.HELD, RunState.PAUSED})

WATCH_POLL_SECONDS = 0.05
DRIVER_GONE_SECONDS = 5.0
"""How long a run may have no driver before a watcher says so: one that begins or takes over needs a moment."""


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
    """Follow a run until it is over, waits for people, or nobody drives it: one line per event (JSON Lines
    with --output json). Ends with 7 when the run is under way and nobody drives it.

    Example: continuity watch
    """
    from orchestrator.bootstrap.app import open_app
    from orchestrator.bootstrap.operations import open_run

    app = open_app(estate)
    follow(app, open_run(app.journal, run), output)


def follow(app: App, name: str, output: Output, gone_seconds: float = DRIVER_GONE_SECONDS) -> None:
    """Print each event of a run as it comes, and at the end why no more is shown. NotDrivenError: see there."""
    import time

    from orchestrator.engine import lock
    from orchestrator.engine.journal import RUN

    warn(app.journal.breaks_in_sight())
    tracked = app.journal.load(name)
    seen, driven = 0, time.monotonic()
    while True:
        for entry in app.journal.store.read(RUN + name, seen):
            seen = entry.stream_seq
            _print_event(tracked.run.plan, entry, output)
        if _streams.reader_is_gone():
            return
        app.journal.refresh(tracked)
        run = tracked.run
        if run.is_final or run.state in WAITS_FOR_PEOPLE:
            if not run.is_final:
                say(f"{name} is {run.state.value}; what you can do: continuity status {name}")
            return
        if lock.driver_pid(app.settings.log_folder, name):
            driven = time.monotonic()
        elif time.monotonic() - driven > gone_seconds:
            raise NotDrivenError(name, run.state)
        time.sleep(WATCH_POLL_SECONDS)


def _print_event(plan: Plan, entry: Recorded, output: Output) -> None:
    """An event; with what people are asked where it says that a step waits for them."""
    import json

    from orchestrator.core.events import StepWaiting
    from orchestrator.core.plan import asked
    from orchestrator.engine.journal import moment
    from orchestrator.reports.history import event_document, event_text

    asks = asked(plan.steps[entry.event.step]) if isinstance(entry.event, StepWaiting) else ""
    if output is Output.JSON:
        more = {"asks": asks} if asks else {}
        write_line(json.dumps({"schema": "continuity/event/v1", **event_document(entry), **more}))
    else:
        says = f" asks: {asks}" if asks else ""
        print(f"{moment(entry.event.at)}  {event_text(entry.event)}{says}", flush=True)
