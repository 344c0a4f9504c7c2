"""Only what the first write waits for is urgent, and the rest gives way for a bounded time, once."""

from __future__ import annotations

import dataclasses

from orchestrator.core.effects import Effect, Execute, WakeAt
from orchestrator.core.model import Operation, Stage
from orchestrator.core.plan import URGENCY_LAST, Role, ServiceFacts, urgencies
from orchestrator.engine.precedence import GIVE_WAY_SECONDS, Precedence
from tests.builders import a_wide_failover

FENCE, CHECKPOINT, CALL = "db1/stop", "db1/checkpoint", "svc/call"


def ordered(*names: str) -> list[Effect]:
    return [Execute(name, 1) for name in names]


def held(order: Precedence, moment: float, *names: str, begun: tuple[str, ...] = ()) -> set[str]:
    _, back = order.settle(ordered(*names), a_plan, set(ordered(*begun)), moment)
    return {effect.step for effect in back if isinstance(effect, Execute)}


a_plan = a_wide_failover()


def test_the_rest_gives_way_for_a_bounded_time_and_only_once() -> None:
    order = Precedence()
    assert held(order, 5.0, CHECKPOINT, CALL) == set(), "nothing urgent is at work"
    assert held(order, 10.0, CHECKPOINT, FENCE) == {CHECKPOINT}
    assert held(order, 10.0, CHECKPOINT, FENCE, begun=(CHECKPOINT,)) == set(), "what goes on, goes on"
    assert held(order, 10.0, CHECKPOINT) == set(), "the urgent has ended"
    assert held(order, 10.0 + GIVE_WAY_SECONDS * 0.99, CHECKPOINT, CALL, FENCE) == {CHECKPOINT, CALL}
    assert held(order, 10.0 + GIVE_WAY_SECONDS, CHECKPOINT, CALL, FENCE) == set()
    assert held(order, 99.0, CHECKPOINT, CALL, FENCE) == set()


def test_all_that_is_ordered_comes_back_the_urgent_first() -> None:
    timer = WakeAt("proof", 7)
    wanted, _ = Precedence().settle([timer, *ordered(CHECKPOINT, "db1/promote")], a_plan, set(), 0.0)
    assert set(wanted) == {timer, *ordered(CHECKPOINT, "db1/promote")}
    assert wanted[0] == Execute("db1/promote", 1)


def test_urgent_is_what_the_first_write_waits_for() -> None:
    """The plan's own needs say what that is: a walk from the routes down must find the same."""
    found = urgencies(a_plan)
    urgent = {name for name, urgency in found.items() if urgency < URGENCY_LAST}
    waited_for: set[str] = set()
    ahead = [
        step.id for step in a_plan.steps.values() if step.role is Role.OPEN or step.id == "front/embassy"
    ]
    while ahead:
        name = ahead.pop()
        if name not in waited_for:
            waited_for.add(name)
            ahead += a_plan.steps[name].needs
    before = {
        s.id for s in a_plan.steps.values() if s.stage in (Stage.FREEZE, Stage.FENCE, Stage.VERIFY_DATA)
    }
    late = {s.id for s in a_plan.steps.values() if s.stage is Stage.PREFLIGHT}
    assert urgent == (waited_for | before) - late
    assert {"db1/checkpoint", "svc/call", "svc/own", "db1/inspect"}.isdisjoint(urgent)
    assert "front/home" not in urgent, "a debt at the lost side, which may be silent for seconds"
    planned = urgencies(dataclasses.replace(a_plan, operation=Operation.SWITCHOVER))
    assert planned["front/home"] < URGENCY_LAST, "clients still come through the old side's proxy"
    assert found["db1/promote"] < found["front/embassy"]


def test_a_higher_tier_and_what_holds_no_state_give_way() -> None:
    tiers = {"g1": 1, "g2": 2, "g3": 0}
    facts = {f"of-{g}": ServiceFacts(f"of-{g}", g, tier, "", "", 1, 1, 1) for g, tier in tiers.items()}
    groups = {
        name: dataclasses.replace(move, services=(f"of-{name}",), units=() if name == "g3" else move.units)
        for name, move in a_plan.groups.items()
    }
    found = urgencies(dataclasses.replace(a_plan, services=facts, groups=groups))
    urgent = {name for name, urgency in found.items() if urgency < URGENCY_LAST}
    assert {"db1/promote", "db1/stop", "front/embassy"} <= urgent
    assert {"db2/promote", "db2/stop"}.isdisjoint(urgent)
