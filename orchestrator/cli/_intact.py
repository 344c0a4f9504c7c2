"""Decides what is said of a log that is not what was written, beside an answer that was read from it."""

from __future__ import annotations

import sys
from typing import Any

from orchestrator.cli._print import paint, say
from orchestrator.core.log import broken_text
from orchestrator.reports.chain import BREAKS_MAX, SEE_ALL, Chain, chain_of


def looked_at(app: Any) -> dict[str, Any]:
    """For the document; a broken chain is also said on stderr. It never keeps anybody from an answer: what
    begins or goes on with a run refuses such a log by itself. The newest events only: this is asked at night."""
    if not app.has_log:
        return {"log_intact": None, "log_breaks": []}
    breaks = app.journal.breaks_in_sight()
    warn(breaks)
    return {"log_intact": not breaks, "log_breaks": breaks[:BREAKS_MAX]}


def all_looked_at(app: Any) -> Chain:
    """The whole chain, for what auditors read; a broken one is also said on stderr."""
    chain = chain_of(app.journal.store)
    warn(chain.breaks)
    return chain


def warn(breaks: tuple[str, ...] | list[str]) -> None:
    if breaks:
        word = paint("WARNING", "red", sys.stderr)
        say(
            f"{word}: the log is not what was written: {broken_text(breaks)}; do not rely on what it says here"
        )
        say(f"    {SEE_ALL}")
