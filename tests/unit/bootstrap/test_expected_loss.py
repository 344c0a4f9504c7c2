"""The loss that people are told to expect: 0 is said only with proof that commits waited, never by the row alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.bootstrap.expected import INSPECT, Expected, expected, expected_loss
from orchestrator.cli import _acceptance as acceptance
from orchestrator.core.fold_steps import set_step
from orchestrator.core.guards import DECIDING_MS
from orchestrator.core.inputs import LOSS_UNKNOWN, LOSS_WITHIN_RPO
from orchestrator.core.plan import Plan, ServiceFacts
from orchestrator.core.run import Run, start, with_step
from tests.builders import a_wide_failover, created
from tests.unit.planning.estates import FAILOVER, good, plan_of

NOW_NS = 1_000_000_000_000
ABROAD = {
    "writers": {"land": {"durability": "remote"}}, "waits": True, "last_commit_ns": NOW_NS - 3_000_000_000,
    "heartbeat_ns": NOW_NS - 3_000_000_000,
}  # fmt: skip
SILENT = {"reachable": False}
NONE = "0 (every acknowledged commit waited for the embassy)"


@pytest.mark.parametrize(
    ("abroad", "home", "said"),
    [
        (ABROAD, {"role": "primary", "waits": True}, NONE),
        (ABROAD, SILENT, NONE),
        (ABROAD, {"role": "primary", "waits": False}, "up to 3s"),
        ({**ABROAD, "waits": False}, {"role": "primary", "waits": True}, "up to 3s"),
        ({**ABROAD, "waits": False}, SILENT, "up to 3s"),
        ({**ABROAD, "waits": False, "heartbeat_ns": None}, SILENT, "unknown"),
        ({**ABROAD, "writers": {"land": {"durability": "local"}}}, SILENT, "up to 3s"),
    ],
)
def test_no_loss_is_expected_only_where_it_is_proven(
    abroad: dict[str, Any], home: dict[str, Any], said: str
) -> None:
    found = {"sites": {"home": home, "embassy": abroad}}
    loss = expected_loss("registers-db", found, plan_of(good(), FAILOVER), NOW_NS)
    assert loss.text.startswith(said)
    wanted = {"0": 0, "up": 4_000, "unknown": None}[said.split()[0]]
    assert loss.milliseconds(NOW_NS + 1_000_000_000) == wanted, "it grows with the time"


def test_a_clock_at_home_that_is_ahead_makes_the_expected_loss_larger() -> None:
    home = {"role": "primary", "waits": False, "clock_offset_ms": 2_000}
    found = {"sites": {"home": home, "embassy": {**ABROAD, "waits": False}}}
    loss = expected_loss("registers-db", found, plan_of(good(), FAILOVER), NOW_NS)
    assert loss.text.startswith("up to 5s")
    assert loss.milliseconds(NOW_NS) == 5_000


def test_who_says_yes_in_advance_is_told_the_loss_and_the_limit_before_the_order() -> None:
    """The limit is accepted without a question: what it is of must have been said."""
    plan = plan_of(good(), FAILOVER)
    run = start(plan, created())
    (inspect,) = [step for step in plan.steps.values() if step.action.kind == INSPECT]
    finding = {"text": "no slot at home", "mend": "make one"}
    seen = {"sites": {"home": SILENT, "embassy": {**ABROAD, "waits": False}}, "findings": [finding]}
    run = set_step(run, inspect, with_step(run.step(inspect.id), evidence=seen), run.last)
    losses = expected(run, {"gazette/documents": Expected("not measured", is_measured=False)})
    lines = acceptance.before_yes(run, losses, 600_000)
    assert any("finding: no slot at home" in line for line in lines)
    assert f"{inspect.unit}: expected loss now: up to" in "\n".join(lines)
    assert "gazette/documents: expected loss now: not measured" in lines
    assert lines[-1].startswith("By confirming you accept at most 10m of data loss;")


def by_group(plan: Plan, rpos_ms: Mapping[str, int]) -> Plan:
    """The same with one service for each group, whose RPO is given."""
    facts = ServiceFacts("", "", 1, "ann", "law", 30_000, 0, 60_000)
    services = {f"of-{g}": replace(facts, name=f"of-{g}", group=g, rpo_ms=ms) for g, ms in rpos_ms.items()}
    return replace(plan, services=services)


def above(run: Run, losses: Mapping[str, Expected], limit_ms: int) -> dict[str, int | None]:
    return acceptance.above(run, losses, limit_ms, NOW_NS)


def test_each_group_may_lose_what_its_own_services_allow() -> None:
    run = start(by_group(a_wide_failover(), {"g1": 30_000, "g3": 600_000}), created())
    lost = {unit: Expected("", NOW_NS - 44_000_000_000) for unit in ("db1", "docs/files")}
    assert above(run, lost, LOSS_WITHIN_RPO) == {"db1": 44_000}, (
        "44 s of documents are within their 10 minutes"
    )
    assert above(run, lost, 44_000) == {}
    assert set(above(run, lost, 43_999)) == {"db1", "docs/files"}
    assert above(run, lost, LOSS_UNKNOWN) == {}
    told = acceptance.text(LOSS_WITHIN_RPO, run.plan)
    assert "data loss up to the RPO: at most 30s of g1, nothing of g2, at most 10m of g3;" in told


def test_what_nobody_can_bound_is_above_any_limit_and_what_nobody_measures_is_held_by_none() -> None:
    run = start(by_group(a_wide_failover(), {"g1": 30_000}), created())
    lost = {"db1": Expected("unknown"), "docs/files": Expected("not measured", is_measured=False)}
    assert above(run, lost, 600_000) == {"db1": None}
    assert above(run, {"db1": Expected("0", is_nothing=True)}, 0) == {}


def test_the_limit_that_is_offered_lets_them_pass_with_time_to_decide() -> None:
    assert acceptance.enough_ms({"a": 44_100, "b": 3}) == 45_000 + DECIDING_MS
    assert acceptance.enough_ms({"a": 44_100, "b": None}) == LOSS_UNKNOWN
    assert acceptance.limit_text(345_000) == "5m45s"
    assert acceptance.limit_text(LOSS_UNKNOWN) == "unknown"


def test_a_group_that_stands_at_the_target_already_loses_nothing_whatever_else_moves() -> None:
    plan = a_wide_failover()
    plan = replace(plan, groups={**plan.groups, "g1": replace(plan.groups["g1"], active="embassy")})
    seen = {"sites": {"home": SILENT, "embassy": {**ABROAD, "waits": False}}}
    assert expected_loss("db1", seen, plan, NOW_NS).milliseconds(NOW_NS) == 0
    assert expected_loss("db2", seen, plan, NOW_NS).milliseconds(NOW_NS) == 3_000
