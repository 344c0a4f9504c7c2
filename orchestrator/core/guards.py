"""Decides whether a step that is ready may start now: an ordered list of named rules, one per gate.

Gates are asked in the decision that would start the step, never before it: proofs age, so a gate
can close again. A rule answers Open, Renew (evidence to take again first), Wait (something under
way may open it) or Blocked (people must act; it names what would satisfy it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.core.decision import group_granted
from orchestrator.core.index import fence_covers
from orchestrator.core.inputs import LOSS_UNKNOWN, At
from orchestrator.core.plan import Gate, Step
from orchestrator.core.run import Run, StepRun
from orchestrator.core.states import StepState
from orchestrator.core.values import duration_text

MILLISECOND_NS = 1_000_000
IN_PROGRESS = frozenset(
    {StepState.PENDING, StepState.RUNNING, StepState.UNKNOWN, StepState.BACKOFF, StepState.MARKING}
)


@dataclass(frozen=True, slots=True)
class Open:
    """The rule is met."""


@dataclass(frozen=True, slots=True)
class Renew:
    """These steps' evidence is too old, void, or measured before the fence."""

    steps: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """What is under way may still open the gate."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Nothing under way can open the gate. ``choices`` are exact commands."""

    cause: str
    choices: tuple[str, ...]


Answer: TypeAlias = Open | Renew | Wait | Blocked


def authorised(run: Run, step: Step, at: At) -> Answer:
    """Nothing that changes anything starts before people confirmed the plan."""
    return Open() if run.authorised else Wait()


def fenced(run: Run, step: Step, at: At) -> Answer:
    """Every old member of the step's unit has a proof, young enough, that it cannot write."""
    renew: list[str] = []
    waiting = blocked = False
    missing: list[str] = []
    for host in fence_hosts(run, step):
        answer, stale = _host_fenced(run, step.unit, host, at)
        if answer == "stale":
            renew.extend(stale)
        elif answer == "waiting":
            waiting = True
        elif answer == "missing":
            blocked = True
            missing.append(host)
    if blocked:
        ended = (StepState.FAILED, StepState.UNDECIDED)
        may_retry = any(run.step(fence).state in ended for fence in run.index.fences)
        return Blocked(
            f"{step.unit}: no proof that {', '.join(missing)} cannot write",
            (
                f"continuity declare site-lost {run.id} --site {run.plan.source} --by NAME --reason TEXT",
                *((f"continuity retry {run.id}",) if may_retry else ()),
                f"continuity abort {run.id} --reason TEXT",
            ),
        )
    if waiting:
        return Wait()
    return Renew(tuple(dict.fromkeys(renew)), "fence proof is void or too old") if renew else Open()


def fence_hosts(run: Run, step: Step) -> tuple[str, ...]:
    move = run.plan.groups.get(step.group)
    return move.fence_hosts.get(step.unit, ()) if move else ()


def _host_fenced(run: Run, unit: str, host: str, at: At) -> tuple[str, list[str]]:
    if run.plan.parts.hosts[host].site in run.lost_sites:
        return "open", []
    stale: list[str] = []
    in_progress = False
    for fence_id in run.index.fences:
        fence = run.plan.steps[fence_id]
        if not fence_covers(run.plan, fence, unit, host):
            continue
        state = run.step(fence_id)
        if state.state is StepState.SUCCEEDED:
            if is_fresh(run, state, at):
                return "open", []
            stale.append(fence_id)
        elif state.state in IN_PROGRESS:
            in_progress = True
    if stale:
        return "stale", stale
    return ("waiting" if in_progress and not budget_over(run, at) else "missing"), []


def is_fresh(run: Run, state: StepRun, at: At) -> bool:
    """Is this evidence not void and not older than the plan allows?"""
    if state.proof_at is None:
        return False
    return at.mono_ns - state.proof_at.mono_ns <= run.plan.limits.proof_age_ms * MILLISECOND_NS


