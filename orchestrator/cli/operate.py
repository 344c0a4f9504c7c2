"""``continuity failover | switchover | failback | reprotect | resume``: begin a run, or take one up."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import _exits
from orchestrator.cli._output import ByOption, EstateOption, Output, OutputOption, RunArgument, emit, say
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
from orchestrator.core.inputs import Abort, Confirm, Resume
from orchestrator.core.model import Operation
from orchestrator.core.run import Run
from orchestrator.core.states import RunState, StepState
from orchestrator.errors import RefusedError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.bootstrap.operations import Driver
    from orchestrator.core.plan import Plan
    from orchestrator.engine.journal import Tracked

YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Confirm without asking; accepts a loss within the RPO only.")
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

TRIES_MAX = 3
"""How often a phrase is asked for before no answer, or another one, counts as no."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What a command may say in advance of being asked."""

    by: str
    is_confirmed: bool
    accept_loss: str | None
    even_if_healthy: bool
    output: Output


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

    What the last driver left running is looked at first, never simply run again.

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
        with _exits.run_stands(tracked.run.id):
            app.journal.submit(tracked, Resume(now(app.clock), flags.by, limit))
        say(
            f"{tracked.run.id} is driven by process {pid}; it goes on there: continuity watch {tracked.run.id}"
        )
        if output is Output.JSON:
            _show_end(app, tracked.run, output, pid)
        raise typer.Exit(_exits.DONE)
    if acceptance.will_be_asked(tracked.run):
        acceptance.must_be_able_to_ask(flags.is_confirmed, (_exits.again("--yes"),))
    changed = changed_sources(app, tracked.run)
    if changed:
        say(changed_text(changed))
    with _progress(app):
        code = take_up(app, tracked, flags)
    raise typer.Exit(code)


def take_up(app: App, tracked: Tracked, flags: Flags) -> int:
    """Become the driver of a run that began earlier and drive it on. Returns the exit code."""
    from orchestrator.bootstrap.operations import driving
    from orchestrator.engine.clock import now

    with stoppable(app, tracked.run.id), driving(app, tracked) as driver:
        if driver.run.authorised and driver.run.state is not RunState.ABORTING:
            accepted = _accept_again(app, driver, flags)
            driver.tell(Resume(now(app.clock), flags.by, accepted))
        elif driver.run.state is RunState.PAUSED:
            driver.tell(Resume(now(app.clock), flags.by))
        return _conduct(app, driver, flags)


def _operate(
    operation: Operation, service: list[str] | None, to: str | None, leave: list[str] | None,
    flags: Flags, dry_run: bool, reason: str, estate: str | None, rejoin: Rejoin = Rejoin.REWIND,
) -> None:  # fmt: skip
    from orchestrator.bootstrap.app import open_app
    from orchestrator.bootstrap.operations import Wish, must_answer, must_know_names, plan_operation
    from orchestrator.cli import _acceptance as acceptance

    wish = Wish(operation, tuple(service or ()), to, leave_reasons(leave), rejoin)
    if not dry_run:  # before anything is looked at, and before the log is written
        ways = (_exits.again("--yes"), _exits.again("--dry-run"))
        acceptance.must_be_able_to_ask(flags.is_confirmed, ways, lambda: must_know_names(estate, wish))
        loss_limit_ms(flags.accept_loss)
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
        say(note)
    with _progress(app):
        code = set_out(app, made, flags, reason)
    raise typer.Exit(code)


def set_out(app: App, plan: Plan, flags: Flags, reason: str) -> int:
    """Begin a run of this plan and drive it. Returns the exit code."""
    from orchestrator.bootstrap.operations import begin, driving

    tracked = begin(app, plan, flags.by, reason)
    say(f"{tracked.run.id}: preflight; from another terminal: continuity watch {tracked.run.id}")
    with stoppable(app, tracked.run.id), driving(app, tracked) as driver:
        return _conduct(app, driver, flags)


def _conduct(app: App, driver: Driver, flags: Flags) -> int:
    """Drive to the end, asking people where the run waits for them. Returns the exit code."""
    on_terminal = sys.stdin.isatty() and not flags.is_confirmed
    while True:
        run = driver.go(lambda run: run.state is RunState.READY or not on_terminal or bool(_waiting(run)))
        _let_progress_finish(app)
        if run.state is RunState.READY:
            _confirm(app, driver, flags)
        elif run.is_final or not _answered(app, driver, flags, on_terminal=on_terminal):
            break
    _show_end(app, driver.run, flags.output)
    return _exits.of_run(driver.run.state)


def _waiting(run: Run) -> list[str]:
    """Steps that wait for people."""
    busy = [step for name in run.active for step in run.units[name].busy]
    return sorted(step for step in busy if run.step(step).state is StepState.WAITING)


