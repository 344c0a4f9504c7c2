"""Decides what people are told when the process that drives a run is stopped, by Ctrl-C, SIGTERM or SIGHUP: what is safe
now, and how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orchestrator.cli import _exits
from orchestrator.cli._signals import stopped_code
from orchestrator.core import abort
from orchestrator.core.states import StepState

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.core.run import Run

IN_FLIGHT = frozenset({StepState.RUNNING, StepState.UNKNOWN, StepState.MARKING, StepState.UNDOING})


@contextmanager
def stoppable(app: App, run: str) -> Iterator[None]:
    """While a run is driven: a log that fails and a Ctrl-C are both said with what stands."""
    with _exits.run_stands(run):
        try:
            yield
        except KeyboardInterrupt as error:
            raise stopped(app.journal.load(run).run, stopped_code(error)) from error


def stopped(run: Run, code: int = _exits.STOPPED) -> _exits.StoppedError:
    """The run as its log has it at this moment."""
    flying = [
        step for name in run.active for step in run.units[name].busy if run.step(step).state in IN_FLIGHT
    ]
    document: dict[str, Any] = {
        "run": run.id, "state": run.state.value, "is_ordered": run.authorised is not None, "in_flight": sorted(flying),
    }  # fmt: skip
    if run.is_final:
        return _exits.StoppedError(
            f"{run.id} is over: {run.state.value}", (f"continuity report {run.id}",), document, code
        )
    ways = (f"continuity status {run.id}", f"continuity resume {run.id}", *abort.choice(run))
    return _exits.StoppedError(
        f"{run.id} is {run.state.value}, and nobody drives it now. {_safe(run, flying)}", ways, document, code
    )


def _safe(run: Run, flying: list[str]) -> str:
    if run.authorised is None:
        return "It was not ordered: nothing was changed, and its groups stay claimed until it is aborted"
    done = "What is done is in the log and stands"
    if not flying:
        return f"{done}; nothing was in flight"
    return (
        f"{done}; in flight: {', '.join(sorted(flying))}: that may still take effect, and whoever goes on looks first"
        " whether it did"
    )
