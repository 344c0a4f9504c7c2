"""Decides what is asked of the people at a driver's terminal, and when; every order that they give is one verb.

The driver goes on with its turns while a question is open. What another terminal answers, skips, stops or takes back
meanwhile makes the question void: it is withdrawn, and what happened is said.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.cli import _acceptance as acceptance
from orchestrator.cli import _exits, _offered
from orchestrator.cli._output import Output, emit
from orchestrator.cli._prompt import Keyboard, Prompt, Screen
from orchestrator.cli.verbs import loss_limit_ms, say_what_follows
from orchestrator.core.inputs import LOSS_WITHIN_RPO, Abort, Confirm, Resume
from orchestrator.core.plan import asked
from orchestrator.core.run import Run, all_promoted
from orchestrator.core.states import RunState, StepState
from orchestrator.engine.clock import now
from orchestrator.engine.loop import POLL_SECONDS_FOR_PEOPLE, stands_still
from orchestrator.errors import RefusedError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.bootstrap.expected import Expected
    from orchestrator.bootstrap.operations import Driver

ORDER, ACCEPTANCE = " order", " acceptance"
"""What is asked about beside steps, none of which is called so."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What a command may say in advance of being asked."""

    by: str
    is_confirmed: bool
    accept_loss: str | None
    even_if_healthy: bool
    output: Output


