"""Decides how an abort ends: what is undone, in which order, and when a run may end as aborted.

Before any fence took effect that is as soon as nothing is unknown. After it the run is held until the
old side is seen to write again, or people say that it may stay closed; it never ends silently without a
writer. Groups that have moved stay where they are. Lifting a fence is refused while a promotion is unknown. After a
promotion nothing of its group is undone: people may only end the run as it is, and what is left is owed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.core import events
from orchestrator.core.decision import Draft
from orchestrator.core.model import ProofKind
from orchestrator.core.plan import MANUAL, Role, Step, Undo
from orchestrator.core.run import NOT_SENT, Run, kept_groups, moved_groups
from orchestrator.core.states import RunState, StepState
from orchestrator.errors import RefusedError

UNDOABLE = frozenset({StepState.SUCCEEDED, StepState.MARKED, StepState.UNDECIDED})
SURELY_NOT_BY_THE_LAST = frozenset(
    {StepState.PENDING, StepState.BACKOFF, StepState.FAILED, StepState.SKIPPED}
)
NEVER_TOOK_EFFECT = frozenset({StepState.PENDING, StepState.BACKOFF, StepState.FAILED})
TOOK_EFFECT = frozenset({StepState.SUCCEEDED, StepState.MARKED})
UNCERTAIN = frozenset({StepState.RUNNING, StepState.UNKNOWN, StepState.UNDECIDED})


@dataclass(frozen=True, slots=True)
class Standstill:
    """Why nothing can go on: one cause a line, the steps they speak of, the exact choices."""

    causes: tuple[str, ...]
    steps: tuple[str, ...]
    choices: tuple[str, ...]


def refusal(run: Run, *, leave_closed: bool = False) -> RefusedError | None:
    """Why this run cannot be aborted now, if it cannot. Where nobody can tell whether a promotion happened, and
    after one, it may only be left as it is: no fence is lifted then, and no promoted group taken back."""
    moved: tuple[str, ...] | None = None
    for group, steps in run.index.decisive.items():
        for step in steps:
            state = run.step(step).state
            if state in NOT_SENT or (state is StepState.UNDECIDED and leave_closed):
                continue
            if state in UNCERTAIN:
                if is_granted_by_the_log_alone(run.plan.steps[step]):
                    continue  # what the log does not say was not granted, and an aborting run grants nothing
                return RefusedError(
                    f"abort: whether {step} happened is not known: lifting the fence now could leave two "
                    "writers or none",
                    (f"continuity resume {run.id}", *_look_again(run, step)),
                )
            moved = moved_groups(run) if moved is None else moved
            if group not in moved and not leave_closed:
                return RefusedError(
                    f"abort: {group} is promoted at {run.plan.target}: after promotion undo is a new plan; this run "
                    "goes on, or it ends as it is and what is left is owed",
                    (f"continuity resume {run.id}", _leave(run)),
                )
    return None


def is_granted_by_the_log_alone(step: Step) -> bool:
    """Is this an epoch that no server keeps? Then the append of its success is all that grants it."""
    return step.role is Role.EPOCH and not step.action.mutates


def _look_again(run: Run, step: str) -> tuple[str, ...]:
    """What people may do about a promotion that nobody can tell of."""
    if run.step(step).state is not StepState.UNDECIDED:
        return ()
    return (f"continuity retry {run.id} {step}", _leave(run))


def _leave(run: Run) -> str:
    return f"continuity abort {run.id} --leave-closed --reason TEXT"


def choice(run: Run) -> tuple[str, ...]:
    """How this run can be ended now, as people type it."""
    if refusal(run) is None:
        return (f"continuity abort {run.id} --reason TEXT",)
    if refusal(run, leave_closed=True) is None:
        return (_leave(run),)
    return ()


def ways_to_end(run: Run) -> tuple[str, ...]:
    """How people bring a run that has not ended to its end, as they type it."""
    if run.state is RunState.HELD:
        return tuple(dict.fromkeys((*run.held_choices, *choice(run))))
    if run.phase is RunState.ABORTING:
        return (f"continuity resume {run.id}", _leave(run))
    return (f"continuity resume {run.id}", *choice(run))


# --- undoing ----------------------------------------------------------------------------------


def undo_what_may_be(draft: Draft, undone: str = "") -> None:
    """In an aborting run: undo, in reverse order, what was done; only once nothing is in flight.

    ``undone``: the step whose undo has just ended; only what waited for it can begin then."""
    run = draft.run
    if run.state is RunState.ABORTING and not run.in_flight and not _busy(run, StepState.MARKING):
        unseen = () if undone else list(_unseen(run))
        for step in unseen:
            draft.emit(events.StepReopened(draft.at, step, "an earlier attempt may have taken effect"))
        if unseen:
            return
        steps = run.index.undone_after.get(undone, ()) if undone else run.index.undoable
        for step in list(_may_be_undone(run, steps)):
            draft.emit(events.StepUndoStarted(draft.at, step, run.step(step).number + 1))


def _unseen(run: Run) -> Iterator[str]:
    """Steps to be undone of which an earlier attempt got lost. That the last one surely did nothing does
    not say that none did."""
    lost = [
        step
        for step in run.index.undoable
        if (state := run.step(step)).may_be_done and state.state in SURELY_NOT_BY_THE_LAST
    ]
    kept = _kept(run) if lost else frozenset()
    return (step for step in lost if step not in kept)


def _may_be_undone(run: Run, steps: Iterable[str]) -> Iterator[str]:
    """Those of these steps whose undo may begin now: nothing whose undo comes first is left."""
    done = [step for step in steps if _is_to_undo(run, step)]
    kept = _kept(run) if done else frozenset()
    for step in done:
        first = run.index.undone_first[step]
        if step not in kept and not any(_stands_in_the_way(run, other, kept) for other in first):
            yield step


def _kept(run: Run) -> frozenset[str]:
    """Steps of the groups that have moved, or may have, and every fence against their old side, whoever's
    it is: to lift one would let the old side write again."""
    groups = dict.fromkeys(moved_groups(run))
    for group, steps in run.index.decisive.items():
        if any(run.step(step).state not in NOT_SENT for step in steps):
            groups[group] = None
    kept: set[str] = set()
    for group in groups:
        kept.update(run.index.by_group.get(group, ()))
        for unit, hosts in run.plan.groups[group].fence_hosts.items():
            for host in hosts:
                kept.update(run.index.covering[unit, host])
    return frozenset(kept)


def _stands_in_the_way(run: Run, step: str, kept: frozenset[str]) -> bool:
    state = run.step(step).state
    if state is StepState.UNDO_FAILED:
        return not run.leave_closed
    return state is StepState.UNDOING or (step not in kept and _is_to_undo(run, step))


def _is_to_undo(run: Run, step: str) -> bool:
    """What took effect or may have; and a unit's own fence that never did where another one took its machine
    away, or people declared its site lost. Its undo starts the old side as what it was and sees whether it
    writes: nothing else looks there."""
    state = run.step(step).state
    if state not in NEVER_TOOK_EFFECT:
        return state in UNDOABLE
    fence = run.plan.steps[step]
    if fence.role is not Role.FENCE or fence.proves is not ProofKind.DEMOTED or run.leave_closed:
        return False
    return any(
        run.plan.parts.hosts[host].site in run.lost_sites or _was_taken_away(run, fence.unit, host)
        for host in fence.fences
    )


def _was_taken_away(run: Run, unit: str, host: str) -> bool:
    """Did a fence of the machine (its power, its network) take effect, or may it have?"""
    return any(
        run.plan.steps[fence].proves is not ProofKind.DEMOTED
        and run.step(fence).state not in (*NEVER_TOOK_EFFECT, StepState.SKIPPED)
        for fence in run.index.covering[unit, host]
    )


def _busy(run: Run, *states: StepState) -> bool:
    return any(run.units[n].steps[s].state in states for n in run.active for s in run.units[n].busy)


# --- the end ----------------------------------------------------------------------------------


def abort_standstill(run: Run) -> Standstill | None:
    """None while something goes on by itself, or when the run may end; else why people must act."""
    if run.leave_closed or _goes_on(run):
        return None
    found = [*_not_undone(run), *_undecided(run), *_closed(run)]
    if not found:
        return None
    again = [f"continuity retry {run.id} {step}" for step, _, may_retry in found if may_retry]
    return Standstill(
        tuple(cause for _, cause, _ in found),
        tuple(step for step, _, _ in found if step),
        (*again, _leave(run)),
    )


def may_end(run: Run) -> bool:
    """Is nothing left that an aborting run can do? (Whether people must act is ``abort_standstill``.)"""
    return not _goes_on(run)


def _goes_on(run: Run) -> bool:
    return (
        run.in_flight > 0
        or _busy(run, StepState.UNDOING, StepState.MARKING)
        or any(True for _ in _may_be_undone(run, run.index.undoable))
        or any(True for _ in _unseen(run))
    )


_Cause = tuple[str, str, bool]  # the step it speaks of, its text, may it be tried again?


def _taken_back(run: Run) -> Iterator[str]:
    """Steps of the groups that the abort takes back."""
    kept = frozenset(kept_groups(run))
    for group, steps in run.index.by_group.items():
        if group not in kept:
            yield from steps


def _not_undone(run: Run) -> Iterator[_Cause]:
    for step in _taken_back(run):
        state = run.step(step)
        if state.state is StepState.UNDO_FAILED:
            yield step, f"{step} could not be undone: {state.message}", True


def _undecided(run: Run) -> Iterator[_Cause]:
    kept = _kept(run)
    for step in _taken_back(run):
        action = run.plan.steps[step].action
        has_no_undo = action.mutates and (action.undo is not Undo.UNDO or step in kept)
        if run.step(step).state is StepState.UNDECIDED and has_no_undo:
            yield step, f"{step}: nobody can tell whether it happened, and it has no undo", True


def _closed(run: Run) -> Iterator[_Cause]:
    """What stands against one site being proven to write, for each group that is taken back."""
    moved, kept = frozenset(kept_groups(run)), _kept(run)
    said: set[str] = set()
    for name, move in run.plan.groups.items():
        if name in moved:
            continue
        for unit, hosts in move.fence_hosts.items():
            for host in hosts:
                site = run.plan.parts.hosts[host].site
                if site in run.lost_sites and site not in said and not _is_back(run, unit, host):
                    said.add(site)
                    yield "", f"{site} was declared lost: nothing proves that it writes", False
                for fence in run.index.covering[unit, host]:
                    if (
                        fence not in said
                        and _stays_fenced(run, fence, kept)
                        and not _is_put_right(run, fence, unit, host)
                    ):
                        said.add(fence)
                        yield fence, f"{fence} stays in force: {host} is not proven to write", False
            if _comes_back_mute(run, unit, hosts):
                yield "", f"{unit} was started again at {move.active} but does not take writes", False


def _is_back(run: Run, unit: str, host: str) -> bool:
    """Was a member of the old side started again as what it was? (That it writes is asked of each unit.)"""
    return any(
        run.step(fence).state is StepState.UNDONE and run.plan.steps[fence].proves is ProofKind.DEMOTED
        for fence in run.index.covering[unit, host]
    )


def _is_put_right(run: Run, fence: str, unit: str, host: str) -> bool:
    """A fence of the machine that this run cannot lift (a power-off): people did, and the unit there was started
    and answered since."""
    return run.plan.steps[fence].proves is not ProofKind.DEMOTED and _is_back(run, unit, host)


def _stays_fenced(run: Run, fence: str, kept: frozenset[str]) -> bool:
    step = run.plan.steps[fence]
    in_force = run.step(fence).state in TOOK_EFFECT
    return in_force and (step.action.undo is not Undo.UNDO or fence in kept)


def _comes_back_mute(run: Run, unit: str, hosts: tuple[str, ...]) -> bool:
    """Were its fences undone, and none of its members was seen to write afterwards?"""
    seen = [
        run.step(fence).evidence.get("writes")
        for host in hosts
        for fence in run.index.covering[unit, host]
        if run.step(fence).state is StepState.UNDONE and "writes" in run.step(fence).evidence
    ]
    return bool(seen) and not any(seen)


def left_as_it_is(run: Run) -> tuple[str, ...]:
    """Steps of an aborted run whose effect was not, or cannot be, taken back: named in its record."""
    kept, found = _kept(run), []
    for step in _taken_back(run):
        state, action = run.step(step).state, run.plan.steps[step].action
        has_no_undo = step in kept or (action.undo is Undo.POINT_OF_NO_RETURN and action.kind != MANUAL)
        if state is StepState.UNDO_FAILED or (
            action.mutates
            and (state is StepState.UNDECIDED or (state in TOOK_EFFECT and has_no_undo))
            and not _is_all_back(run, step)
        ):
            found.append(step)
    return tuple(dict.fromkeys((*found, *(step for step, _, _ in _closed(run) if step))))


def _is_all_back(run: Run, fence: str) -> bool:
    """Is everything back that this fence of a machine took away from groups that the abort took back?"""
    kept = kept_groups(run)
    taken = [
        (unit, host)
        for group, move in run.plan.groups.items()
        if group not in kept
        for unit, hosts in move.fence_hosts.items()
        for host in hosts
        if fence in run.index.covering[unit, host]
    ]
    return bool(taken) and all(_is_put_right(run, fence, unit, host) for unit, host in taken)
