"""What people read of a plan: golden texts of every operation, and what each part must say.

``CONTINUITY_REWRITE=1`` writes the golden texts anew; commit the difference only if you understand it.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.plan import Gate, Plan, Undo
from orchestrator.planning.render import ANYWHERE, plan_document, plan_text
from tests.unit.planning import estates
from tests.unit.planning.estates import FAILBACK, FAILOVER, NIGHTS, REPROTECT, SWITCHOVER, compiled, plan_of

CASES = estates.ROOT / "tests" / "cases" / "plan"
SYNTHETIC = estates.synthetic()
SECRET = re.compile(r"secret://(env|file)/[A-Za-z0-9_.-]+")


def text_of(plan: Plan, expected: dict[str, int | None] | None = None) -> str:
    return plan_text(plan, expected or {}, (), None)


def check_golden(name: str, text: str) -> None:
    path = CASES / f"{name}.txt"
    if os.environ.get("CONTINUITY_REWRITE"):
        path.write_text(text + "\n")
    assert text + "\n" == path.read_text()


@pytest.mark.parametrize("night", NIGHTS)
def test_the_synthetic_estate_reads_as_reviewed(night: str) -> None:
    made = compiled(SYNTHETIC, NIGHTS[night])
    check_golden(f"synthetic-{night}", plan_text(made.plan, {}, made.notes, None))


@pytest.mark.parametrize("night", NIGHTS)
def test_the_projects_runbooks_read_as_reviewed(night: str, tmp_path: Path) -> None:
    """The folder of the lab is somewhere else each time, and with it the digest."""
    made = compiled(estates.read(estates.write_lab(tmp_path / "lab")), NIGHTS[night])
    times = {step: 1_000 if number % 7 else None for number, step in enumerate(made.plan.steps)}
    text = plan_text(made.plan, times, made.notes, None)
    text = text.replace(str(tmp_path), "").replace(made.plan.digest, "DIGEST")
    check_golden(f"lab-{night}", text)


@pytest.mark.parametrize("night", NIGHTS.values(), ids=NIGHTS)
def test_no_placeholder_is_left_but_secrets(night: estates.Night) -> None:
    text = text_of(plan_of(SYNTHETIC, night))
    assert "${" not in text
    assert "{{" not in text
    if night is not REPROTECT:
        assert SECRET.search(text)
        assert "secret://… names a secret that is read on the day" in text


@pytest.mark.parametrize("night", NIGHTS.values(), ids=NIGHTS)
def test_everything_of_every_step_is_said(night: estates.Night) -> None:
    plan = plan_of(SYNTHETIC, night)
    text = text_of(plan)
    blocks = {block.splitlines()[0].split()[0]: block for block in text.split("\n\n  ")[1:]}
    for step in plan.steps.values():
        block = blocks[step.id]
        assert step.title in block
        assert f"why: {step.why}" in block
        for command in step.action.commands:
            assert f"$ {command.replace('${run}', 'RUN')}" in block
        for touch in step.action.touches:
            assert touch.endpoint in block
        assert ("BEST EFFORT" in block) is step.best_effort
        assert block.count("gate: ") == len([g for g in step.gates if g is not Gate.AUTHORISED])
        assert "time-out " in block
        assert ("POINT OF NO RETURN" in block) is (step.action.undo is Undo.POINT_OF_NO_RETURN)
        assert ("undo: " in block) is (step.action.undo is Undo.UNDO)
        assert ("nothing to undo" in block) is (step.action.undo is Undo.NONE_NEEDED)


def test_a_failover_says_what_it_wants_of_the_lost_site() -> None:
    text = text_of(plan_of(SYNTHETIC, FAILOVER))
    part = text[text.index("WHAT THIS PLAN WANTS OF HOME") : text.index("EVERY ENDPOINT")]
    assert "Needs nothing at home: no step that must succeed speaks to it." in part
    assert "citizens/doors/route-home-pa1" in part[part.index("Best effort there") :]
    assert "main/stop-a2" in part[part.index("Fences") : part.index("Looked at")]


def test_a_planned_move_says_that_the_site_that_is_left_must_answer() -> None:
    plan = plan_of(SYNTHETIC, SWITCHOVER)
    part = text_of(plan)
    assert "It must answer: " in part
    assert "main/freeze" in plan_document(plan, {}, (), None)["at_the_site_left"]["required"]


def test_a_reprotect_leaves_no_site_and_changes_no_epoch() -> None:
    plan = plan_of(SYNTHETIC, REPROTECT)
    text = text_of(plan)
    assert "REPROTECT   home is made to follow again" in text
    assert "active at embassy, epoch 4: neither changes" in text
    assert "WHAT THIS PLAN WANTS" not in text
    assert "at_the_site_left" not in plan_document(plan, {}, (), None)


# --- durations --------------------------------------------------------------------------------


def test_an_unknown_duration_is_said_and_not_summed() -> None:
    plan = plan_of(estates.good(), FAILOVER)
    times: dict[str, int | None] = dict.fromkeys(plan.steps, 1_000)
    text = text_of(plan, times | {"registers-db/promote": None})
    assert "to proof: unknown: 1 step was never timed in this log; those known alone: 9s; names" in text
    (service,) = [
        s for s in plan_document(plan, times | {"registers-db/promote": None}, (), None)["services"]
        if s["name"] == "population-register"
    ]  # fmt: skip
    assert (service["expected_ms"], service["within_rto"]) == (None, None)
    assert service["expected_unknown_steps"] == ["registers-db/promote"]


def test_an_expected_duration_is_held_against_the_objective() -> None:
    plan = plan_of(estates.good(), FAILOVER)
    fast: dict[str, int | None] = dict.fromkeys(plan.steps, 1_000)
    assert "expected from the order to proof: 10s, within the RTO; names that clients hold" in text_of(
        plan, fast
    )
    slow = text_of(plan, fast | {"registers-db/promote": 900_000})
    assert "15m9s, LONGER THAN THE RTO" in slow
    assert "slowest step on the way: registers-db/promote, 15m" in slow
    assert "names that clients hold already: up to 5s more" in slow


def test_a_planned_move_is_timed_from_the_refusal_of_writes() -> None:
    text = text_of(plan_of(estates.good(), SWITCHOVER))
    assert "expected from the refusal of writes to proof" in text


# --- notes, left, observed --------------------------------------------------------------------


def test_notes_and_what_is_left_behind_are_on_the_first_lines() -> None:
    made = compiled(SYNTHETIC, FAILOVER, leave={"post": "by telephone"})
    head = plan_text(made.plan, {}, made.notes, None).split("\n\n")[0]
    assert "note: post stays behind and needs citizens: by telephone" in head
    assert "left behind, on the record: post (by telephone)" in head


def test_observations_are_dated_apart_and_change_nothing_else() -> None:
    plan = plan_of(SYNTHETIC, FAILOVER)
    observed = {
        "at": "2026-11-23T10:11:12.345Z",
        "lines": ["main at home: primary"],
        "loss": {"main": "up to 3s"},
    }
    text = plan_text(plan, {}, (), observed)
    assert text.startswith(plan_text(plan, {}, (), None))
    part = text[len(plan_text(plan, {}, (), None)) :]
    assert "OBSERVED AT 2026-11-23T10:11:12.345Z: not part of the plan" in part
    assert "main at home: primary" in part
    assert "main: expected loss now: up to 3s" in part
    document = plan_document(plan, {}, (), observed)
    assert document.pop("observed") == observed
    assert document == plan_document(plan, {}, (), None)


# --- the document -----------------------------------------------------------------------------


@pytest.mark.parametrize("night", NIGHTS.values(), ids=NIGHTS)
def test_the_document_says_the_same(night: estates.Night) -> None:
    plan = plan_of(SYNTHETIC, night)
    document = plan_document(plan, {}, ("a note",), None)
    assert document["digest"] == plan.digest
    assert document["notes"] == ["a note"]
    assert [step["id"] for step in document["steps"]] == list(plan.steps)
    assert sorted(step for wave in document["waves"] for step in wave) == sorted(plan.steps)
    for step in document["steps"]:
        assert step["id"] in document["waves"][step["wave"] - 1]
        assert "${" not in str(step["action"]["commands"])
    touched = {t.endpoint for step in plan.steps.values() for t in step.action.touches}
    assert {place for places in document["endpoints"].values() for place in places} == touched
    assert set(document["endpoints"]) <= {"home", "embassy", "vantage", ANYWHERE}
    points = {s.id for s in plan.steps.values() if s.action.undo is Undo.POINT_OF_NO_RETURN}
    assert set(document["points_of_no_return"]) == points


def test_going_home_is_a_question_and_no_point_of_no_return() -> None:
    plan = plan_of(SYNTHETIC, FAILBACK)
    assert "registers/go-home" in plan.steps
    assert "registers/go-home" not in plan_document(plan, {}, (), None)["points_of_no_return"]


def test_a_plan_may_have_no_service_of_its_own_time() -> None:
    """A service that nothing proves and that never says it is up has no expected duration to be told."""
    books = SYNTHETIC.runbooks
    post = replace(books["post"], components={"vans": replace(books["post"].components["vans"], prompts={})})  # type: ignore[type-var]
    plan = plan_of(replace(SYNTHETIC, runbooks={**books, "post": post}), FAILOVER)
    (service,) = [s for s in plan_document(plan, {}, (), None)["services"] if s["name"] == "post"]
    assert (service["expected_ms"], service["within_rto"]) == (None, None)
    assert "nothing in this plan shows when it serves" in text_of(plan)