@dataclass(slots=True)
class Conductor:
    """The people at this terminal and the run that this process drives."""

    app: App
    driver: Driver
    flags: Flags
    prompt: Prompt
    on_terminal: bool
    answered: tuple[str, bool] | None = None  # what was asked about, and whether the phrase was typed
    confirmed: list[str] = field(default_factory=list)  # typed, and not yet in the log
    declined: set[str] = field(default_factory=set)
    has_gone_on: bool = False  # something was confirmed since people declined
    losses: Mapping[str, Expected] = field(default_factory=dict)  # as they were shown, by unit
    raised_ms: int | None = None  # the limit that the phrase names, where what was accepted is not enough

    def drive(self) -> int:
        """Drive to the end, asking people where the run waits for them. Returns the exit code."""
        driver = self.driver
        while True:
            run = driver.go(self._may_leave, self._is_called)
            self.prompt.screen.settle()
            answered, self.answered = self.answered, None
            if self.prompt.subject and not self._is_apt(run):
                self.prompt.close()
            if run.is_final:
                break
            if run.state is RunState.READY:
                self._at_ready(answered)
            elif not (self._at_terminal(run, answered) if self.on_terminal else self._with_yes(run)):
                break
        show_end(self.app, driver.run, self.flags.output)
        return _exits.of_run(driver.run.state)

    # --- between two turns of the driver ------------------------------------------------------

    def _may_leave(self, run: Run) -> bool:
        """The run waits for people: is there something to ask, or nobody to ask?"""
        if self.prompt.subject:
            return False
        return run.state is RunState.READY or not self.on_terminal or bool(waiting(run))

    def _is_called(self, run: Run) -> bool:
        subject = self.prompt.subject
        if not subject:
            return False
        if not self._is_apt(run):
            return True
        is_typed = self.prompt.answer(shows_at_once=stands_still(run))
        if is_typed is not None:
            self.answered = subject, is_typed
        return is_typed is not None

    def _is_apt(self, run: Run) -> bool:
        """Does the open question still ask for anything?"""
        if self.prompt.subject == ORDER:
            return run.state is RunState.READY
        return self.prompt.subject in waiting(run)

    # --- the order ----------------------------------------------------------------------------

    def _at_ready(self, answered: tuple[str, bool] | None) -> None:
        """Show the loss about to be accepted and take the typed confirmation; refusing undoes the run."""
        if answered is None:
            self._ask_for_the_order()
        elif not answered[1]:
            if self._tell(Abort(now(self.app.clock), self.flags.by, "not confirmed")):
                raise RefusedError("not confirmed: nothing was changed")
        else:
            if not self.flags.even_if_healthy:
                acceptance.refuse_a_healthy_source(self.app, self.driver, self.flags.by, None)
            if self._has_grown():
                self._ask_for_the_order(self.losses)
            else:
                self._authorise("typed")

    def _ask_for_the_order(self, losses: Mapping[str, Expected] | None = None) -> None:
        """Whoever orders a failover accepts what would be lost, or is refused before anything is fenced: else the run
        would hold with nobody writing anywhere. ``losses``: what is known better than by the run's preflight."""
        from orchestrator.bootstrap.documents import expected_of_documents
        from orchestrator.bootstrap.expected import expected
        from orchestrator.bootstrap.observe import confirmation, expected_now

        run, say = self.driver.run, self.prompt.screen.say
        self.losses = losses or expected(run, expected_of_documents(self.app, run.plan))
        shown = confirmation(run, self.losses)
        if not self.flags.even_if_healthy:
            acceptance.refuse_a_healthy_source(self.app, self.driver, self.flags.by, shown)
        above = self._above(run)
        if above and acceptance.is_old(self.app, run):
            self.losses = expected_now(self.app, run.plan)
            above = self._above(run)
        enough = acceptance.enough_ms(above)
        if not self.flags.is_confirmed:
            phrase, told = f"{run.plan.operation} {run.plan.target}", shown.text
            if above:
                self.raised_ms = enough
                phrase += f" --accept-loss {acceptance.limit_text(enough)}"
                told += f"\n{acceptance.above_text(above)}: the phrase accepts it"
                told += "".join(f"\nWithout those: {command}" for command in self._without(run, above))
            self.prompt.open(ORDER, phrase, told, acceptance.text(self._limit_ms(run), run.plan))
            return
        for line in acceptance.before_yes(run, self.losses, self._limit_ms(run)):
            say(line)
        if above:
            self._refuse(run, above, enough)
        else:
            self._authorise("--yes")

    def _refuse(self, run: Run, above: Mapping[str, int | None], enough: int) -> None:
        """The run that this command began is taken back; one that it only took up goes on waiting."""
        text, without = acceptance.above_text(above), self._without(run, above)
        if run.drivers == 1 and not self._tell(Abort(now(self.app.clock), self.flags.by, text)):
            return
        raise RefusedError(
            f"{text}: nothing was changed",
            (_offered.again("--accept-loss", acceptance.limit_text(enough)), *without),
        )

    def _without(self, run: Run, above: Mapping[str, int | None]) -> list[str]:
        """This command for the services alone that lose no more than is accepted, if there are any."""
        options = acceptance.without(self.app, run, above) if run.drivers == 1 else ()
        return [_offered.again(*options)] if options else []

    def _above(self, run: Run) -> dict[str, int | None]:
        return acceptance.above(run, self.losses, self._limit_ms(run), self.app.clock.utc_ns())

    def _has_grown(self) -> bool:
        """Would more be lost by now than the phrase accepts, because people took their time? Then the sites are asked
        again, and the new figures are what people confirm."""
        from orchestrator.bootstrap.observe import expected_now

        run = self.driver.run
        if self._above(run):
            self.losses = expected_now(self.app, run.plan)
        return bool(self._above(run))

    def _limit_ms(self, run: Run) -> int:
        if not acceptance.may_lose(run):
            return 0
        if self.raised_ms is not None:
            return self.raised_ms
        limit = loss_limit_ms(self.flags.accept_loss)
        return LOSS_WITHIN_RPO if limit is None else limit

    def _authorise(self, method: str) -> None:
        try:
            self.driver.authorise(self.flags.by, self._limit_ms(self.driver.run), method)
        except RefusedError as refused:
            if self.driver.run.state is RunState.READY:
                raise
            self.prompt.screen.say(refused.message)  # another terminal was faster

    # --- steps of people ----------------------------------------------------------------------

    def _with_yes(self, run: Run) -> bool:
        """Only the moment of going home is taken as confirmed: it was what the command asked for; nobody else's
        step is. False: the run is left as it is."""
        if self.flags.is_confirmed:
            self.confirmed = [step for step in waiting(run) if step.endswith("/go-home")]
        return self._submit()

    def _at_terminal(self, run: Run, answered: tuple[str, bool] | None) -> bool:
        """Take what was typed and ask for what is left. False: people here decline, the run is left as it is.

        While the run stands still all is asked before anything goes on: progress would hide a question. Where
        it goes on by another terminal's word, what is typed here counts at once."""
        steps = waiting(run)
        if answered is not None and answered[0] in steps:
            step, is_typed = answered
            (self.confirmed.append if is_typed else self.declined.add)(step)
        known = {self.prompt.subject, *self.confirmed, *self.declined}
        left = [step for step in steps if step not in known]
        is_still = stands_still(run)
        if self.confirmed and not (is_still and (left or self.prompt.subject)):
            self._submit()
            if not left:
                return True
        if self.prompt.subject:
            return True
        if not left and is_still and steps and self.has_gone_on:
            self.has_gone_on = False
            self.declined.clear()
            left = steps
        if left:
            self.prompt.open(left[0], "confirmed", f"{left[0]}: {asked(run.plan.steps[left[0]])}")
        return bool(left) or not (
            is_still and steps
        )  # what waits for nobody here may go on by another's word

    def _submit(self) -> bool:
        """False: nothing was told to the run."""
        steps, self.confirmed = self.confirmed, []
        text = "confirmed with the command" if self.flags.is_confirmed else "typed"
        told = [self._tell(Confirm(now(self.app.clock), self.flags.by, step, text)) for step in steps]
        self.has_gone_on = self.has_gone_on or any(told)
        return any(told)

    def _tell(self, verb: Abort | Confirm) -> bool:
        """False: another terminal was faster, and what was said here is void."""
        try:
            self.driver.tell(verb)
        except RefusedError as refused:
            self.prompt.screen.say(refused.message)
            return False
        return True


