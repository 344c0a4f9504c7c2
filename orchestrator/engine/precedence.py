"""Decides which of the orders that may be carried out now are begun first, and which a little later; must
never hold anything back for longer than its bound, and never change what is carried out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from orchestrator.core.effects import Effect, Execute
from orchestrator.core.inputs import DriverInput
from orchestrator.core.plan import URGENCY_LAST, Plan, urgencies

GIVE_WAY_SECONDS = 0.5
"""For so long in all, from the first time on, a driver begins nothing else while something urgent is at work:
on few cores the rest only takes from it. What waits loses no more than this, whatever the urgent wait for."""


@dataclass(slots=True)
class Precedence:
    """Of one driver."""

    _plan: Plan | None = None
    _urgencies: Mapping[str, int] = field(default_factory=dict)
    _until: float | None = None  # by the monotonic clock, in seconds; None until something gave way

    def of(self, about: Effect | DriverInput) -> int:
        """How urgent an order is, or the result of one; 0 is first."""
        return self._urgencies.get(getattr(about, "step", ""), URGENCY_LAST)

    def settle(
        self, effects: Iterable[Effect], plan: Plan, begun: AbstractSet[Effect], moment: float
    ) -> tuple[list[Effect], AbstractSet[Effect]]:
        """All that is ordered now, the urgent first; and what of it is not to begin yet at ``moment``."""
        if plan is not self._plan:
            self._plan, self._urgencies = plan, urgencies(plan)
        wanted = sorted(effects, key=self.of)
        steps = [effect for effect in wanted if isinstance(effect, Execute)]
        others = {order for order in steps if self.of(order) == URGENCY_LAST}
        new = others.difference(begun)
        if not new or len(others) == len(steps):
            return wanted, frozenset()
        if self._until is None:
            self._until = moment + GIVE_WAY_SECONDS
        return wanted, new if moment < self._until else frozenset()
