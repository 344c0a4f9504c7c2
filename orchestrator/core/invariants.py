"""Decides what must be true of every run, after every decision, whatever decided it.

Each predicate has a name that tests and mutants refer to. The cheap ones look only at what a
decision changed and are asked in production too: a broken one stops the run before anything is
appended, with its state saved. The deep ones walk the whole run (tests, simulator).

They judge by the states of steps and never ask ``guards``: a guard that lets everything pass is found here.
"""

# ruff: noqa: PLC0414 - the deep ones are part of this vocabulary, in a file of their own
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from orchestrator.core import events
from orchestrator.core.deep_invariants import DEEP as DEEP
from orchestrator.core.events import RunEvent
from orchestrator.core.inputs import LOSS_UNKNOWN, LOSS_WITHIN_RPO, At
from orchestrator.core.model import ProofKind
from orchestrator.core.plan import CANNOT_BE_SKIPPED, MANUAL, Gate, Role, Step
from orchestrator.core.run import Run, counts_as_met, has_ended, promoted
from orchestrator.core.states import RunState, StepState

MILLISECOND_NS = 1_000_000
S = StepState


def check(before: Run, after: Run, new: Sequence[RunEvent], *, is_deep: bool = False) -> list[str]:
    """Names and texts of the broken invariants; [] = all hold."""
    broken = [text for rule in CHEAP.values() for text in rule(before, after, new)]
    if is_deep:
        broken += [text for rule in DEEP.values() for text in rule(after)]
    return broken


def _started(after: Run, new: Sequence[RunEvent], *roles: Role) -> Iterator[tuple[Step, At]]:
    for event in new:
        if isinstance(event, events.StepStarted):
            step = after.plan.steps[event.step]
            if not roles or step.role in roles:
                yield step, event.at


# --- starting ---------------------------------------------------------------------------------


