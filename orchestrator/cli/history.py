"""``continuity history``: the log, event by event, and whether its chain is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli._intact import all_looked_at
from orchestrator.cli._output import EstateOption, Output, OutputOption, emit
from orchestrator.reports.chain import BREAKS_MAX

if TYPE_CHECKING:
    from orchestrator.core.log import Recorded
    from orchestrator.ports import Store


def register(app: typer.Typer) -> None:
    app.command("history")(history)


def history(
    stream: Annotated[str | None, typer.Argument(help="A run or a group; default: the whole log.")] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Only the last N events; 0 = all.")] = 0,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Say only whether the hash chain of the whole log is unbroken (with a run, a group or --last: that too).",
        ),
    ] = False,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Tell what happened, in the order of the log. A log that was changed by hand is warned of on stderr;
    with --verify the command then ends with 3.

    Examples:

      continuity history
      continuity history failover-7k3q --output json
      continuity history --verify
    """
    from orchestrator.bootstrap.app import open_app
    from orchestrator.errors import JournalError, RefusedError
    from orchestrator.reports.chain import chain_of
    from orchestrator.reports.history import event_document

    app = open_app(estate)
    if not app.has_log:
        raise RefusedError("this estate has no log yet", ("continuity adopt --all --by NAME",))
    store = app.journal.store
    if verify:  # the verdict is the answer; the log stands below it only where some of it was asked for
        chain = chain_of(store)
        if not chain.is_whole:
            raise JournalError("the hash chain is broken: " + _listed(chain.breaks))
    else:
        chain = all_looked_at(app)
    entries = [] if verify and stream is None and not last else _asked_for(store, stream, last)
    lines = [chain.text()] if verify else []
    lines += [_line(entry) for entry in entries]
    body = {
        "events": [event_document(e) for e in entries],
        "chain_whole": chain.is_whole,
        "events_checked": chain.checked,
        **chain.document(),
    }
    emit(output, "continuity/history/v1", body, "\n".join(lines))


def _listed(breaks: tuple[str, ...]) -> str:
    left = len(breaks) - BREAKS_MAX
    return "; ".join(breaks[:BREAKS_MAX]) + (f"; and {left} more" if left > 0 else "")


def _asked_for(store: Store, stream: str | None, last: int) -> list[Recorded]:
    from orchestrator.engine.journal import GROUP, RUN
    from orchestrator.errors import WrongWordsError

    if stream is None:
        entries = store.read_all()
    else:
        entries = store.read(RUN + stream) or store.read(GROUP + stream)
        if not entries:
            known = [name.partition(":")[2] for name in store.streams("")]
            raise WrongWordsError(f"the log holds no run and no group named {stream!r}", tuple(known[-10:]))
    return entries[-last:] if last else entries


def _line(entry: Recorded) -> str:
    from orchestrator.engine.journal import moment
    from orchestrator.reports.history import event_text

    return f"{entry.seq:>6}  {moment(entry.event.at)}  {entry.stream:<24} {event_text(entry.event)}"
