"""``continuity history``: the log, event by event, and whether its chain is whole."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli._output import EstateOption, Output, OutputOption, emit


def register(app: typer.Typer) -> None:
    app.command("history")(history)


def history(
    stream: Annotated[str | None, typer.Argument(help="A run or a group; default: the whole log.")] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Only the last N events; 0 = all.")] = 0,
    verify: Annotated[bool, typer.Option("--verify", help="Check the hash chain of the whole log.")] = False,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Tell what happened, in the order of the log.

    Examples:

      continuity history
      continuity history failover-7k3q --output json
      continuity history --verify
    """
    from orchestrator.bootstrap.app import open_app
    from orchestrator.engine.journal import GROUP, RUN, moment
    from orchestrator.errors import JournalError, RefusedError
    from orchestrator.reports.history import event_document, event_text

    app = open_app(estate)
    if not app.has_log:
        raise RefusedError("this estate has no log yet", ("continuity adopt --all --by NAME",))
    store = app.journal.store
    if verify:
        problems = store.verify()
        if problems:
            raise JournalError("the hash chain is broken: " + "; ".join(problems[:10]))
    if stream is None:
        entries = store.read_all()
    else:
        entries = store.read(RUN + stream) or store.read(GROUP + stream)
        if not entries:
            known = [name.partition(":")[2] for name in store.streams("")]
            raise RefusedError(f"the log holds no run and no group named {stream!r}", tuple(known[-10:]))
    entries = entries[-last:] if last else entries
    lines = [f"{e.seq:>6}  {moment(e.event.at)}  {e.stream:<24} {event_text(e.event)}" for e in entries]
    if verify:
        lines.append("the hash chain is whole")
    body = {"events": [event_document(e) for e in entries], "chain_whole": True if verify else None}
    emit(output, "continuity/history/v1", body, "\n".join(lines))
