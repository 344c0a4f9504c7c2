"""Decides whether a step that is ready may start now: an ordered list of named rules, one per gate.

Gates are asked in the decision that would start the step, never before it: proofs age, so a gate
can close again. A rule answers Open, Renew (evidence to take again first), Wait (something under
way may open it) or Blocked (people must act; it names what would satisfy it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from orchestrator.core.decision import group_granted
from orchestrator.core.inputs import LOSS_UNKNOWN, LOSS_WITHIN_RPO, At
from orchestrator.core.loss import bound_text
from orchestrator.core.model import Operation, ProofKind
from orchestrator.core.plan import GIVE_WAY_MS, MANUAL, Gate, Plan, Role, Step, strictest_rpo_ms
from orchestrator.core.run import Run, StepRun
from orchestrator.core.states import SATISFIED, StepState

MILLISECOND_NS = 1_000_000
DECIDING_MS = 300_000
"""How long people may take to type the limit that a blocked gate names, where the loss grows meanwhile."""

IN_PROGRESS = frozenset(
    {StepState.PENDING, StepState.RUNNING, StepState.UNKNOWN, StepState.BACKOFF, StepState.MARKING}
)
ENDED_WITHOUT_PROOF = frozenset({StepState.FAILED, StepState.UNDECIDED})


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
    """What is under way may still open the gate. ``what``: for people, should nothing be under way."""

    what: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """Nothing under way can open the gate. ``choices`` are exact commands."""

    cause: str
    choices: tuple[str, ...]


Answer: TypeAlias = Open | Renew | Wait | Blocked


def authorised(run: Run, step: Step, at: At) -> Answer:
    """Nothing that changes anything starts before people confirmed the plan."""
    return Open() if run.authorised else Wait("the confirmation")


# --- fences -----------------------------------------------------------------------------------


def fenced(run: Run, step: Step, at: At) -> Answer:
    """Every old member of the step's unit has a proof, young enough, that it cannot write."""
    renew: list[str] = []
    waiting: list[str] = []
    missing: list[str] = []
    hosts = fence_hosts(run, step)
    if not hosts and step.role is Role.PROMOTE:
        return Blocked(
            f"{step.unit}: this plan names no old member to fence, so nothing can prove that none writes",
            (f"continuity abort {run.id} --reason TEXT",),
        )
    for host in hosts:
        answer, stale = _host_fenced(run, step.unit, host, at)
        if answer == "stale":
            renew.extend(stale)
        elif answer == "waiting":
            waiting.append(host)
        elif answer == "missing":
            missing.append(host)
    if missing:
        may_retry = any(run.step(fence).state in ENDED_WITHOUT_PROOF for fence in run.index.fences)
        return Blocked(
            f"{step.unit}: no proof that {', '.join(missing)} cannot write",
            (
                f"continuity declare site-lost {run.id} --site {run.plan.source} --by NAME --reason TEXT",
                *((f"continuity retry {run.id}",) if may_retry else ()),
                f"continuity abort {run.id} --reason TEXT",
            ),
        )
    if waiting:
        return Wait(f"a proof that {', '.join(waiting)} cannot write")
    return Renew(tuple(dict.fromkeys(renew)), "fence proof is void or too old") if renew else Open()


def fence_hosts(run: Run, step: Step) -> tuple[str, ...]:
    """The old side's members of a step's unit."""
    move = run.plan.groups.get(step.group)
    return move.fence_hosts.get(step.unit, ()) if move else ()


def _host_fenced(run: Run, unit: str, host: str, at: At) -> tuple[str, list[str]]:
    if run.plan.parts.hosts[host].site in run.lost_sites:
        return "open", []
    stale: list[str] = []
    in_progress = False
    for fence in run.index.covering[unit, host]:
        state = run.step(fence)
        if state.state is StepState.SUCCEEDED:
            if is_fresh(run, state, at):
                return "open", []
            if not any(run.step(step).attempt for step in run.index.rejoins.get(fence, ())):
                stale.append(fence)  # else it would fence anew what was just brought back
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

    Only when home is lost is there one: a planned move waits for its fences as long as they take."""
    if run.fencing is None or run.plan.operation is not Operation.FAILOVER:
        return None
    return run.fencing.mono_ns + run.plan.limits.fence_budget_ms * MILLISECOND_NS


def budget_over(run: Run, at: At) -> bool:
    end = budget_end_ns(run)
    return end is not None and at.mono_ns >= end


def gives_way_until_ns(run: Run, at: At) -> int | None:
    """Until when, on the monotonic clock, what is not urgent gives way; None when it does not (any more)."""
    if run.urgent_since is None or not run.urgent_in_flight:
        return None
    end = run.urgent_since.mono_ns + GIVE_WAY_MS * MILLISECOND_NS
    return end if run.urgent_since.mono_ns <= at.mono_ns < end else None


@dataclass(frozen=True, slots=True)
class Proven:
    """Since when the old side surely does not write. ``grows``: a renewed proof will say a later time.
    ``word``: who says so, where people's word is all there is."""

    since: At
    grows: bool
    word: str = ""


