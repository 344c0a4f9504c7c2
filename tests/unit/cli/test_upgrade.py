"""A program drives only a run whose plan it would make in the same words; who wants to go on is told what to install.

Looking at such a run, and taking it back before anything was ordered, needs no action of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bootstrap.app import plan_to_text
from orchestrator.core.events import DriverCameUp, RunEvent
from orchestrator.core.plan import PLAN_SCHEMA, Plan
from orchestrator.engine.journal import RUN as RUN_STREAM
from orchestrator.settings import Settings
from tests.builders import driver
from tests.golden import Logged
from tests.unit.cli.logs import RUN, continuity
from tests.unit.cli.people import ONE, a_planned_move, asked

DONE, REFUSED = 0, 3
FIRST, LAST = "0.0.7", "0.0.8"  # two versions that both could drive it


def of_another_schema(plan: Plan) -> Plan:
    return replace(plan, schema=PLAN_SCHEMA - 1)


def with_action(plan: Plan, **changes: Any) -> Plan:
    step = plan.steps[ONE]
    return replace(plan, steps={**plan.steps, ONE: replace(step, action=replace(step.action, **changes))})


def of_another_kind_version(plan: Plan) -> Plan:
    return with_action(plan, kind_version=2)


def of_a_kind_that_is_gone(plan: Plan) -> Plan:
    return with_action(plan, kind="manual.ask")


DIFFERS: Mapping[Callable[[Plan], Plan], str] = {
    of_another_schema: f"its plan has schema {PLAN_SCHEMA - 1}, and this program drives schema {PLAN_SCHEMA}",
    of_another_kind_version: f"its step {ONE} was made for version 2 of manual.confirm, and this program has version 1",
    of_a_kind_that_is_gone: f"its step {ONE} is of the kind manual.ask, which this program does not have",
}


def left(folder: Path, plan: Plan, *versions: str) -> Logged:
    """A run that these versions of the program drove, one after the other, and nobody drives now."""
    (folder / "estate.yaml").write_text("# the log alone is read\n", encoding="utf-8")
    story = Logged(plan, folds_whole=False)
    story.begin(Settings(folder / "estate.yaml").log)
    story.store.put_plan(story.run.created.digest, plan_to_text(plan))
    for number, version in enumerate(versions):
        story.tell(replace(driver(story.tick(), f"i{number}"), version=version))
        story.proceed()
    return story


def history(story: Logged) -> list[RunEvent]:
    return [record.event for record in story.store.read(RUN_STREAM + RUN)]


@pytest.mark.parametrize("change", DIFFERS, ids=lambda change: change.__name__)
@pytest.mark.parametrize(
    ("versions", "install"),
    [((FIRST, LAST), f"install version {LAST}, which drove it last"), ((), "install the version that made")],
    ids=["driven", "never-driven"],
)
def test_a_run_of_another_program_is_not_driven_and_can_be_looked_at(
    tmp_path: Path, change: Callable[[Plan], Plan], versions: tuple[str, ...], install: str
) -> None:
    story = left(tmp_path, change(a_planned_move(asked(ONE))), *versions)
    before = history(story)

    done = continuity(tmp_path, "resume", RUN, "--yes", "--output", "json")
    assert done.returncode == REFUSED, done.stderr
    document = json.loads(done.stdout)
    assert DIFFERS[change] in document["message"]
    assert install in document["message"]
    assert history(story) == before, "nothing was begun"

    for words in document["instead"]:
        assert words.split()[:1] == ["continuity"]
        order = [word.replace("TEXT", "old") for word in words.split()[1:]]
        allowed = continuity(tmp_path, *order)
        assert allowed.returncode == DONE, (words, allowed.stderr)
        assert RUN in allowed.stdout
    assert [words.split()[1] for words in document["instead"]] == ["status", "report", "abort"]
    said = json.loads(continuity(tmp_path, "status", RUN, "--output", "json").stdout)
    assert said["run"]["state"] == "aborted", "nothing was begun, so nothing needs a driver to end it"


def test_a_run_of_this_program_is_driven_whatever_version_drove_it_last(tmp_path: Path) -> None:
    story = left(tmp_path, a_planned_move(asked(ONE)), LAST)
    done = continuity(tmp_path, "resume", RUN, "--yes")
    assert "install" not in done.stderr
    assert len([event for event in history(story) if isinstance(event, DriverCameUp)]) == 2


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"schema": PLAN_SCHEMA + 1}, f"this program reads up to {PLAN_SCHEMA}"),
        ({"moon": "full"}, "unknown argument moon"),
    ],
)
def test_a_plan_that_cannot_be_read_names_who_can(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    story = left(tmp_path, a_planned_move(asked(ONE)), FIRST, LAST)
    later = json.loads(plan_to_text(story.plan)) | more
    with sqlite3.connect(Settings(tmp_path / "estate.yaml").log) as database:
        assert database.execute("UPDATE plans SET body = ?", (json.dumps(later),)).rowcount == 1
    for words in (("status", RUN), ("resume", RUN, "--yes"), ("abort", RUN, "--reason", "old")):
        done = continuity(tmp_path, *words)
        assert done.returncode == REFUSED, done.stderr
        assert says in done.stderr
        assert f": install a newer one: version {LAST} drove it last" in done.stderr
