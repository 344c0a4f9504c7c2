"""Estates whose log lies in a real file and tells a story up to where a transcript ends; commands beside it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from orchestrator.bootstrap.app import plan_to_text
from orchestrator.settings import Settings
from tests import forked
from tests.golden import Logged
from tests.transcript import PLANS, Teller

ROOT = Path(__file__).resolve().parents[3]
RUN = "r1"
PROMOTED = """
plan failover
driver i1
proceed
ok db/inspect
authorise 5s
proceed
ok db/close,db/verify
ok site/power
ok db/measure remote
"""
HELD_FOR_LOSS = """
plan failover
driver i1
proceed
ok db/inspect
authorise 5s
proceed
ok db/close,db/verify
ok site/power
failed db/stop
ok db/measure behind 90s
"""


def told(folder: Path, transcript: str) -> Logged:
    """An estate in ``folder`` whose log holds what the transcript tells. Its store stays open."""
    estate = folder / "estate.yaml"
    estate.write_text("# the log alone is read\n", encoding="utf-8")
    lines = transcript.split("\n")[1:-1]
    story = Logged(PLANS[lines[0].split()[1]](), folds_whole=False)
    story.begin(Settings(estate).log)
    story.store.put_plan(story.run.created.digest, plan_to_text(story.plan))
    teller = Teller(story)
    for line in lines[1:]:
        list(teller.tell(line.split()))
    return story


def continuity(
    folder: Path, *words: str, by: str | None = None, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own. ``before``: Python that runs in it first; ``by``: CONTINUITY_BY."""
    return forked.continuity(words, cwd=folder, environment=environment(by), before=before)


def environment(by: str | None) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONTINUITY_")}
    named = {} if by is None else {"CONTINUITY_BY": by}
    return {**kept, **named, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
