"""How an abort ends: with one site that writes, held, or closed by people's word; never silently."""

from __future__ import annotations

import pytest

from orchestrator.core import events
from orchestrator.core.abort import ways_to_end
from orchestrator.core.effects import Cancel, Check, UndoStep
from orchestrator.core.inputs import Abort, Retry, UndoEnded
from orchestrator.core.orders import orders
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from orchestrator.core.plan import Undo
from orchestrator.core.settle import step_choices
from orchestrator.core.states import RunState, StepState
from orchestrator.errors import RefusedError
from tests.builders import a_plan, a_step, a_wide_failover, at
from tests.story import REMOTE, Story, ordered


def test_abort_before_promotion_undoes_in_reverse_and_ends_with_one_writer() -> None:
    story = ordered()
    for step in ("db/stop", "db/close"):
        story.ok(step)
    story.tell(Abort(at(story.tick()), "ann", "false alarm"))
    story.proceed()
    assert any(isinstance(order, Cancel) for order in orders(story.run))
    for step in ("site/power", "db/verify", "db/measure"):
        story.failed(step)
    undos = {order.step for order in orders(story.run) if isinstance(order, UndoStep)}
    assert undos == {"db/stop", "db/close"}
    for step in undos:
        story.tell(
            UndoEnded(at(story.tick()), step, story.run.step(step).number, Succeeded({"writes": True}))
        )
    assert story.run.state is RunState.ABORTED


def powered_off_and_aborted(*own: str) -> Story:
    """The machine's power is off; of ``own`` the database's own fence took effect, or did not."""
    story = ordered()
    for step in (*own, "db/close", "db/verify", "site/power"):
        story.ok(step)
    while story.executing():
        story.failed(min(story.executing()))
    story.abort()
    story.proceed()
    story.undone("db/close")
    return story


@pytest.mark.parametrize("own", [("db/stop",), ()], ids=["stopped before", "never reached"])
def test_abort_after_a_power_off_holds_until_people_leave_it_closed(own: tuple[str, ...]) -> None:
    story = powered_off_and_aborted(*own)
    assert story.undoing() == {"db/stop"}, "nothing else looks whether home is back"
    story.undone("db/stop", Failed("home does not answer"))
    assert story.run.state is RunState.HELD
    assert story.run.held_causes == (
        "db/stop could not be undone: home does not answer",
        "site/power stays in force: h1 is not proven to write",
    )
    assert story.run.held_choices == ("continuity retry r1 db/stop", LEAVE)
    story.tell(Abort(at(story.tick()), "ann", "it stays off", leave_closed=True))
    assert story.run.state is RunState.ABORTED
    assert "site/power" in story.run.exposures


@pytest.mark.parametrize("own", [("db/stop",), ()], ids=["stopped before", "never reached"])
def test_abort_after_a_power_off_ends_once_home_is_back_and_writes(own: tuple[str, ...]) -> None:
    story = powered_off_and_aborted(*own)
    story.undone("db/stop", Failed("home does not answer"))
    story.follow("continuity retry r1 db/stop")
    story.proceed()
    story.undone("db/stop", Succeeded({"writes": True}))
    assert story.run.state is RunState.ABORTED
    assert story.run.exposures == ()


def test_a_home_that_is_back_after_a_power_off_and_does_not_write_holds_the_abort() -> None:
    story = powered_off_and_aborted("db/stop")
    story.undone("db/stop", Succeeded({"writes": False}))
    assert story.run.state is RunState.HELD
    assert story.run.held_causes == ("db was started again at home but does not take writes",)


def test_a_fence_that_failed_is_not_undone_where_nothing_was_taken_away() -> None:
    story = ordered()
    while story.executing():
        story.failed(min(story.executing()))
    story.abort()
    story.proceed()
    assert story.undoing() == set()
    assert story.run.state is RunState.ABORTED


