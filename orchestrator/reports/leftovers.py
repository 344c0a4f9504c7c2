"""Decides what is said of steps that a finished run names because nobody took their effect back.

The journal lists them together; they are two things. A fence that proved nothing leaves its site exposed: what
it should have stopped may come back. What took effect and stays is no exposure: it stands as it is. Beside them
stands what people declared to be unprotected.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.plan import Role
from orchestrator.core.run import Run
from orchestrator.core.states import StepState

_TOOK_EFFECT = {
    StepState.SUCCEEDED: "stays in force",
    StepState.MARKED: "stays in force, by people's word",
    StepState.UNDO_FAILED: "could not be undone, and may stay in force",
}


def exposed(run: Run) -> tuple[str, ...]:
    """Fences that gave no proof."""
    return tuple(step for step in run.exposures if _gave_no_proof(run, step))


def left_as_it_is(run: Run) -> Iterator[tuple[str, str]]:
    """(step, why) of what was not taken back."""
    for step in run.exposures:
        if not _gave_no_proof(run, step):
            yield step, _TOOK_EFFECT.get(run.step(step).state, "nobody can tell whether it happened")


def unprotected(run: Run) -> tuple[str, ...]:
    """What people declared to be without protection, by the steps that looked: no failure, and never unsaid."""
    said = (run.step(step).evidence.get("unprotected") for step in run.plan.steps)
    return tuple(dict.fromkeys(str(text) for text in said if text))


def leftover_lines(run: Run) -> list[str]:
    return [
        *(f"  unprotected: {text}" for text in unprotected(run)),
        *(
            f"  exposed: {step} gave no proof: what it should have stopped may come back as it was"
            for step in exposed(run)
        ),
        *(f"  left as it is: {step}: {why}" for step, why in left_as_it_is(run)),
    ]


def _gave_no_proof(run: Run, step: str) -> bool:
    return run.plan.steps[step].role is Role.FENCE and run.step(step).state not in _TOOK_EFFECT
