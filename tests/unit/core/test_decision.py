"""Which facts about groups a decision tells their streams, in the same transaction as the run's own."""

from __future__ import annotations

from orchestrator.core import events
from orchestrator.core.decision import claims
from orchestrator.core.outcomes import FindingKind
from orchestrator.core.plan import Plan, Role, Undo
from orchestrator.core.run import start
from orchestrator.core.states import RunState
from tests.builders import a_failover, a_plan, a_step, a_wide_failover, created, promotion, stop
from tests.story import REMOTE, Story, ordered, promoting


def kinds(story: Story) -> list[str]:
    return [event.KIND for event in story.groups]


def test_a_run_claims_each_of_its_groups_with_the_epoch_that_it_will_grant() -> None:
    told = claims(start(a_wide_failover(), created()))
    assert [(claim.group, claim.run, claim.epoch_next) for claim in told] == [
        ("g1", "r1", 2), ("g2", "r1", 2), ("g3", "r1", 2),
    ]  # fmt: skip
    assert {(claim.by, claim.machine) for claim in told} == {("ann", "laptop")}


def two_databases() -> Plan:
    """One group with two clusters: both are promoted, both get the epoch."""
    steps = [stop("a", "h1"), stop("b", "h2"), *promotion("a"), *promotion("b")]
    return a_plan(*steps, fence_hosts={"a": ("h1",), "b": ("h2",)})


def test_the_right_to_write_is_withdrawn_with_the_first_promotion_and_granted_with_the_last_epoch() -> None:
    story = ordered(plan=two_databases())
    for step in ("a/stop", "b/stop", "a/close", "b/close", "a/verify", "b/verify"):
        story.ok(step)
    story.ok("a/measure", **REMOTE)
    assert kinds(story) == ["group.withdrawn"]
    story.ok("b/measure", **REMOTE)
    for step in ("a/promote", "a/epoch", "b/promote"):
        story.ok(step)
    assert kinds(story) == ["group.withdrawn"]
    story.lost("b/epoch")
    story.found("b/epoch", FindingKind.DONE)
    assert story.groups[-1] == events.GroupGranted(story.at(), "g", "r1", "embassy", 2, "unprotected")


def test_an_attempt_after_another_withdraws_nothing_anew() -> None:
    story = promoting()
    story.failed("db/promote")
    story.failed("site/power")
    story.follow("continuity retry r1 db/promote")
    story.proceed()
    assert story.executing() == {"db/promote"}
    assert kinds(story) == ["group.withdrawn"]


def test_a_group_that_was_taken_back_holds_the_right_where_it_was() -> None:
    story = promoting()
    story.failed("db/promote")
    story.failed("site/power")
    story.abort()
    story.proceed()
    for step in ("db/close", "db/stop"):
        story.undone(step)
    assert story.run.state is RunState.ABORTED
    assert kinds(story) == ["group.withdrawn", "group.granted", "group.released"]
    assert (story.states["g"].active, story.states["g"].epoch) == ("home", 1)


def test_a_group_that_is_left_closed_holds_it_nowhere() -> None:
    story = promoting()
    story.lost("db/promote")
    story.found("db/promote", FindingKind.CANNOT_TELL)
    story.failed("site/power")
    story.abort(leave_closed=True)
    assert kinds(story) == ["group.withdrawn", "group.released"]
    assert story.states["g"].active == ""


def protects(undo: Undo = Undo.NONE_NEEDED) -> Plan:
    return a_plan(
        *(a_step(f"{unit}/protect", Role.PROTECT, undo=undo) for unit in ("a", "b")), a_step("c/one")
    )


def test_a_group_is_protected_when_all_of_it_was_seen_to_be() -> None:
    story = ordered(plan=protects())
    story.ok("a/protect")
    assert kinds(story) == []
    story.ok("b/protect")
    assert kinds(story) == ["group.protected"]


def test_what_was_skipped_or_is_contradicted_protects_nothing() -> None:
    for order in (
        "continuity skip r1 a/protect --reason TEXT",
        "continuity mark-done r1 a/protect --reason TEXT",
    ):
        story = ordered(plan=protects())
        story.failed("a/protect")
        story.follow(order)
        if "mark-done" in order:
            story.found("a/protect", FindingKind.NOT_DONE)
        story.ok("b/protect")
        story.ok("c/one")
        assert story.run.state is RunState.DONE
        assert kinds(story) == ["group.released"]


def test_what_people_did_by_hand_and_a_check_found_protects() -> None:
    story = ordered(plan=protects())
    story.failed("a/protect")
    story.follow("continuity mark-done r1 a/protect --reason TEXT")
    story.ok("b/protect")
    story.found("a/protect", FindingKind.DONE)
    assert kinds(story) == ["group.protected"]


def test_protection_ends_with_what_is_taken_back() -> None:
    story = ordered(plan=protects(Undo.UNDO))
    story.ok("a/protect")
    story.ok("b/protect")
    story.abort()
    story.failed("c/one")
    assert kinds(story) == ["group.protected", "group.protection-lost"], "once, however many steps"
    for step in ("a/protect", "b/protect"):
        story.undone(step)
    assert story.states["g"].protection == "unprotected"


def test_groups_without_anything_stateful_are_protected_with_their_grant() -> None:
    story = ordered(plan=a_plan(a_step("g/epoch", Role.EPOCH, idempotent=True)))
    story.ok("g/epoch")
    granted = [event for event in story.groups if isinstance(event, events.GroupGranted)]
    assert [(g.site, g.protection) for g in granted] == [("embassy", "protected")]


def test_nothing_is_told_of_groups_by_what_does_not_concern_them() -> None:
    story = ordered(plan=a_failover())
    story.ok("db/close")
    story.failed("db/stop")
    assert kinds(story) == []
