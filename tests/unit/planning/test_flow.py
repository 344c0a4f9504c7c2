"""Waves and expected durations: gates count, the first fence counts, nothing unknown counts as nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from orchestrator.core.model import ProofKind, Stage
from orchestrator.core.plan import Gate, Plan, Role, ServiceFacts, Step
from orchestrator.errors import InputError
from orchestrator.planning.flow import (
    Expectation,
    befores,
    expectations,
    must_be_able_to_start,
    names_kept_ms,
    waves,
)
from orchestrator.planning.render import plan_text
from tests.builders import a_failover, a_mixed_failover, a_plan, a_step
from tests.unit.planning import estates
from tests.unit.planning.estates import FAILBACK, FAILOVER, SWITCHOVER, plan_of

TIMES = {
    "db/inspect": 7_000, "db/stop": 300, "site/power": 4_000, "db/close": 10, "db/verify": 20, "db/measure": 5,
    "db/promote": 100, "db/epoch": 10, "db/open": 10, "svc/front/route": 30,
}  # fmt: skip


def test_gates_make_waves_as_needs_do() -> None:
    assert waves(a_failover()) == [
        ["db/inspect"],
        ["db/stop", "site/power", "db/close", "db/verify"],
        ["db/measure"],
        ["db/promote"],
        ["db/epoch"],
        ["db/open"],
        ["svc/front/route"],
    ]


def test_a_gate_that_waits_for_its_own_step_is_shown_as_its_path() -> None:
    ring = a_plan(
        a_step("svc/own", gates=(Gate.AUTHORISED, Gate.GRANTED)),
        a_step("svc/epoch", Role.EPOCH, needs=("svc/own",), stage=Stage.PROMOTE),
    )
    with pytest.raises(InputError, match="svc/own → svc/epoch → svc/own"):
        must_be_able_to_start(ring)


def test_preflight_comes_before_the_order_and_counts_for_nothing() -> None:
    found = _of_route(TIMES)
    chain = ("db/stop", "db/measure", "db/promote", "db/epoch", "db/open", "svc/front/route")
    assert found == Expectation(300 + 5 + 100 + 10 + 10 + 30, (), chain)


def test_the_first_proof_counts() -> None:
    found = _of_route({**TIMES, "db/stop": 9_000})
    assert found.total_ms == 4_000 + 5 + 100 + 10 + 10 + 30
    assert found.path[0] == "site/power"


def test_a_fence_that_nobody_timed_does_not_spoil_one_that_is_known() -> None:
    assert _of_route({**TIMES, "site/power": None}).total_ms == 300 + 5 + 100 + 10 + 10 + 30


def test_what_is_unknown_is_said_and_never_summed_as_nothing() -> None:
    found = _of_route({**TIMES, "db/promote": None, "db/verify": None})
    assert found.total_ms is None
    assert found.unknown == ("db/verify", "db/promote")
    assert found.known_ms == 300 + 5 + 10 + 10 + 30


def _of_route(times: Mapping[str, int | None]) -> Expectation:
    """The expectation of the one service whose route is the last step."""
    plan = a_failover()
    steps = {
        name: step if name != "svc/front/route" else _serving(plan, name) for name, step in plan.steps.items()
    }
    return expectations(_with(plan, steps), times)["svc"]


def _serving(plan: Plan, name: str) -> Step:
    return replace(plan.steps[name], service="svc", up=True)


def _with(plan: Plan, steps: Mapping[str, Step]) -> Plan:
    return replace(plan, steps=steps, services={"svc": ServiceFacts("svc", "g", 1, "", "", 1, 1, 1)})


def test_a_planned_move_counts_from_the_refusal_of_writes() -> None:
    """Closing, verifying and the checkpoint happen while home still serves; so does all of a reprotect."""
    for night in (SWITCHOVER, FAILBACK):
        plan = plan_of(estates.good(), night)
        times = dict.fromkeys(plan.steps, 1)
        before = {"registers-db/verify", "registers-db/close", "registers-db/checkpoint-before"}
        slow = times | dict.fromkeys(before, 1_000_000)
        if night is FAILBACK:
            slow |= {"registers-db/rejoin-h1": 10**7, "registers/go-home": 10**8}
        assert expectations(plan, slow) == expectations(plan, times)
        later = expectations(plan, times | {"registers-db/freeze": 101})
        assert (
            later["population-register"].known_ms
            == 100 + expectations(plan, times)["population-register"].known_ms
        )


def test_an_unplanned_move_counts_from_the_order() -> None:
    plan = plan_of(estates.good(), FAILOVER)
    times = dict.fromkeys(plan.steps, 1)
    longer = expectations(plan, times | {"registers-db/verify": 1_001})["population-register"]
    assert longer.known_ms == 1_000 - 1 + expectations(plan, times)["population-register"].known_ms


def test_names_that_clients_hold_are_the_longest_ttl() -> None:
    plan = plan_of(estates.synthetic(), FAILOVER)
    assert names_kept_ms(plan) == {"citizens": 60_000}


def test_a_demoted_proof_speaks_for_its_own_unit_alone() -> None:
    """Two databases on one machine: stopping the one proves nothing about the other."""
    plan = a_plan(
        a_step("one/stop", Role.FENCE, stage=Stage.FENCE, fences=("h1",), proves=ProofKind.DEMOTED),
        a_step("two/stop", Role.FENCE, stage=Stage.FENCE, fences=("h1",), proves=ProofKind.DEMOTED),
        a_step("site/off", Role.FENCE, stage=Stage.FENCE, fences=("h1",), proves=ProofKind.POWER_OFF),
        a_step("one/promote", Role.PROMOTE, gates=(Gate.FENCED,)),
        fence_hosts={"one": ("h1",), "two": ("h1",)},
    )
    assert set(befores(plan)["one/promote"]) == {"one/stop", "site/off"}


def test_a_promotion_stands_after_the_measurement_of_the_documents_beside_it() -> None:
    plan = a_mixed_failover()
    assert {"db/measure", "docs/measure"} <= set(befores(plan)["db/promote"])
    (gate,) = (line for line in plan_text(plan, {}, (), None).splitlines() if "gate: the loss" in line)
    assert "the loss of db, docs measured after the fence" in gate
