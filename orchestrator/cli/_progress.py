"""Decides what people see while a run goes on: a line an event that matters, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable

from orchestrator.cli._output import paint, say
from orchestrator.core import events
from orchestrator.core.events import RunEvent
from orchestrator.core.run import Run
from orchestrator.core.states import StepState
from orchestrator.reports.state import loss_text


class Progress:
    """Told of every append through ``engine.observe.Aside``."""

    def __init__(self, tell: Callable[[str], None] = say) -> None:
        self._tell = tell
        self._started: dict[str, int] = {}

    def __call__(self, run: Run, new: tuple[RunEvent, ...]) -> None:
        for event in new:
            self._say(run, event, self._line(run, event))

    def of_others(self, run: Run, new: tuple[RunEvent, ...]) -> None:
        """What other processes appended: people at this terminal did not say it, and must not wonder."""
        for event in new:
            self._say(run, event, _from_elsewhere(event) or self._line(run, event))

    def _say(self, run: Run, event: RunEvent, line: str) -> None:
        if line:
            self._tell(f"{_clock(run, event)} {line}")

    def _line(self, run: Run, event: RunEvent) -> str:
        match event:
            case events.StepStarted():
                self._started[event.step] = event.at.mono_ns
                return ""
            case events.StepSucceeded():
                return f"{_green('✓')} {event.step}{self._took(event.step, event.at.mono_ns)}"
            case events.StepResolved() if event.finding == "done":
                return f"{_green('✓')} {event.step} (found done)"
            case events.StepFailed():
                again = "" if event.retry_in_ms is None else f"; again in {event.retry_in_ms} ms"
                return f"{_red('✗')} {event.step}: {event.message}{again}"
            case events.StepUnknown():
                return f"{_yellow('?')} {event.step}: {event.message}; looking whether it happened"
            case events.StepUndone():
                return f"↶ {event.step} undone"
            case events.StepUndoFailed():
                return f"{_red('↶')} {event.step} could not be undone: {event.message}"
            case events.LossStated():
                return f"stated loss of {event.unit}: {loss_text(run.losses[event.unit])}"
            case events.RunAuthorised():
                return paint(f"ordered by {event.by}", "bold", sys.stderr)
            case events.RunHeld():
                states = {run.step(step).state for step in event.steps}
                is_asked = states == {StepState.WAITING}
                word = _yellow("WAITS FOR PEOPLE") if is_asked else _red("HELD")
                lines = [word, *(f"    {c}" for c in event.causes), "  what you can do now:"]
                return "\n".join([*lines, *(f"    {choice}" for choice in event.choices)])
            case events.RunGoesOn():
                return "goes on"
            case events.RunPaused():
                return _yellow(f"paused by {event.by}")
            case events.RunFinished():
                return paint(event.outcome.upper(), "bold", sys.stderr)
            case _:
                return ""

    def _took(self, step: str, mono_ns: int) -> str:
        begin = self._started.get(step)
        return "" if begin is None else f" {(mono_ns - begin) / 1e9:.3f} s"


def _from_elsewhere(event: RunEvent) -> str:
    """An order that was given at another terminal: what it was, and whose."""
    match event:
        case events.StepConfirmed():
            return f"{_green('✓')} {event.step}: answered from another terminal by {event.by}: {event.text}"
        case events.StepRetried():
            return f"{event.step}: tried again, from another terminal, by {event.by}"
        case events.StepSkipped():
            return f"{event.step}: skipped from another terminal by {event.by}: {event.reason}"
        case events.StepMarkAsked():
            return f"{event.step}: marked as done from another terminal by {event.by}: {event.reason}"
        case events.GateAccepted():
            return f"{event.gate} accepted from another terminal by {event.by}: {event.reason}"
        case events.SiteDeclaredLost():
            return f"{event.site} declared lost from another terminal by {event.by}: {event.reason}"
        case events.RunPaused():
            return _yellow(f"paused from another terminal by {event.by}")
        case events.RunResumed():
            return f"resumed from another terminal by {event.by}"
        case events.AbortAsked():
            return _yellow(
                f"abort ordered from another terminal by {event.by}: {event.reason or 'no reason'}"
            )
        case _:
            return ""


def _clock(run: Run, event: RunEvent) -> str:
    if run.authorised is None:
        return "   preflight"
    return f"{(event.at.mono_ns - run.authorised.mono_ns) / 1e9:+10.3f} s"


def _green(text: str) -> str:
    return paint(text, "green", sys.stderr)


def _red(text: str) -> str:
    return paint(text, "red", sys.stderr)


def _yellow(text: str) -> str:
    return paint(text, "yellow", sys.stderr)
