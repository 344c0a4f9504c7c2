"""The loss that people are told to expect: 0 is said only with proof that commits waited, never by the row alone."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.bootstrap.expected import INSPECT, expected_loss_text
from orchestrator.cli._acceptance import before_yes
from orchestrator.core.fold_steps import set_step
from orchestrator.core.run import start, with_step
from tests.builders import created
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
    assert expected_loss_text(found, plan_of(good(), FAILOVER), NOW_NS).startswith(said)


def test_who_says_yes_in_advance_is_told_the_loss_and_the_limit_before_the_order() -> None:
    """The limit is accepted without a question: what it is of must have been said."""
    plan = plan_of(good(), FAILOVER)
    run = start(plan, created())
    (inspect,) = [step for step in plan.steps.values() if step.action.kind == INSPECT]
    finding = {"text": "no slot at home", "mend": "make one"}
    seen = {"sites": {"home": SILENT, "embassy": {**ABROAD, "waits": False}}, "findings": [finding]}
    run = set_step(run, inspect, with_step(run.step(inspect.id), evidence=seen), run.last)
    lines = before_yes(run, {"gazette/documents": "not measured"}, 600_000)
    assert any("finding: no slot at home" in line for line in lines)
    assert f"{inspect.unit}: expected loss now: up to" in "\n".join(lines)
    assert "gazette/documents: expected loss now: not measured" in lines
    assert lines[-1].startswith("By confirming you accept at most 10m of data loss;")
