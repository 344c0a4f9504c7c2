"""Decides, for every verb, state of the run and state of the step, what the verb does or why it is refused.

Total and closed: whatever people order in whatever state has a row here, and a refusal says what would be
allowed instead (RUN and STEP stand for the names). What else a verb asks for stands in ``verbs``. The table
is printed in docs/state-machine.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.core.states import FINAL_RUN_STATES, RunState, StepState

R, S = RunState, StepState


@dataclass(frozen=True, slots=True)
class Does:
    """The verb is allowed; ``what`` becomes of the run or of the step."""

    what: str


@dataclass(frozen=True, slots=True)
class Refuses:
    """The verb is refused, with what is allowed instead."""

    text: str


Answer: TypeAlias = Does | Refuses

_OVER = Refuses("the run is over; see: continuity report RUN")
_NOT_YET = Refuses(
    "the run waits for its confirmation: continuity resume RUN, or: continuity abort RUN --reason TEXT"
)
_PAUSED = Refuses("the run is paused; first: continuity resume RUN")
_ABORTING = Refuses("the run is being aborted; see: continuity status RUN")
_NO_ORDER = Refuses("declare after the confirmation, it belongs to an order: continuity resume RUN")


def _row(
    preflight: Answer, ready: Answer, running: Answer, paused: Answer, held: Answer, aborting: Answer
) -> Mapping[RunState, Answer]:
    over = {state: _OVER for state in RunState if state in FINAL_RUN_STATES}
    return {R.PREFLIGHT: preflight, R.READY: ready, R.RUNNING: running, R.PAUSED: paused, R.HELD: held,
            R.ABORTING: aborting, **over}  # fmt: skip


def _on_step(preflight: Answer, paused: Answer, aborting: Answer) -> Mapping[RunState, Answer]:
    """Verbs on a step: what they do is said by the state of the step."""
    return _row(preflight, _NOT_YET, _STEPWISE, paused, _STEPWISE, aborting)


_STEPWISE = Does("as the state of the step says")

BY_RUN: Mapping[str, Mapping[RunState, Answer]] = {
    "authorise": _row(
        preflight=Refuses("preflight is not through yet; see: continuity watch RUN"),
        ready=Does("the order: the run is running"),
        running=Refuses("the run is authorised already; see: continuity status RUN"),
        paused=_PAUSED,
        held=Refuses("the run is held; its causes and choices: continuity status RUN"),
        aborting=_ABORTING,
    ),
    "pause": _row(
        preflight=Does("paused"),
        ready=Refuses(
            "nothing runs before the confirmation: continuity resume RUN, or: continuity abort RUN --reason TEXT"
        ),
        running=Does("paused; proofs are void, and before promotion the accepted loss"),
        paused=Refuses("the run is paused already; to go on: continuity resume RUN"),
        held=Does("paused; proofs are void, and before promotion the accepted loss"),
        aborting=Refuses("an abort cannot be paused, it restores the old side; see: continuity watch RUN"),
    ),
    "resume": _row(
        preflight=Does("nothing changes; whoever orders it may become the driver"),
        ready=Does("nothing changes; whoever orders it may become the driver"),
        running=Does("a loss may be accepted anew"),
        paused=Does("goes on where it was; a loss may be accepted anew"),
        held=Does("a loss may be accepted anew"),
        aborting=Does("nothing changes; whoever orders it may become the driver"),
    ),
    "retry": _on_step(preflight=_STEPWISE, paused=_STEPWISE, aborting=_STEPWISE),
    "skip": _on_step(preflight=_STEPWISE, paused=_STEPWISE, aborting=_ABORTING),
    "mark-done": _on_step(
        preflight=Refuses(
            "a read-only check is retried or accepted, never marked; what is allowed now: continuity status RUN"
        ),
        paused=_STEPWISE,
        aborting=_ABORTING,
    ),
    "confirm": _on_step(preflight=_STEPWISE, paused=_STEPWISE, aborting=_ABORTING),
    "accept": _row(
        preflight=Does("the step of a data gate that failed is accepted"),
        ready=Refuses("the loss is accepted with the confirmation itself: continuity resume RUN"),
        running=Does("the loss up to the limit, or the step of a data gate that failed, is accepted"),
        paused=_PAUSED,
        held=Does("the loss up to the limit, or the step of a data gate that failed, is accepted"),
        aborting=_ABORTING,
    ),
    "declare": _row(
        preflight=_NO_ORDER,
        ready=_NO_ORDER,
        running=Does("the site counts as fenced, by people's word"),
        paused=Does("the site counts as fenced, by people's word"),
        held=Does("the site counts as fenced, by people's word"),
        aborting=_ABORTING,
    ),
    "abort": _row(
        preflight=Does("aborting"),
        ready=Does("aborting"),
        running=Does("aborting"),
        paused=Does("aborting"),
        held=Does("aborting"),
        aborting=Refuses(
            "the run is being aborted already; to end it although no site is proven to write: "
            "continuity abort RUN --leave-closed --reason TEXT"
        ),
    ),
}

_SAYS: Mapping[StepState, str] = {
    S.PENDING: "STEP has not begun; it starts by itself when what it needs is met: continuity status RUN",
    S.RUNNING: "STEP is running; wait for its end: continuity watch RUN",
    S.UNKNOWN: "whether STEP happened is being looked at; wait for the answer: continuity watch RUN",
    S.BACKOFF: "STEP is about to be tried again; at once: continuity retry RUN STEP",
    S.WAITING: "STEP waits for people: continuity confirm RUN STEP",
    S.MARKING: "STEP was marked as done and is being looked at: continuity watch RUN",
    S.FAILED: "STEP has failed: continuity retry RUN STEP",
    S.UNDECIDED: "nobody could tell whether STEP happened; to look again: continuity retry RUN STEP",
    S.SUCCEEDED: "STEP has succeeded, nothing is left to order for it: continuity status RUN",
    S.SKIPPED: "STEP was skipped and the run went on without it: continuity status RUN",
    S.MARKED: "STEP counts as done by people's word: continuity status RUN",
    S.ACCEPTED: "what STEP found was accepted: continuity status RUN",
    S.UNDOING: "STEP is being undone; wait for the end: continuity watch RUN",
    S.UNDO_FAILED: "STEP could not be undone; to try again: continuity retry RUN STEP",
    S.UNDONE: "STEP was undone; to do it again, a new run: continuity status RUN",
}
"""What is allowed for a step in each state, for verbs that are not."""


def _steps(**does: Mapping[StepState, StepState]) -> Mapping[str, Mapping[StepState, Answer]]:
    return {
        verb.replace("_", "-"): {
            state: Does(target[state]) if state in target else Refuses(_SAYS[state]) for state in StepState
        }
        for verb, target in does.items()
    }


BY_STEP: Mapping[str, Mapping[StepState, Answer]] = _steps(
    retry={S.FAILED: S.PENDING, S.BACKOFF: S.PENDING, S.UNDECIDED: S.UNKNOWN, S.UNDO_FAILED: S.UNDECIDED},
    skip={S.PENDING: S.SKIPPED, S.FAILED: S.SKIPPED, S.WAITING: S.SKIPPED},
    mark_done={S.PENDING: S.MARKING, S.FAILED: S.MARKING, S.UNDECIDED: S.MARKING, S.WAITING: S.MARKING},
    confirm={S.WAITING: S.SUCCEEDED},
)
"""Verbs on one step, and the state that the step is in afterwards."""

_NOT_IN_ABORT = Refuses("STEP is not done any more, the run is being aborted: continuity status RUN")
_LOOKED_AT = (S.UNDECIDED, S.UNDO_FAILED)
RETRY_IN_ABORT: Mapping[StepState, Answer] = {
    state: _NOT_IN_ABORT
    if state is S.WAITING or (isinstance(answer, Does) and state not in _LOOKED_AT)
    else answer
    for state, answer in BY_STEP["retry"].items()
}
"""In an aborting run only a look or an undo is tried again; nothing is done any more."""


def of_run(verb: str, state: RunState, phase: RunState) -> Answer:
    """What a verb may do to a run. A held or paused run also answers as the phase it will go back to: an
    abort that is held is still an abort."""
    answer = BY_RUN[verb][state]
    return BY_RUN[verb][phase] if isinstance(answer, Does) and phase is not state else answer


def of_step(verb: str, phase: RunState, step: StepState) -> Answer:
    """What a verb does to a step, in a run that allows it."""
    if verb == "retry" and phase is RunState.ABORTING:
        return RETRY_IN_ABORT[step]
    return BY_STEP[verb][step]


PHASES: Mapping[RunState, tuple[RunState, ...]] = {
    state: {
        R.PAUSED: (R.PREFLIGHT, R.RUNNING),
        R.HELD: (R.PREFLIGHT, R.RUNNING, R.ABORTING),
    }.get(state, (state,))
    for state in RunState
}
"""Per state of a run, the phases it can be in."""
