"""The machine told as stories: each test is what people would see in a night, step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core import events
from orchestrator.core.inputs import (
    Abort,
    Accept,
    DeclareLost,
    Ended,
    MarkDone,
    Pause,
    Resume,
    Retry,
    Skip,
    Woke,
)
from orchestrator.core.orders import orders
from orchestrator.core.outcomes import Failed, FindingKind, Unknown
from orchestrator.core.plan import Retry as Policy
from orchestrator.core.plan import Role
from orchestrator.core.states import RunState, StepState
from orchestrator.errors import RefusedError
from tests.builders import (
    SECOND_NS,
    START_NS,
    a_failover,
    a_plan,
    a_step,
    a_wide_failover,
    at,
    authorise,
    driver,
)
from tests.story import LOCAL, REMOTE, Story, ordered


def test_a_failover_from_the_order_to_the_end() -> None:
    story = Story(a_failover())
    story.tell(driver(0))
    story.proceed()
    assert story.executing() == {"db/inspect"}
    story.ok("db/inspect")
    assert story.run.state is RunState.READY
    story.proceed()
    assert story.executing() == set(), "nothing starts before people confirmed"
    story.tell(authorise(story.tick()))
    story.proceed()
    assert story.executing() == {"db/stop", "site/power", "db/close", "db/verify"}
    story.ok("db/close")
    story.ok("db/verify")
    assert "db/measure" not in story.executing(), "the loss is measured after a fence proof"
    story.ok("site/power", proof="power-off")
    assert "db/measure" in story.executing()
    story.ok("db/measure", **LOCAL)
    assert story.run.losses["db"].milliseconds is not None
    assert "db/promote" in story.executing()
    assert [g.KIND for g in story.groups] == ["group.withdrawn"]
    story.ok("db/promote")
    story.ok("db/epoch")
    assert story.groups[-1] == events.GroupGranted(at(story.now), "g", "r1", "embassy", 2, "unprotected")
    story.ok("db/open")
    story.ok("svc/front/route")
    assert story.run.state is RunState.RUNNING, "a fence that still runs must end before the run does"
    story.failed("db/stop")
    assert story.run.state is RunState.DONE
    assert story.run.exposures == ("db/stop",)
    assert story.groups[-1].KIND == "group.released"
    assert orders(story.run) == []


def test_promotion_waits_for_a_fence_and_people_may_declare_the_site_lost() -> None:
    story = ordered(60_000)
    for step in ("db/close", "db/verify"):
        story.ok(step)
    story.failed("db/stop")
    story.failed("site/power")
    assert story.run.state is RunState.HELD
    assert any("declare site-lost" in choice for choice in story.run.held_choices)
    with pytest.raises(RefusedError, match="only that site"):
        story.tell(DeclareLost(at(story.tick()), "ann", "embassy", "war"))
    story.tell(DeclareLost(at(story.tick()), "ann", "home", "war"))
    assert story.run.state is RunState.RUNNING
    story.proceed()
    story.ok("db/measure", **LOCAL)
    assert "db/promote" in story.executing()


def test_a_fence_budget_ends_the_waiting_but_not_the_fence() -> None:
    story = ordered()
    for step in ("db/close", "db/verify"):
        story.ok(step)
    story.now += 6
    story.tell(Woke(at(story.now), "fence-budget"))
    assert story.run.state is RunState.HELD
    assert {"db/stop", "site/power"} <= story.executing(), "late fences go on and may still prove"
    story.ok("db/stop", proof="demoted")
    assert story.run.state is RunState.RUNNING
    assert "db/measure" in story.executing()


def test_an_old_proof_is_looked_at_again_before_promotion() -> None:
    story = ordered(60_000)
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.failed("site/power")
    story.now += 6
    story.ok("db/measure", **LOCAL)
    assert "db/promote" not in story.executing()
    assert "db/stop" in story.checking(), "the proof is 6 s old: see whether it still holds"
    story.found("db/stop", FindingKind.DONE, proof="demoted")
    renewed = set()
    while "db/promote" not in story.executing():
        for step in story.executing():
            renewed.add(step)
            story.ok(step, **(LOCAL if step == "db/measure" else {}))
    assert renewed == {"db/verify"}, "the fence has held all the time: the loss stands as measured"


def test_a_proof_that_may_have_lapsed_in_between_counts_from_now_and_the_loss_is_measured_again() -> None:
    story = ordered(60_000)
    for step in ("site/power", "db/close", "db/verify"):
        story.ok(step)
    story.failed("db/stop")
    story.now += 6
    story.ok("db/measure", **LOCAL)
    first = story.run.losses["db"].milliseconds
    assert first is not None
    story.found("site/power", FindingKind.DONE)
    renewed = set()
    while "db/promote" not in story.executing():
        for step in story.executing():
            renewed.add(step)
            story.ok(step, **(LOCAL if step == "db/measure" else {}))
    assert renewed == {"db/verify", "db/measure"}
    again = story.run.losses["db"].milliseconds
    assert again is not None
    assert again >= first + 6_000, "whoever had power in between may have written"


def test_a_proof_that_no_longer_holds_is_taken_again() -> None:
    story = ordered(60_000)
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.failed("site/power")
    story.now += 6
    story.ok("db/measure", **LOCAL)
    story.found("db/stop", FindingKind.NOT_DONE)
    assert "db/stop" in story.executing(), "home came back: fence it again"
    assert "db/promote" not in story.executing()


def test_loss_above_what_people_accepted_holds_and_accepting_it_goes_on() -> None:
    story = ordered(accepted_ms=10)
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.ok("db/measure", **LOCAL)
    story.failed("site/power")
    assert story.run.state is RunState.HELD
    assert "stated loss" in story.run.held_causes[0]
    with pytest.raises(RefusedError, match="up to a limit"):
        story.tell(Accept(at(story.tick()), "ann", "loss", "war"))
    story.tell(Accept(at(story.tick()), "ann", "loss", "war", 60_000))
    story.proceed()
    assert "db/promote" in story.executing()


def test_synchronous_replication_states_no_loss_and_needs_no_acceptance() -> None:
    story = ordered(accepted_ms=0)
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.ok("db/measure", **REMOTE)
    assert story.run.losses["db"].milliseconds == 0
    assert "db/promote" in story.executing()


def test_no_heartbeat_means_the_loss_is_unknown() -> None:
    story = ordered(accepted_ms=60_000)
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.ok("db/measure", **{**LOCAL, "heartbeat_ns": None})
    assert story.run.losses["db"].milliseconds is None
    assert "db/promote" not in story.executing()


def test_a_crash_makes_running_steps_unknown_and_never_runs_them_again_unseen() -> None:
    story = ordered()
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.ok("db/measure", **REMOTE)
    assert "db/promote" in story.executing()
    story.tell(driver(story.tick(), "i2"))
    assert story.state("db/promote") is StepState.UNKNOWN
    assert "db/promote" in story.checking()
    assert "db/promote" not in story.executing()
    story.proceed()
    story.found("db/promote", FindingKind.RUNNING)
    assert "db/promote" in story.checking()
    story.found("db/promote", FindingKind.DONE)
    assert "db/epoch" in story.executing()
    assert story.run.step("db/promote").attempt == 1


def test_a_crash_before_promotion_voids_proofs_and_the_accepted_loss() -> None:
    story = ordered(accepted_ms=60_000)
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.failed("site/power")
    story.tell(driver(story.tick(), "i2"))
    assert story.run.accepted_loss_ms is None
    assert story.run.step("db/stop").proof_at is None
    story.proceed()
    story.found("db/measure", FindingKind.NOT_DONE)
    assert "db/stop" in story.checking()
    story.found("db/stop", FindingKind.DONE)
    while story.executing():
        for step in story.executing():
            story.ok(step, **(LOCAL if step == "db/measure" else {}))
    assert story.run.state is RunState.HELD
    assert "nothing is accepted" in story.run.held_causes[0]
    story.tell(Resume(at(story.tick()), "ann", 60_000))
    story.proceed()
    assert "db/promote" in story.executing()


def test_not_done_after_a_crash_is_tried_again_without_counting_against_the_policy() -> None:
    story = ordered()
    story.tell(driver(story.tick(), "i2"))
    story.proceed()
    story.found("db/close", FindingKind.NOT_DONE)
    assert story.state("db/close") is StepState.RUNNING
    assert story.run.step("db/close").attempt == 2
    assert story.run.step("db/close").tries == 1


def test_what_nobody_can_tell_waits_for_people_unless_repeating_is_harmless() -> None:
    story = ordered()
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.failed("site/power")
    story.ok("db/measure", **REMOTE)
    story.tell(Ended(at(story.tick()), "db/promote", 1, Unknown("connection lost")))
    story.found("db/promote", FindingKind.CANNOT_TELL)
    assert story.state("db/promote") is StepState.UNDECIDED
    assert story.run.state is RunState.HELD
    with pytest.raises(RefusedError, match="never satisfied by a word"):
        story.tell(MarkDone(at(story.tick()), "ann", "db/promote", "I saw it"))
    with pytest.raises(RefusedError, match="not known"):
        story.tell(Abort(at(story.tick()), "ann", "stop"))
    story.tell(Retry(at(story.tick()), "ann", "db/promote"))
    assert "db/promote" in story.checking()


def test_a_late_result_of_an_old_attempt_is_recorded_and_ignored() -> None:
    story = ordered()
    story.tell(driver(story.tick(), "i2"))
    story.proceed()
    story.found("db/close", FindingKind.NOT_DONE)
    story.tell(Ended(at(story.tick()), "db/close", 1, Failed("old")))
    assert isinstance(story.history[-1], events.StaleResult)
    assert story.state("db/close") is StepState.RUNNING


def test_pause_finishes_what_runs_and_starts_nothing() -> None:
    story = ordered()
    story.tell(Pause(at(story.tick()), "ann"))
    for step in ("db/stop", "db/close", "db/verify", "site/power"):
        story.ok(step)
    assert story.executing() == set()
    assert story.run.state is RunState.PAUSED
    story.tell(Resume(at(story.tick()), "ann", 60_000))
    story.proceed()
    assert "db/stop" in story.checking() or "db/measure" in story.executing()


def test_retries_follow_the_policy_and_then_people_are_asked() -> None:
    plan = a_plan(a_step("s/one", attempts=2, idempotent=True))
    story = Story(plan)
    story.tell(driver(0))
    story.proceed()
    story.tell(authorise(story.tick()))
    story.proceed()
    story.failed("s/one", retryable=True)
    assert story.state("s/one") is StepState.BACKOFF
    story.proceed()
    assert story.state("s/one") is StepState.BACKOFF, "not before its delay is over"
    story.now += 1
    story.tell(Woke(at(story.now), "retry s/one"))
    assert story.run.step("s/one").attempt == 2
    story.failed("s/one", retryable=True)
    assert story.run.state is RunState.HELD
    with pytest.raises(RefusedError, match="--reason"):
        story.tell(Skip(at(story.tick()), "ann", "s/one", " "))
    story.tell(Skip(at(story.tick()), "ann", "s/one", "not needed tonight"))
    assert story.run.state is RunState.DONE


def test_a_failure_blocks_its_dependents_only() -> None:
    plan = a_plan(
        a_step("a/one"), a_step("a/two", needs=("a/one",)), a_step("b/one"), a_step("b/two", needs=("b/one",))
    )
    story = Story(plan)
    story.tell(driver(0))
    story.proceed()
    story.tell(authorise(story.tick()))
    story.proceed()
    story.failed("a/one")
    assert story.run.state is RunState.RUNNING
    story.ok("b/one")
    story.ok("b/two")
    assert story.run.state is RunState.HELD
    with pytest.raises(RefusedError, match="not reached"):
        story.tell(Skip(at(story.tick()), "ann", "a/two", "no"))
    story.tell(MarkDone(at(story.tick()), "ann", "a/one", "done by hand"))
    story.found("a/one", FindingKind.NOT_DONE)
    assert story.state("a/one") is StepState.MARKED
    assert any(isinstance(e, events.StepMarked) and e.contradiction for e in story.history)
    assert story.executing() == {"a/two"}


def test_skip_and_mark_done_never_satisfy_the_steps_of_the_promotion() -> None:
    story = ordered()
    for step in story.plan.steps.values():
        if step.role in {Role.FENCE, Role.VERIFY, Role.CLOSE, Role.PROMOTE, Role.EPOCH, Role.OPEN}:
            for verb in (Skip, MarkDone):
                with pytest.raises(RefusedError):
                    story.tell(verb(at(story.tick()), "ann", step.id, "because"))


def test_best_effort_failures_are_debts_and_hold_nothing() -> None:
    plan = a_plan(
        a_step("a/one"),
        a_step("b/one", best_effort=True),
        a_step("b/two", needs=("b/one",), best_effort=True),
    )
    story = Story(plan)
    story.tell(driver(0))
    story.proceed()
    story.tell(authorise(story.tick()))
    story.proceed()
    story.failed("b/one")
    story.ok("a/one")
    story.failed("b/two")
    assert story.run.state is RunState.DONE
    assert story.run.debts == ("b/one", "b/two")


def test_a_retry_that_is_due_but_blocked_holds_the_run() -> None:
    """Else nothing would go on, and nobody would be asked."""
    steps = [
        replace(step, retry=Policy(3)) if step.role is Role.PROMOTE else step
        for step in a_failover().steps.values()
    ]
    story = ordered(10_000, plan=a_plan(*steps, fence_hosts={"db": ("h1",)}))
    for step in ("site/power", "db/close", "db/verify"):
        story.ok(step)
    story.failed("db/stop")
    story.ok("db/measure", **LOCAL)
    story.failed("db/promote", retryable=True)
    story.now += 20
    story.wake()
    story.found("site/power", FindingKind.DONE)
    story.ok("db/verify")
    story.ok("db/measure", **LOCAL)
    assert story.state("db/promote") is StepState.BACKOFF
    assert story.run.state is RunState.HELD
    assert "stated loss" in story.run.held_causes[0]
    story.follow(story.run.held_choices[0])
    story.proceed()
    assert story.run.step("db/promote").attempt == 2


def test_one_limit_is_named_that_is_enough_for_every_unit() -> None:
    story = ordered(0, plan=a_wide_failover())
    for step in story.executing() - {"site/power"}:
        if step.endswith(("/stop", "/close", "/verify")):
            story.ok(step)
    story.failed("site/power")
    story.failed("db1/freeze")
    story.ok("docs/files/epoch")
    story.ok("docs/files/publish")
    story.ok("db1/measure", **{**LOCAL, "last_commit_ns": START_NS - 5 * SECOND_NS})
    story.ok("db2/measure", **{**LOCAL, "last_commit_ns": START_NS - 2 * SECOND_NS})
    assert story.run.state is RunState.HELD
    assert len(story.run.held_causes) == 2
    accepting = [choice for choice in story.run.held_choices if " accept " in choice]
    assert accepting == ["continuity accept r1 loss --limit 6s --by NAME --reason TEXT"]
    story.follow(accepting[0])
    story.proceed()
    assert {"db1/promote", "db2/promote"} <= story.executing()
