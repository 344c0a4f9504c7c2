"""Decides that a lab which is up is adopted: its log's first facts, written as ``continuity adopt --all`` would."""

from __future__ import annotations

from pathlib import Path


def adopt(estate: Path) -> None:
    """Adopt every group as the evidence of both sites says. RefusedError where it leaves a doubt."""
    from orchestrator.bootstrap.adoption import adopt_all
    from orchestrator.bootstrap.app import open_app
    from orchestrator.settings import person

    app = open_app(str(estate))
    try:
        adopt_all(app, person())
    finally:
        app.close()
