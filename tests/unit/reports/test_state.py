"""What people read of a run at night: what it is about, and the exact next commands."""

from __future__ import annotations

from orchestrator.core.inputs import Pause
from orchestrator.reports.state import run_document, run_text
from tests.story import ordered

SOMEBODY, NOBODY = 4711, 0


def test_a_run_that_nobody_drives_says_how_to_go_on_and_how_to_end_it() -> None:
    story = ordered()
    for moment in ("running", "paused", "aborting"):
        if moment == "paused":
            story.tell(Pause(story.next(), "ann"))
        if moment == "aborting":
            story.abort()
        text = run_text(story.run, NOBODY)
        assert moment.upper() in text
        assert "what you can do now:\n    continuity resume r1" in text
        assert "continuity abort r1" in text
        assert run_document(story.run, NOBODY)["next"][0] == "continuity resume r1"


def test_one_that_is_driven_needs_nobody() -> None:
    story = ordered()
    assert "what you can do now" not in run_text(story.run, SOMEBODY)
    assert run_document(story.run, SOMEBODY)["next"] == []
