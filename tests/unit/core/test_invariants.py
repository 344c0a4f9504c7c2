"""Each invariant is seen to fire on a planted break, and to be silent on the sound decision beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.core import events, invariants
from orchestrator.core.deep_invariants import DEEP
from orchestrator.core.events import RunEvent
from orchestrator.core.fold_steps import set_step
from orchestrator.core.groups import GroupState, check_group
from orchestrator.core.inputs import LOSS_WITHIN_RPO
from orchestrator.core.invariants import CHEAP, check
from orchestrator.core.plan import Plan, ServiceFacts
from orchestrator.core.run import Loss, Lost, Run, StepRun, UnitRun, start, with_run, with_step
from orchestrator.core.states import RunState, StepState
from tests.builders import (
    FENCED,
    a_failback,
    a_failover,
    a_mixed_failover,
    a_plan,
    a_step,
    a_wide_failover,
    at,
    created,
)

S = StepState
NOW = at(10)
DONE = StepRun(S.SUCCEEDED, 1, proof_at=at(9), proof_since=at(9), started=at(9))
VOID = with_step(DONE, proof_at=None)


def a_run(plan: Plan | None = None, state: RunState = RunState.RUNNING, **steps: StepRun) -> Run:
    """Step names with ``__`` for ``/``."""
    plan = plan or a_failover()
    run = with_run(start(plan, created()), state=state, authorised=at(1))
    for name, record in steps.items():
        run = set_step(run, plan.steps[name.replace("__", "/")], record, at(2))
    return run


def started(run: Run, step: str, attempt: int = 1) -> tuple[Run, Run, list[RunEvent]]:
    """A decision that starts one step, whether it may or not."""
    after = set_step(run, run.plan.steps[step], StepRun(S.RUNNING, attempt, started=NOW), NOW)
    return run, after, [events.StepStarted(NOW, step, attempt)]


def broken(name: str, before: Run, after: Run, new: list[RunEvent]) -> bool:
    found = CHEAP[name](before, after, new)
    assert all(text.startswith(name) for text in found)
    return bool(found)


READY_TO_PROMOTE = {
    "db__stop": DONE, "db__close": DONE, "db__verify": DONE, "db__measure": DONE, "db__inspect": DONE,
}  # fmt: skip
STATED = {"db": Loss(500, 0, 0, "basis", at(9))}


def promoting(**changes: StepRun) -> Run:
    return with_run(a_run(**{**READY_TO_PROMOTE, **changes}), losses=STATED, accepted_loss_ms=500)


def test_the_sound_decision_breaks_nothing() -> None:
    before, after, new = started(promoting(), "db/promote")
    assert check(before, after, new, is_deep=True) == []


# --- starting ---------------------------------------------------------------------------------


def test_no_start_without_needs() -> None:
    assert broken(
        "no-start-without-needs", *started(promoting(db__verify=StepRun(S.FAILED, 1)), "db/promote")
    )
    assert not broken("no-start-without-needs", *started(promoting(), "db/promote"))


def test_no_start_before_authorisation() -> None:
    run = with_run(a_run(), authorised=None)
    assert broken("no-start-before-authorisation", *started(run, "db/stop"))
    assert not broken("no-start-before-authorisation", *started(run, "db/inspect"))


@pytest.mark.parametrize("state", sorted(set(RunState) - {RunState.PREFLIGHT, RunState.RUNNING}))
def test_no_start_while_stopped(state: RunState) -> None:
    run = with_run(a_run(), state=state, before_hold=RunState.RUNNING)
    before, after, new = started(run, "db/stop")
    assert broken("no-start-while-stopped", before, after, new)
    assert broken("no-start-while-stopped", before, after, [events.StepWaiting(NOW, "db/stop", 1)])
    if state is RunState.HELD:
        assert not broken("no-start-while-stopped", before, after, [events.RunGoesOn(NOW), *new])
    if state is RunState.PAUSED:
        assert not broken("no-start-while-stopped", before, after, [events.RunResumed(NOW, "ann"), *new])


@pytest.mark.parametrize("stop", [events.RunHeld(NOW, ("c",), (), ("d",)), events.RunReady(NOW)])
def test_no_start_after_the_same_decision_stopped(stop: RunEvent) -> None:
    before, after, new = started(a_run(), "db/stop")
    assert broken("no-start-while-stopped", before, after, [stop, *new])


def test_verbs_start_nothing() -> None:
    before, after, new = started(a_run(), "db/stop")
    assert broken("verbs-start-nothing", before, after, [events.StepRetried(NOW, "db/stop", "ann"), *new])
    undo = events.StepUndoStarted(NOW, "db/stop", 1)
    assert broken("verbs-start-nothing", before, after, [events.AbortAsked(NOW, "ann", "why", False), undo])
    assert not broken("verbs-start-nothing", before, after, new)


@pytest.mark.parametrize("state", [S.RUNNING, S.UNKNOWN])
def test_one_attempt_at_a_time(state: StepState) -> None:
    run = a_run(db__stop=StepRun(state, 1))
    assert broken("one-attempt-at-a-time", *started(run, "db/stop", 2))
    before, after, new = started(run, "db/stop", 2)
    looked = events.StepResolved(NOW, "db/stop", 1, 1, "not-done")
    assert not broken("one-attempt-at-a-time", before, after, [looked, *new])
    assert broken("one-attempt-at-a-time", *started(a_run(), "db/stop", 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda n: events.StepSucceeded(NOW, "db/stop", n),
        lambda n: events.StepFailed(NOW, "db/stop", n, "no"),
        lambda n: events.StepUnknown(NOW, "db/stop", n, "lost"),
        lambda n: events.StepResolved(NOW, "db/stop", n, 1, "done"),
    ],
)
def test_results_are_of_the_current_attempt(make: Callable[[int], RunEvent]) -> None:
    run = a_run(db__stop=StepRun(S.RUNNING, 2))
    assert broken("results-are-of-the-current-attempt", run, run, [make(1)])
    assert not broken("results-are-of-the-current-attempt", run, run, [make(2)])


# --- the promotion ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proof", "is_broken"),
    [
        (StepRun(), True),
        (StepRun(S.FAILED, 1), True),
        (StepRun(S.RUNNING, 1), True),
        (VOID, True),
        (with_step(DONE, proof_at=at(4)), True),
        (with_step(DONE, state=S.UNKNOWN), True),
        (DONE, False),
    ],
)
def test_no_promote_without_fence(proof: StepRun, is_broken: bool) -> None:
    assert broken("no-promote-without-fence", *started(promoting(db__stop=proof), "db/promote")) is is_broken
    lost = with_run(promoting(db__stop=proof), lost_sites={"home": Lost("ann", "war", at(3), 0)})
    assert not broken("no-promote-without-fence", *started(lost, "db/promote"))


def test_no_promote_of_what_names_no_old_member() -> None:
    run = promoting()
    group = replace(run.plan.groups["g"], fence_hosts={})
    run = with_run(run, plan=replace(run.plan, groups={"g": group}))
    assert broken("no-promote-without-fence", *started(run, "db/promote"))


@pytest.mark.parametrize(
    ("state", "is_broken"),
    [(VOID, True), (with_step(DONE, proof_at=at(1)), True), (StepRun(S.FAILED, 1), True), (DONE, False),
     (StepRun(S.ACCEPTED, 1), False)],
)  # fmt: skip
def test_no_promote_unverified(state: StepRun, is_broken: bool) -> None:
    assert broken("no-promote-unverified", *started(promoting(db__verify=state), "db/promote")) is is_broken


def test_no_promote_by_people_accepting_what_no_step_has_measured() -> None:
    run = promoting(db__verify=StepRun(S.ACCEPTED, 1))
    step = replace(run.plan.steps["db/verify"], gates=FENCED)
    after_the_fence = with_run(run, plan=replace(run.plan, steps={**run.plan.steps, step.id: step}))
    assert not broken("no-promote-unverified", *started(after_the_fence, "db/promote")), (
        "its loss is measured"
    )
    unmeasured = with_run(after_the_fence, index=replace(run.index, loss={}))
    assert broken("no-promote-unverified", *started(unmeasured, "db/promote"))


@pytest.mark.parametrize(
    ("stated", "accepted", "is_broken"),
    [(500, 500, False), (501, 500, True), (0, None, False), (1, None, True), (None, 10**9, True), (None, -1, False)],
)  # fmt: skip
def test_no_promote_above_accepted_loss(stated: int | None, accepted: int | None, is_broken: bool) -> None:
    losses = {"db": Loss(stated, 0, 0, "basis", at(9))}
    run = with_run(promoting(), losses=losses, accepted_loss_ms=accepted)
    assert broken("no-promote-above-accepted-loss", *started(run, "db/promote")) is is_broken
    assert broken("no-promote-above-accepted-loss", *started(with_run(run, losses={}), "db/promote"))
    old = set_step(run, run.plan.steps["db/measure"], VOID, NOW)
    assert broken("no-promote-above-accepted-loss", *started(old, "db/promote"))


@pytest.mark.parametrize(("stated", "is_broken"), [(0, False), (10_000, False), (10_001, True), (None, True)])
def test_no_promote_above_the_rpo_where_that_is_accepted(stated: int | None, is_broken: bool) -> None:
    facts = ServiceFacts("svc", "g", 1, "ann", "law", 30_000, 10_000, 60_000)
    plan = replace(
        a_failover(), services={"svc": facts, "strict": replace(facts, name="strict", group="o", rpo_ms=0)}
    )
    losses = {"db": Loss(stated, 0, 0, "basis", at(9))}
    run = with_run(promoting(), plan=plan, losses=losses, accepted_loss_ms=LOSS_WITHIN_RPO)
    assert broken("no-promote-above-accepted-loss", *started(run, "db/promote")) is is_broken


@pytest.mark.parametrize(("docs", "is_broken"), [(0, False), (500, False), (501, True), (None, True)])
def test_no_promote_above_the_loss_of_what_moves_with_it(docs: int | None, is_broken: bool) -> None:
    mine = {name: promoting().step(name) for name in promoting().plan.steps}
    run = with_run(start(a_mixed_failover(), created()), state=RunState.RUNNING, authorised=at(1))
    for name, state in {**mine, "docs/measure": DONE}.items():
        run = set_step(run, run.plan.steps[name], state, at(2)) if state != StepRun() else run
    losses = {unit: Loss(ms, 0, 0, "basis", at(9)) for unit, ms in (("db", 0), ("docs", docs))}
    run = with_run(run, losses=losses, accepted_loss_ms=500)
    assert broken("no-promote-above-accepted-loss", *started(run, "db/promote")) is is_broken
    old = set_step(run, run.plan.steps["docs/measure"], VOID, NOW)
    assert broken("no-promote-above-accepted-loss", *started(old, "db/promote"))


def test_nothing_opens_before_epoch() -> None:
    assert broken("nothing-opens-before-epoch", *started(promoting(), "db/open"))
    assert broken("nothing-opens-before-epoch", *started(promoting(), "svc/front/route"))
    assert not broken("nothing-opens-before-epoch", *started(promoting(db__epoch=DONE), "db/open"))
    bare = a_run(a_plan(a_step("s/open", gates=a_failover().steps["db/open"].gates)))
    assert broken("nothing-opens-before-epoch", *started(bare, "s/open")), "a group without an epoch"


def test_gates_are_never_skipped() -> None:
    run = a_run()
    for event in (
        events.StepSkipped(NOW, "db/stop", "a", "w"),
        events.StepMarkAsked(NOW, "db/epoch", "a", "w"),
    ):
        assert broken("gates-are-never-skipped", run, run, [event])
    assert not broken(
        "gates-are-never-skipped", run, run, [events.StepSkipped(NOW, "svc/front/route", "a", "w")]
    )


def test_skips_drop_no_needs() -> None:
    event = events.StepSkipped(NOW, "svc/front/route", "ann", "why")
    assert broken("skips-drop-no-needs", a_run(), a_run(), [event])
    assert not broken("skips-drop-no-needs", a_run(), a_run(db__open=DONE), [event])


@pytest.mark.parametrize("state", [S.RUNNING, S.UNKNOWN, S.BACKOFF])
def test_no_return_while_a_fence_may_act(state: StepState) -> None:
    run = a_run(a_failback(), db__stop=StepRun(state, 1))
    before, after, new = started(run, "db/follow")
    assert broken("no-return-while-a-fence-may-act", before, after, new)
    again = [*new, events.StepReopened(NOW, "db/stop", "old")]
    assert not broken("no-return-while-a-fence-may-act", before, after, again), "it began after that"
    assert not broken(
        "no-return-while-a-fence-may-act", *started(a_run(a_failback(), db__stop=DONE), "db/follow")
    )


def test_what_was_brought_back_is_not_fenced_anew() -> None:
    run = a_run(a_failback(), db__stop=DONE, db__follow=DONE)
    assert broken("no-return-while-a-fence-may-act", run, run, [events.StepReopened(NOW, "db/stop", "old")])


# --- crash, undo, end -------------------------------------------------------------------------

CRASH = events.DriverCameUp(NOW, "i2", 1, "boot", "laptop", "0")


def test_a_crash_leaves_nothing_running() -> None:
    name = "a-crash-leaves-nothing-running"
    for state in (S.RUNNING, S.UNDOING):
        run = a_run(db__stop=StepRun(state, 1))
        assert broken(name, run, run, [CRASH])
        assert not broken(name, run, run, [events.RunPaused(NOW, "ann")]), "a pause lets it finish"
    proven = a_run(db__stop=DONE)
    accepted = with_run(a_run(db__stop=VOID), accepted_loss_ms=5)
    for event in (CRASH, events.RunPaused(NOW, "ann"), events.RunResumed(NOW, "ann")):
        assert broken(name, proven, proven, [event])
        is_resumed = isinstance(event, events.RunResumed)
        assert broken(name, accepted, accepted, [event]) is not is_resumed, (
            "people may accept when they resume"
        )
    sent = set_step(accepted, accepted.plan.steps["db/promote"], StepRun(S.UNKNOWN, 1), NOW)
    assert not broken(name, sent, sent, [CRASH])
    assert not broken(name, proven, proven, [])


def test_no_undo_of_what_stays() -> None:
    name, undo = "no-undo-of-what-stays", [events.StepUndoStarted(NOW, "db/stop", 1)]
    aborting = a_run(state=RunState.ABORTING, db__stop=StepRun(S.UNDOING, 1))
    assert not broken(name, aborting, aborting, undo)
    for state in (S.RUNNING, S.UNKNOWN, S.UNDECIDED, S.SUCCEEDED):
        sent = set_step(aborting, aborting.plan.steps["db/promote"], StepRun(state, 1), NOW)
        assert broken(name, sent, sent, undo)
    running = with_run(aborting, state=RunState.RUNNING)
    assert broken(name, running, running, undo)


def test_no_undo_of_a_fence_that_another_group_relies_on() -> None:
    name, undo = "no-undo-of-what-stays", [events.StepUndoStarted(NOW, "site/power", 1)]
    run = a_run(a_wide_failover(), RunState.ABORTING, site__power=StepRun(S.UNDOING, 1))
    assert not broken(name, run, run, undo)
    moved = set_step(run, run.plan.steps["db2/promote"], DONE, NOW)
    assert broken(name, moved, moved, undo), "g2 has moved, and its old member hangs on the fence of g1"


@pytest.mark.parametrize(
    "state", [S.RUNNING, S.UNKNOWN, S.MARKING, S.UNDOING, S.PENDING, S.WAITING, S.BACKOFF]
)
def test_done_means_ended(state: StepState) -> None:
    run = a_run(a_plan(a_step("s/one")), s__one=StepRun(state, 1))
    assert broken("done-means-ended", run, run, [events.RunFinished(NOW, "done")])
    waits = state in (S.PENDING, S.WAITING, S.BACKOFF)
    assert broken("done-means-ended", run, run, [events.RunFinished(NOW, "aborted")]) is not waits
    assert not broken("done-means-ended", run, run, [])


@pytest.mark.parametrize("state", [S.SUCCEEDED, S.UNDECIDED, S.UNDO_FAILED])
def test_an_abort_leaves_a_writer(state: StepState) -> None:
    name, end = "an-abort-leaves-a-writer", [events.RunFinished(NOW, "aborted")]
    run = a_run(state=RunState.ABORTED, db__stop=StepRun(state, 1))
    assert broken(name, run, run, end)
    said = with_run(run, leave_closed=True)
    assert not broken(name, said, said, end)
    undone = a_run(state=RunState.ABORTED, db__stop=StepRun(S.UNDONE, 1))
    assert not broken(name, undone, undone, end)


# --- deep -------------------------------------------------------------------------------------


def _unit(run: Run, **changes: object) -> Run:
    unit = run.units["db"]
    values = {name: getattr(unit, name) for name in ("steps", "unmet", "ready", "busy")} | changes
    return with_run(run, units={**run.units, "db": UnitRun(**values)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "plant",
    [
        lambda run: with_run(run, unfinished=run.unfinished + 1),
        lambda run: with_run(run, preflight_left=7),
        lambda run: with_run(run, fences_busy=3),
        lambda run: with_run(run, active=run.active.changed("db", is_in=False)),
        lambda run: _unit(run, ready=()),
        lambda run: _unit(run, busy=("db/stop",)),
        lambda run: _unit(run, unmet={**run.units["db"].unmet, "db/promote": 0}),
    ],
)
def test_counters_are_true(plant: Callable[[Run], Run]) -> None:
    assert DEEP["counters-are-true"](a_run()) == []
    assert DEEP["counters-are-true"](plant(a_run()))


def test_held_says_why() -> None:
    held = with_run(a_run(), state=RunState.HELD)
    assert DEEP["held-says-why"](held)
    assert DEEP["held-says-why"](with_run(held, held_causes=("c",)))
    assert DEEP["held-says-why"](with_run(held, held_causes=("c",), held_choices=("d",))) == []


def test_orders_follow_states() -> None:
    run = a_run(db__stop=StepRun(S.RUNNING, 1), db__close=StepRun(S.UNKNOWN, 1))
    assert DEEP["orders-follow-states"](run) == []
    assert DEEP["orders-follow-states"](_unit(run, busy=("db/stop",))), "nobody looks at what is unknown"
    steps = {**run.units["db"].steps, "db/stop": StepRun(S.UNKNOWN, 1)}
    assert DEEP["orders-follow-states"](_unit(run, steps=steps)) == []


# --- groups -----------------------------------------------------------------------------------


def test_what_may_never_become_of_a_group() -> None:
    before = GroupState("g", "home", 4, "protected", claim="r1", adopted=True)
    assert check_group(before, replace(before, active="embassy", epoch=5), "r1") == []
    assert check_group(before, replace(before, active=""), "r1") == []
    assert "epochs-only-grow" in check_group(before, replace(before, epoch=3), "r1")[0]
    assert "one-site-per-epoch" in check_group(before, replace(before, active="embassy"), "r1")[0]
    assert "only-the-claimant" in check_group(before, before, "r2")[0]


def test_every_invariant_has_a_name_a_text_and_a_test() -> None:
    here = globals()
    for name, rule in {**CHEAP, **DEEP}.items():
        assert rule.__doc__
        assert f"test_{rule.__name__}" in here, f"{name} was never seen to fire"
    assert invariants.DEEP is DEEP
