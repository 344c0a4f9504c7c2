"""Which groups move, from where to where; what is refused, and what people are told instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from orchestrator.components.files import Files
from orchestrator.core.groups import GroupState
from orchestrator.core.model import NameServer, Operation, Site
from orchestrator.core.plan import Gate, Role
from orchestrator.core.values import canonical
from orchestrator.errors import InputError, RefusedError
from orchestrator.planning.codec import plan_from_json, plan_to_json
from orchestrator.planning.compile import compile_plan
from orchestrator.planning.render import plan_text
from tests.unit.planning import estates
from tests.unit.planning.estates import (
    EPOCH,
    FAILBACK,
    FAILBACK_PROTECTED,
    FAILOVER,
    REPROTECT,
    SWITCHOVER,
    Books,
    Night,
    compiled,
)

BOOKS = estates.synthetic()
LEFT = {"citizens": "nobody is at work", "taxes": "nobody is at work"}
STOPS = "power-off and network-cut of a1"


def at(group: str, active: str, protection: str = "protected") -> GroupState:
    return GroupState(group, active, EPOCH, protection, adopted=True)


def night(base: Night, *states: GroupState) -> Night:
    return replace(base, states={state.name: state for state in states})


def refused(books: Books, order: Night, **options: object) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        compiled(books, order, **options)  # type: ignore[arg-type]
    return caught.value


# --- the way ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "source", "target", "epoch"),
    [
        (FAILOVER, "home", "embassy", EPOCH + 1),
        (SWITCHOVER, "home", "embassy", EPOCH + 1),
        (FAILBACK, "embassy", "home", EPOCH + 1),
        (FAILBACK_PROTECTED, "embassy", "home", EPOCH + 1),
        (REPROTECT, "", "home", EPOCH),
    ],
)
def test_direction_follows_from_where_the_groups_are(
    order: Night, source: str, target: str, epoch: int
) -> None:
    plan = compiled(BOOKS, order).plan
    assert (plan.source, plan.target) == (source, target)
    assert {move.epoch_next for move in plan.groups.values()} == {epoch}
    assert {move.epoch_seen for move in plan.groups.values()} == {EPOCH}


def test_a_switchover_may_go_either_way() -> None:
    plan = compiled(BOOKS, Night(Operation.SWITCHOVER, "embassy")).plan
    assert (plan.source, plan.target) == ("embassy", "home")


def test_one_run_moves_one_way() -> None:
    error = refused(BOOKS, night(SWITCHOVER, at("archive", "embassy")))
    assert "one run moves one way" in error.message
    assert "archive: embassy → home" in error.message


def test_a_group_that_is_there_already_is_noted_unless_it_was_named() -> None:
    order = night(FAILOVER, at("archive", "embassy"))
    made = compiled(BOOKS, order)
    assert "archive" not in made.plan.groups
    assert made.notes == ("archive is active at embassy already",)
    assert "archive is active at embassy already" in refused(BOOKS, order, services=["archive"]).message


def test_nothing_to_do_is_refused() -> None:
    assert "nothing to do" in refused(BOOKS, Night(Operation.FAILOVER, "embassy"), target="embassy").message


def test_several_targets_are_asked_for() -> None:
    sites = {**BOOKS.estate.sites, "second": Site("second")}
    books = replace(BOOKS, estate=replace(BOOKS.estate, sites=sites))
    assert "name one with --to: embassy, second" in refused(books, FAILOVER).message
    assert compiled(books, FAILOVER, target="embassy").plan.target == "embassy"


@pytest.mark.parametrize(
    ("target", "said"), [("vantage", "holds no services: it is an observer"), ("home", "already")]
)
def test_a_target_must_hold_services_and_be_elsewhere(target: str, said: str) -> None:
    assert said in refused(BOOKS, FAILOVER, target=target).message


def test_failback_goes_home_and_nowhere_else() -> None:
    assert "failback goes to home" in refused(BOOKS, FAILBACK, target="embassy").message


# --- the state of groups ----------------------------------------------------------------------


def test_a_log_that_never_saw_a_group_refuses() -> None:
    error = refused(BOOKS, night(FAILOVER, GroupState("registers")))
    assert "registers: this log has never seen the group" in error.message
    assert error.instead == ("continuity adopt registers --by NAME",)


def test_a_split_brain_refuses() -> None:
    error = refused(BOOKS, night(FAILOVER, replace(at("registers", "home"), conflict=True)))
    assert "split_brain" in error.message
    assert error.instead == ("continuity resolve registers --keep SITE --by NAME --reason TEXT",)


KEPT = replace(at("registers", "home", "unprotected"), left="embassy", reserved=EPOCH, is_resolved=True)


def test_what_was_kept_at_a_site_is_followed_there_by_a_failover() -> None:
    """Its databases take writes there already: they are fenced and promoted by nobody, and all else follows."""
    order = Night(Operation.FAILOVER, "home", states={"registers": KEPT})
    plan = compiled(BOOKS, order, target="home", services=["citizens"]).plan
    assert (plan.source, plan.target) == ("embassy", "home")
    move = plan.groups["registers"]
    assert (move.active, move.epoch_seen, move.epoch_next) == ("home", EPOCH, EPOCH + 1)
    roles = {step.role for step in plan.steps.values() if step.group == "registers"}
    assert not roles & {Role.FENCE, Role.CLOSE, Role.PROMOTE, Role.OPEN, Role.LOSS, Role.REJOIN}
    (epoch,) = (step for step in plan.steps.values() if step.role is Role.EPOCH)
    arguments = epoch.action.arguments
    assert (arguments["expect_site"], arguments["expect_epoch"], arguments["site"]) == ("home", EPOCH, "home")
    routes = [step for step in plan.steps.values() if step.role is Role.ROUTE]
    assert {step.action.arguments["site"] for step in routes} == {"home"}
    assert all(step.best_effort for step in routes if "embassy" in step.id)
    expected = {step.action.arguments.get("expect_site", "home") for step in routes}
    assert expected == {"home"}, "what it saw of the group, not where the names still lead"


def test_a_site_that_kept_its_epoch_is_failed_over_to_by_nobody() -> None:
    order = Night(Operation.FAILOVER, "home", states={"registers": replace(KEPT, left="")})
    assert "active at home already" in refused(BOOKS, order, target="home", services=["citizens"]).message


def test_a_planned_move_of_what_is_unprotected_is_refused() -> None:
    error = refused(BOOKS, night(SWITCHOVER, at("registers", "home", "unprotected")))
    assert error.instead == ("continuity reprotect",)


def test_a_failover_home_is_planned_whatever_the_log_says_of_its_copy() -> None:
    """What home holds is looked at and measured; a log may be older than a home that follows again."""
    made = compiled(BOOKS, Night(Operation.FAILOVER, "embassy", "unprotected"), target="home")
    moves = {(move.active, made.plan.target) for move in made.plan.groups.values()}
    assert moves == {("embassy", "home")}
    promotions = [step for step in made.plan.steps.values() if step.role is Role.PROMOTE]
    assert promotions
    for step in promotions:
        assert {Gate.FENCED, Gate.VERIFIED, Gate.LOSS_ACCEPTED} <= set(step.gates)


def test_reprotect_of_what_is_protected_is_refused_by_name_only() -> None:
    made = compiled(BOOKS, night(REPROTECT, at("archive", "embassy")))
    assert set(made.plan.groups) == {"registers"}
    assert "archive is protected already" in refused(
        BOOKS, night(REPROTECT, at("archive", "embassy")), services=["archive"]
    ).message  # fmt: skip


def test_a_drill_is_refused_for_now() -> None:
    assert refused(BOOKS, Night(Operation.DRILL)).message.startswith("drill: ")


def test_every_refusal_is_told_at_once() -> None:
    error = refused(
        BOOKS, night(FAILOVER, GroupState("registers"), replace(at("archive", "home"), conflict=True))
    )
    assert "registers" in error.message
    assert "archive" in error.message


# --- names, dependencies, --leave -------------------------------------------------------------


def test_unknown_names_are_input_errors() -> None:
    with pytest.raises(InputError, match=r"no service citizen; there are: .*citizens"):
        compiled(BOOKS, FAILOVER, services=["citizen"])
    with pytest.raises(InputError, match="no service postt"):
        compiled(BOOKS, FAILOVER, leave={"postt": "why"})
    with pytest.raises(InputError, match="--to moon: no such site; sites: home, embassy, vantage"):
        compiled(BOOKS, FAILOVER, target="moon")


def test_a_named_service_takes_its_whole_group_and_says_so() -> None:
    order = night(FAILOVER, at("names", "embassy"), at("post", "embassy"))
    made = compiled(BOOKS, order, services=["taxes"], leave={"archive": "why"})
    assert set(made.plan.services) == {"citizens", "taxes"}
    assert "taxes moves with its group registers: citizens, taxes" in made.notes


def test_a_need_elsewhere_is_refused_with_what_would_do() -> None:
    error = refused(BOOKS, FAILOVER, services=["archive"], leave=LEFT)
    assert error.message == "archive needs names, which is not at embassy"
    assert error.instead == ("--service names", "--leave names=REASON")


def test_a_need_that_is_at_the_target_already_is_no_matter() -> None:
    made = compiled(BOOKS, night(FAILOVER, at("names", "embassy")), services=["archive"], leave=LEFT)
    assert set(made.plan.groups) == {"archive"}


def test_a_need_that_may_stay_is_no_matter() -> None:
    archive = replace(BOOKS.runbooks["archive"], reachable_from=("names",))
    books = replace(BOOKS, runbooks={**BOOKS.runbooks, "archive": archive})
    assert set(compiled(books, FAILOVER, services=["archive"], leave=LEFT).plan.groups) == {"archive"}


def test_a_dependent_left_behind_is_refused() -> None:
    error = refused(BOOKS, FAILOVER, services=["names", "citizens"])
    assert error.message == (
        "archive stays behind and needs names; post stays behind and needs citizens;"
        " power-off and network-cut of a1 would also stop archive, which stays at home"
    )
    assert error.instead == (
        "--service archive", "--service post", "--leave archive=REASON", "--leave post=REASON",
    )  # fmt: skip


def test_what_is_left_stands_in_notes_and_plan_and_changes_the_digest() -> None:
    reasons = {"names": "both sites answer", "archive": "read only"}
    made = compiled(BOOKS, night(FAILOVER), services=["citizens", "post"], leave=reasons)
    assert made.plan.leave == reasons
    assert "citizens needs names, which is not at embassy: both sites answer" in made.notes
    other = compiled(BOOKS, FAILOVER, services=["citizens", "post"], leave={**reasons, "names": "other"})
    assert other.plan.digest != made.plan.digest


def test_without_names_everything_moves_but_what_is_left() -> None:
    made = compiled(BOOKS, FAILOVER, leave={"post": "by telephone"})
    assert "post" not in made.plan.services
    assert "post stays behind and needs citizens: by telephone" in made.notes


@pytest.mark.parametrize(
    "options", [{"leave": {"taxes": "why"}}, {"services": ["citizens"], "leave": {"taxes": "x"}}]
)
def test_a_group_is_not_torn_apart(options: Mapping[str, object]) -> None:
    error = refused(BOOKS, FAILOVER, **options)
    assert "a group moves together: citizens, taxes" in error.message


def test_a_reprotect_moves_nobody_and_asks_for_no_dependency() -> None:
    assert set(compiled(BOOKS, REPROTECT, services=["archive"]).plan.groups) == {"archive"}


# --- what else stands on a host that is fenced ------------------------------------------------


def test_a_fence_that_would_stop_a_group_that_stays_is_refused_with_what_would_do() -> None:
    order = night(FAILOVER, at("names", "embassy"))
    error = refused(BOOKS, order, services=["archive"])
    assert error.message == f"{STOPS} would also stop registers (citizens, taxes), which stays at home"
    assert error.instead == (
        "--service citizens", "--service taxes", "--leave citizens=REASON", "--leave taxes=REASON",
    )  # fmt: skip


def test_one_of_a_group_that_is_left_by_name_does_not_speak_for_the_others() -> None:
    order = night(FAILOVER, at("names", "embassy"))
    error = refused(BOOKS, order, services=["archive"], leave={"citizens": "why"})
    assert "which stays at home" in error.message
    assert error.instead == ("--service citizens", "--service taxes", "--leave taxes=REASON")


@pytest.mark.parametrize(
    ("reasons", "why"),
    [(LEFT, "nobody is at work"), ({"citizens": "a", "taxes": "b"}, "citizens: a; taxes: b")],
)
def test_what_is_left_by_name_and_stopped_all_the_same_is_said(reasons: dict[str, str], why: str) -> None:
    order = night(FAILOVER, at("names", "embassy"))
    made = compiled(BOOKS, order, services=["archive"], leave=reasons)
    assert made.plan.stops == (f"{STOPS} also stop registers (citizens, taxes), which stays: {why}",)
    assert made.notes[-1] == made.plan.stops[0]
    assert plan_from_json(json.loads(canonical(plan_to_json(made.plan)))).stops == made.plan.stops
    text = plan_text(made.plan, {}, made.notes, None)
    assert f"note: {made.plan.stops[0]}" in text


def test_documents_that_stay_on_a_host_that_is_fenced_are_refused_alike() -> None:
    order = night(FAILOVER, at("names", "embassy"), at("post", "embassy"))
    error = refused(BOOKS, order, services=["citizens"])
    assert error.message == f"{STOPS} would also stop archive, which stays at home"


def test_what_is_served_elsewhere_or_holds_no_data_is_no_matter() -> None:
    order = night(FAILOVER, at("names", "embassy"), at("registers", "embassy"))
    made = compiled(BOOKS, order, services=["archive"])
    assert set(made.plan.groups) == {"archive"}
    assert made.plan.stops == (), "post has people alone, and stays"


def test_a_fence_of_another_host_stops_nothing_beside_it() -> None:
    archive = BOOKS.runbooks["archive"]
    documents = archive.components["documents"]
    assert isinstance(documents, Files)
    moved = replace(documents, at={**documents.at, "home": replace(documents.at["home"], host="w1")})
    archive = replace(archive, components={**archive.components, "documents": moved})
    books = replace(BOOKS, runbooks={**BOOKS.runbooks, "archive": archive})
    order = night(FAILOVER, at("names", "embassy"))
    assert compiled(books, order, services=["archive"]).plan.stops == ()


def test_neither_a_planned_move_nor_a_database_that_is_asked_to_stop_stops_anything_else() -> None:
    there = at("names", "embassy")
    assert set(compiled(BOOKS, night(SWITCHOVER, there), services=["archive"]).plan.groups) == {"archive"}
    back = night(FAILBACK, at("names", "home"))
    assert set(compiled(BOOKS, back, services=["archive"]).plan.groups) == {"archive"}
    fences = {
        **BOOKS.estate.fences,
        "home": (BOOKS.estate.fences["home"][0], BOOKS.estate.fences["home"][-1]),
    }
    books = replace(BOOKS, estate=replace(BOOKS.estate, fences=fences))
    made = compiled(books, night(FAILOVER, there), services=["archive"])
    assert made.plan.stops == ()


# --- home may be gone -------------------------------------------------------------------------


def test_a_failover_step_that_needs_the_lost_site_is_refused_with_every_such_step() -> None:
    """Names that only home's server answers: nobody abroad could ever be proven to be served."""
    servers = {name: replace(server, site="home") for name, server in BOOKS.estate.name_servers.items()}
    books = replace(BOOKS, estate=replace(BOOKS.estate, name_servers=servers))
    with pytest.raises(InputError) as caught:
        compiled(books, FAILOVER)
    found = {problem.path for problem in caught.value.problems}
    assert "citizens/name/update-embassy-citizens.example-a" in found
    assert "names/server/answers-b1" in found
    assert all("needs home, which may be gone" in problem.message for problem in caught.value.problems)
    assert compiled(books, SWITCHOVER).plan.source == "home", "a planned move may need both sites"


