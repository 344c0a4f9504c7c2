"""Decides what people may order, in which state, and what each order does.

What the state of the run and of the step allow stands in ``verb_table``; what else a verb asks for is a list
of named conditions here. A verb never starts a step: it changes what may start, and the driver proceeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, assert_never

from orchestrator.core import abort, events, guards, verb_table
from orchestrator.core.decision import Draft
from orchestrator.core.inputs import (
    LOSS_UNKNOWN,
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
from orchestrator.core.loss import bound_text
from orchestrator.core.plan import CANNOT_BE_SKIPPED, Role
from orchestrator.core.run import NOT_SENT, Run, all_promoted, counts_as_met
from orchestrator.core.settle import may_run_now
from orchestrator.core.states import RunState, StepState
from orchestrator.core.values import with_article
from orchestrator.core.verb_table import Refuses
from orchestrator.errors import RefusedError, WrongWordsError


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
    _must_be_allowed(draft.run, verb)
    _emit(draft, verb)


def _must_be_allowed(run: Run, verb: Verb) -> None:
    name = verb_name(verb)
    answer = verb_table.of_run(name, run.state, run.phase)
    if isinstance(answer, Refuses) and not _ends_closed(run, verb):
        raise RefusedError(f"{name}: {_filled(answer.text, run, getattr(verb, 'step', ''))}")
    for condition in CONDITIONS[name]:
        condition(run, verb)


def _offers(run: Run, *verbs: Verb) -> tuple[str, ...]:
    """Those of these orders that this run would take as it is now, as people type them; else where to look."""
    found = []
    for verb in verbs:
        try:
            _must_be_allowed(run, verb)
        except RefusedError:
            continue
        found.append(_typed(run, verb))
    return tuple(found) or (f"continuity status {run.id}",)


NAME, TEXT = "NAME", "TEXT"
LIMIT = 1
"""Stands for any limit in an order that is only offered."""


def _typed(run: Run, verb: Verb) -> str:
    command = f"continuity {verb_name(verb)}"
    match verb:
        case Retry():
            return f"{command} {run.id} {verb.step}"
        case Accept():
            limit = "" if verb.limit_ms is None else " --limit DURATION"
            return f"{command} {run.id} {verb.gate}{limit} --by {NAME} --reason {TEXT}"
        case DeclareLost():
            return f"{command} site-lost {run.id} --site {verb.site} --by {NAME} --reason {TEXT}"
        case Abort():
            closed = " --leave-closed" if verb.leave_closed else ""
            return f"{command} {run.id}{closed} --reason {TEXT}"
        case _:
            return f"{command} {run.id}"


def _ends_closed(run: Run, verb: Verb) -> bool:
    """An abort that is under way may be told to end although no site is proven to write."""
    return isinstance(verb, Abort) and verb.leave_closed and run.phase is RunState.ABORTING


def _filled(text: str, run: Run, step: str) -> str:
    return text.replace("RUN", run.id).replace("STEP", step)


# --- conditions -------------------------------------------------------------------------------


def is_this_plan(run: Run, verb: Authorise) -> None:
    """The digest that was confirmed is this run's."""
    if verb.digest != run.plan.digest:
        raise RefusedError(
            f"authorise: plan {verb.digest[:12]} was confirmed, this run's is {run.plan.digest[:12]}",
            (f"continuity status {run.id}", *_offers(run, Abort(verb.at, NAME, TEXT))),
        )


def has_a_name(run: Run, verb: Any) -> None:
    """A name is given: it stands in the record."""
    if not verb.by.strip():
        raise WrongWordsError(f"{verb_name(verb)}: --by is needed: it stands in the record", ("--by NAME",))


def has_a_reason(run: Run, verb: Any) -> None:
    """A reason is given: it stands in the record."""
    if not verb.reason.strip():
        text = f"{verb_name(verb)}: --reason is needed: it stands in the record"
        raise WrongWordsError(text, ("--reason TEXT",))


def knows_the_step(run: Run, verb: Any) -> None:
    """The plan has a step of that name."""
    if verb.step not in run.plan.steps:
        near = sorted(name for name in run.plan.steps if name.endswith(verb.step) or verb.step in name)[:5]
        raise WrongWordsError(
            f"{verb_name(verb)}: this run has no step {verb.step!r}",
            tuple(near) or (f"continuity status {run.id}",),
        )


def is_no_gate(run: Run, verb: Skip | MarkDone) -> None:
    """The step is no fence, no evidence, no data check and none of the promotion: a word alone never satisfies
    those."""
    step = run.plan.steps[verb.step]
    if step.role in CANNOT_BE_SKIPPED:
        at = verb.at
        offered: list[Verb] = [Retry(at, NAME, step.id)]
        if step.role is Role.FENCE:
            offered.insert(0, DeclareLost(at, NAME, run.plan.source, TEXT))
        elif step.role is Role.VERIFY:
            offered.insert(0, Accept(at, NAME, step.id, TEXT))
        name = verb_name(verb)
        text = f"{name}: {with_article(step.role)} step is never satisfied by a word alone"
        raise RefusedError(text, _offers(run, *offered))