def proven_since(run: Run, unit: str, group: str) -> Proven | None:
    """The latest of the hosts' earliest proofs; None while one of them has none."""
    move = run.plan.groups.get(group)
    latest: Proven | None = None
    for host in move.fence_hosts.get(unit, ()) if move else ():
        proofs = list(_proofs(run, unit, host))
        if not proofs:
            return None
        earliest = min(proofs, key=lambda proof: proof.since.utc_ns)
        if latest is None or earliest.since.utc_ns > latest.since.utc_ns:
            latest = earliest
    return latest


def _proofs(run: Run, unit: str, host: str) -> Iterator[Proven]:
    """A word counts only where nothing was seen: a site that was closed later than people said took writes until then."""
    is_seen = False
    for fence in run.index.covering[unit, host]:
        since = run.step(fence).proof_since
        if since:
            is_seen = True
            yield Proven(since, grows=run.plan.steps[fence].proves is not ProofKind.DEMOTED)
    lost = run.lost_sites.get(run.plan.parts.hosts[host].site)
    if lost and not is_seen:
        yield Proven(At(lost.lost_at_ns, lost.at.mono_ns), grows=False, word=lost.by)


def fences_ended(run: Run, step: Step, at: At) -> Answer:
    """The old side is not brought back, and nothing is committed, while one of its fences may still act."""
    late = [f for f in run.index.before_end.get(step.id, ()) if run.step(f).state in IN_PROGRESS]
    return Wait(f"the end of {', '.join(late)}") if late else Open()


# --- data -------------------------------------------------------------------------------------


def verified(run: Run, step: Step, at: At) -> Answer:
    """The unit's data was checked just now, or people accepted by name what the check found."""
    stale = []
    for verify in run.index.verifies.get(step.unit, ()):
        state = run.step(verify)
        by_people = run.plan.steps[verify].action.kind == MANUAL and state.state in SATISFIED
        if state.state is StepState.ACCEPTED or by_people:
            continue  # what people looked at does not age
        if state.state is not StepState.SUCCEEDED:
            return Wait(f"{verify}")
        if not is_fresh(run, state, at):
            stale.append(verify)
    return Renew(tuple(stale), "data check is void or too old") if stale else Open()


def is_all_that_bounds_the_loss(run: Run, step: Step) -> bool:
    """Is this data check all that says that a promotion loses nothing? It is asked after the fence, and no step
    measures what would be missing: then nobody can accept it, for the loss would be stated by nobody."""
    return step.role is Role.VERIFY and Gate.FENCED in step.gates and not run.index.loss.get(step.unit)


def loss_accepted(run: Run, step: Step, at: At) -> Answer:
    """All that moves with the step was measured after the fence, just now, and people accepted that much."""
    units = run.index.accepted_with.get(step.unit, (step.unit,))
    stale = []
    for unit in units:
        proven = proven_since(run, unit, step.group)
        for loss in run.index.loss.get(unit, ()):
            state = run.step(loss)
            if state.state is not StepState.SUCCEEDED:
                return Wait(f"{loss}")
            started_ns = state.started.mono_ns if state.started else 0
            too_early = proven is not None and started_ns < proven.since.mono_ns
            if too_early or not is_fresh(run, state, at):
                stale.append(loss)
    if stale:
        return Renew(tuple(stale), "the loss was measured too long ago, or before the fence")
    if any(unit not in run.losses for unit in units):
        return Wait("a stated loss")
    above = [unit for unit in units if not is_within(run, step.group, run.losses[unit].milliseconds)]
    return _not_accepted(run, above, step.group) if above else Open()