def conduct(app: App, driver: Driver, flags: Flags, screen: Screen) -> int:
    """Drive to the end, asking people where the run waits for them. Returns the exit code."""
    on_terminal = sys.stdin.isatty() and not flags.is_confirmed
    return Conductor(app, driver, flags, Prompt(screen, Keyboard()), on_terminal).drive()


def waiting(run: Run) -> list[str]:
    """Steps that people can confirm now."""
    if run.is_final or run.phase is RunState.ABORTING:
        return []
    busy = [step for name in run.active for step in run.units[name].busy]
    return sorted(step for step in busy if run.step(step).state is StepState.WAITING)


def accept_again(app: App, driver: Driver, flags: Flags, screen: Screen) -> Resume | None:
    """A crash or a pause voids the accepted loss until every promotion was sent: ask for it again. The verb that
    lets the run go on here; None where another terminal has said meanwhile how it goes on."""
    from orchestrator.reports.state import loss_text

    run = driver.run
    if all_promoted(run):
        return Resume(now(app.clock), flags.by)
    limit = loss_limit_ms(flags.accept_loss)
    if limit is None:
        limit = acceptance.limit_on_resume_ms(app.journal, run)
    if not flags.is_confirmed:
        prompt = Prompt(screen, Keyboard())
        losses = [f"stated loss of {unit}: {loss_text(loss)}" for unit, loss in sorted(run.losses.items())]
        prompt.open(ACCEPTANCE, f"resume {run.id}", *losses, acceptance.text(limit, run.plan))
        is_typed = None
        while is_typed is None:
            is_typed = prompt.answer(seconds_max=POLL_SECONDS_FOR_PEOPLE)
            if is_typed is None and not _must_accept(driver.listen()):
                prompt.close()
                return None
        if not is_typed:
            raise RefusedError("not confirmed: the run stays as it is", (f"continuity resume {run.id}",))
    elif acceptance.may_lose(run):
        screen.say(acceptance.text(limit, run.plan))
    return Resume(now(app.clock), flags.by, limit)


def _must_accept(run: Run) -> bool:
    """Does this run still wait for somebody who accepts the loss and lets it go on?"""
    if run.is_final or run.phase is RunState.ABORTING or all_promoted(run):
        return False
    return run.accepted_loss_ms is None or run.state is RunState.PAUSED


def show_end(app: App, run: Run, output: Output, driver_pid: int = 0) -> None:
    from orchestrator.reports.record import record
    from orchestrator.reports.record_text import record_text
    from orchestrator.reports.state import run_document, run_text

    if run.is_final:
        document = record(app.journal, run.id)
        schema = document.pop("schema")
        emit(output, schema, document, record_text(document, run))
        say_what_follows(run)
        return
    emit(output, "continuity/run/v1", run_document(run, driver_pid), run_text(run, driver_pid))
