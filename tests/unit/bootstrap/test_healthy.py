"""A side that answers and serves is not given up by an unplanned move, also where it serves documents alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bootstrap.expected import INSPECT
from orchestrator.bootstrap.healthy import is_healthy, looks_at_source
from orchestrator.bootstrap.observe import confirmation
from orchestrator.cli import _acceptance as acceptance
from orchestrator.core.fold_steps import set_step
from orchestrator.core.plan import Plan
from orchestrator.core.run import start, with_step
from tests.builders import created
from tests.unit.planning.estates import FAILOVER, compiled, read, write_lab

REGISTERS = {"population-register": "they stay", "land-register": "they stay"}
TAKES = {"reachable": True, "takes": True}
WRITES = {"sites": {"home": {"reachable": True, "serves_writes": True}}}
DOWN = {"sites": {"home": {"reachable": False}}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lab(tmp_path_factory.mktemp("lab"))


def whole(lab: Path) -> Plan:
    return compiled(read(lab), FAILOVER).plan


def documents_alone(lab: Path) -> Plan:
    services = ["name-service", "state-gazette"]
    return compiled(read(lab), FAILOVER, services=services, leave=REGISTERS).plan


def seen(plan: Plan, database: Mapping[str, Any], documents: Mapping[str, Any]) -> dict[str, Any]:
    return {step.id: database if step.action.kind == INSPECT else documents for step in looks_at_source(plan)}


@pytest.mark.parametrize(
    ("documents", "healthy"),
    [
        (TAKES, True),
        ({"reachable": True, "takes": False}, False),  # closed: somebody has fenced it, or it never served
        ({"reachable": False}, False),
        ({"reachable": True}, False),  # seen by an older version, which did not look
        ({}, False),
    ],
)
def test_documents_that_are_taken_there_are_served(
    lab: Path, documents: dict[str, Any], healthy: bool
) -> None:
    plan = documents_alone(lab)
    assert [step.id for step in looks_at_source(plan)] == ["state-gazette/documents/inspect-h1"]
    assert is_healthy(plan, seen(plan, {}, documents)) is healthy


def test_where_a_database_leaves_too_it_says_whether_the_side_serves(lab: Path) -> None:
    """One that is down is reason enough to go, and no planned move could go: documents beside it do not hold it."""
    plan = whole(lab)
    assert is_healthy(plan, seen(plan, WRITES, {"reachable": False}))
    assert is_healthy(plan, seen(plan, WRITES, TAKES))
    assert not is_healthy(plan, seen(plan, DOWN, TAKES))


def test_where_people_kept_the_target_documents_at_the_other_side_hold_nothing(lab: Path) -> None:
    plan = documents_alone(lab)
    kept = {name: replace(move, active=plan.target) for name, move in plan.groups.items()}
    kept_plan = replace(plan, groups=kept)
    assert not is_healthy(kept_plan, {step.id: TAKES for step in looks_at_source(plan)})


def test_who_confirms_is_shown_that_documents_are_taken_and_what_the_fence_stops(lab: Path) -> None:
    plan = documents_alone(lab)
    run = start(plan, created())
    (look,) = looks_at_source(plan)
    run = set_step(run, look, with_step(run.step(look.id), evidence=TAKES), run.last)
    shown = confirmation(run, {})
    registers = "registers (land-register, population-register)"
    stops = f"power-off of h1 also stops {registers}, which stays: they stay"
    assert shown.is_source_healthy
    assert "  state-gazette/documents at home: takes new documents" in shown.text.splitlines()
    assert f"  {stops}" in shown.text.splitlines()
    assert stops in acceptance.before_yes(run, {}, 0)