def step_allows_it(run: Run, verb: Any) -> None:
    """The step is in a state in which the verb does something (the table above)."""
    name = verb_name(verb)
    answer = verb_table.of_step(name, run.phase, run.step(verb.step).state)
    if isinstance(answer, Refuses):
        raise RefusedError(f"{name}: {_filled(answer.text, run, verb.step)}")


def is_reached(run: Run, verb: Skip | MarkDone) -> None:
    """Everything that the step needs is met: else what comes after would no longer wait for it."""
    step = run.plan.steps[verb.step]
    unit = run.units[step.unit]
    open_needs = [
        need
        for need in step.needs
        if unit.unmet[step.id] and not counts_as_met(run.plan.steps[need], run.step(need).state)
    ]
    if open_needs or not may_run_now(run, step):
        what = ", ".join(open_needs) or "the confirmation"
        raise RefusedError(
            f"{verb_name(verb)}: {step.id} is not reached yet: it waits for {what}",
            (f"continuity status {run.id}",),
        )


def step_allows_retry(run: Run, verb: Retry) -> None:
    """The named step, or without a name some step, has failed or could not be decided."""
    if verb.step:
        knows_the_step(run, verb)
        step_allows_it(run, verb)
    elif not _to_retry(run):
        raise RefusedError("retry: no step has failed", (f"continuity status {run.id}",))


def _to_retry(run: Run) -> list[str]:
    """What ``retry`` without a step means: all that waits for people, not what retries by itself."""
    return [
        step
        for unit in run.units.values()
        for step, state in unit.steps.items()
        if state.state is not StepState.BACKOFF
        and not isinstance(verb_table.of_step("retry", run.phase, state.state), Refuses)
    ]


def gate_can_be_accepted(run: Run, verb: Accept) -> None:
    """The gate is ``loss``, with a limit, after the order and before the last promotion; or a data check
    that failed, where something else states what would be lost."""
    if verb.gate != "loss":
        step = run.plan.steps.get(verb.gate)
        if step is None or step.role is not Role.VERIFY or run.step(step.id).state is not StepState.FAILED:
            kind = WrongWordsError if step is None else RefusedError
            raise kind(
                f"accept: {verb.gate} is no data gate that failed",
                _offers(
                    run,
                    Accept(verb.at, NAME, "loss", TEXT, LIMIT),
                    *(Accept(verb.at, NAME, gate, TEXT) for gate in _open_gates(run)),
                ),
            )
        if guards.is_all_that_bounds_the_loss(run, step):
            raise RefusedError(
                f"accept: {verb.gate} is all that says that this planned move loses nothing; a loss that nobody "
                "has stated cannot be accepted. End this run, then: continuity failover, which states it",
                _offers(
                    run,
                    Retry(verb.at, NAME, verb.gate),
                    Abort(verb.at, NAME, TEXT),
                    Abort(verb.at, NAME, TEXT, leave_closed=True),
                ),
            )
        return
    if verb.limit_ms is None:
        raise WrongWordsError(
            "accept: the loss is accepted up to a limit", ("--limit 10m", "--limit unknown")
        )
    if run.authorised is None:
        raise RefusedError(
            "accept: the loss is accepted with the confirmation itself", (f"continuity resume {run.id}",)
        )
    if all_promoted(run):
        raise RefusedError(
            "accept: every promotion was sent already; the loss stands as stated",
            (f"continuity status {run.id}",),
        )
    if above := _above(run, verb.limit_ms):
        raise RefusedError(
            f"accept: more is lost than that: {', '.join(above)}; with this limit the run would hold again",
            (f"--limit {guards.enough(run)}",),
        )


def _above(run: Run, limit_ms: int) -> list[str]:
    """What is lost, as it was last stated, where this limit lets no group pass that waits for one."""
    above = []
    for name in run.plan.groups:
        asked = _asked_of(run, name)
        if not asked:
            continue
        found = [unit for unit in asked if not _covers(limit_ms, run.losses[unit].milliseconds)]
        if not found:
            return []
        above += found
    lost = {unit: run.losses[unit].milliseconds for unit in above}
    return [
        f"{unit} {'what nobody can bound' if ms is None else bound_text(ms)}" for unit, ms in lost.items()
    ]