def test_an_undo_that_fails_holds_and_may_be_tried_again() -> None:
    story = ordered()
    story.ok("db/stop")
    for step in ("site/power", "db/verify", "db/close", "db/measure"):
        story.failed(step)
    story.tell(Abort(at(story.tick()), "ann", "false alarm"))
    story.proceed()
    number = story.run.step("db/stop").number
    story.tell(UndoEnded(at(story.tick()), "db/stop", number, Failed("home is gone")))
    assert story.run.state is RunState.HELD
    story.tell(Retry(at(story.tick()), "ann", "db/stop"))
    assert orders(story.run) == [], "a verb starts nothing: the driver does"
    story.proceed()
    assert UndoStep("db/stop", story.run.step("db/stop").number) in orders(story.run)
    story.tell(UndoEnded(at(story.tick()), "db/stop", story.run.step("db/stop").number, Succeeded()))
    assert story.run.state is RunState.ABORTED


LEAVE = "continuity abort r1 --leave-closed --reason TEXT"


def promoted_story() -> Story:
    story = ordered()
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.ok("db/measure", **REMOTE)
    story.ok("db/promote")
    return story


def test_abort_after_promotion_names_how_the_run_ends_as_it_is() -> None:
    story = promoted_story()
    with pytest.raises(RefusedError, match="new plan") as refused:
        story.tell(Abort(at(story.tick()), "ann", "no"))
    assert refused.value.instead == ("continuity resume r1", LEAVE)
    assert ways_to_end(story.run) == ("continuity resume r1", LEAVE)


def test_a_promoted_run_that_is_held_ends_as_it_is_and_what_is_left_is_owed() -> None:
    story = promoted_story()
    story.ok("db/epoch")
    story.ok("site/power")
    story.failed("db/open")
    assert story.run.state is RunState.HELD
    assert story.run.held_choices[-1] == LEAVE
    assert ways_to_end(story.run) == story.run.held_choices
    story.tell(Abort(at(story.tick()), "ann", "home is back", leave_closed=True))
    assert story.run.state is RunState.PARTIAL
    assert story.undoing() == set(), "nothing of a promoted group is taken back"
    assert "db/open" in story.run.debts
    assert "db/promote" not in story.run.debts
    assert not set(story.run.debts) & set(story.run.index.fences)
    group = story.states["g"]
    assert (group.active, group.claim, group.left) == ("embassy", "", "home")
    assert story.groups[-1] == events.GroupReleased(story.run.last, "g", "r1", "partial", "home")


def test_a_promoted_group_that_was_granted_nothing_has_no_active_site_after_such_an_end() -> None:
    story = promoted_story()
    story.ok("site/power")
    story.failed("db/epoch")
    story.tell(Abort(at(story.tick()), "ann", "the embassy is gone too", leave_closed=True))
    assert story.run.state is RunState.PARTIAL
    assert (story.states["g"].active, story.states["g"].claim, story.states["g"].left) == ("", "", "")


def through(story: Story, group: str, unit: str) -> None:
    """One cluster of a wide failover is promoted, opened, and all its steps have ended."""
    story.ok(f"{unit}/measure", **REMOTE)
    for key in ("promote", "epoch", "open"):
        story.ok(f"{unit}/{key}")
    assert all(story.state(f"{unit}/{key}") is StepState.SUCCEEDED for key in ("epoch", "open"))


def test_a_fence_of_a_group_that_is_taken_back_stays_where_another_that_has_moved_hangs_on_it() -> None:
    story = ordered(plan=a_wide_failover())
    for step in (
        "site/power",
        "db2/close",
        "db2/verify",
        "db1/stop",
        "db1/close",
        "docs/files/stop",
        "docs/files/verify",
    ):
        story.ok(step)
    for step in ("db1/freeze", "db1/verify", "db2/stop"):
        story.failed(step)
    through(story, "g2", "db2")
    story.follow("continuity confirm r1 svc/call --by NAME --text TEXT")
    story.wake()  # what is not urgent has given way long enough
    for step in ("svc/own", "docs/files/epoch", "docs/files/publish"):
        story.ok(step)
    story.ok("db1/measure", **REMOTE)
    assert story.run.state is RunState.HELD
    story.abort()
    story.proceed()
    assert "site/power" not in story.undoing(), "db2's old member has power again as soon as it is lifted"
    assert story.undoing() == {"db1/close", "db1/stop"}
    story.undone("db1/close")
    story.undone("db1/stop", Failed("home does not answer"))
    assert story.run.held_causes[-1] == "site/power stays in force: h1 is not proven to write"
    story.abort(leave_closed=True)
    assert story.run.state is RunState.PARTIAL
    assert story.run.exposures == ("db2/stop", "db1/stop", "site/power")
    released = {g.group: g.outcome for g in story.groups if isinstance(g, events.GroupReleased)}
    assert released == {"g1": "aborted", "g2": "done", "g3": "done"}
    assert (story.states["g1"].active, story.states["g2"].active) == ("home", "embassy")


