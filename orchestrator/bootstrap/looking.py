"""Decides which run people mean and whether its sources have changed since; loads nothing that drives one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.errors import RefusedError, WrongWordsError

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.core.run import Run
    from orchestrator.engine.journal import Journal


def open_run(journal: Journal, name: str | None) -> str:
    """The run people mean: the named one, else the only one that is not over, else the last."""
    if name is not None:
        return name
    held = list(dict.fromkeys(state.claim for state in journal.groups().values() if state.claim))
    if len(held) == 1:
        return held[0]
    if held:
        raise WrongWordsError("several runs are open; name one", tuple(held))
    runs = journal.runs()
    if not runs:
        raise RefusedError("this log holds no run yet", ("continuity plan failover",))
    return runs[-1]


def changed_sources(app: App, run: Run) -> list[str]:
    """Estate and runbook files that say something else now than when the plan was made; the run keeps
    its plan. Reads files only."""
    changed = []
    for name, digest in run.created.sources.items():
        try:
            content = (app.settings.folder / name).read_bytes()
        except OSError:
            changed.append(f"{name} (gone)")
            continue
        if hashlib.sha256(content).hexdigest() != digest:
            changed.append(name)
    return changed


def changed_text(changed: Sequence[str]) -> str:
    return f"changed since the plan was made, and the run keeps its plan: {', '.join(changed)}"
