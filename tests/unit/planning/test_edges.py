"""What waits for what, told of every plan of every estate, and the edges that single rules add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

import pytest

from orchestrator.components.haproxy import HAProxy
from orchestrator.components.manual import Manual
from orchestrator.components.postgresql import PostgreSQL
from orchestrator.components.service import Service
from orchestrator.core.model import Operation, OwnStep, Stage
from orchestrator.core.plan import Gate, Plan, Role, Step
from orchestrator.errors import InputError
from orchestrator.planning.flow import befores
from tests.unit.planning import estates
from tests.unit.planning.estates import (
    FAILBACK,
    FAILBACK_PROTECTED,
    FAILOVER,
    NIGHTS,
    REPROTECT,
    SWITCHOVER,
    Books,
    named,
    plan_of,
)


@cache
def plan(books: str, night: str) -> Plan:
    return plan_of(estates.good() if books == "good" else estates.synthetic(), NIGHTS[night])


EVERY = pytest.mark.parametrize(
    ("books", "night"), [(books, night) for books in ("good", "synthetic") for night in NIGHTS]
)


def steps(found: Plan, role: Role) -> list[Step]:
    return [step for step in found.steps.values() if step.role is role]


def before(found: Plan, step: str) -> set[str]:
    """All that stands before a step, needs and gates together."""
    asked, seen, todo = befores(found), set[str](), [step]
    while todo:
        for other in asked.get(todo.pop(), ()):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


# --- rules of every plan ----------------------------------------------------------------------


@EVERY
def test_nothing_needs_a_fence(books: str, night: str) -> None:
    found = plan(books, night)
    fences = {step.id for step in steps(found, Role.FENCE)}
    assert all(fences.isdisjoint(step.needs) for step in found.steps.values())


@EVERY
def test_a_promotion_waits_for_close_verify_and_fence(books: str, night: str) -> None:
    found = plan(books, night)
    moves = found.source != ""
    assert bool(steps(found, Role.PROMOTE)) is moves
    for promote in steps(found, Role.PROMOTE):
        mine = [step for step in found.steps.values() if step.unit == promote.unit]
        wanted = {step.id for step in mine if step.role in (Role.CLOSE, Role.VERIFY, Role.LOSS)}
        assert wanted
        assert wanted <= set(promote.needs)
        assert {Gate.AUTHORISED, Gate.FENCED, Gate.VERIFIED} <= set(promote.gates)
        assert (Gate.LOSS_ACCEPTED in promote.gates) is (found.operation is Operation.FAILOVER)
        hosts = found.groups[promote.group].fence_hosts[promote.unit]
        fenced = {host for step in mine for host in step.fences}
        assert set(hosts) == fenced, "every old member has a fence of its own"


@EVERY
def test_nothing_opens_before_the_epoch_gate(books: str, night: str) -> None:
    found = plan(books, night)
    for step in found.steps.values():
        late_open = step.role is Role.OPEN and step.stage is not Stage.FREEZE
        if step.role in (Role.ROUTE, Role.DONE) or late_open:
            assert Gate.GRANTED in step.gates, step.id
            epochs = {e.id for e in steps(found, Role.EPOCH) if e.group == step.group}
            assert epochs
            assert epochs <= before(found, step.id)


@EVERY
def test_nothing_changes_anything_before_people_have_confirmed(books: str, night: str) -> None:
    for step in plan(books, night).steps.values():
        if step.stage is Stage.PREFLIGHT:
            assert not step.action.mutates
            assert step.role is Role.EVIDENCE
        else:
            assert Gate.AUTHORISED in step.gates, step.id


@EVERY
def test_every_step_is_bounded_says_why_and_stands_in_order(books: str, night: str) -> None:
    seen: set[str] = set()
    for step in plan(books, night).steps.values():
        assert step.timeout_ms > 0
        assert step.why
        assert step.retry.attempts >= 1
        assert set(step.needs) <= seen, f"{step.id} is listed before what it needs"
        seen.add(step.id)


@EVERY
def test_only_a_failback_that_reprotects_asks_before_it_goes_home(books: str, night: str) -> None:
    found = plan(books, night)
    gates = {step.group: step.id for step in found.steps.values() if step.id.endswith("/go-home")}
    unprotected = {group for group, move in found.groups.items() if move.units}
    assert set(gates) == (unprotected if NIGHTS[night] is FAILBACK else set())
    for step in found.steps.values():
        if step.group in gates and step.stage not in (Stage.AUTHORISE, Stage.PREFLIGHT):
            assert gates[step.group] in before(found, step.id), step.id
    for group, gate in gates.items():
        protects = {
            s.id for s in steps(found, Role.PROTECT) if s.group == group and s.stage is Stage.AUTHORISE
        }
        assert protects <= before(found, gate)


# --- single edges -----------------------------------------------------------------------------


def needs(found: Plan, step: str) -> set[str]:
    return set(found.steps[step].needs)


def test_a_service_goes_on_as_soon_as_what_it_needs_is_up() -> None:
    found = plan("synthetic", "failover")
    start = "taxes/application/start-b1"
    ups = {step.id for step in found.steps.values() if step.service == "citizens" and step.up}
    assert ups <= needs(found, start)
    done = {step.id for step in steps(found, Role.DONE)}
    looks = {step.id for step in steps(found, Role.EVIDENCE)}
    others = {step for step in before(found, start) if step in found.steps and found.steps[step].best_effort}
    assert done.isdisjoint(before(found, start)), "being up is enough, proof is for the end"
    assert others - looks == {"main/freeze"}, "no best effort at the old side holds anybody up"


def test_routes_wait_until_the_service_is_ready_and_names_until_it_is_routed() -> None:
    found = plan("synthetic", "failover")
    ready = {"citizens/application/ready-b1", "citizens/application/ready-b2"}
    for proxy in ("pb1", "pb2"):
        assert ready <= needs(found, f"citizens/doors/route-embassy-{proxy}")
    routed = {"citizens/doors/route-embassy-pb1", "citizens/doors/route-embassy-pb2"}
    for name in ("citizens.example-a", "www.citizens.example-a"):
        assert routed <= needs(found, f"citizens/name/update-embassy-{name}")


def test_what_has_nothing_to_say_of_itself_passes_on_what_it_needs() -> None:
    """The helper has no readiness: what needs it must still wait for the database behind it."""
    books = estates.synthetic()
    taxes = replace(books.runbooks["taxes"], depends_on=())
    found = plan_of(replace(books, runbooks={**books.runbooks, "taxes": taxes}), FAILOVER)
    assert "taxes/helper/start-b1" in found.steps
    assert not any(step.up for step in found.steps.values() if step.unit == "taxes/helper")
    assert "main/open" in needs(found, "taxes/application/start-b1")


def test_done_is_asked_when_all_is_up_and_every_own_step_is_done() -> None:
    found = plan("synthetic", "failover")
    ups = {step.id for step in found.steps.values() if step.service == "citizens" and step.up}
    owns = {step for step in found.steps if step.startswith("citizens/own/")}
    for step in steps(found, Role.DONE):
        if step.service == "citizens":
            assert ups | {"main/open"} <= set(step.needs)
            assert owns <= before(found, step.id)


def test_the_old_side_is_taken_down_only_when_nothing_leads_there_any_more() -> None:
    """A closed port would be a failed request; a program that still answers refuses for sure."""
    found = plan("synthetic", "switchover")
    for host in ("a1", "a2"):
        assert {"taxes/door/route-embassy", "taxes/door/route-home"} <= needs(
            found, f"taxes/application/stop-{host}"
        )


def test_what_waited_warm_is_not_asked_for_before_people_want_to_go_home() -> None:
    """Its only need is a step of the reprotect, so nothing else would hold it back."""
    books = estates.synthetic()
    components = dict(books.runbooks["archive"].components)
    components["application"] = replace(components["application"], needs=())  # type: ignore[type-var]
    archive = replace(books.runbooks["archive"], components=components, depends_on=())
    found = plan_of(replace(books, runbooks={**books.runbooks, "archive": archive}), FAILBACK)
    assert needs(found, "archive/application/ready-a1") == {"archive/application/start-a1", "archive/go-home"}


def test_a_silent_service_passes_on_what_it_depends_on() -> None:
    books = estates.synthetic()
    silent = replace(
        books.runbooks["post"], name="silent", components=named(Manual("x", {Stage.FREEZE: "stop"})), steps=()
    )
    last = replace(books.runbooks["post"], name="last", depends_on=("silent",))
    found = plan_of(replace(books, runbooks={**books.runbooks, "silent": silent, "last": last}), FAILOVER)
    assert "citizens/doors/route-embassy-pb1" in needs(found, "last/vans/confirm-start")


def test_the_freeze_of_a_planned_move_waits_for_all_that_can_be_done_while_serving() -> None:
    found = plan("good", "switchover")
    assert {"registers-db/close", "registers-db/verify", "registers-db/checkpoint-before"} <= needs(
        found, "registers-db/freeze"
    )
    assert "registers-db/freeze" in needs(found, "registers-db/stop-h1")
    assert "registers-db/verify-drained" in needs(found, "registers-db/promote")


def test_fences_of_an_unplanned_move_start_at_once() -> None:
    found = plan("synthetic", "failover")
    fences = steps(found, Role.FENCE)
    assert {fence.id for fence in fences} == {
        "main/stop-a1", "main/stop-a2", "archive/documents/stop-home", "site-home/power-off-a1",
        "site-home/power-off-a2", "site-home/network-cut-a1", "site-home/network-cut-a2",
    }  # fmt: skip
    assert all(not fence.needs for fence in fences)
    assert all(fence.timeout_ms == 5_000 for fence in fences), "one budget"


def test_the_same_kind_of_fence_can_be_had_twice() -> None:
    books = estates.synthetic()
    fences = {"home": (*books.estate.fences["home"], books.estate.fences["home"][1])}
    found = plan_of(replace(books, estate=replace(books.estate, fences=fences)), FAILOVER)
    assert {"site-home/power-off-a1", "site-home/power-off-a1-2"} <= set(found.steps)


# --- owners' own steps ------------------------------------------------------------------------


def with_steps(*own: OwnStep) -> Books:
    books = estates.good()
    book = replace(books.runbooks["population-register"], steps=own)
    return replace(books, runbooks={**books.runbooks, book.name: book})


def own(name: str, *, before: Stage | None = None, after: Stage | None = None) -> OwnStep:
    return OwnStep(name, "manual.confirm", 1_000, "none-needed", {"prompt": name}, before, after)


MINE = "population-register/own/1-it"


def closest(found: Plan, step: str) -> tuple[set[str], set[str]]:
    """What a step waits for, and what waits for it."""
    return needs(found, step), {s.id for s in found.steps.values() if step in s.needs}


def test_an_own_step_stands_between_the_stages_of_service_and_cluster() -> None:
    found = plan_of(with_steps(own("it", after=Stage.PROMOTE)), FAILOVER)
    needed, dependents = closest(found, MINE)
    assert {"registers-db/open", "registers-db/epoch"} <= needed
    assert "population-register/application/ready-e1" in dependents
    assert not any(step.startswith(("registers-db/", "land-register/")) for step in dependents)
    assert found.steps[MINE].gates == (Gate.AUTHORISED, Gate.GRANTED)


def test_an_own_step_before_promote_holds_the_whole_cluster_and_asks_for_no_epoch() -> None:
    found = plan_of(with_steps(own("it", before=Stage.PROMOTE)), FAILOVER)
    needed, dependents = closest(found, MINE)
    assert {"registers-db/verify", "registers-db/measure", "registers-db/close"} <= needed
    assert "registers-db/promote" in dependents
    assert found.steps[MINE].gates == (Gate.AUTHORISED,), "the epoch comes later: it would wait for itself"


def test_what_comes_before_an_own_step_in_a_planned_move_stays_before_it() -> None:
    """A planned freeze needs steps of later stages; an own step after it must not make a ring of them."""
    found = plan_of(with_steps(own("it", after=Stage.FREEZE)), SWITCHOVER)
    needed, dependents = closest(found, MINE)
    assert "registers-db/freeze" in needed
    assert {"registers-db/verify-drained", "registers-db/promote"} <= dependents
    assert {"registers-db/close", "registers-db/verify"}.isdisjoint(dependents)
    assert "registers-db/stop-h1" not in dependents, "no fence waits for an owner"


def test_own_steps_follow_each_other_in_the_order_of_stages() -> None:
    books = with_steps(
        own("last", before=Stage.CUTOVER), own("b", after=Stage.START), own("a", after=Stage.START)
    )
    found = plan_of(books, FAILOVER)
    prefix = "population-register/own/"
    assert f"{prefix}2-b" in needs(found, f"{prefix}3-a")
    assert f"{prefix}3-a" in needs(found, f"{prefix}1-last")


def test_an_own_step_of_a_failback_waits_until_people_want_to_go_home() -> None:
    found = plan_of(with_steps(own("it", before=Stage.FREEZE)), FAILBACK)
    assert "registers/go-home" in needs(found, MINE)


@pytest.mark.parametrize(
    "wrong",
    [
        own("it", before=Stage.PREFLIGHT),
        own("it", after=Stage.PREFLIGHT),
        own("it", before=Stage.AUTHORISE),
        own("it", before=Stage.FENCE),
        own("it", after=Stage.FENCE),
        own("it"),
        own("it", before=Stage.START, after=Stage.START),
    ],
)
def test_where_no_own_step_can_stand(wrong: OwnStep) -> None:
    with pytest.raises(InputError, match="population-register: step it"):
        plan_of(with_steps(wrong), FAILOVER)


@pytest.mark.parametrize("stage", [s for s in Stage if s not in (Stage.PREFLIGHT, Stage.FENCE)])
@pytest.mark.parametrize("night", NIGHTS.values(), ids=NIGHTS)
def test_own_steps_fit_everywhere_else(stage: Stage, night: estates.Night) -> None:
    sides = [own("after", after=stage)]
    if stage is not Stage.AUTHORISE:
        sides.append(own("before", before=stage))
    found = plan_of(with_steps(*sides), night)
    assert any("/own/" in step for step in found.steps) is (night is not REPROTECT)


# --- rings and shared clusters ----------------------------------------------------------------


def test_a_ring_of_services_is_shown_as_its_path() -> None:
    books = estates.synthetic()
    names = replace(books.runbooks["names"], depends_on=("taxes",))
    with pytest.raises(InputError, match="services wait for each other: names → taxes → citizens → names"):
        plan_of(replace(books, runbooks={**books.runbooks, "names": names}), FAILOVER)


def test_a_ring_of_components_is_shown_as_its_path() -> None:
    books = estates.synthetic()
    components = dict(books.runbooks["taxes"].components)
    components["helper"] = Service("helper", "helper", estates.AT, needs=("door",))
    taxes = replace(books.runbooks["taxes"], components=components)
    with pytest.raises(InputError, match=r"taxes: components wait for each other: .*→ door"):
        plan_of(replace(books, runbooks={**books.runbooks, "taxes": taxes}), FAILOVER)


def test_a_cluster_in_two_groups_is_refused() -> None:
    books = estates.synthetic()
    foreign = {**books.runbooks["archive"].components, "database": PostgreSQL("database", "main", "archive")}
    archive = replace(books.runbooks["archive"], components=foreign)
    with pytest.raises(InputError, match=r"cluster main is in two groups, .*: it moves once"):
        plan_of(replace(books, runbooks={**books.runbooks, "archive": archive}), FAILOVER)


def test_a_shared_cluster_moves_once() -> None:
    for night in (FAILOVER, SWITCHOVER, FAILBACK, FAILBACK_PROTECTED):
        found = plan_of(estates.synthetic(), night)
        assert [step.id for step in steps(found, Role.PROMOTE)] == ["main/promote"]
        promote = found.steps["main/promote"]
        assert promote.service == ""
        assert list(_texts(promote.action.arguments)["databases"]) == ["citizens", "taxes"]


def _texts(arguments: Mapping[str, object]) -> Mapping[str, Iterable[str]]:
    return {key: value for key, value in arguments.items() if isinstance(value, list | tuple)}


def test_a_component_that_the_target_does_not_have_is_named() -> None:
    books = estates.synthetic()
    door = HAProxy("door", {"home": ("pa1",)}, "taxes", needs=("application",))
    components = {**books.runbooks["taxes"].components, "door": door}
    taxes = replace(books.runbooks["taxes"], components=components)
    with pytest.raises(InputError, match="taxes/door: nothing is declared at embassy"):
        plan_of(replace(books, runbooks={**books.runbooks, "taxes": taxes}), FAILOVER)


@pytest.mark.parametrize("night", ["switchover", "failback-protected"])
def test_a_planned_move_freezes_nobody_before_what_waits_at_the_target_runs(night: str) -> None:
    steps = plan("synthetic", night).steps.values()
    warm = [s for s in steps if s.action.kind == "service.start" and s.stage is Stage.AUTHORISE]
    freezes = [s for s in steps if s.role is Role.FREEZE and s.group in {w.group for w in warm}]
    assert freezes
    for freeze in freezes:
        assert {w.id for w in warm if w.group == freeze.group} <= set(freeze.needs)
