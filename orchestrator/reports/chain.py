"""Decides how the state of the log's hash chain is told beside what was read from it; must never mend anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.core.log import broken_text

if TYPE_CHECKING:
    from orchestrator.ports import Store

BREAKS_MAX = 10
SEE_ALL = "continuity history --verify"


@dataclass(frozen=True, slots=True)
class Chain:
    """What a look at the whole chain found. ``checked``: the number of the newest event."""

    breaks: tuple[str, ...]
    checked: int

    @property
    def is_whole(self) -> bool:
        return not self.breaks

    def document(self) -> dict[str, Any]:
        return {"log_intact": self.is_whole, "log_breaks": list(self.breaks[:BREAKS_MAX])}

    def text(self) -> str:
        """The statement that stands in a report itself: a warning beside it gets lost on the way to an auditor."""
        if self.is_whole:
            return f"log: whole ({self.checked} events checked)"
        return f"LOG WAS CHANGED: {broken_text(self.breaks)}; do not rely on what stands here"


def chain_of(store: Store) -> Chain:
    """Check all of it: about 2 ms for 1,000 events."""
    return Chain(tuple(store.verify()), store.last_seq())