def _answered(app: App, driver: Driver, flags: Flags, *, on_terminal: bool) -> bool:
    """Ask for what waits for people. With --yes only the moment of going home is taken as confirmed:
    it was what the command asked for; nobody else's step is."""
    from orchestrator.engine.clock import now

    confirmed = []
    for step in _waiting(driver.run):  # all is asked before anything goes on: progress would hide a question
        if on_terminal:
            say(f"{step}: {driver.run.plan.steps[step].title}")
            is_confirmed = _typed("confirmed")
        else:
            is_confirmed = flags.is_confirmed and step.endswith("/go-home")
        if is_confirmed:
            confirmed.append(step)
    for step in confirmed:
        driver.tell(Confirm(now(app.clock), flags.by, step, "confirmed with the command"))
    return bool(confirmed)


def _confirm(app: App, driver: Driver, flags: Flags) -> None:
    """Show the loss about to be accepted and take the typed confirmation; refusing undoes the run."""
    from orchestrator.bootstrap.documents import expected_losses
    from orchestrator.bootstrap.observe import confirmation, preflight_findings
    from orchestrator.bootstrap.operations import strictest_rpo_ms
    from orchestrator.cli import _acceptance as acceptance
    from orchestrator.engine.clock import now

    run = driver.run
    documents = expected_losses(app, run.plan)
    shown = confirmation(run, documents)
    if not flags.even_if_healthy:
        acceptance.refuse_a_healthy_source(app, driver, flags.by, shown)
    limit = loss_limit_ms(flags.accept_loss) if acceptance.may_lose(run) else 0
    if limit is None:
        limit = strictest_rpo_ms(run.plan)
    if flags.is_confirmed:
        losses = (f"{unit}: expected loss now: {loss}" for unit, loss in documents.items())
        for line in (*preflight_findings(run), *losses):
            say(line)
        driver.authorise(flags.by, limit, "--yes")
        return
    phrase = f"{run.plan.operation} {run.plan.target}"
    say(shown.text)
    say(acceptance.text(limit))
    if not _typed(phrase):
        driver.tell(Abort(now(app.clock), flags.by, "not confirmed"))
        raise RefusedError("not confirmed: nothing was changed")
    if not flags.even_if_healthy:
        acceptance.refuse_a_healthy_source(app, driver, flags.by, None)
    driver.authorise(flags.by, limit, "typed")


def _typed(phrase: str) -> bool:
    """Ask for a phrase: a slip of the finger does not end a run, somebody who means no does, and so does
    a terminal that is gone."""
    for left in reversed(range(TRIES_MAX)):
        print(f"Type '{phrase}' to go on: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if line.strip() == phrase:
            return True
        if not line:
            return False
        if left:
            say(
                f"that is not '{phrase}'; asked {left} more time{'s' if left > 1 else ''}, then it counts as no"
            )
    return False


def _accept_again(app: App, driver: Driver, flags: Flags) -> int | None:
    """A crash or a pause voids the accepted loss until every promotion was sent: ask for it again."""
    from orchestrator.cli import _acceptance as acceptance
    from orchestrator.core.run import all_promoted

    run = driver.run
    if all_promoted(run):
        return None
    limit = loss_limit_ms(flags.accept_loss)
    if limit is None:
        limit = acceptance.limit_on_resume_ms(app.journal, run)
    if not flags.is_confirmed:
        say(acceptance.text(limit))
        if not _typed(f"resume {run.id}"):
            raise RefusedError("not confirmed: the run stays as it is", (f"continuity resume {run.id}",))
    return limit


def _let_progress_finish(app: App) -> None:
    """What was said so far is on the screen before anything is asked or answered."""
    from orchestrator.engine.observe import Aside

    for listener in app.listeners:
        if isinstance(listener, Aside):
            listener.drain()


def _show_end(app: App, run: Run, output: Output, driver_pid: int = 0) -> None:
    from orchestrator.reports.record import record, record_text
    from orchestrator.reports.state import run_document, run_text

    if run.is_final:
        document = record(app.journal, run.id)
        schema = document.pop("schema")
        emit(output, schema, document, record_text(document, run))
        return
    emit(output, "continuity/run/v1", run_document(run, driver_pid), run_text(run, driver_pid))


class _progress:  # noqa: N801 - used like a function
    """Tell people on stderr what goes on, from a thread of its own, while the block runs."""

    def __init__(self, app: App) -> None:
        from orchestrator.cli._progress import Progress
        from orchestrator.engine.observe import Aside

        self._aside = Aside(Progress())
        app.listeners.append(self._aside)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._aside.close()
