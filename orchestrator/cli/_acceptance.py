"""Decides whether people can and must be asked before a run goes on, and which loss they accept when they take
one up again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from orchestrator.core.guards import DECIDING_MS, accepted_ms
from orchestrator.core.inputs import LOSS_UNKNOWN, LOSS_WITHIN_RPO
from orchestrator.core.model import Operation
from orchestrator.core.plan import Plan, strictest_rpo_ms
from orchestrator.core.states import RunState
from orchestrator.errors import RefusedError

LOOK_AGAIN_SECONDS = 3.0

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.bootstrap.expected import Expected
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
    from orchestrator.cli._print import say
    from orchestrator.core.inputs import Abort
    from orchestrator.engine.clock import now

    run = driver.run
    if run.plan.operation is not Operation.FAILOVER:
        return
    if seen and seen.is_source_healthy:
        say(seen.text)
    elif not (is_old(app, run) and serves_now(app, run.plan)):
        return
    driver.tell(Abort(now(app.clock), by, f"{run.plan.source} is healthy"))
    planned, as_ordered = _what_was_ordered(run)
    if stands(run.plan):
        raise RefusedError(
            f"{run.plan.source} takes writes again although {run.plan.target} was kept: stop its database first",
            (as_ordered,),
        )
    raise RefusedError(
        f"{run.plan.source} answers and serves: a planned move loses nothing", (planned, as_ordered)
    )


ONLY_OF_FAILOVER = {"--accept-loss": True, "--even-if-healthy": False}
"""Options that a planned move has not; True: one with a value."""


def _what_was_ordered(run: Run) -> tuple[str, str]:
    """The same move, planned and in spite of all: nothing wider than what was ordered. A run that was taken up is taken
    back by now: it is told anew from its plan."""
    import shlex

    from orchestrator.bootstrap.operations import Wish
    from orchestrator.cli import _offered

    if run.drivers == 1 and sys.argv[1:2] == [Operation.FAILOVER.value]:
        return _offered.again_as("switchover", without=ONLY_OF_FAILOVER), _offered.again("--even-if-healthy")
    plan = run.plan
    words = ("--to", plan.target, *Wish(plan.operation, tuple(plan.services), leave=plan.leave).options())
    return (
        shlex.join(["continuity", "switchover", *words]),
        shlex.join(["continuity", "failover", *words, "--even-if-healthy"]),
    )


def is_old(app: App, run: Run) -> bool:
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
    """What is accepted on taking a run up if nobody says more: each RPO, or one limit where people accepted more
    than one of them by name of the loss as it was last stated. Nothing for a planned move."""
    if not may_lose(run):
        return 0
    lowest = min(
        (strictest_rpo_ms(run.plan, name) for name, move in run.plan.groups.items() if move.units), default=0
    )
    by_name = _accepted_by_name_ms(journal, run)
    return next((limit for limit in by_name if limit == LOSS_UNKNOWN or limit > lowest), LOSS_WITHIN_RPO)


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


def text(limit_ms: int, plan: Plan) -> str:
    """What somebody who confirms accepts."""
    from orchestrator.core.values import duration_text

    if limit_ms == LOSS_UNKNOWN:
        return "By confirming you accept a loss that nobody can bound."
    if limit_ms == LOSS_WITHIN_RPO:
        amount = _each_rpo(plan)
    elif limit_ms == 0:
        amount = "no data loss"
    else:
        amount = f"at most {duration_text(limit_ms)} of data loss"
    return f"By confirming you accept {amount}; if more is found, the run holds and asks again."


def _each_rpo(plan: Plan) -> str:
    """Of the groups that hold data, what may be lost of each by its own objectives."""
    from orchestrator.core.values import duration_text

    goals = {name: strictest_rpo_ms(plan, name) for name, move in plan.groups.items() if move.units}
    if not any(goals.values()):
        return "no data loss"
    amounts = {name: f"at most {duration_text(goal)}" if goal else "nothing" for name, goal in goals.items()}
    if len(set(amounts.values())) == 1:
        return f"{next(iter(amounts.values()))} of data loss"
    return "data loss up to the RPO: " + ", ".join(f"{amount} of {name}" for name, amount in amounts.items())


def before_yes(run: Run, losses: Mapping[str, Expected], limit_ms: int) -> list[str]:
    """What whoever said --yes is told before the order is given: what its fences stop beside, what was found, the
    loss that is about to be accepted, by unit, and up to which limit."""
    from orchestrator.bootstrap.expected import expected_losses
    from orchestrator.bootstrap.observe import preflight_findings

    return [*run.plan.stops, *preflight_findings(run), *expected_losses(losses), text(limit_ms, run.plan)]


def above(run: Run, losses: Mapping[str, Expected], limit_ms: int, now_utc_ns: int) -> dict[str, int | None]:
    """Unit → what it would lose by now, in milliseconds, of all that lose more than is accepted. Such a run would fence
    the old side and then hold: nobody would write anywhere until people have accepted more."""
    groups = {unit: name for name, move in run.plan.groups.items() for unit in move.units}
    found = {}
    for unit, loss in losses.items():
        if not loss.is_measured or loss.is_nothing:
            continue
        limit = accepted_ms(run.plan, groups.get(unit, ""), limit_ms)
        lost = loss.milliseconds(now_utc_ns)
        if limit != LOSS_UNKNOWN and (lost is None or limit is None or lost > limit):
            found[unit] = lost
    return found


LEFT_BECAUSE = "more would be lost than is accepted"


def without(app: App, run: Run, lost: Mapping[str, int | None]) -> tuple[str, ...]:
    """Options that order the services alone which lose no more than is accepted; the others are left behind by name
    where one of these needs that. (): there are none, or they cannot move by themselves."""
    from orchestrator.bootstrap.operations import Wish, plan_operation

    plan = run.plan
    above = {name for name, move in plan.groups.items() if lost.keys() & set(move.units)}
    services = tuple(name for name, facts in plan.services.items() if facts.group not in above)
    if not services:
        return ()
    left = {name: LEFT_BECAUSE for name in plan.services if name not in services}
    for more in ({}, left):
        wish = Wish(plan.operation, services, plan.target, {**plan.leave, **more})
        try:
            plan_operation(app, wish)
        except RefusedError:
            continue
        return wish.options()
    return ()


def enough_ms(lost: Mapping[str, int | None]) -> int:
    """A limit that lets all of these pass, with the time that people take to confirm it."""
    most = max((-1 if loss is None else loss for loss in lost.values()), default=0)
    if None in lost.values():
        return LOSS_UNKNOWN
    return -(-most // 1_000) * 1_000 + DECIDING_MS


def limit_text(limit_ms: int) -> str:
    """A limit as people type it behind --accept-loss."""
    from orchestrator.core.values import duration_text

    return "unknown" if limit_ms == LOSS_UNKNOWN else duration_text(limit_ms)


def above_text(lost: Mapping[str, int | None]) -> str:
    from orchestrator.core.loss import bound_text

    told = [f"{unit}: {'nobody can tell' if ms is None else bound_text(ms)}" for unit, ms in lost.items()]
    return f"more would be lost than is accepted ({'; '.join(told)})"


def resume_command(run: Run) -> str:
    """How a run without a driver goes on; what was accepted of its loss is said again, so that it is not lost."""
    command = f"continuity resume {run.id}"
    limit = run.accepted_loss_ms
    if not limit or limit == LOSS_WITHIN_RPO or not will_be_asked(run):
        return command
    return f"{command} --accept-loss {limit_text(limit)}"