def _asked_of(run: Run, group: str) -> list[str]:
    """Units whose stated loss stands between this group and its promotion; []: none, or it was sent."""
    decisive = run.index.decisive.get(group, ())
    waits = [run.plan.steps[step].unit for step in decisive if run.step(step).state in NOT_SENT]
    asked = [unit for each in waits for unit in run.index.accepted_with.get(each, ())]
    return [unit for unit in dict.fromkeys(asked) if unit in run.losses]


def _covers(limit_ms: int, lost_ms: int | None) -> bool:
    return limit_ms == LOSS_UNKNOWN or (lost_ms is not None and lost_ms <= limit_ms)


def _open_gates(run: Run) -> list[str]:
    """Data checks that failed and that people can accept."""
    return [
        step_id
        for step_id, step in run.plan.steps.items()
        if step.role is Role.VERIFY
        and run.step(step_id).state is StepState.FAILED
        and not guards.is_all_that_bounds_the_loss(run, step)
    ]


def site_can_be_lost(run: Run, verb: DeclareLost) -> None:
    """The site is the one that this run leaves, and it was lost before now."""
    if verb.site != run.plan.source:
        sites = {run.plan.target, *(host.site for host in run.plan.parts.hosts.values())}
        kind = RefusedError if verb.site in sites else WrongWordsError
        raise kind(
            f"declare: this run leaves {run.plan.source or 'no site'}; only that site can be declared lost",
            (f"--site {run.plan.source}",) if run.plan.source else (f"continuity status {run.id}",),
        )
    if verb.lost_at_ns is not None and verb.lost_at_ns > verb.at.utc_ns:
        raise WrongWordsError("declare: --lost-at lies in the future", ("--lost-at, at most now",))


def can_be_taken_back(run: Run, verb: Abort) -> None:
    """No promotion is unknown (where nobody can tell, --leave-closed lifts no fence), and no group is
    promoted and not through yet (with --leave-closed it stays promoted, and the rest is owed)."""
    why = abort.refusal(run, leave_closed=verb.leave_closed)
    if why is not None:
        raise why


CONDITIONS: Mapping[str, tuple[Callable[[Run, Any], None], ...]] = {
    "authorise": (has_a_name, is_this_plan),
    "pause": (),
    "resume": (),
    "retry": (step_allows_retry,),
    "skip": (knows_the_step, is_no_gate, step_allows_it, is_reached, has_a_name, has_a_reason),
    "mark-done": (knows_the_step, is_no_gate, step_allows_it, is_reached, has_a_name, has_a_reason),
    "confirm": (knows_the_step, step_allows_it, has_a_name),
    "accept": (has_a_name, has_a_reason, gate_can_be_accepted),
    "declare": (has_a_name, has_a_reason, site_can_be_lost),
    "abort": (has_a_name, has_a_reason, can_be_taken_back),
}
"""What each verb asks for beside the state of run and step, in the order in which it is asked."""


# --- what they do -----------------------------------------------------------------------------


def _emit(draft: Draft, verb: Verb) -> None:
    run, at = draft.run, verb.at
    match verb:
        case Authorise():
            draft.emit(events.RunAuthorised(at, verb.by, verb.digest, verb.accepted_loss_ms, verb.method))
        case Pause():
            draft.emit(events.RunPaused(at, verb.by))
        case Resume():
            _resume(draft, verb)
        case Retry():
            for step in [verb.step] if verb.step else _to_retry(run):
                draft.emit(events.StepRetried(at, step, verb.by))
        case Skip():
            draft.emit(events.StepSkipped(at, verb.step, verb.by, verb.reason))
        case MarkDone():
            draft.emit(events.StepMarkAsked(at, verb.step, verb.by, verb.reason))
        case Confirm():
            draft.emit(events.StepConfirmed(at, verb.step, verb.by, verb.text))
        case Accept():
            draft.emit(events.GateAccepted(at, verb.gate, verb.by, verb.reason, verb.limit_ms))
        case DeclareLost():
            lost_at = at.utc_ns if verb.lost_at_ns is None else verb.lost_at_ns
            draft.emit(events.SiteDeclaredLost(at, verb.site, verb.by, verb.reason, lost_at))
        case Abort():
            if run.phase is not RunState.ABORTING or not run.leave_closed:
                draft.emit(events.AbortAsked(at, verb.by, verb.reason, verb.leave_closed))
        case _:
            assert_never(verb)


def _resume(draft: Draft, verb: Resume) -> None:
    """Un-pauses; elsewhere it may carry a new acceptance, and the caller becomes the driver."""
    run, limit = draft.run, verb.accepted_loss_ms
    if run.state is RunState.PAUSED:
        draft.emit(events.RunResumed(verb.at, verb.by, limit))
    elif limit is not None and run.phase is RunState.RUNNING and not all_promoted(run):
        draft.emit(events.GateAccepted(verb.at, "loss", verb.by, "confirmed on resume", limit))
