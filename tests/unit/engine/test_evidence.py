"""What an attempt is told of the steps before it."""

from __future__ import annotations

from orchestrator.core.events import StepReopened, StepResolved, StepStarted, StepSucceeded
from orchestrator.core.fold import evolve
from orchestrator.core.run import Run, start
from orchestrator.engine.dispatch import evidence_for
from tests.builders import a_failback, at, created

STOP, VERIFY = "db/stop", "db/verify"
SAID = {"proof": "demoted", "host": "e1"}


def told(run: Run) -> dict[str, object]:
    return dict(evidence_for(run, run.plan.steps[VERIFY]))


def stopped() -> Run:
    run = start(a_failback(), created())
    run = evolve(run, StepStarted(at(1), STOP, 1))
    return evolve(run, StepSucceeded(at(2), STOP, 1, SAID))


def test_a_proof_that_is_looked_at_again_still_says_what_was_seen() -> None:
    run = stopped()
    assert told(run) == {STOP: SAID}
    again = evolve(run, StepReopened(at(9), STOP, "too old"))
    assert told(again) == {STOP: SAID}
    gone = evolve(again, StepResolved(at(10), STOP, 1, again.step(STOP).number, "not-done", "it runs"))
    assert told(gone) == {}


def test_an_attempt_whose_outcome_nobody_knows_says_nothing() -> None:
    run = evolve(start(a_failback(), created()), StepStarted(at(1), STOP, 1))
    assert told(run) == {}
