"""The loss that people are told to expect: 0 is said only with proof that commits waited, never by the row alone."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.bootstrap.observe import expected_loss_text
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
