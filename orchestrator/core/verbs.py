"""Decides what people may order, in which state, and what each order does.

``VERBS`` is total over (verb, run state): None allows, a text refuses and names what is allowed.
A verb never starts a step: it changes what may start, and the driver proceeds. The table is printed
in docs/state-machine.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from orchestrator.core import events
from orchestrator.core.abort import moved_groups
from orchestrator.core.decision import Draft
from orchestrator.core.fold import promoted
from orchestrator.core.inputs import (
    Abort,
    Accept,
    Authorise,
    Confirm,
    DeclareLost,
    MarkDone,
    Pause,
    Resume,
    Retry,
    Skip,
    Verb,
)
from orchestrator.core.plan import CANNOT_BE_SKIPPED, Role, Step
from orchestrator.core.states import RunState, StepState
from orchestrator.errors import RefusedError

R, S = RunState, StepState
_OVER = "the run is over; see: continuity report RUN"
_NOT_YET = "the run waits for its confirmation; confirm it, or: continuity abort RUN"
_PAUSED = "the run is paused; first: continuity resume RUN"
_ABORTING = "the run is being aborted; see: continuity status RUN"
_FINAL: Mapping[RunState, str | None] = {R.DONE: _OVER, R.PARTIAL: _OVER, R.ABORTED: _OVER}

VERBS: Mapping[str, Mapping[RunState, str | None]] = {
    "authorise": {
        R.PREFLIGHT: "preflight is not through yet; see: continuity watch RUN",
        R.READY: None,
        R.RUNNING: "the run is authorised already; see: continuity status RUN",
        R.PAUSED: _PAUSED,
        R.HELD: "the run is held; its causes and choices: continuity status RUN",
        R.ABORTING: _ABORTING,
        **_FINAL,
    },
    "pause": {
        R.PREFLIGHT: None,
        R.READY: "nothing runs before the confirmation: there is nothing to pause",
        R.RUNNING: None,
        R.PAUSED: "the run is paused already; to go on: continuity resume RUN",
        R.HELD: None,
        R.ABORTING: "an abort cannot be paused: it restores the old side",
        **_FINAL,
    },
    "resume": {
        R.PREFLIGHT: None,
        R.READY: None,
        R.RUNNING: None,
        R.PAUSED: None,
        R.HELD: None,
        R.ABORTING: None,
        **_FINAL,
    },
    "retry": {
        R.PREFLIGHT: None,
        R.READY: _NOT_YET,
        R.RUNNING: None,
        R.PAUSED: None,
        R.HELD: None,
        R.ABORTING: None,
        **_FINAL,
    },
    "skip": {
        R.PREFLIGHT: None,
        R.READY: _NOT_YET,
        R.RUNNING: None,
        R.PAUSED: None,
        R.HELD: None,
        R.ABORTING: _ABORTING,
        **_FINAL,
    },
    "mark-done": {
        R.PREFLIGHT: "a read-only check is retried or accepted, never marked done",
        R.READY: _NOT_YET,
        R.RUNNING: None,
        R.PAUSED: None,
        R.HELD: None,
        R.ABORTING: _ABORTING,
        **_FINAL,
    },
    "confirm": {
        R.PREFLIGHT: None,
        R.READY: _NOT_YET,
        R.RUNNING: None,
        R.PAUSED: None,
        R.HELD: None,
        R.ABORTING: _ABORTING,
        **_FINAL,
    },
    "accept": {
        R.PREFLIGHT: None,
        R.READY: "the loss is accepted with the confirmation itself",
        R.RUNNING: None,
        R.PAUSED: _PAUSED,
        R.HELD: None,
        R.ABORTING: _ABORTING,
        **_FINAL,
    },
    "declare": {
        R.PREFLIGHT: "declare after the confirmation: a declaration belongs to an order",
        R.READY: "declare after the confirmation: a declaration belongs to an order",
        R.RUNNING: None,
        R.PAUSED: None,
        R.HELD: None,
        R.ABORTING: _ABORTING,
        **_FINAL,
    },
    "abort": {
        R.PREFLIGHT: None,
        R.READY: None,
        R.RUNNING: None,
        R.PAUSED: None,
        R.HELD: None,
        R.ABORTING: "the run is being aborted already; to end it without a writer: "
        "continuity abort RUN --leave-closed",
        **_FINAL,
    },
}

STEP_VERBS: Mapping[str, frozenset[StepState]] = {
    "retry": frozenset({S.FAILED, S.UNDECIDED, S.BACKOFF, S.UNDO_FAILED}),
    "skip": frozenset({S.PENDING, S.FAILED, S.WAITING}),
    "mark-done": frozenset({S.PENDING, S.FAILED, S.UNDECIDED, S.WAITING}),
    "confirm": frozenset({S.WAITING}),
}
"""Step states in which a verb on a step does something; all others are refused by name."""


def verb_name(verb: Verb) -> str:
    match verb:
        case Authorise():
            return "authorise"
        case Pause():
            return "pause"
        case Resume():
            return "resume"
        case Retry():
            return "retry"
        case Skip():
            return "skip"
        case MarkDone():
            return "mark-done"
        case Confirm():
            return "confirm"
        case Accept():
            return "accept"
        case DeclareLost():
            return "declare"
        case Abort():
            return "abort"
        case _:
            assert_never(verb)


def decide_verb(draft: Draft, verb: Verb) -> None:
    """Emit what a verb does. Raises RefusedError, and then has emitted nothing."""
    run, at = draft.run, verb.at
    leave_closed_anew = isinstance(verb, Abort) and verb.leave_closed and run.state is R.ABORTING
    refusal = VERBS[verb_name(verb)][run.state]
    if refusal is not None and not leave_closed_anew:
        raise RefusedError(f"{verb_name(verb)}: {refusal.replace('RUN', run.id)}")
    match verb:
        case Authorise():
            if verb.digest != run.plan.digest:
                raise RefusedError(
                    f"authorise: plan {verb.digest[:12]} was confirmed, this run's is {run.plan.digest[:12]}"
                )
            draft.emit(events.RunAuthorised(at, verb.by, verb.digest, verb.accepted_loss_ms, verb.method))
        case Pause():
            draft.emit(events.RunPaused(at, verb.by))
        case Resume():
            _resume(draft, verb)
        case Retry():
            _retry(draft, verb)
        case Skip():
            step = _allowed_step(draft, verb.step, "skip")
            _must_not_be_gate(step, "skip")
            if draft.run.step(step.id).state is S.PENDING and step.id not in run.units[step.unit].ready:
                raise RefusedError(
                    f"skip: {step.id} is not reached yet: skipping it would drop what it waits for"
                )
            _needs(verb.reason, "skip", "--reason")
            draft.emit(events.StepSkipped(at, step.id, verb.by, verb.reason))
        case MarkDone():
            step = _allowed_step(draft, verb.step, "mark-done")
            _must_not_be_gate(step, "mark-done")
            if draft.run.step(step.id).state is S.PENDING and step.id not in run.units[step.unit].ready:
                raise RefusedError(f"mark-done: {step.id} is not reached yet")
            _needs(verb.reason, "mark-done", "--reason")
            draft.emit(events.StepMarkAsked(at, step.id, verb.by, verb.reason))
        case Confirm():
            step = _allowed_step(draft, verb.step, "confirm")
            _needs(verb.by, "confirm", "--by")
            draft.emit(events.StepConfirmed(at, step.id, verb.by, verb.text))
        case Accept():
            _accept(draft, verb)
        case DeclareLost():
            _declare(draft, verb)
        case Abort():
            _abort(draft, verb)
        case _:
            assert_never(verb)


def _resume(draft: Draft, verb: Resume) -> None:
    """Un-pauses; elsewhere it may carry a new acceptance, and the caller becomes the driver."""
    if draft.run.state is R.PAUSED:
        draft.emit(events.RunResumed(verb.at, verb.by, verb.accepted_loss_ms))
    elif verb.accepted_loss_ms is not None and draft.run.authorised and not promoted(draft.run):
        draft.emit(
            events.GateAccepted(verb.at, "loss", verb.by, "confirmed on resume", verb.accepted_loss_ms)
        )


def _retry(draft: Draft, verb: Retry) -> None:
    run = draft.run
    if verb.step:
        step = _allowed_step(draft, verb.step, "retry")
        draft.emit(events.StepRetried(verb.at, step.id, verb.by))
        return
    wanted = STEP_VERBS["retry"] - {S.BACKOFF}
    steps = [s for unit in run.units.values() for s, state in unit.steps.items() if state.state in wanted]
    if not steps:
        raise RefusedError("retry: no step has failed; see: continuity status " + run.id)
    for step_id in steps:
        draft.emit(events.StepRetried(verb.at, step_id, verb.by))


def _accept(draft: Draft, verb: Accept) -> None:
    run = draft.run
    _needs(verb.by, "accept", "--by")
    _needs(verb.reason, "accept", "--reason")
    if verb.gate == "loss":
        if verb.limit_ms is None:
            raise RefusedError(
                "accept: the loss is accepted up to a limit", ("--limit 10m", "--limit unknown")
            )
        if promoted(run):
            raise RefusedError("accept: the promotion was sent already; the loss stands as stated")
    else:
        step = _known_step(draft, verb.gate, "accept")
        if step.role is not Role.VERIFY or run.step(step.id).state is not S.FAILED:
            open_gates = [s for s in run.held_steps if run.plan.steps[s].role is Role.VERIFY]
            raise RefusedError(
                f"accept: {verb.gate} is no data gate that failed",
                tuple(
                    f"continuity accept {run.id} {gate} --by NAME --reason TEXT"
                    for gate in ("loss", *open_gates)
                ),
            )
    draft.emit(events.GateAccepted(verb.at, verb.gate, verb.by, verb.reason, verb.limit_ms))


def _declare(draft: Draft, verb: DeclareLost) -> None:
    run = draft.run
    _needs(verb.by, "declare", "--by")
    _needs(verb.reason, "declare", "--reason")
    if verb.site != run.plan.source:
        raise RefusedError(
            f"declare: this run leaves {run.plan.source or 'no site'}; only that site can be declared lost",
            (f"--site {run.plan.source}",) if run.plan.source else (),
        )
    lost_at = verb.lost_at_ns if verb.lost_at_ns is not None else verb.at.utc_ns
    draft.emit(events.SiteDeclaredLost(verb.at, verb.site, verb.by, verb.reason, lost_at))


def _abort(draft: Draft, verb: Abort) -> None:
    run = draft.run
    _needs(verb.reason, "abort", "--reason")
    moved = set(moved_groups(run))
    for group, steps in run.index.promotes.items():
        for step_id in steps:
            state = run.step(step_id).state
            if group in moved or state in (S.PENDING, S.FAILED, S.BACKOFF, S.UNDONE):
                continue
            if state in (S.RUNNING, S.UNKNOWN, S.UNDECIDED):
                raise RefusedError(
                    f"abort: whether {step_id} happened is not known: lifting the fence now could leave two "
                    "writers or none",
                    (f"continuity resume {run.id}", f"continuity retry {run.id} {step_id}"),
                )
            raise RefusedError(
                f"abort: {group} is promoted at {run.plan.target}: after promotion undo is a new plan",
                (f"continuity resume {run.id}", "continuity failback"),
            )
    if run.state is not R.ABORTING:
        draft.emit(events.AbortAsked(verb.at, verb.by, verb.reason, verb.leave_closed))
    elif not run.leave_closed:
        draft.emit(events.AbortAsked(verb.at, verb.by, verb.reason, leave_closed=True))


def _known_step(draft: Draft, step: str, verb: str) -> Step:
    steps = draft.run.plan.steps
    if step in steps:
        return steps[step]
    near = sorted(name for name in steps if name.endswith(step) or step in name)[:5]
    raise RefusedError(f"{verb}: this run has no step {step!r}", tuple(near))


def _allowed_step(draft: Draft, name: str, verb: str) -> Step:
    step = _known_step(draft, name, verb)
    state = draft.run.step(name).state
    if state not in STEP_VERBS[verb]:
        allowed = ", ".join(sorted(STEP_VERBS[verb]))
        raise RefusedError(f"{verb}: {name} is {state}; {verb} works on a step that is {allowed}")
    return step


def _must_not_be_gate(step: Step, verb: str) -> None:
    if step.role in CANNOT_BE_SKIPPED:
        instead = {
            Role.FENCE: "continuity declare site-lost RUN --site SITE --by NAME --reason TEXT",
            Role.VERIFY: f"continuity accept RUN {step.id} --by NAME --reason TEXT",
            Role.LOSS: "continuity accept RUN loss --limit DURATION --by NAME --reason TEXT",
        }.get(step.role, f"continuity retry RUN {step.id}")
        raise RefusedError(f"{verb}: a {step.role} step is never satisfied by a word alone", (instead,))


def _needs(value: str, verb: str, option: str) -> None:
    if not value.strip():
        raise RefusedError(f"{verb}: {option} is needed: it stands in the record")
