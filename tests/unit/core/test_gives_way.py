"""What the first write does not wait for is started a little later, for a bounded time; fences never are."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.inputs import Pause, Resume
from orchestrator.core.model import Operation, Stage
from orchestrator.core.orders import GIVE_WAY_TIMER
from orchestrator.core.plan import GIVE_WAY_MS, URGENCY_LAST, Plan, Role, ServiceFacts, urgencies
from orchestrator.core.states import StepState
from tests.builders import a_wide_failover
from tests.story import Story, ordered

LATER = {"db2/close", "db2/verify", "docs/files/verify"}
FENCES = {"db1/freeze", "db1/stop", "db2/stop", "docs/files/stop", "site/power"}
URGENT = {"db1/close", "db1/verify"}


def a_plan(parallel_steps: int = 32) -> Plan:
    """Databases of tiers 1 and 2 and documents of tier 3, whose site shares one fence."""
    made = a_wide_failover()
    tiers = {"g1": 1, "g2": 2, "g3": 3}
    facts = {f"of-{g}": ServiceFacts(f"of-{g}", g, tier, "", "", 1, 1, 1) for g, tier in tiers.items()}
    groups = {name: replace(move, services=(f"of-{name}",)) for name, move in made.groups.items()}
    limits = replace(made.limits, parallel_steps=parallel_steps)
    return replace(made, services=facts, groups=groups, limits=limits)


def states(story: Story, *steps: str) -> set[StepState]:
    return {story.run.step(step).state for step in steps}


def test_fences_give_way_to_nothing_and_the_rest_waits_for_the_urgent() -> None:
    story = ordered(plan=a_plan())
    assert story.executing() >= FENCES | URGENT
    assert states(story, *LATER) == {StepState.PENDING}, "what has not begun is not said to run"
    story.ok("db1/verify")
    assert LATER.isdisjoint(story.executing()), "the other one is at work"


def test_the_time_of_giving_way_is_bounded() -> None:
    story = ordered(plan=a_plan())
    left_seconds = story.timers()[GIVE_WAY_TIMER] - story.now
    assert 0 < left_seconds <= GIVE_WAY_MS / 1000
    story.wake()
    assert story.executing() >= LATER
    assert story.executing() >= URGENT
    assert GIVE_WAY_TIMER not in story.timers(), "once, whatever the urgent still wait for"


def test_what_gave_way_begins_when_nothing_urgent_is_left() -> None:
    story = ordered(plan=a_plan())
    for step in sorted(FENCES - {"db1/freeze"} | {"db1/freeze"} | URGENT):
        if step in ("db1/freeze", "db1/stop", "site/power", *URGENT):
            story.failed(step)
    assert story.executing() >= LATER


def test_nothing_that_gave_way_begins_after_a_pause() -> None:
    story = ordered(plan=a_plan())
    story.tell(Pause(story.next(), "ann"))
    for step in sorted(story.executing()):
        story.ok(step)
    assert story.executing() == set()
    assert states(story, *LATER) == {StepState.PENDING}
    story.tell(Resume(story.next(), "ann"))
    story.proceed()
    assert LATER.isdisjoint(story.executing()), "the fences are looked at again first"
    story.wake()
    assert story.executing() >= LATER


def test_nothing_that_gave_way_begins_after_an_abort() -> None:
    story = ordered(plan=a_plan())
    story.abort()
    for step in sorted(story.executing()):
        story.lost(step)
    assert LATER.isdisjoint(story.executing())
    assert states(story, *LATER) == {StepState.PENDING}


def test_a_new_driver_after_a_reboot_waits_no_longer_than_the_first() -> None:
    """The monotonic clock began anew: the moment of the old driver would lie far ahead."""
    story = ordered(plan=a_plan())
    story.boot_ns, story.now = 0, 0.0
    story.drive()
    assert story.run.urgent_since is None or story.run.urgent_since.mono_ns < 10**9
    end = story.timers().get(GIVE_WAY_TIMER)
    assert end is None or end - story.now <= GIVE_WAY_MS / 1000


def test_what_gives_way_takes_no_room_from_the_urgent() -> None:
    story = ordered(plan=a_plan(parallel_steps=7))
    assert story.executing() == FENCES | URGENT
    for limit in range(1, 7):
        assert LATER.isdisjoint(ordered(plan=a_plan(parallel_steps=limit)).executing())


def test_urgent_is_what_the_first_write_waits_for() -> None:
    """The plan's own needs say what that is: a walk from the routes down must find the same."""
    plan = a_wide_failover()
    found = urgencies(plan)
    urgent = {name for name, urgency in found.items() if urgency < URGENCY_LAST}
    waited_for: set[str] = set()
    ahead = [s.id for s in plan.steps.values() if s.role in (Role.OPEN, Role.EPOCH)] + ["front/embassy"]
    while ahead:
        name = ahead.pop()
        if name not in waited_for:
            waited_for.add(name)
            ahead += plan.steps[name].needs
    before = {s.id for s in plan.steps.values() if s.stage in (Stage.FREEZE, Stage.FENCE, Stage.VERIFY_DATA)}
    late = {s.id for s in plan.steps.values() if s.stage is Stage.PREFLIGHT}
    assert urgent == (waited_for | before) - late
    assert {"db1/checkpoint", "svc/call", "svc/own", "db1/inspect"}.isdisjoint(urgent)
    assert "front/home" not in urgent, "a debt at the lost side, which may be silent for seconds"
    planned = urgencies(replace(plan, operation=Operation.SWITCHOVER))
    assert planned["front/home"] < URGENCY_LAST, "clients still come through the old side's proxy"
    assert found["db1/promote"] < found["front/embassy"]


def test_a_higher_tier_gives_way_and_one_that_holds_no_state_is_not_the_first() -> None:
    plan = a_plan()
    found = urgencies(plan)
    urgent = {name for name, urgency in found.items() if urgency < URGENCY_LAST}
    assert {"db1/promote", "db1/stop", "front/embassy"} <= urgent
    assert {"db2/promote", "db2/stop", "docs/files/publish"}.isdisjoint(urgent)
    stateless = replace(plan.groups["g1"], units=())
    found = urgencies(replace(plan, groups={**plan.groups, "g1": stateless}))
    assert found["db2/promote"] < URGENCY_LAST
