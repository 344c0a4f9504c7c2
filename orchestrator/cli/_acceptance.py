"""Decides whether people can and must be asked before a run goes on, and which loss they accept when they take
one up again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from orchestrator.core.inputs import LOSS_UNKNOWN
from orchestrator.core.model import Operation
from orchestrator.core.states import RunState
from orchestrator.errors import RefusedError

LOOK_AGAIN_SECONDS = 3.0

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.bootstrap.observe import Confirmation
    from orchestrator.bootstrap.operations import Driver
    from orchestrator.core.run import Run
    from orchestrator.engine.journal import Journal


def must_be_able_to_ask(
    is_confirmed: bool, instead: tuple[str, ...], first: Callable[[], None] = lambda: None
) -> None:
    """RefusedError where a confirmation is wanted and nobody sits there to type it. ``first`` may say what
    is wrong with the command itself."""
    if is_confirmed or sys.stdin.isatty():
        return
    first()
    raise RefusedError("a run needs a typed confirmation, and there is no terminal to ask on", instead)


def refuse_a_healthy_source(app: App, driver: Driver, by: str, seen: Confirmation | None) -> None:
    """The run is taken back, RefusedError, where the side that is to be given up answers and serves: a planned
    move would lose nothing. What an earlier driver saw, or was seen long before the answer, is looked at again.
    ``seen``: what is about to be shown, None after it was."""
    from orchestrator.bootstrap.expected import stands
    from orchestrator.bootstrap.observe import serves_now
    from orchestrator.cli import _exits
    from orchestrator.cli._print import say
    from orchestrator.core.inputs import Abort
    from orchestrator.engine.clock import now

    run = driver.run
    if run.plan.operation is not Operation.FAILOVER:
        return
    if seen and seen.is_source_healthy:
        say(seen.text)
    elif not (_is_old(app, run) and serves_now(app, run.plan)):
        return
    driver.tell(Abort(now(app.clock), by, f"{run.plan.source} is healthy"))
    if stands(run.plan):
        raise RefusedError(
            f"{run.plan.source} takes writes again although {run.plan.target} was kept: stop its database first",
            (_exits.again("--even-if-healthy"),),
        )
    raise RefusedError(
        f"{run.plan.source} answers and serves: a planned move loses nothing",
        ("continuity switchover", "continuity failover --even-if-healthy"),
    )


def _is_old(app: App, run: Run) -> bool:
    """Was the preflight over so long ago that what it saw may be otherwise now?"""
    moments = [at.utc_ns for step in run.index.preflight if (at := run.step(step).since)]
    return app.clock.utc_ns() - min(moments, default=0) > LOOK_AGAIN_SECONDS * 1e9


def may_lose(run: Run) -> bool:
    """Only what is not planned may lose anything: a planned move is ordered with a limit of nothing."""
    return run.plan.operation is Operation.FAILOVER


def will_be_asked(run: Run) -> bool:
    """Must people be asked before this run goes on? Not while it is taken back, and not once every
    promotion was sent: nothing is left that an answer could let pass."""
    from orchestrator.core.run import all_promoted

    if run.phase is RunState.ABORTING:
        return False
    return run.authorised is None or not all_promoted(run)


def limit_on_resume_ms(journal: Journal, run: Run) -> int:
    """What is accepted on taking a run up if nobody says more: the strictest RPO, or more where people
    accepted more by name of the loss as it was last stated. Nothing for a planned move."""
    from orchestrator.bootstrap.operations import strictest_rpo_ms

    if not may_lose(run):
        return 0
    limits = [strictest_rpo_ms(run.plan), *_accepted_by_name_ms(journal, run)]
    return LOSS_UNKNOWN if LOSS_UNKNOWN in limits else max(limits)


def _accepted_by_name_ms(journal: Journal, run: Run) -> list[int]:
    """The last limit since a loss was last stated; []: none. What was accepted of an older figure is void."""
    from orchestrator.core.events import GateAccepted, LossStated
    from orchestrator.engine.journal import RUN

    for entry in reversed(journal.store.read(RUN + run.id)):
        match entry.event:
            case LossStated():
                return []
            case GateAccepted(gate="loss", limit_ms=int(limit)):
                return [limit]
    return []


def text(limit_ms: int) -> str:
    """What somebody who confirms accepts."""
    from orchestrator.core.values import duration_text

    if limit_ms == LOSS_UNKNOWN:
        amount = "a loss that nobody can bound"
    elif limit_ms == 0:
        amount = "no data loss"
    else:
        amount = f"at most {duration_text(limit_ms)} of data loss"
    return f"By confirming you accept {amount}; if more is found, the run holds and asks again."


def before_yes(run: Run, documents: Mapping[str, str], limit_ms: int) -> list[str]:
    """What whoever said --yes is told before the order is given: what was found, the loss that is about to be
    accepted, and up to which limit. ``documents``: unit → what can be said of the loss of documents."""
    from orchestrator.bootstrap.expected import expected_losses
    from orchestrator.bootstrap.observe import preflight_findings

    return [*preflight_findings(run), *expected_losses(run, documents), text(limit_ms)]


def resume_command(run: Run) -> str:
    """How a run without a driver goes on; what was accepted of its loss is said again, so that it is not lost."""
    from orchestrator.core.values import duration_text

    command = f"continuity resume {run.id}"
    limit = run.accepted_loss_ms
    if not limit or not will_be_asked(run):
        return command
    return f"{command} --accept-loss {'unknown' if limit == LOSS_UNKNOWN else duration_text(limit)}"