def test_leaving_it_closed_is_said_once() -> None:
    story = ordered()
    story.abort(leave_closed=True)
    assert story.run.leave_closed
    before = len(story.history)
    story.abort(leave_closed=True)
    assert len(story.history) == before


def test_the_choices_for_one_step_end_with_how_the_run_can_be_ended() -> None:
    story = ordered(plan=a_plan(a_step("a/one"), a_step("b/one")))
    story.failed("a/one")
    assert step_choices(story.run, story.plan.steps["a/one"], StepState.FAILED) == [
        "continuity retry r1 a/one",
        "continuity skip r1 a/one --reason TEXT",
        "continuity abort r1 --reason TEXT",
    ]


def declared_lost_and_aborted() -> Story:
    story = ordered()
    story.failed("db/stop")
    story.failed("site/power")
    story.follow("continuity declare site-lost r1 --site home --by NAME --reason TEXT")
    story.failed("db/close")
    story.ok("db/verify")
    story.failed("db/measure")
    story.abort()
    story.proceed()
    return story


def test_a_site_that_was_declared_lost_is_asked_again_whether_it_writes() -> None:
    story = declared_lost_and_aborted()
    assert story.undoing() == {"db/stop"}, "starting the old side again is the look at it"
    story.undone("db/stop")
    assert story.run.state is RunState.ABORTED


def test_a_lost_site_that_does_not_answer_holds_the_abort_and_can_be_asked_again() -> None:
    story = declared_lost_and_aborted()
    story.undone("db/stop", Failed("home does not answer"))
    assert story.run.state is RunState.HELD
    assert any("declared lost" in cause for cause in story.run.held_causes)
    assert [choice.split()[1] for choice in story.run.held_choices] == ["retry", "abort"]
    story.follow(story.run.held_choices[0])
    story.proceed()
    story.undone("db/stop")
    assert story.run.state is RunState.ABORTED


def test_a_lost_site_that_is_back_but_does_not_write_holds_the_abort() -> None:
    story = declared_lost_and_aborted()
    story.undone("db/stop", Succeeded({"writes": False}))
    assert story.run.state is RunState.HELD
    assert "does not take writes" in story.run.held_causes[0]
    story.follow(story.run.held_choices[-1])
    assert story.run.state is RunState.ABORTED


def test_a_lost_site_is_left_alone_where_people_leave_it_closed() -> None:
    story = ordered()
    story.failed("db/stop")
    story.failed("site/power")
    story.follow("continuity declare site-lost r1 --site home --by NAME --reason TEXT")
    while story.executing():
        story.failed(min(story.executing()))
    story.abort(leave_closed=True)
    story.proceed()
    assert story.undoing() == set()
    assert story.run.state is RunState.ABORTED


def test_a_failed_undo_does_not_stand_in_the_way_once_people_leave_it_closed() -> None:
    story = ordered(plan=a_wide_failover())
    for step in ("db1/freeze", "db1/stop"):
        story.ok(step)
    story.abort()
    for step in sorted(story.executing()):
        story.failed(step)
    assert story.undoing() == {"db1/stop"}, "the freeze is lifted only once the database runs again"
    story.undone("db1/stop", Failed("home is gone"))
    assert story.run.state is RunState.HELD
    story.abort(leave_closed=True)
    story.proceed()
    assert story.undoing() == {"db1/freeze"}
    story.undone("db1/freeze", Failed("home is gone"))
    assert story.run.state is RunState.ABORTED
    assert story.run.exposures == ("db1/freeze", "db1/stop")


