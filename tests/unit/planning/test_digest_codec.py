"""A plan's digest binds what will be done and nothing else; its JSON is exact."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.model import Operation
from orchestrator.core.plan import PLAN_SCHEMA, Bound, GroupMove, Plan, Retry, ServiceFacts, Step
from orchestrator.core.values import canonical
from orchestrator.errors import JournalError
from orchestrator.planning.codec import plan_from_json, plan_to_json
from orchestrator.planning.digest import digest
from tests.unit.planning import estates
from tests.unit.planning.estates import FAILOVER, NIGHTS, Night, compiled, plan_of

BOOKS = estates.synthetic()
PLAN = plan_of(BOOKS, FAILOVER)
STEP = "main/promote"
PRINT = """
from tests.unit.planning import estates
for night in estates.NIGHTS.values():
    print(estates.plan_of(estates.synthetic(), night).digest)
"""


# --- stable -----------------------------------------------------------------------------------


def test_the_digest_is_the_same_in_every_process() -> None:
    here = [plan_of(BOOKS, night).digest for night in NIGHTS.values()]
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT],
            cwd=estates.ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(estates.ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.split() == here, done.stderr
    assert len(set(here)) == len(here)


def reversed_keys(value: Any) -> Any:
    """The same value with the keys of every mapping in the opposite order."""
    if isinstance(value, Mapping):
        return {key: reversed_keys(value[key]) for key in reversed(list(value))}
    if isinstance(value, tuple):
        return tuple(reversed_keys(item) for item in value)
    if isinstance(value, list):
        return [reversed_keys(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: reversed_keys(getattr(value, f.name)) for f in dataclasses.fields(value)}
        )
    return value


@pytest.mark.parametrize("night", NIGHTS.values(), ids=NIGHTS)
def test_the_order_of_keys_and_files_changes_nothing(night: Night) -> None:
    other = estates.Books(
        reversed_keys(BOOKS.estate), reversed_keys(BOOKS.runbooks), tuple(reversed(BOOKS.files))
    )
    assert list(other.runbooks) == list(BOOKS.runbooks)[::-1]
    mine, theirs = plan_of(BOOKS, night), plan_of(other, night)
    assert theirs.digest == mine.digest
    assert canonical(plan_to_json(theirs)) == canonical(plan_to_json(mine)), "steps are listed alike, too"


def test_the_digest_comes_from_the_plan_alone() -> None:
    assert digest(replace(PLAN, digest="another"), BOOKS.files) == PLAN.digest
    assert digest(replace(PLAN, steps=dict(reversed(list(PLAN.steps.items())))), BOOKS.files) == PLAN.digest
    assert len(PLAN.digest) == 64


# --- what it binds ----------------------------------------------------------------------------


def other(value: Any) -> Any:
    """Something else of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        members = list(type(value)) if hasattr(type(value), "__members__") else []
        return next((m for m in members if m != value), value + "x")
    if isinstance(value, tuple):
        return (*value, *value[:1]) if value else ("x",)
    if isinstance(value, Mapping):
        return {**value, "x": next(iter(value.values()), "y")}
    return None


def with_step(change: Callable[[Step], Step]) -> Plan:
    return replace(PLAN, steps={**PLAN.steps, STEP: change(PLAN.steps[STEP])})


def fields_of(kind: type[Any], *without: str) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if f.name not in without]


def changed(plan: Plan) -> bool:
    return digest(plan, BOOKS.files) != PLAN.digest


@pytest.mark.parametrize("name", fields_of(Step, "action", "retry", "proves"))
def test_every_field_of_a_step_is_bound(name: str) -> None:
    assert changed(with_step(lambda step: replace(step, **{name: other(getattr(step, name))})))


def test_what_a_fence_proves_is_bound() -> None:
    fence = PLAN.steps["main/stop-a1"]
    assert changed(replace(PLAN, steps={**PLAN.steps, fence.id: replace(fence, proves=other(fence.proves))}))


@pytest.mark.parametrize("name", fields_of(Bound))
def test_every_field_of_its_action_is_bound(name: str) -> None:
    def change(step: Step) -> Step:
        return replace(step, action=replace(step.action, **{name: other(getattr(step.action, name))}))

    assert changed(with_step(change))


