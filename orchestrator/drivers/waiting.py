"""Decides how a question is asked again until the answer is good: tenacity, with the attempt's own clock,
bound and cancellation. Must never be used for anything that changes something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.core.outcomes import Finding, FindingKind

if TYPE_CHECKING:
    import tenacity

    from orchestrator.ports import Context

LEFT_SECONDS_MIN = 0.001


@dataclass(frozen=True, slots=True)
class Pace:
    """The pause after the first answer, how it grows, and what it grows to."""

    first_seconds: float
    most_seconds: float
    growth: float = 2.0


def load() -> None:
    """Import what waiting needs, before the order."""
    import tenacity  # noqa: F401


def until_done(
    context: Context[Any], look: Callable[[float], Finding], within_seconds: float, pace: Pace
) -> Finding:
    """Ask until the finding is DONE; the last finding when the time is over or people cancel.

    ``look`` is told how many seconds it may take at most.
    """
    import tenacity

    clock = context.clock
    end = clock.monotonic() + min(within_seconds, context.seconds_left())

    def pause(seconds: float) -> None:
        context.cancelled.wait(seconds)

    def is_over(state: tenacity.RetryCallState) -> bool:
        return context.cancelled.is_set() or clock.monotonic() + state.upcoming_sleep >= end

    asking = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda finding: finding.kind is not FindingKind.DONE),
        wait=tenacity.wait_exponential(pace.first_seconds, pace.most_seconds, pace.growth),
        stop=is_over,
        sleep=pause,
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    found: Finding = asking(lambda: look(max(LEFT_SECONDS_MIN, end - clock.monotonic())))
    return found
