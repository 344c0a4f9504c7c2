"""The operator's verbs: each is appended from this process, and a living driver takes it up."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from orchestrator.cli import _exits
from orchestrator.cli._intact import warn
from orchestrator.cli._output import (
    ByOption,
    EstateOption,
    Output,
    OutputOption,
    RunArgument,
    SignedOption,
    emit,
    say,
)
from orchestrator.core.inputs import (
    LOSS_UNKNOWN,
    Abort,
    Accept,
    At,
    Confirm,
    DeclareLost,
    MarkDone,
    Pause,
    Retry,
    Skip,
    Verb,
)
from orchestrator.core.run import Run
from orchestrator.core.states import RunState

SITE_LOST = "site-lost"
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; stands in the record.")]


def register(app: typer.Typer) -> None:
    for name, function in (
        ("pause", pause),
        ("retry", retry),
        ("skip", skip),
        ("mark-done", mark_done),
        ("confirm", confirm),
        ("accept", accept),
        ("declare", declare),
        ("abort", abort),
    ):
        app.command(name)(function)


def order(
    estate: str | None, run: str | None, output: Output, verb: Callable[[At], Verb], *, stops: bool = False
) -> None:
    """Append a verb to a run and say what it is now, and who takes it up. Nobody signs anything on a log that was
    changed; what only ``stops`` a run is taken, with a warning."""
    from orchestrator.bootstrap.app import open_app
    from orchestrator.bootstrap.operations import open_run
    from orchestrator.cli._acceptance import resume_command
    from orchestrator.engine import lock
    from orchestrator.engine.clock import now
    from orchestrator.reports.state import run_document, run_text

    app = open_app(estate)
    journal = app.journal
    if stops:
        warn(journal.breaks_in_sight())
    else:
        journal.must_be_whole()
    tracked = journal.load(open_run(journal, run))
    with _exits.run_stands(tracked.run.id):
        journal.submit(tracked, verb(now(app.clock)))
    pid = lock.driver_pid(app.settings.log_folder, tracked.run.id)
    emit(output, "continuity/run/v1", run_document(tracked.run, pid), run_text(tracked.run, pid))
    say_what_follows(tracked.run)
    if not pid and not tracked.run.is_final:
        say(f"no process drives this run; to go on:\n    {resume_command(tracked.run)}")
    if tracked.run.state is RunState.PARTIAL:  # the order was the last that the run waited for
        raise typer.Exit(_exits.PARTIAL)


def say_what_follows(run: Run) -> None:
    """A run that ended because evidence stood against the log leaves the log as wrong as it was."""
    from orchestrator.core.settle import adopts

    if run.is_final and (commands := adopts(run)):
        say("\n    ".join(["evidence stands against the log; what sets it right:", *commands]))


def who(by: str | None) -> str:
    """Who orders something that is not signed: as named, else the login. InputError for an empty name."""
    from orchestrator.settings import person

    return person() if by is None else _not_empty(by)


def signed(by: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Who signs: a name that people gave, with --by or CONTINUITY_BY. Never the login: whoever sits at a
    shared machine is nobody. InputError without one."""
    return _not_empty(environment.get("CONTINUITY_BY", "") if by is None else by)


def reasoned(reason: str) -> str:
    """Why, as people gave it. InputError for nothing: it is asked for before the log or a site is."""
    from orchestrator.errors import InputError, Problem

    if not reason.strip():
        hint = '--reason "false alarm"'
        raise InputError([Problem("", 0, "", "a reason is needed: it stands in the record", hint)])
    return reason


def _not_empty(name: str) -> str:
    from orchestrator.errors import InputError, Problem

    if not name.strip():
        hint = '--by "A. Tamm", or CONTINUITY_BY in the environment'
        raise InputError([Problem("", 0, "", "a name is needed: it stands in the record", hint)])
    return name.strip()