@pytest.mark.parametrize("name", fields_of(Retry))
def test_every_field_of_its_retries_is_bound(name: str) -> None:
    assert changed(
        with_step(lambda s: replace(s, retry=replace(s.retry, **{name: getattr(s.retry, name) + 1})))
    )


@pytest.mark.parametrize("name", fields_of(GroupMove))
def test_every_field_of_a_group_is_bound(name: str) -> None:
    move = PLAN.groups["registers"]
    groups = {**PLAN.groups, "registers": replace(move, **{name: other(getattr(move, name))})}
    assert changed(replace(PLAN, groups=groups))


@pytest.mark.parametrize("name", fields_of(ServiceFacts))
def test_every_field_that_people_are_shown_of_a_service_is_bound(name: str) -> None:
    facts = PLAN.services["citizens"]
    services = {**PLAN.services, "citizens": replace(facts, **{name: other(getattr(facts, name))})}
    assert changed(replace(PLAN, services=services))


@pytest.mark.parametrize("name", fields_of(Plan, "digest", "steps", "groups", "services", "parts", "limits"))
def test_the_rest_of_the_plan_is_bound(name: str) -> None:
    assert changed(replace(PLAN, **{name: other(getattr(PLAN, name))}))


def test_limits_parts_and_files_are_bound() -> None:
    for name in ("fence_budget_ms", "proof_age_ms", "parallel_steps"):
        assert changed(replace(PLAN, limits=replace(PLAN.limits, **{name: 77})))
    moved = {**PLAN.parts.hosts, "b1": replace(PLAN.parts.hosts["b1"], address="10.2.0.99")}
    assert changed(replace(PLAN, parts=replace(PLAN.parts, hosts=moved)))
    assert digest(PLAN, [("./key.pub", "1" * 64)]) != PLAN.digest
    assert digest(PLAN, ()) != PLAN.digest


def test_where_the_groups_stand_is_bound_through_their_epochs() -> None:
    states = {"registers": replace(estates.standing(BOOKS, FAILOVER)["registers"], epoch=9)}
    assert plan_of(BOOKS, replace(FAILOVER, states=states)).digest != PLAN.digest


def test_notes_are_not_bound() -> None:
    named = compiled(BOOKS, FAILOVER, services=["names", "taxes", "citizens", "archive", "post"])
    assert named.notes
    assert named.plan.digest == PLAN.digest


# --- exact JSON -------------------------------------------------------------------------------


@pytest.mark.parametrize("night", NIGHTS.values(), ids=NIGHTS)
def test_a_plan_comes_back_whole_with_its_digest(night: Night) -> None:
    plan = plan_of(BOOKS, night)
    text = canonical(plan_to_json(plan))
    back = plan_from_json(json.loads(text))
    assert canonical(plan_to_json(back)) == text
    assert digest(back, BOOKS.files) == plan.digest == back.digest
    assert list(back.steps) == list(plan.steps)
    for name, step in plan.steps.items():
        assert replace(back.steps[name], action=step.action) == step
        assert canonical(back.steps[name].action.arguments) == canonical(step.action.arguments)
    assert back.parts == plan.parts
    assert type(back.operation) is Operation


def test_there_is_no_float_in_a_plan() -> None:
    def walk(value: object) -> None:
        assert not isinstance(value, float)
        for item in (
            value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        ):
            walk(item)

    for night in NIGHTS.values():
        walk(plan_to_json(plan_of(BOOKS, night)))


def test_a_plan_of_a_later_program_is_not_read() -> None:
    data = json.loads(canonical(plan_to_json(PLAN))) | {"schema": PLAN_SCHEMA + 1}
    with pytest.raises(JournalError, match="install a newer one"):
        plan_from_json(data)


@pytest.mark.parametrize("place", ["steps", "services"])
def test_a_plan_with_an_unknown_field_is_not_read_as_if_it_said_less(place: str) -> None:
    data = json.loads(canonical(plan_to_json(PLAN)))
    target = data["steps"][0] if place == "steps" else data["services"]["citizens"]
    target["more"] = 1
    with pytest.raises(JournalError, match="unknown argument more"):
        plan_from_json(data)
