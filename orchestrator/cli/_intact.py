"""Decides what is said of a log that is not what was written, beside an answer that was read from it."""

from __future__ import annotations

from typing import Any

from orchestrator.cli._print import paint, say

BREAKS_MAX = 10


def looked_at(app: Any) -> dict[str, Any]:
    """For the document; a broken chain is also said on stderr. It never keeps anybody from an answer: what
    begins or goes on with a run refuses such a log by itself."""
    import sys

    if not app.has_log:
        return {"log_intact": None, "log_breaks": []}
    breaks = app.journal.breaks_in_sight()
    if breaks:
        word = paint("WARNING", "red", sys.stderr)
        more = f" and {len(breaks) - 1} more breaks" if len(breaks) > 1 else ""
        say(f"{word}: the log is not what was written: {breaks[0]}{more}; do not rely on what it says here")
        say("    continuity history --verify")
    return {"log_intact": not breaks, "log_breaks": breaks[:BREAKS_MAX]}