def budget_end_ns(run: Run) -> int | None:
    """When the fences' common budget ends, on the monotonic clock; None before any fence began.

    It begins with the fences: those of a failback come long after the order."""
    if run.fencing is None:
        return None
    return run.fencing.mono_ns + run.plan.limits.fence_budget_ms * MILLISECOND_NS


def budget_over(run: Run, at: At) -> bool:
    end = budget_end_ns(run)
    return end is not None and at.mono_ns >= end


def fenced_at_utc_ns(run: Run, unit: str, group: str) -> int | None:
    """When the unit's old side surely stopped writing: the latest of its hosts' earliest proofs."""
    latest = 0
    move = run.plan.groups.get(group)
    for host in move.fence_hosts.get(unit, ()) if move else ():
        lost = run.lost_sites.get(run.plan.parts.hosts[host].site)
        times = [lost.lost_at_ns] if lost else []
        for fence_id in run.index.fences:
            state = run.step(fence_id)
            if state.proof_at and fence_covers(run.plan, run.plan.steps[fence_id], unit, host):
                times.append(state.proof_at.utc_ns)
        if not times:
            return None
        latest = max(latest, min(times))
    return latest or None


def verified(run: Run, step: Step, at: At) -> Answer:
    """The unit's data was checked just now, or people accepted by name what the check found."""
    stale = []
    for verify_id in run.index.verifies.get(step.unit, ()):
        state = run.step(verify_id)
        if state.state is StepState.ACCEPTED:
            continue
        if state.state is not StepState.SUCCEEDED:
            return Wait()
        if not is_fresh(run, state, at):
            stale.append(verify_id)
    return Renew(tuple(stale), "data check is void or too old") if stale else Open()


def loss_accepted(run: Run, step: Step, at: At) -> Answer:
    """The loss was measured after the fence, just now, and people accepted that much."""
    fenced_ns = fenced_at_utc_ns(run, step.unit, step.group)
    stale = []
    for loss_id in run.index.loss.get(step.unit, ()):
        state = run.step(loss_id)
        if state.state is not StepState.SUCCEEDED:
            return Wait()
        before_fence = fenced_ns is None or (state.started is not None and state.started.utc_ns < fenced_ns)
        if before_fence or not is_fresh(run, state, at):
            stale.append(loss_id)
    if stale:
        return Renew(tuple(stale), "the loss was measured too long ago, or before the fence")
    stated = run.losses.get(step.unit)
    if stated is None or stated.milliseconds == 0:
        return Open()
    accepted = run.accepted_loss_ms
    if accepted == LOSS_UNKNOWN:
        return Open()
    if stated.milliseconds is not None and accepted is not None and stated.milliseconds <= accepted:
        return Open()
    shown = "unknown" if stated.milliseconds is None else duration_text(stated.milliseconds)
    limit = "nothing is accepted" if accepted is None else f"accepted: {duration_text(accepted)}"
    want = "unknown" if stated.milliseconds is None else shown
    return Blocked(
        f"{step.unit}: stated loss {shown} ({stated.basis}); {limit}",
        (
            f"continuity accept {run.id} loss --limit {want} --by NAME --reason TEXT",
            f"continuity abort {run.id} --reason TEXT",
        ),
    )


def granted(run: Run, step: Step, at: At) -> Answer:
    """Nothing opens to clients before the group's epoch is committed at the target."""
    return Open() if group_granted(run, step.group) else Wait()


RULES: Mapping[Gate, Callable[[Run, Step, At], Answer]] = {
    Gate.AUTHORISED: authorised,
    Gate.FENCED: fenced,
    Gate.VERIFIED: verified,
    Gate.LOSS_ACCEPTED: loss_accepted,
    Gate.GRANTED: granted,
}
"""In the order in which they are asked."""


def ask(run: Run, step: Step, at: At) -> Answer:
    """The first rule that is not open, in the order of RULES; Open if all are."""
    if not step.gates:
        return Open()
    for gate, rule in RULES.items():
        if gate in step.gates:
            answer = rule(run, step, at)
            if not isinstance(answer, Open):
                return answer
    return Open()