def test_what_nobody_can_tell_and_has_no_undo_holds_an_abort() -> None:
    story = ordered(
        plan=a_plan(a_step("s/one", undo=Undo.POINT_OF_NO_RETURN), a_step("s/two", mutates=False))
    )
    story.abort()
    for step in ("s/one", "s/two"):
        story.lost(step)
        story.found(step, FindingKind.CANNOT_TELL)
    assert story.run.state is RunState.HELD
    assert story.run.held_steps == ("s/one",), "a read-only step leaves nothing behind"
    story.follow("continuity retry r1 s/one")
    story.found("s/one", FindingKind.NOT_DONE)
    assert story.run.state is RunState.ABORTED


def documents_ready() -> Story:
    """The epoch of the documents is being granted: by the log alone, no server keeps it."""
    story = ordered(plan=a_wide_failover())
    story.ok("docs/files/stop")
    story.ok("docs/files/verify")
    assert story.state("docs/files/epoch") is StepState.RUNNING
    return story


def test_documents_are_taken_back_only_before_their_epoch_is_granted() -> None:
    story = documents_ready()
    story.ok("docs/files/epoch")
    with pytest.raises(RefusedError, match="g3 is promoted at embassy"):
        story.abort()


@pytest.mark.parametrize("answer", ["late success", "lost, then found", "crash"])
def test_an_aborting_run_grants_no_epoch_that_the_log_alone_would_grant(answer: str) -> None:
    story = documents_ready()
    if answer == "crash":
        story.drive()
    story.abort()
    story.proceed()
    if answer == "late success":
        story.ok("docs/files/epoch")
    else:
        if answer == "lost, then found":
            story.lost("docs/files/epoch")
        story.found("docs/files/epoch", FindingKind.DONE)
    while story.executing():
        story.failed(min(story.executing()))
    for look in [order for order in orders(story.run) if isinstance(order, Check)]:
        story.found(look.step, FindingKind.NOT_DONE)
    story.proceed()
    assert not [group for group in story.groups if isinstance(group, events.GroupGranted)]
    while story.undoing():
        story.undone(min(story.undoing()))
    assert story.state("docs/files/stop") is StepState.UNDONE
    assert story.run.state is RunState.ABORTED
    assert story.states["g3"].active == "home"


def test_an_abort_while_a_promotion_is_unknown_is_refused() -> None:
    story = ordered()
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.ok("db/measure", **REMOTE)
    story.lost("db/promote")
    with pytest.raises(RefusedError, match="db/promote happened is not known"):
        story.abort()


def test_an_abort_that_comes_too_late_takes_nothing_back() -> None:
    story = ordered(plan=a_plan(a_step("a/one", undo=Undo.UNDO), a_step("a/two", undo=Undo.UNDO)))
    story.ok("a/one")
    story.abort()
    story.ok("a/two")
    assert story.run.state is RunState.DONE


def test_a_group_whose_last_step_ended_after_all_stays_where_it_is() -> None:
    plan = a_plan(a_step("a/one", undo=Undo.UNDO, group="a"), a_step("b/one", undo=Undo.UNDO, group="b"))
    story = ordered(plan=plan)
    story.ok("a/one")
    story.abort()
    story.failed("b/one")
    assert story.run.state is RunState.PARTIAL
    assert story.state("a/one") is StepState.SUCCEEDED


def test_a_best_effort_beside_what_was_undone_makes_no_group_moved() -> None:
    plan = a_plan(a_step("a/one", undo=Undo.UNDO), a_step("a/two", best_effort=True), a_step("a/three"))
    story = ordered(plan=plan)
    story.ok("a/one")
    story.failed("a/two")
    story.abort()
    story.failed("a/three")
    story.undone("a/one")
    assert story.run.state is RunState.ABORTED
    assert story.groups[-1].KIND == "group.released"
