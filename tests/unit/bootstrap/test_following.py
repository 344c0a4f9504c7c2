"""What brings names and routes to the site that holds the epoch: what is needed there first, and only that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bootstrap import following
from orchestrator.bootstrap.app import App, plan_to_text
from orchestrator.bootstrap.standing import told
from orchestrator.core import events
from orchestrator.core.groups import GroupState
from orchestrator.core.plan import GroupMove
from orchestrator.settings import Settings
from tests.builders import a_plan, inspect
from tests.unit.bootstrap.registers import AT, GROUP, SPLIT, known
from tests.unit.cli.logs import continuity
from tests.unit.planning import estates

KEPT = (*SPLIT, events.GroupKeepReserved(AT, GROUP, "home", "resolve-1", 3, "ann", "r"),
        events.GroupResolved(AT, GROUP, "home", "ann", "r", {}, 3, "resolve-1"))  # fmt: skip
FAILOVER = "continuity failover --to home --service population-register"
REPROTECT = "continuity reprotect --service population-register"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[App]:
    made = App(Settings(estates.write_lab(tmp_path)))
    yield made
    made.close()


def at(app: App, **sites: str) -> None:
    """These groups are at these sites."""
    for name, site in sites.items():
        group = name.replace("_", "-")
        adopted = events.GroupAdopted(AT, group, site, 5, "protected", "ann")
        app.journal.append_group(group, lambda _, event=adopted: event)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("elsewhere", "first"),
    [
        ({"name_service": "home", "state_gazette": "home"}, []),
        ({"name_service": "home", "state_gazette": "embassy"}, []),
        ({"name_service": "embassy", "state_gazette": "home"}, ["continuity failback --service name-service"]),
        (
            {"name_service": "embassy", "state_gazette": "embassy"},
            ["continuity failback --service name-service --service state-gazette"],
        ),
    ],
)  # fmt: skip
def test_nothing_is_moved_that_the_group_does_not_need(
    lab: App, elsewhere: Mapping[str, str], first: list[str]
) -> None:
    """The gazette needs the name service: where that comes home, a gazette that stays abroad would be refused."""
    at(lab, **elsewhere)
    state = known(lab, *KEPT)
    assert state.left == "embassy"
    assert list(following.next_commands(lab, state)) == [*first, FAILOVER, REPROTECT]


def test_what_is_reached_from_the_other_side_stays_there(lab: App) -> None:
    runbook = lab.settings.folder / "runbooks" / "population-register.yaml"
    text = runbook.read_text(encoding="utf-8")
    needs = "depends-on: [name-service]\n"
    runbook.write_text(text.replace(needs, f"{needs}reachable-from: [name-service]\n"), encoding="utf-8")
    at(lab, name_service="embassy", state_gazette="embassy")
    assert list(following.next_commands(lab, known(lab, *KEPT))) == [FAILOVER, REPROTECT]


def test_an_embassy_that_is_kept_is_switched_to(lab: App) -> None:
    at(lab, name_service="home", state_gazette="embassy")
    state = GroupState(GROUP, active="embassy", left="home", adopted=True)
    assert following.routing_commands(lab, state) == (
        "continuity switchover --to embassy --service name-service",
        "continuity failover --to embassy --service population-register",
    )


def test_once_names_lead_there_only_the_other_side_is_left(lab: App) -> None:
    state = known(lab, *KEPT, *moved("home"))
    assert (state.left, following.next_commands(lab, state)) == ("", (REPROTECT,))


def test_of_what_lies_at_the_lost_side_the_first_help_is_named(lab: App) -> None:
    at(lab, name_service="home")
    known(lab, *KEPT)
    assert told(lab, GROUP, "embassy still takes writes").endswith(f"; next: {FAILOVER}")


def moved(site: str) -> tuple[Any, ...]:
    return (
        events.GroupClaimed(AT, GROUP, "r2", "ann", "laptop", 4),
        events.GroupGranted(AT, GROUP, "r2", site, 4, "unprotected"),
        events.GroupReleased(AT, GROUP, "r2", "done"),
    )


def group(app: App) -> tuple[dict[str, Any], str]:
    """(the group as JSON, all as text) by ``status``."""
    folder = app.settings.folder
    as_json, as_text = (continuity(folder, "status", "--output", how) for how in ("json", "text"))
    assert (as_json.returncode, as_text.returncode) == (0, 0), as_json.stderr
    (found,) = [each for each in json.loads(as_json.stdout)["groups"] if each["name"] == GROUP]
    return found, as_text.stdout


def test_status_says_where_names_lead_and_what_helps(lab: App) -> None:
    at(lab, name_service="home")
    known(lab, *KEPT)
    found, text = group(lab)
    assert (found["names_lead_to"], found["next"]) == ("embassy", [FAILOVER, REPROTECT])
    assert f"  names and routes still lead to embassy; next:\n    {FAILOVER}\n    {REPROTECT}\n" in text
    plan = a_plan(inspect("db", GROUP))
    move = GroupMove(GROUP, (), "home", 3, 4, ("db",), {})
    plan = replace(plan, groups={GROUP: move})
    created = events.RunCreated(AT, "r2", plan.operation, plan.digest, "ann", "laptop", "t")
    lab.journal.create(plan, plan_to_text(plan), created)
    found, text = group(lab)
    assert found["next"] == ["continuity status r2"]
    assert "home_active_unprotected  epoch 3  claimed by r2\n" in text
    known(lab, *moved("home")[1:])
    found, text = group(lab)
    assert (found["names_lead_to"], found["next"], "names and routes" in text) == (None, [], False)


@pytest.mark.parametrize("content", ["apiVersion: [", "apiVersion: continuity/v1\nkind: Estate\n"])
def test_status_answers_although_the_estate_cannot_be_read(lab: App, content: str) -> None:
    known(lab, *KEPT)
    lab.settings.estate.write_text(content, encoding="utf-8")
    found, _ = group(lab)
    assert found["next"] == ["continuity failover --to home", "continuity runbook lint"]
