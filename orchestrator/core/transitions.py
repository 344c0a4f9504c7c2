"""Decides every way in which a run or a step changes its state. Rule 1: nothing else does.

Two tables. A trigger is an event's kind, with ``/variant`` where one event can lead to several
states. What is not a row is a bug, not a silent no-op: ``step_after`` and ``run_after`` raise. The
rows' why-texts are shown in logs and docs; docs/state-machine.md is drawn from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.states import RunState, StepState
from orchestrator.errors import InvariantBroken

R, S = RunState, StepState


@dataclass(frozen=True, slots=True)
class Row:
    """From any of ``sources``, on ``trigger``, to ``target``. ``phase`` groups rows in diagrams."""

    sources: tuple[str, ...]
    trigger: str
    target: str
    phase: str
    why: str


STEP_ROWS: tuple[Row, ...] = (
    Row(
        (S.PENDING, S.BACKOFF),
        "step.started",
        S.RUNNING,
        "execute",
        "its needs are met and its gates are open; the intent is durable before the effect",
    ),
    Row(
        (S.RUNNING, S.UNKNOWN, S.UNDECIDED),
        "step.succeeded",
        S.SUCCEEDED,
        "execute",
        "the current attempt reported its effect, however late",
    ),
    Row(
        (S.RUNNING, S.UNKNOWN, S.UNDECIDED),
        "step.failed/retry",
        S.BACKOFF,
        "execute",
        "surely not done, and its policy allows another try",
    ),
    Row(
        (S.RUNNING, S.UNKNOWN, S.UNDECIDED),
        "step.failed/final",
        S.FAILED,
        "execute",
        "surely not done, and no further try without people",
    ),
    Row(
        (S.RUNNING,),
        "step.unknown",
        S.UNKNOWN,
        "execute",
        "a time-out or a lost connection says nothing about the effect: look before acting",
    ),
    Row((S.PENDING,), "step.waiting", S.WAITING, "execute", "only people can do this step"),
    Row((S.WAITING,), "step.confirmed", S.SUCCEEDED, "execute", "people say it is done"),
    Row(
        (S.RUNNING,),
        "driver.started",
        S.UNKNOWN,
        "recover",
        "the driver that started it is gone; what it left running is unknown, never run again",
    ),
    Row(
        (S.UNDOING,),
        "driver.started",
        S.UNDECIDED,
        "recover",
        "the driver that undid it is gone; it is undone again, by an intent of its own",
    ),
    Row((S.UNKNOWN,), "step.resolved/done", S.SUCCEEDED, "recover", "the check found the effect"),
    Row(
        (S.UNKNOWN,),
        "step.resolved/again",
        S.PENDING,
        "recover",
        "the check found no effect and no attempt alive, or repeating is harmless",
    ),
    Row(
        (S.UNKNOWN,),
        "step.resolved/running",
        S.UNKNOWN,
        "recover",
        "an attempt of ours is still alive at the target: wait and ask again",
    ),
    Row(
        (S.UNKNOWN,),
        "step.resolved/failed",
        S.FAILED,
        "recover",
        "not done after one lost answer after another: no further try without people",
    ),
    Row(
        (S.UNKNOWN,),
        "step.resolved/people",
        S.UNDECIDED,
        "recover",
        "nobody can tell and repeating may harm: people decide",
    ),
    Row(
        (S.SUCCEEDED,),
        "step.reopened/look",
        S.UNKNOWN,
        "renew",
        "the proof grew too old or was voided: see whether it still holds",
    ),
    Row(
        (S.PENDING, S.BACKOFF, S.FAILED, S.SKIPPED),
        "step.reopened/look",
        S.UNKNOWN,
        "undo",
        "an earlier attempt may have taken effect: look before anything is taken back",
    ),
    Row(
        (S.SUCCEEDED,),
        "step.reopened/again",
        S.PENDING,
        "renew",
        "the measurement grew too old or was voided: it is taken again",
    ),
    Row((S.FAILED, S.BACKOFF), "step.retried", S.PENDING, "people", "people ordered another try"),
    Row((S.UNDECIDED,), "step.retried", S.UNKNOWN, "people", "people ordered another look"),
    Row(
        (S.UNDO_FAILED,),
        "step.retried",
        S.UNDECIDED,
        "people",
        "people ordered another try to undo it; the driver begins it",
    ),
    Row(
        (S.PENDING, S.FAILED, S.WAITING),
        "step.skipped",
        S.SKIPPED,
        "people",
        "people go on without it, by name and reason",
    ),
    Row(
        (S.PENDING, S.FAILED, S.UNDECIDED, S.WAITING),
        "step.mark-asked",
        S.MARKING,
        "people",
        "people say it is done; the check is asked all the same",
    ),
    Row(
        (S.MARKING,),
        "step.marked",
        S.MARKED,
        "people",
        "people's word stands, with what the check found beside it",
    ),
    Row(
        (S.FAILED,),
        "gate.accepted",
        S.ACCEPTED,
        "people",
        "people accepted what the data check found, by name and reason",
    ),
    Row(
        (S.SUCCEEDED, S.MARKED, S.UNDECIDED),
        "step.undo-started",
        S.UNDOING,
        "undo",
        "people aborted before promotion: what was done is undone in reverse order",
    ),
    Row(
        (S.PENDING, S.BACKOFF, S.FAILED),
        "step.undo-started",
        S.UNDOING,
        "undo",
        "a unit's own fence at a site that was declared lost or cut off otherwise: its undo starts the old side "
        "and sees whether it writes",
    ),
    Row((S.UNDOING,), "step.undone", S.UNDONE, "undo", "the effect is gone"),
    Row(
        (S.UNDOING,),
        "step.undo-failed",
        S.UNDO_FAILED,
        "undo",
        "the effect may still be there: people decide",
    ),
)

RUN_ROWS: tuple[Row, ...] = (
    Row(
        (R.PREFLIGHT,),
        "run.ready",
        R.READY,
        "authorise",
        "every read-only check is through: people are shown the plan and the loss",
    ),
    Row((R.READY,), "run.authorised", R.RUNNING, "authorise", "people confirmed this very plan: the order"),
    Row((R.PREFLIGHT, R.RUNNING, R.ABORTING), "run.held", R.HELD, "hold", "nothing can go on without people"),
    Row((R.HELD,), "run.held", R.HELD, "hold", "it is held for other causes now"),
    Row((R.HELD,), "run.goes-on/preflight", R.PREFLIGHT, "hold", "what held the run is gone"),
    Row((R.HELD,), "run.goes-on/running", R.RUNNING, "hold", "what held the run is gone"),
    Row((R.HELD,), "run.goes-on/aborting", R.ABORTING, "hold", "what held the run is gone"),
    Row(
        (R.PREFLIGHT, R.RUNNING, R.HELD),
        "run.paused",
        R.PAUSED,
        "hold",
        "people paused: running steps finish, nothing starts",
    ),
    Row((R.PAUSED,), "run.resumed/preflight", R.PREFLIGHT, "hold", "people go on"),
    Row(
        (R.PAUSED,),
        "run.resumed/running",
        R.RUNNING,
        "hold",
        "people go on; proofs and the accepted loss are taken anew",
    ),
    Row(
        (R.PREFLIGHT, R.READY, R.RUNNING, R.PAUSED, R.HELD, R.ABORTING),
        "run.abort-asked",
        R.ABORTING,
        "end",
        "people aborted: nothing new starts, what was done is undone",
    ),
    Row(
        (R.RUNNING, R.ABORTING),
        "run.finished/done",
        R.DONE,
        "end",
        "every step has ended, asked from outside; an abort came too late to take anything back",
    ),
    Row(
        (R.ABORTING,),
        "run.finished/aborted",
        R.ABORTED,
        "end",
        "nothing is left unknown, and exactly one site writes or people left it closed",
    ),
    Row(
        (R.ABORTING,),
        "run.finished/partial",
        R.PARTIAL,
        "end",
        "some groups have moved, others were taken back",
    ),
)


def by_source(rows: tuple[Row, ...]) -> dict[tuple[str, str], Row]:
    """The rows by (state, trigger). Raises InvariantBroken where two say different things."""
    table: dict[tuple[str, str], Row] = {}
    for row in rows:
        for source in row.sources:
            if (source, row.trigger) in table:
                raise InvariantBroken(f"two rows for {source} on {row.trigger}")
            table[source, row.trigger] = row
    return table


STEP_TABLE: Mapping[tuple[str, str], Row] = by_source(STEP_ROWS)
RUN_TABLE: Mapping[tuple[str, str], Row] = by_source(RUN_ROWS)


def step_after(state: StepState, trigger: str, step: str) -> StepState:
    """The state of a step after a trigger. Raises InvariantBroken where the table has no row."""
    row = STEP_TABLE.get((state, trigger))
    if row is None:
        raise InvariantBroken(f"step {step}: no transition from {state} on {trigger}")
    return StepState(row.target)


def run_after(state: RunState, trigger: str) -> RunState:
    """The state of a run after a trigger. Raises InvariantBroken where the table has no row."""
    row = RUN_TABLE.get((state, trigger))
    if row is None:
        raise InvariantBroken(f"run: no transition from {state} on {trigger}")
    return RunState(row.target)


REFUSED_OPERATIONS: Mapping[str, str] = {
    "drill": "drills share this model but need an isolated copy first; they come in a later release",
    "undo-after-promote": "after promotion undo is a new plan with its own confirmation; it comes in "
    "a later release. To go home now: continuity failback",
    "degrade-in-mid-run": "turning a planned move into an unplanned one in mid-run comes in a later "
    "release. Abort this run, then: continuity failover",
}
"""Rows of the model that are explicit refusals for now (roadmap), each with what to do instead."""
