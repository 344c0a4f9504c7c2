"""How an abort ends: with one site that writes, held, or closed by people's word; never silently."""

from __future__ import annotations

import pytest

from orchestrator.core.effects import Cancel, UndoStep
from orchestrator.core.inputs import (
    Abort,
    Retry,
    UndoEnded,
)
from orchestrator.core.orders import orders
from orchestrator.core.outcomes import Failed, Succeeded
from orchestrator.core.states import RunState
from orchestrator.errors import RefusedError
from tests.builders import at
from tests.story import REMOTE, ordered


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


def test_abort_after_a_power_off_holds_until_people_leave_it_closed() -> None:
    story = ordered()
    for step in ("db/stop", "db/close", "db/verify", "site/power"):
        story.ok(step)
    story.failed("db/measure")
    story.tell(Abort(at(story.tick()), "ann", "false alarm"))
    story.proceed()
    for step in ("db/stop", "db/close"):
        story.tell(UndoEnded(at(story.tick()), step, story.run.step(step).number, Succeeded()))
    assert story.run.state is RunState.HELD
    assert "--leave-closed" in story.run.held_choices[-1]
    story.tell(Abort(at(story.tick()), "ann", "it stays off", leave_closed=True))
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


def test_abort_after_promotion_names_failback() -> None:
    story = ordered()
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.ok("db/measure", **REMOTE)
    story.ok("db/promote")
    with pytest.raises(RefusedError, match="new plan") as refused:
        story.tell(Abort(at(story.tick()), "ann", "no"))
    assert "continuity failback" in refused.value.instead
