"""Decides which actions this program has: the table of ``actions/``, bound through ``planning``."""

from __future__ import annotations

from orchestrator.actions import ACTIONS
from orchestrator.planning.bind import TableCatalog


def catalog() -> TableCatalog:
    """All actions of this program, each imported on first use."""
    return TableCatalog(ACTIONS)
