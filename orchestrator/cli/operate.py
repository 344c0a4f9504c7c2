"""``continuity failover | switchover | failback | reprotect | resume``: begin a run, or take one up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import _exits, _offered
from orchestrator.cli._conduct import Flags, accept_again, conduct, show_end
from orchestrator.cli._output import ByOption, EstateOption, Output, OutputOption, RunArgument, say
from orchestrator.cli._prompt import Screen
from orchestrator.cli._stopping import stoppable
from orchestrator.cli.plan import (
    LeaveOption,
    Rejoin,
    RejoinOption,
    ServiceOption,
    ToOption,
    leave_reasons,
    show,
)
from orchestrator.cli.verbs import loss_limit_ms, who
from orchestrator.core.inputs import Resume
from orchestrator.core.model import Operation
from orchestrator.core.states import RunState
from orchestrator.errors import RefusedError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.core.plan import Plan
    from orchestrator.core.run import Run
    from orchestrator.engine.journal import Tracked

YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Confirm without asking; accepts a loss within each RPO only.")
]
AcceptLossOption = Annotated[
    str | None, typer.Option("--accept-loss", help="Accept this much loss: 30s, 10m, 0 or unknown.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan (as `continuity plan` does) and end.")
]
HealthyOption = Annotated[
    bool, typer.Option("--even-if-healthy", help="Go on although the site to be left answers and serves.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why this run; stands in the record.")]


def register(app: typer.Typer) -> None:
    app.command("failover")(failover)
    app.command("switchover")(switchover)
    app.command("failback")(failback)
    app.command("reprotect")(reprotect)
    app.command("resume")(resume)


def failover(
    service: ServiceOption = None, to: ToOption = None, leave: LeaveOption = None,
    yes: YesOption = False, accept_loss: AcceptLossOption = None, even_if_healthy: HealthyOption = False,
    dry_run: DryRunOption = False, by: ByOption = None, reason: ReasonOption = "",
    estate: EstateOption = None, output: OutputOption = Output.TEXT,
) -> None:  # fmt: skip
    """Bring services up at the embassy when home is lost.

    Fences home as far as it can be reached, states the data loss and asks you to accept it, promotes
    the replica, opens it to citizens, and proves from outside that it serves.

    Examples:

      continuity failover --dry-run
      continuity failover
      continuity failover --yes --accept-loss 10m --reason "home destroyed"
    """
    flags = Flags(who(by), yes, accept_loss, even_if_healthy, output)
    _operate(Operation.FAILOVER, service, to, leave, flags, dry_run, reason, estate)


def switchover(
    service: ServiceOption = None, to: ToOption = None, leave: LeaveOption = None,
    yes: YesOption = False, dry_run: DryRunOption = False, by: ByOption = None, reason: ReasonOption = "",
    estate: EstateOption = None, output: OutputOption = Output.TEXT,
) -> None:  # fmt: skip
    """Move services to the other site as planned, with nothing lost and no request failed.

    Example: continuity switchover --service population-register
    """
    flags = Flags(who(by), yes, "0", True, output)
    _operate(Operation.SWITCHOVER, service, to, leave, flags, dry_run, reason, estate)


def failback(
    service: ServiceOption = None, to: ToOption = None, leave: LeaveOption = None,
    rejoin: RejoinOption = Rejoin.REWIND, yes: YesOption = False, dry_run: DryRunOption = False, by: ByOption = None, reason: ReasonOption = "",
    estate: EstateOption = None, output: OutputOption = Output.TEXT,
) -> None:  # fmt: skip
    """Take services home: home first follows the embassy, then a planned switch with nothing lost.

    Examples:

      continuity failback
      continuity failback --rejoin reclone
    """
    flags = Flags(who(by), yes, "0", True, output)
    _operate(Operation.FAILBACK, service, to, leave, flags, dry_run, reason, estate, rejoin)


def reprotect(
    service: ServiceOption = None, leave: LeaveOption = None,
    rejoin: RejoinOption = Rejoin.REWIND, yes: YesOption = False, dry_run: DryRunOption = False, by: ByOption = None, reason: ReasonOption = "",
    estate: EstateOption = None, output: OutputOption = Output.TEXT,
) -> None:  # fmt: skip
    """Let the old side follow the active one again, so that the services are protected.

    Example: continuity reprotect --rejoin reclone
    """
    flags = Flags(who(by), yes, "0", True, output)
    _operate(Operation.REPROTECT, service, None, leave, flags, dry_run, reason, estate, rejoin)


def resume(
    run: RunArgument = None, yes: YesOption = False, accept_loss: AcceptLossOption = None,
    even_if_healthy: HealthyOption = False, by: ByOption = None,
    estate: EstateOption = None, output: OutputOption = Output.TEXT,
) -> None:  # fmt: skip
    """Go on with a run that was paused, is held, or lost its driver; this process then drives it.

    What the last driver left running is looked at first, never simply run again. Where another process drives
    the run already, this is an order like any other: that process goes on, and the exit code 0 says that the order
    was taken, not how the run ends (continuity watch follows it).

    Examples:

      continuity resume
      continuity resume failover-7k3q --yes
    """
    from orchestrator.bootstrap.app import open_app
    from orchestrator.bootstrap.operations import changed_sources, changed_text, open_run
    from orchestrator.cli import _acceptance as acceptance
    from orchestrator.engine import lock
    from orchestrator.engine.clock import now

    flags = Flags(who(by), yes, accept_loss, even_if_healthy, output)
    limit = loss_limit_ms(accept_loss)
    app = open_app(estate)
    tracked = app.journal.load(open_run(app.journal, run))
    if tracked.run.is_final:
        raise RefusedError(
            f"{tracked.run.id} is over: {tracked.run.state}", (f"continuity report {tracked.run.id}",)
        )
    if limit and not acceptance.may_lose(tracked.run):
        raise RefusedError(
            f"{tracked.run.id} is planned and loses nothing: there is no loss to accept",
            (f"continuity resume {tracked.run.id}",),
        )
    pid = lock.driver_pid(app.settings.log_folder, tracked.run.id)
    if pid:
        _order_the_driver(app, tracked, Resume(now(app.clock), flags.by, limit), pid, output)
        return
    if acceptance.will_be_asked(tracked.run):
        acceptance.must_be_able_to_ask(flags.is_confirmed, (_offered.again("--yes"),))
    changed = changed_sources(app, tracked.run)
    if changed:
        say(changed_text(changed))
    with _progress(app) as screen:
        code = take_up(app, tracked, flags, screen)
    raise typer.Exit(code)


def _order_the_driver(app: App, tracked: Tracked, verb: Resume, pid: int, output: Output) -> None:
    """The order is taken, and said with what the run then is: a run that waits for people is not under way."""
    with _exits.run_stands(tracked.run.id):
        app.journal.submit(tracked, verb)
    run = tracked.run
    say(f"{run.id} is driven by process {pid}, which has the order; {_what_comes(run)}")
    if output is Output.JSON:
        show_end(app, run, output, pid)


def _what_comes(run: Run) -> str:
    match run.state:
        case RunState.READY:
            return f"it waits for the confirmation at its own terminal; to end it: continuity abort {run.id} --reason TEXT"
        case RunState.HELD:
            return (
                f"it is held, and this alone changes nothing; what it waits for: continuity status {run.id}"
            )
        case _:
            return f"how it goes on there: continuity watch {run.id}"


def take_up(app: App, tracked: Tracked, flags: Flags, screen: Screen | None = None) -> int:
    """Become the driver of a run that began earlier and drive it on. Returns the exit code."""
    from orchestrator.bootstrap.operations import driving
    from orchestrator.engine.clock import now

    screen = screen or Screen()
    with stoppable(app, tracked.run.id), driving(app, tracked) as driver:
        verb: Resume | None = None
        if driver.run.authorised and driver.run.state is not RunState.ABORTING:
            verb = accept_again(app, driver, flags, screen)
        elif driver.run.state is RunState.PAUSED:
            verb = Resume(now(app.clock), flags.by)
        if verb is not None:
            driver.tell(verb)
        return conduct(app, driver, flags, screen)


def _operate(
    operation: Operation, service: list[str] | None, to: str | None, leave: list[str] | None,
    flags: Flags, dry_run: bool, reason: str, estate: str | None, rejoin: Rejoin = Rejoin.REWIND,
) -> None:  # fmt: skip
    from orchestrator.bootstrap.app import open_app
    from orchestrator.bootstrap.operations import Wish, must_answer, must_know_names, plan_operation
    from orchestrator.cli import _acceptance as acceptance

    wish = Wish(operation, tuple(service or ()), to, leave_reasons(leave), rejoin)
    if not dry_run:  # before anything is looked at, and before the log is written
        loss_limit_ms(flags.accept_loss)
        ways = (_offered.again("--yes"), _offered.again("--dry-run"))
        acceptance.must_be_able_to_ask(flags.is_confirmed, ways, lambda: must_know_names(estate, wish))
    app = open_app(estate)
    if not dry_run and operation is not Operation.FAILOVER:
        from orchestrator.bootstrap.observe import look_before

        look_before(app, operation)
    made, notes = plan_operation(app, wish)
    if dry_run:
        show(app, made, notes, flags.output)
        return
    if operation is not Operation.FAILOVER:
        must_answer(app, made)
    for note in notes:
        if note not in made.stops:  # said with the order
            say(note)
    with _progress(app) as screen:
        code = set_out(app, made, flags, reason, screen)
    raise typer.Exit(code)


def set_out(app: App, plan: Plan, flags: Flags, reason: str, screen: Screen | None = None) -> int:
    """Begin a run of this plan and drive it. Returns the exit code."""
    from orchestrator.bootstrap.operations import begin, driving

    tracked = begin(app, plan, flags.by, reason)
    say(f"{tracked.run.id}: preflight; from another terminal: continuity watch {tracked.run.id}")
    screen = screen or Screen()
    with stoppable(app, tracked.run.id), driving(app, tracked) as driver:
        return conduct(app, driver, flags, screen)


@contextmanager
def _progress(app: App) -> Iterator[Screen]:
    """Tell people on stderr what goes on, from a thread of its own, while the block runs."""
    from orchestrator.cli._progress import Progress
    from orchestrator.engine.observe import Aside

    screen = Screen()
    progress = Progress(screen.say)
    aside = Aside(progress)
    screen.settle = aside.drain  # what was said so far is on the screen before anything is asked or answered
    app.listeners.append(aside)
    app.listeners_to_others.append(partial(aside.tell, progress.of_others))
    try:
        yield screen
    finally:
        aside.close()
