"""How events change a run: what a crash takes away and arms anew, what a proof's age hangs on, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core import events, transitions
from orchestrator.core.fold import evolve, fold
from orchestrator.core.fold_steps import contradicted, set_step, trigger_of
from orchestrator.core.inputs import DeclareLost, Ended, Pause, Resume, Woke
from orchestrator.core.orders import FENCE_BUDGET_TIMER, GIVE_WAY_TIMER, orders
from orchestrator.core.outcomes import FindingKind, Unknown
from orchestrator.core.plan import ServiceFacts
from orchestrator.core.run import StepRun, all_promoted, promoted, start, with_run
from orchestrator.core.states import RunState, StepState
from orchestrator.core.transitions import run_after, step_after
from orchestrator.errors import InvariantBroken
from tests.builders import a_failover, a_plan, a_step, a_wide_failover, at, created, driver
from tests.story import LOCAL, REMOTE, Story, ordered, promoting

S = StepState


# --- streams ----------------------------------------------------------------------------------


def test_a_stream_begins_with_its_creation_and_holds_it_once() -> None:
    plan = a_failover()
    with pytest.raises(ValueError, match=r"begins with run\.created, not run\.ready"):
        fold(plan, [events.RunReady(at(0))])
    with pytest.raises(ValueError, match="not nothing"):
        fold(plan, [])
    with pytest.raises(ValueError, match="only at the beginning"):
        fold(plan, [created(), created()])


def test_what_is_no_row_is_a_bug_that_names_the_state_and_the_trigger() -> None:
    run = start(a_failover(), created())
    with pytest.raises(InvariantBroken, match=r"db/stop: no transition from pending on step\.succeeded"):
        evolve(run, events.StepSucceeded(at(1), "db/stop", 1))
    with pytest.raises(InvariantBroken, match=r"no transition from preflight on run\.resumed/preflight"):
        evolve(run, events.RunResumed(at(1), "ann"))
    with pytest.raises(InvariantBroken):
        step_after(S.UNDONE, "step.started", "x")
    with pytest.raises(InvariantBroken):
        run_after(RunState.DONE, "run.ready")


def test_two_rows_for_one_state_and_trigger_are_a_bug() -> None:
    row = transitions.STEP_ROWS[0]
    with pytest.raises(InvariantBroken, match=r"two rows for pending on step\.started"):
        transitions.by_source((row, row))


def test_facts_that_change_no_state_move_the_clock_on() -> None:
    run = start(a_failover(), created())
    for event in (events.StaleResult(at(5), "db/stop", 1, "x"), events.TimerFired(at(5), "x")):
        assert evolve(run, event) == with_run(run, last=at(5))


# --- a crash ----------------------------------------------------------------------------------


def test_after_a_crash_nothing_is_executed_that_ran_before() -> None:
    story = promoting()
    ran = story.executing()
    assert ran == {"db/promote", "site/power"}
    story.tell(driver(story.tick(), "i2"))
    assert story.executing() == set()
    assert story.checking() == ran
    story.proceed()
    assert not story.executing() & ran, "not by the first Proceed either"


def test_what_a_crash_ended_does_not_count_against_the_policy_but_a_lost_answer_does() -> None:
    story = ordered(plan=a_plan(a_step("s/one")))
    for incarnation in ("i2", "i3", "i4", "i5", "i6", "i7", "i8"):
        story.drive(incarnation)
        story.found("s/one", FindingKind.NOT_DONE)
        assert (story.state("s/one"), story.run.step("s/one").tries) == (S.RUNNING, 1)
    for tries in range(1, 5):
        story.lost("s/one")
        story.found("s/one", FindingKind.NOT_DONE)
        assert (story.state("s/one"), story.run.step("s/one").tries) == (S.RUNNING, tries + 1)
    story.lost("s/one")
    story.found("s/one", FindingKind.NOT_DONE)
    assert story.state("s/one") is S.FAILED
    assert "after 5 lost answers" in story.run.held_causes[0]


def test_a_retry_waits_for_the_rest_of_its_time_after_a_restart() -> None:
    story = ordered(plan=a_plan(a_step("s/one", attempts=3), a_step("s/two")))
    story.failed("s/one", retryable=True)
    due = story.timers()["retry s/one"]
    story.tick(0.15)
    story.ok("s/two")
    rest = due - story.now
    story.tick(30)
    story.boot_ns = 5_000_000_000 - int(story.now * 1e9)  # a reboot: the monotonic clock begins anew
    story.drive("i2")
    assert story.timers()["retry s/one"] == pytest.approx(story.now + rest, abs=0.02)
    story.wake()
    assert story.executing() == {"s/one"}


def test_a_retry_that_was_due_when_the_driver_died_is_due_at_once() -> None:
    story = ordered(plan=a_plan(a_step("s/one", attempts=3)))
    story.failed("s/one", retryable=True)
    story.tell(Pause(story.next(), "ann"))
    story.tick(60)
    story.tell(Ended(story.at(), "s/one", 0, Unknown("from long ago")))
    story.drive("i2")
    assert story.run.step("s/one").due_mono_ns <= story.at().mono_ns
    story.tell(Resume(story.next(), "ann"))
    story.proceed()
    assert story.executing() == {"s/one"}


def test_questions_of_a_driver_that_is_gone_are_asked_at_once_also_after_a_reboot() -> None:
    story = ordered(plan=a_plan(a_step("s/one"), a_step("s/two")))
    story.failed("s/one")
    story.follow("continuity mark-done r1 s/one --reason TEXT")
    story.lost("s/two")
    story.found("s/two", FindingKind.RUNNING)
    story.boot_ns = 5_000_000_000 - int(story.now * 1e9)
    story.drive("i2")
    for step in ("s/one", "s/two"):
        assert story.run.step(step).due_mono_ns <= story.at().mono_ns


def test_a_second_driver_after_a_reboot_still_measures_after_the_fence() -> None:
    """Proofs keep since when they hold, on the clock of the driver that looks at them."""
    story = ordered(60_000)
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    for number in (2, 3):
        story.boot_ns = number * 1_000_000_000 - int(story.now * 1e9)
        story.drive(f"i{number}")
    story.follow("continuity accept r1 loss --limit 60s --by NAME --reason TEXT")
    story.proceed()
    story.found("site/power", FindingKind.NOT_DONE)
    story.failed("site/power")
    story.found("db/measure", FindingKind.NOT_DONE)
    story.found("db/stop", FindingKind.DONE)
    for step in ("db/measure", "db/verify"):
        story.ok(step, **(LOCAL if step == "db/measure" else {}))
    assert story.state("db/promote") is S.RUNNING


def test_a_declaration_outlives_a_reboot_and_the_loss_is_measured_after_it() -> None:
    story = ordered(60_000)
    for step in ("db/close", "db/verify"):
        story.ok(step)
    story.tick(2)
    story.tell(DeclareLost(story.next(), "ann", "home", "war", at(0).utc_ns + 1_500_000_000))
    story.boot_ns = 5_000_000_000 - int(story.now * 1e9)
    story.drive("i2")
    for step in ("db/stop", "site/power"):
        story.found(step, FindingKind.NOT_DONE)
        story.failed(step)
    story.ok("db/measure", **LOCAL)
    story.ok("db/verify")
    assert story.run.losses["db"].milliseconds == 1_500, "from the moment that people named"
    story.follow(story.run.held_choices[0])
    story.proceed()
    assert story.state("db/promote") is S.RUNNING


# --- proofs -----------------------------------------------------------------------------------


def test_a_demoted_proof_that_still_holds_has_held_all_the_time() -> None:
    story = ordered(60_000)
    story.ok("db/stop")
    since = story.run.step("db/stop").proof_since
    for step in ("db/close", "db/verify"):
        story.ok(step)
    story.failed("site/power")
    story.tick(300)
    story.ok("db/measure", **LOCAL)
    story.found("db/stop", FindingKind.DONE)
    assert story.run.step("db/stop").proof_since == since
    assert story.run.step("db/stop").proof_at == story.at()


def test_a_proof_that_was_lost_counts_from_when_it_was_taken_again() -> None:
    story = ordered(60_000)
    story.ok("db/stop")
    for step in ("db/close", "db/verify"):
        story.ok(step)
    story.failed("site/power")
    story.tick(300)
    story.ok("db/measure", **LOCAL)
    story.found("db/stop", FindingKind.NOT_DONE)
    assert story.run.step("db/stop").proof_since is None
    story.ok("db/stop")
    assert story.run.step("db/stop").proof_since == story.at()


# --- timers and budgets -----------------------------------------------------------------------


def test_a_timer_that_is_over_is_told_once_and_not_ordered_again() -> None:
    """Else a driver would spin on it: a timer whose moment has passed goes off at once."""
    story = ordered()
    assert set(story.timers()) == {FENCE_BUDGET_TIMER, GIVE_WAY_TIMER}
    story.wake()
    assert set(story.timers()) == {FENCE_BUDGET_TIMER}
    story.wake()
    assert story.timers() == {}
    for timer in (FENCE_BUDGET_TIMER, GIVE_WAY_TIMER):
        assert not story.tell(Woke(story.next(), timer)).events


def test_a_retry_that_finds_no_room_is_not_ordered_again_but_started_later() -> None:
    steps = [a_step("s/one", attempts=3), a_step("s/two"), a_step("s/three")]
    story = ordered(plan=a_plan(*steps, parallel_steps=1))
    story.failed("s/one", retryable=True)
    assert story.executing() == {"s/two"}, "there is room for one"
    story.wake()
    assert story.timers() == {}
    story.ok("s/two")
    assert story.executing() == {"s/three"}
    story.ok("s/three")
    assert story.executing() == {"s/one"}


def test_no_timer_goes_off_while_people_are_waited_for() -> None:
    story = ordered(plan=a_plan(a_step("s/one", attempts=3)))
    story.failed("s/one", retryable=True)
    story.follow("continuity abort r1 --reason TEXT")
    assert orders(story.run) == []
    paused = ordered(plan=a_plan(a_step("s/one", attempts=3)))
    paused.tell(Pause(paused.next(), "ann"))
    paused.failed("s/one", retryable=True)
    assert orders(paused.run) == []


def test_fences_wait_for_no_room() -> None:
    steps = list(a_failover().steps.values())
    story = ordered(plan=a_plan(*steps, fence_hosts={"db": ("h1",)}, parallel_steps=1))
    assert {"db/stop", "site/power"} <= story.executing()


def test_where_not_all_can_go_on_at_once_the_lowest_tier_goes_first() -> None:
    tiers = {"archive": 3, "courts": 2, "register": 1}
    steps = [replace(a_step(f"{name}/start"), service=name) for name in tiers]
    made = a_plan(*steps, a_step("shared/look"), parallel_steps=2)
    facts = {name: ServiceFacts(name, "g", tier, "", "", 1, 1, 1) for name, tier in tiers.items()}
    move = replace(made.groups["g"], services=tuple(tiers))
    story = ordered(plan=replace(made, services=facts, groups={"g": move}))
    assert story.executing() == {"register/start", "shared/look"}, "what the group shares has its lowest tier"
    story.ok("register/start")
    assert story.executing() == {"courts/start", "shared/look"}
    story.ok("courts/start")
    assert story.executing() == {"archive/start", "shared/look"}


def test_fences_that_begin_together_share_one_budget() -> None:
    story = ordered()
    began = story.run.fencing
    story.failed("db/stop")
    assert story.run.fencing == began
    story.failed("site/power")
    assert story.run.fences_busy == 0
    story.follow("continuity retry r1 db/stop")
    assert story.run.fencing == story.at(), "people ordered another try: it has a budget of its own"


# --- small questions --------------------------------------------------------------------------


def test_whether_anything_was_promoted() -> None:
    story = promoting()
    assert promoted(story.run)
    assert all_promoted(story.run)
    fresh = Story(a_wide_failover())
    assert not promoted(fresh.run)
    run = set_step(fresh.run, fresh.plan.steps["docs/files/epoch"], StepRun(S.SUCCEEDED, 1), at(1))
    assert promoted(run), "where nothing is promoted the epoch decides"
    assert not all_promoted(run)


def test_a_mark_that_the_check_contradicts_is_kept_as_one() -> None:
    for kind, is_contradicted in ((FindingKind.DONE, False), (FindingKind.NOT_DONE, True)):
        story = ordered(plan=a_plan(a_step("s/one"), a_step("s/two")))
        story.failed("s/one")
        story.follow("continuity mark-done r1 s/one --reason TEXT")
        story.found("s/one", kind)
        assert contradicted(story.run.step("s/one")) is is_contradicted


@pytest.mark.parametrize(
    ("event", "trigger"),
    [
        (events.StepFailed(at(1), "s/one", 1, "no", None), "step.failed/final"),
        (events.StepFailed(at(1), "s/one", 1, "no", 5), "step.failed/retry"),
        (events.StepReopened(at(1), "s/one", "old"), "step.reopened/look"),
        (events.StepResolved(at(1), "s/one", 1, 1, "done"), "step.resolved/done"),
        (events.StepResolved(at(1), "s/one", 1, 1, "running"), "step.resolved/running"),
        (events.StepResolved(at(1), "s/one", 1, 1, "not-done"), "step.resolved/again"),
        (events.StepResolved(at(1), "s/one", 1, 1, "not-done", failed=True), "step.resolved/failed"),
        (events.StepResolved(at(1), "s/one", 1, 1, "cannot-tell"), "step.resolved/again"),
        (events.StepResolved(at(1), "s/one", 1, 1, "cannot-tell", people=True), "step.resolved/people"),
        (events.StepConfirmed(at(1), "s/one", "ann", "seen"), "step.confirmed"),
    ],
)
def test_the_row_that_an_event_takes(event: events.RunEvent, trigger: str) -> None:
    assert trigger_of(a_step("s/one"), event) == trigger


def test_still_running_after_very_many_looks_is_for_people() -> None:
    story = ordered(plan=a_plan(a_step("s/one", idempotent=True)))
    story.folds_whole = False
    story.lost("s/one")
    for _ in range(599):
        story.found("s/one", FindingKind.RUNNING)
        assert story.state("s/one") is S.UNKNOWN
    story.found("s/one", FindingKind.RUNNING)
    assert story.state("s/one") is S.UNDECIDED
    assert "still running" in story.run.held_causes[0]
    story.ok("s/one", **REMOTE)
    assert story.run.state is RunState.DONE, "its own word settles it at last"