def pause(
    run: RunArgument = None,
    by: ByOption = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Running steps finish, nothing new starts.

    Example: continuity pause
    """
    order(estate, run, output, lambda at: Pause(at, who(by)), stops=True)


def retry(
    run: RunArgument = None,
    step: Annotated[str, typer.Argument(help="Default: every step that failed.")] = "",
    by: ByOption = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Try a failed step again, or look again at one that nobody could decide.

    Example: continuity retry failover-7k3q registers-db/verify
    """
    order(estate, run, output, lambda at: Retry(at, who(by), step))


def skip(
    run: str,
    step: str,
    reason: ReasonOption,
    by: ByOption = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Go on without a step. Fences, data checks and the steps of a promotion cannot be skipped.

    Example: continuity skip failover-7k3q state-gazette/front-door/route-home --reason "home is gone"
    """
    name, why = who(by), reasoned(reason)
    order(estate, run, output, lambda at: Skip(at, name, step, why))


def mark_done(
    run: str,
    step: str,
    reason: ReasonOption,
    by: ByOption = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say that a step was done by hand; it is looked at all the same, and a contradiction is kept.

    Example: continuity mark-done failover-7k3q land-register/application/start --reason "started by hand"
    """
    name, why = who(by), reasoned(reason)
    order(estate, run, output, lambda at: MarkDone(at, name, step, why))


def confirm(
    run: str,
    step: str,
    text: Annotated[str, typer.Option("--text", help="What you saw or did.")] = "confirmed",
    by: ByOption = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Answer a step that waits for people.

    Example: continuity confirm failback-7k3q registers/go-home --by "A. Tamm"
    """
    order(estate, run, output, lambda at: Confirm(at, who(by), step, text))


def accept(
    run: str,
    gate: Annotated[str, typer.Argument(help="loss, or the id of a data check that failed.")],
    reason: ReasonOption,
    by: SignedOption = None,
    limit: Annotated[
        str | None, typer.Option("--limit", help="For loss: a duration such as 10m, or unknown.")
    ] = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Accept, by name, what a gate found.

    Example: continuity accept failover-7k3q loss --limit 10m --by "A. Tamm" --reason "home is destroyed"
    """
    name, why, most = signed(by), reasoned(reason), loss_limit_ms(limit)
    order(estate, run, output, lambda at: Accept(at, name, gate, why, most))


def declare(
    what: Annotated[str, typer.Argument(help="site-lost")],
    run: RunArgument = None,
    site: Annotated[str, typer.Option("--site", help="The site that is lost.")] = "",
    reason: ReasonOption = "",
    by: SignedOption = None,
    lost_at: Annotated[str | None, typer.Option("--lost-at", help="When, as 2026-11-23T10:00:00Z.")] = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Declare a site lost: the weakest fence proof, for when nothing stronger can be had.

    Example: continuity declare site-lost --site home --by "A. Tamm" --reason "building destroyed"
    """
    from orchestrator.errors import WrongWordsError

    if what != SITE_LOST:
        of = f" {what}" if run == SITE_LOST else ""  # the run came first: it is kept in what is offered
        raise WrongWordsError(
            f"declare {what}: only {SITE_LOST} can be declared, and that comes before the run",
            (f"continuity declare {SITE_LOST}{of} --site SITE --by NAME --reason TEXT",),
        )
    moment, name, why = utc_ns(lost_at) if lost_at else None, signed(by), reasoned(reason)
    order(estate, run, output, lambda at: DeclareLost(at, name, site, why, moment))


def abort(
    run: RunArgument = None,
    reason: ReasonOption = "",
    leave_closed: Annotated[
        bool,
        typer.Option(
            "--leave-closed",
            help="End it as it is: what is closed stays closed, what is promoted stays promoted.",
        ),
    ] = False,
    by: ByOption = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Stop a run before promotion and undo what it did, in reverse order. After promotion undo is a new plan:
    with --leave-closed the run ends where it is, and what is left of it is owed.

    Examples:

      continuity abort failover-7k3q --reason "false alarm"
      continuity abort failover-7k3q --leave-closed --reason "home is back and takes writes"
    """
    name, why = who(by), reasoned(reason)
    order(estate, run, output, lambda at: Abort(at, name, why, leave_closed), stops=True)


def loss_limit_ms(text: str | None) -> int | None:
    """A loss limit as people type it: ``10m``, ``0``, ``unknown``. None stays None."""
    from orchestrator.errors import InputError

    if text is None:
        return None
    if text == "unknown":
        return LOSS_UNKNOWN
    if text == "0":
        return 0
    try:
        from orchestrator.runbook.units import parse_duration

        return parse_duration(text)
    except ValueError as error:
        raise InputError(
            f"{text!r} is no loss: write a duration such as 30s or 10m, 0, or unknown"
        ) from error


def utc_ns(text: str) -> int:
    """RFC 3339 UTC text as nanoseconds. InputError if it is none."""
    from datetime import UTC, datetime

    from orchestrator.errors import InputError

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{text!r} is no time: write 2026-11-23T10:00:00Z") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1e9)