def test_done_is_asked_at_the_targets_name_servers_alone() -> None:
    servers = {**BOOKS.estate.name_servers, "nb2": NameServer("nb2", "embassy", "10.2.0.54")}
    books = replace(BOOKS, estate=replace(BOOKS.estate, name_servers=servers))
    step = compiled(books, FAILOVER).plan.steps["citizens/done-when/http-1-from-vantage"]
    assert step.action.arguments["resolve_at"] == ["nb", "nb2"]


def test_people_choose_how_the_old_side_comes_back() -> None:
    """Rewound unless they say otherwise; the choice is part of what they confirm."""
    books = estates.synthetic()
    found = {
        how: compile_plan(
            books.estate, books.runbooks, Operation.FAILBACK, states=estates.standing(books, FAILBACK),
            catalog=estates.CATALOG, rejoin=how, file_digests=books.files,
        ).plan
        for how in ("rewind", "reclone")
    }  # fmt: skip
    for how, made in found.items():
        rejoins = [step for step in made.steps.values() if step.action.kind == "postgresql.rejoin"]
        assert rejoins
        assert {step.action.arguments["how"] for step in rejoins} == {how}
    assert found["rewind"] == compiled(books, FAILBACK).plan
    assert found["rewind"].digest != found["reclone"].digest