def is_within(run: Run, group: str, milliseconds: int | None) -> bool:
    """Do people accept this loss of a group? None: a loss that nobody can bound."""
    accepted = accepted_ms(run.plan, group, run.accepted_loss_ms)
    if milliseconds == 0 or accepted == LOSS_UNKNOWN:
        return True
    return milliseconds is not None and accepted is not None and milliseconds <= accepted


def accepted_ms(plan: Plan, group: str, limit_ms: int | None) -> int | None:
    """What a limit means for one group, in milliseconds or LOSS_UNKNOWN; None: nothing is accepted."""
    return strictest_rpo_ms(plan, group) if limit_ms == LOSS_WITHIN_RPO else limit_ms


def _not_accepted(run: Run, units: Sequence[str], group: str) -> Blocked:
    accepted = accepted_ms(run.plan, group, run.accepted_loss_ms)
    limit = "nothing is accepted" if accepted is None else f"accepted: at most {bound_text(accepted)}"
    limit += ", the RPO" if run.accepted_loss_ms == LOSS_WITHIN_RPO else ""
    stated = [(unit, run.losses[unit]) for unit in units]
    shown = [
        f"{unit}: stated loss {'unknown' if loss.milliseconds is None else bound_text(loss.milliseconds)} ({loss.basis})"
        for unit, loss in stated
    ]
    return Blocked(
        f"{'; '.join(shown)}; {limit}",
        (
            f"{accept_loss(run)} --limit {_enough(run, [(unit, group) for unit in units])} --by NAME --reason TEXT",
            f"continuity abort {run.id} --reason TEXT",
        ),
    )


def accept_loss(run: Run) -> str:
    """How the command begins by which people accept a loss."""
    return f"continuity accept {run.id} loss"


def _enough(run: Run, units: Iterable[tuple[str, str]]) -> str:
    """The limit that lets these units (with their groups) pass, as people type it. Where a proof will be taken anew,
    right before the promotion, the stated loss grows by the time that people take to decide."""
    highest = 0
    for unit, group in units:
        milliseconds, proven = run.losses[unit].milliseconds, proven_since(run, unit, group)
        if milliseconds is None:
            return "unknown"
        highest = max(highest, milliseconds + (DECIDING_MS if proven and proven.grows else 0))
    return bound_text(highest)


def enough(run: Run) -> str:
    """The limit that lets every unit pass."""
    groups = ((unit, run.index.loss.get(unit, ())) for unit in run.losses)
    return _enough(run, ((unit, run.plan.steps[steps[0]].group if steps else "") for unit, steps in groups))


def granted(run: Run, step: Step, at: At) -> Answer:
    """Nothing opens to clients before the group's epoch is committed at the target."""
    return Open() if group_granted(run, step.group) else Wait(f"the epoch of {step.group}")


Rule: TypeAlias = Callable[[Run, Step, At], Answer]

RULES: Mapping[Gate, Rule] = {
    Gate.AUTHORISED: authorised,
    Gate.FENCED: fenced,
    Gate.VERIFIED: verified,
    Gate.LOSS_ACCEPTED: loss_accepted,
    Gate.GRANTED: granted,
}
"""In the order in which they are asked."""


def ask(run: Run, step: Step, at: At) -> Answer:
    """The first rule that waits or is blocked, in the order of RULES. If none is, all the evidence that
    must be taken again, together: taken one after the other the first would age while the last is taken.

    Evidence that is void is taken again before people are asked; what has merely aged while they decide
    is taken again once they have."""
    if step.id in run.index.before_end:
        answer = fences_ended(run, step, at)
        if not isinstance(answer, Open):
            return answer
    if not step.gates:
        return Open()
    renew: dict[str, str] = {}
    for gate, rule in RULES.items():
        if gate not in step.gates:
            continue
        answer = rule(run, step, at)
        match answer:
            case Open():
                continue
            case Wait():
                return answer
            case Renew():
                renew.update(dict.fromkeys(answer.steps, answer.reason))
            case Blocked():
                void = {s: why for s, why in renew.items() if run.step(s).proof_at is None}
                return _renew(void) if void else answer
            case _:
                assert_never(answer)
    return _renew(renew) if renew else Open()


def _renew(steps: Mapping[str, str]) -> Renew:
    return Renew(tuple(steps), "; ".join(dict.fromkeys(steps.values())))