def no_start_without_needs(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A step starts only when everything it needs is met."""
    return [
        f"no-start-without-needs: {step.id} started before {need} was met"
        for step, _ in _started(after, new)
        for need in step.needs
        if not counts_as_met(after.plan.steps[need], after.step(need).state)
    ]


def no_start_before_authorisation(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """Nothing that changes anything starts before people confirmed."""
    return [
        f"no-start-before-authorisation: {step.id}"
        for step, _ in _started(after, new)
        if after.authorised is None and step.action.mutates
    ]


def no_start_while_stopped(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """Ready, paused, held, aborting and finished runs start nothing."""
    state, out = before.state, []
    for event in new:
        match event:
            case events.RunGoesOn() | events.RunResumed():
                state = before.before_hold
            case events.RunHeld():
                state = RunState.HELD
            case events.RunReady():
                state = RunState.READY
            case events.StepStarted() | events.StepWaiting() if state not in (
                RunState.PREFLIGHT,
                RunState.RUNNING,
            ):
                out.append(f"no-start-while-stopped: {event.step} started in a run that is {state}")
            case _:
                continue
    return out


VERB_EVENTS = (
    events.RunAuthorised,
    events.RunPaused,
    events.RunResumed,
    events.AbortAsked,
    events.StepRetried,
    events.StepSkipped,
    events.StepMarkAsked,
    events.StepConfirmed,
    events.GateAccepted,
    events.SiteDeclaredLost,
)


def verbs_start_nothing(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """What people order changes what may start; only the driver's inputs start anything."""
    if not any(isinstance(event, VERB_EVENTS) for event in new):
        return []
    begins = (events.StepStarted, events.StepWaiting, events.StepUndoStarted)
    return [f"verbs-start-nothing: {event.step}" for event in new if isinstance(event, begins)]


def one_attempt_at_a_time(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A new attempt never starts while the one before is running or unknown."""
    out = []
    state = {
        step: before.step(step).state for e in new if isinstance(e, events.StepStarted) for step in (e.step,)
    }
    for event in new:
        if isinstance(
            event, events.StepResolved | events.StepReopened | events.StepFailed | events.StepRetried
        ):
            state[event.step] = S.PENDING
        if isinstance(event, events.StepStarted):
            if state.get(event.step) in (S.RUNNING, S.UNKNOWN):
                out.append(f"one-attempt-at-a-time: {event.step}")
            if event.attempt != before.step(event.step).attempt + 1:
                out.append(f"one-attempt-at-a-time: {event.step} skipped an attempt number")
    return out


def results_are_of_the_current_attempt(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A result whose attempt is not the current one settles nothing."""
    results = events.StepSucceeded | events.StepFailed | events.StepUnknown | events.StepResolved
    return [
        f"results-are-of-the-current-attempt: {event.step} #{event.attempt}"
        for event in new
        if isinstance(event, results) and event.attempt != before.step(event.step).attempt
    ]


# --- the promotion ----------------------------------------------------------------------------


def no_promote_without_fence(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A promotion starts only with a valid proof for every old member, in the same decision."""
    out = []
    for step, at in _started(after, new, Role.PROMOTE):
        hosts = after.plan.groups[step.group].fence_hosts.get(step.unit, ())
        bare = [host for host in hosts if not _is_proven(after, step.unit, host, at)]
        if bare or not hosts:
            out.append(f"no-promote-without-fence: {step.id} ({', '.join(bare) or 'no member is named'})")
    return out


def _is_proven(run: Run, unit: str, host: str, at: At) -> bool:
    return run.plan.parts.hosts[host].site in run.lost_sites or any(
        _is_young(run, fence, at) for fence in run.index.covering[unit, host]
    )


def _is_young(run: Run, step: str, at: At) -> bool:
    state, limit_ns = run.step(step), run.plan.limits.proof_age_ms * MILLISECOND_NS
    return (
        state.state is S.SUCCEEDED
        and state.proof_at is not None
        and at.mono_ns - state.proof_at.mono_ns <= limit_ns
    )


def no_promote_unverified(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A promotion starts only with the unit's data checked just now, or accepted by name. What is checked after
    the fence, where no loss is measured, is never accepted: it alone says that nothing is missing."""
    return [
        f"no-promote-unverified: {step.id} ({verify})"
        for step, at in _started(after, new, Role.PROMOTE)
        if Gate.VERIFIED in step.gates
        for verify in after.index.verifies.get(step.unit, ())
        if (
            after.step(verify).state is not S.ACCEPTED
            or (Gate.FENCED in after.plan.steps[verify].gates and not after.index.loss.get(step.unit))
        )
        and after.plan.steps[verify].action.kind != MANUAL
        and not _is_young(after, verify, at)
    ]


def no_promote_above_accepted_loss(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A promotion starts only with losses that were measured just now and that people accepted."""
    out = []
    for step, at in _started(after, new, Role.PROMOTE):
        if Gate.LOSS_ACCEPTED not in step.gates:
            continue
        accepted = after.accepted_loss_ms
        if accepted == LOSS_WITHIN_RPO:
            goals = [facts.rpo_ms for facts in after.plan.services.values() if facts.group == step.group]
            accepted = min(goals, default=0)
        for unit in after.index.accepted_with[step.unit]:
            stated = after.losses.get(unit)
            measured = all(_is_young(after, loss, at) for loss in after.index.loss.get(unit, ()))
            within = stated is not None and (
                stated.milliseconds == 0
                or accepted == LOSS_UNKNOWN
                or (
                    stated.milliseconds is not None
                    and accepted is not None
                    and stated.milliseconds <= accepted
                )
            )
            if not measured or not within:
                out.append(f"no-promote-above-accepted-loss: {step.id}")
    return out


def nothing_opens_before_epoch(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """Nothing opens to clients before the group's epoch is committed."""
    out = []
    for step, _ in _started(after, new):
        if step.role is Role.OPEN or Gate.GRANTED in step.gates:
            epochs = after.index.epochs.get(step.group, ())
            if not epochs or any(after.step(epoch).state is not S.SUCCEEDED for epoch in epochs):
                out.append(f"nothing-opens-before-epoch: {step.id}")
    return out


def gates_are_never_skipped(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """Neither skip nor mark-done satisfies a fence, a data check, or a step of the promotion."""
    return [
        f"gates-are-never-skipped: {event.step}"
        for event in new
        if isinstance(event, events.StepSkipped | events.StepMarkAsked)
        and after.plan.steps[event.step].role in CANNOT_BE_SKIPPED
    ]


def skips_drop_no_needs(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A step is skipped or marked only when all that it needs is met."""
    return [
        f"skips-drop-no-needs: {event.step} needs {need}"
        for event in new
        if isinstance(event, events.StepSkipped | events.StepMarkAsked)
        for need in after.plan.steps[event.step].needs
        if not counts_as_met(after.plan.steps[need], after.step(need).state)
    ]


def no_return_while_a_fence_may_act(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """The old side is not brought back, and nothing is committed, while one of its fences may still act;
    what was brought back is not fenced anew."""
    in_flight, out = (S.RUNNING, S.UNKNOWN, S.BACKOFF), []
    for place, event in enumerate(new):
        if isinstance(event, events.StepStarted):
            later = {e.step for e in new[place:] if isinstance(e, events.StepReopened)}
            out += [
                f"no-return-while-a-fence-may-act: {event.step} ({fence})"
                for fence in after.index.before_end.get(event.step, ())
                if after.step(fence).state in in_flight and fence not in later
            ]
        elif isinstance(event, events.StepReopened):
            back = [s for s in after.index.rejoins.get(event.step, ()) if before.step(s).attempt]
            out += [f"no-return-while-a-fence-may-act: {event.step} after {step}" for step in back]
    return out


# --- crash, undo, end -------------------------------------------------------------------------


def a_crash_leaves_nothing_running(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """With a new driver, or a pause, nothing runs unseen, proofs are void, and before promotion so is the loss."""
    if not any(isinstance(e, events.DriverCameUp | events.RunPaused | events.RunResumed) for e in new):
        return []
    out = []
    for proof in after.index.proofs:
        state = after.step(proof)
        if state.state is S.SUCCEEDED and state.proof_at is not None:
            out.append(f"a-crash-leaves-nothing-running: the proof of {proof} was kept")
    resumed = any(isinstance(e, events.RunResumed) for e in new)
    if after.accepted_loss_ms is not None and not promoted(after) and not resumed:
        out.append("a-crash-leaves-nothing-running: the accepted loss was kept")
    if any(isinstance(e, events.DriverCameUp) for e in new):
        out += [
            f"a-crash-leaves-nothing-running: {step} is {after.step(step).state}"
            for name in after.active
            for step in after.units[name].busy
            if after.step(step).state in (S.RUNNING, S.UNDOING)
        ]
    return out


def no_undo_of_what_stays(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """Only an aborting run undoes; never a group that is promoted, or may be, nor a fence against its old side."""
    undone = [event.step for event in new if isinstance(event, events.StepUndoStarted)]
    if not undone:
        return []
    sent = (S.RUNNING, S.UNKNOWN, S.UNDECIDED, S.SUCCEEDED)
    stays = {
        g for g, steps in after.index.decisive.items() if any(after.step(s).state in sent for s in steps)
    }
    against = {
        fence
        for group in stays
        for unit, hosts in after.plan.groups[group].fence_hosts.items()
        for host in hosts
        for fence in after.index.covering[unit, host]
    }
    return [
        f"no-undo-of-what-stays: {step}"
        for step in undone
        if after.phase is not RunState.ABORTING or step in against or after.plan.steps[step].group in stays
    ]


def done_means_ended(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """A finished run has no step whose outcome is unknown; one that is done has none left."""
    finished = [event for event in new if isinstance(event, events.RunFinished)]
    if not finished:
        return []
    is_done = finished[0].outcome == "done"
    return [
        f"done-means-ended: {step} is {state.state}"
        for unit in after.units.values()
        for step, state in unit.steps.items()
        if state.state in (S.RUNNING, S.UNKNOWN, S.MARKING, S.UNDOING)
        or (is_done and not has_ended(after.plan.steps[step], state.state))
    ]


def an_abort_leaves_a_writer(before: Run, after: Run, new: Sequence[RunEvent]) -> list[str]:
    """An aborted run leaves no fence of ours in force, unless people said that the site stays closed; one that
    took away a whole machine is over once all that it spoke for was started there again."""
    if after.leave_closed or not any(
        isinstance(e, events.RunFinished) and e.outcome == "aborted" for e in new
    ):
        return []
    in_force = (S.SUCCEEDED, S.UNDECIDED, S.UNDO_FAILED)
    return [
        f"an-abort-leaves-a-writer: {fence} is {after.step(fence).state}"
        for fence in after.index.fences
        if after.step(fence).state in in_force and not _is_over(after, fence)
    ]


def _is_over(run: Run, fence: str) -> bool:
    """Were all units that this fence took their machine from started again by the undo of their own fence?"""
    if run.plan.steps[fence].proves is ProofKind.DEMOTED:
        return False
    taken = [others for others in run.index.covering.values() if fence in others]
    return bool(taken) and all(
        any(
            run.plan.steps[other].proves is ProofKind.DEMOTED and run.step(other).state is S.UNDONE
            for other in others
        )
        for others in taken
    )


CHEAP: Mapping[str, Callable[[Run, Run, Sequence[RunEvent]], list[str]]] = {
    "no-start-without-needs": no_start_without_needs,
    "no-start-before-authorisation": no_start_before_authorisation,
    "no-start-while-stopped": no_start_while_stopped,
    "verbs-start-nothing": verbs_start_nothing,
    "one-attempt-at-a-time": one_attempt_at_a_time,
    "results-are-of-the-current-attempt": results_are_of_the_current_attempt,
    "no-promote-without-fence": no_promote_without_fence,
    "no-promote-unverified": no_promote_unverified,
    "no-promote-above-accepted-loss": no_promote_above_accepted_loss,
    "nothing-opens-before-epoch": nothing_opens_before_epoch,
    "gates-are-never-skipped": gates_are_never_skipped,
    "skips-drop-no-needs": skips_drop_no_needs,
    "no-return-while-a-fence-may-act": no_return_while_a_fence_may_act,
    "a-crash-leaves-nothing-running": a_crash_leaves_nothing_running,
    "no-undo-of-what-stays": no_undo_of_what_stays,
    "done-means-ended": done_means_ended,
    "an-abort-leaves-a-writer": an_abort_leaves_a_writer,
}
