"""What an abort must not overlook: effects of attempts that got lost before the last one surely did nothing,
and a protection that goes with what is taken back.
"""

from __future__ import annotations

import pytest

from orchestrator.core import events
from orchestrator.core.model import Stage
from orchestrator.core.outcomes import FindingKind
from orchestrator.core.plan import Role, Undo
from orchestrator.core.states import RunState, StepState
from tests.builders import a_plan, a_step
from tests.story import Story, ordered


def frozen() -> Story:
    """Home is asked to freeze; the answer gets lost, nobody can tell, and the next attempt finds no host."""
    plan = a_plan(
        a_step("db/inspect", Role.EVIDENCE, stage=Stage.PREFLIGHT, gates=(), mutates=False, idempotent=True),
        a_step("db/freeze", Role.FREEZE, stage=Stage.FREEZE, idempotent=True, undo=Undo.UNDO, attempts=2),
        a_step("db/verify", Role.VERIFY, stage=Stage.VERIFY_DATA, mutates=False, idempotent=True),
    )
    story = ordered(plan=plan)
    story.lost("db/freeze")
    story.found("db/freeze", FindingKind.CANNOT_TELL)
    return story


@pytest.mark.parametrize("retryable", [True, False], ids=["waits for another try", "failed for good"])
@pytest.mark.parametrize("found", [FindingKind.DONE, FindingKind.CANNOT_TELL], ids=str)
def test_an_attempt_that_got_lost_is_looked_for_and_taken_back(found: FindingKind, retryable: bool) -> None:
    story = frozen()
    story.failed("db/freeze", retryable)
    story.failed("db/verify")
    story.abort()
    assert story.run.state is RunState.ABORTING, "home may be frozen: it does not end so"
    story.proceed()
    assert story.checking() == {"db/freeze"}
    story.found("db/freeze", found)
    assert story.undoing() == {"db/freeze"}
    story.undone("db/freeze")
    assert story.run.state is RunState.ABORTED


def test_an_attempt_that_surely_did_nothing_is_not_taken_back() -> None:
    story = frozen()
    story.failed("db/freeze")
    story.failed("db/verify")
    story.abort()
    story.proceed()
    story.found("db/freeze", FindingKind.NOT_DONE)
    assert story.run.state is RunState.ABORTED
    assert story.state("db/freeze") is StepState.PENDING


def test_a_step_that_was_skipped_after_a_lost_attempt_is_looked_for_too() -> None:
    story = frozen()
    story.failed("db/freeze")
    story.failed("db/verify")
    story.follow(next(choice for choice in story.run.held_choices if " skip " in choice))
    story.abort()
    story.proceed()
    story.found("db/freeze", FindingKind.DONE)
    story.undone("db/freeze")
    assert story.run.state is RunState.ABORTED


def test_a_group_is_unprotected_as_soon_as_its_replication_is_taken_back() -> None:
    plan = a_plan(
        a_step("db/inspect", Role.EVIDENCE, stage=Stage.PREFLIGHT, gates=(), mutates=False, idempotent=True),
        a_step("db/copy", Role.PROTECT, stage=Stage.AUTHORISE, idempotent=True, undo=Undo.UNDO),
        a_step("db/last", stage=Stage.AUTHORISE),
    )
    story = ordered(plan=plan)
    story.ok("db/copy")
    assert story.states["g"].protection == "protected"
    story.failed("db/last")
    story.abort()
    story.proceed()
    assert story.undoing() == {"db/copy"}
    assert isinstance(story.groups[-1], events.GroupProtectionLost)
    assert story.states["g"].protection == "unprotected"
