"""A record says what the log granted: an epoch that was reserved and never given to a site is no change of right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.bootstrap.app import plan_from_text
from orchestrator.core import events
from orchestrator.core.groups import GroupState
from orchestrator.core.run import with_run
from orchestrator.engine.journal import Journal
from orchestrator.reports.rights import right_text, rights_document
from tests.golden import Logged
from tests.unit.cli.logs import PROMOTED, RUN, continuity, told

CASES = Path(__file__).resolve().parents[2] / "cases" / "machine"

TAKEN_BACK = f"""{PROMOTED}ok db/stop
failed db/promote
$ continuity abort r1 --reason "home is back"
proceed
undone db/close
undone db/stop
"""


def case(folder: Path, name: str, until: str = "") -> Logged:
    """A log that tells this transcript, up to and with the line ``until``."""
    lines = (CASES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and line[0] not in "# "]
    kept = lines[: lines.index(until) + 1] if until else lines
    return told(folder, "\n".join(["", *kept, ""]))


def reported(folder: Path) -> tuple[dict[str, Any], str]:
    """(groups of the record, the record as text) by the command."""
    as_json, as_text = (continuity(folder, "report", RUN, "--output", how) for how in ("json", "text"))
    assert (as_json.returncode, as_text.returncode) == (0, 0), as_json.stderr + as_text.stderr
    groups: dict[str, Any] = json.loads(as_json.stdout)["groups"]
    return groups, as_text.stdout


def agrees(groups: dict[str, Any], states: dict[str, GroupState]) -> None:
    """What the record says of a group is what ``status`` says of it once the run is over."""
    for name, state in states.items():
        assert (groups[name]["epoch"], groups[name]["active"] or "") == (state.epoch, state.active), name


def test_a_run_that_was_never_ordered_changed_no_right(tmp_path: Path) -> None:
    story = case(tmp_path, "plain-failover", "ok db/inspect")
    groups, text = reported(tmp_path)
    assert "  g: epoch 1 of home, as before this run; epoch 2 is reserved, not granted yet\n" in text
    asked = continuity(tmp_path, "abort", RUN, "--reason", "a mistake")
    assert asked.returncode == 0, asked.stderr
    groups, text = reported(tmp_path)
    assert "  g: epoch 1 of home, as before this run; epoch 2 was reserved and never granted\n" in text
    assert {name: groups["g"][name] for name in ("epoch_before", "epoch", "epoch_reserved", "granted", "granted_at")} == {
        "epoch_before": 1, "epoch": 1, "epoch_reserved": 2, "granted": False, "granted_at": None,
    }  # fmt: skip
    agrees(groups, {"g": story.states["g"]})


def test_of_a_mixed_run_each_group_says_what_it_was_given(tmp_path: Path) -> None:
    story = case(tmp_path, "partial")
    groups, text = reported(tmp_path)
    assert {name: (group["epoch"], group["granted"]) for name, group in groups.items()} == {
        "g1": (2, True), "g2": (1, False), "g3": (2, True),
    }  # fmt: skip
    assert "  g1: epoch 1 → 2 of embassy, granted at 20" in text
    assert "  g2: epoch 1 of home, as before this run; epoch 2 was reserved and never granted\n" in text
    agrees(groups, story.states)


def test_a_right_that_was_withdrawn_and_given_back_is_the_old_one(tmp_path: Path) -> None:
    story = told(tmp_path, TAKEN_BACK)
    granted = [event for event in story.groups if isinstance(event, events.GroupGranted)]
    assert [(event.site, event.epoch) for event in granted] == [("home", 1)]
    groups, text = reported(tmp_path)
    assert "  g: epoch 1 of home, as before this run; epoch 2 was reserved and never granted\n" in text
    agrees(groups, story.states)


def test_while_nobody_holds_the_right_that_is_said(tmp_path: Path) -> None:
    case(tmp_path, "plain-failover", "ok db/promote")
    groups, text = reported(tmp_path)
    assert (groups["g"]["active"], groups["g"]["epoch"]) == (None, 1)
    assert (
        "  g: epoch 1; the right to write was withdrawn from home: no site holds it; epoch 2 is reserved, not granted yet\n"
        in text
    )


def test_a_run_that_moves_nothing_reserves_nothing(tmp_path: Path) -> None:
    story = case(tmp_path, "plain-failover", "driver i1")
    move = replace(story.plan.groups["g"], epoch_next=1)
    run = with_run(story.run, plan=replace(story.plan, groups={"g": move}))
    found = rights_document(Journal(story.store, plan_from_text), run)["g"]
    assert (found["epoch_reserved"], found["granted"]) == (None, None)
    assert right_text(found, is_over=True) == "epoch 1 of home, as before this run"
