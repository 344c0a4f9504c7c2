"""How far replay is behind: what a primary that died was in the middle of sending is no lag, whenever one looks."""

from __future__ import annotations

import pytest

from orchestrator.actions.postgresql_verify import RECORD_BYTES_MAX, _lag_ms
from orchestrator.drivers.postgresql_facts import Facts

NOW_NS = 3_600_000_000_000
LATE_MS = 3_600_000


def a_standby(backlog_bytes: int, receiver: str | None) -> Facts:
    received = f"0/{0x1000000 + backlog_bytes:X}"
    return Facts(
        True, "7", 1, None, received, "0/1000000", "not paused", "0", receiver, None, 0, NOW_NS, True, "", "on",
        170000, 700, 700, 0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("backlog_bytes", "receiver", "lag_ms"),
    [
        (0, "streaming", 0),
        (200, "streaming", LATE_MS),
        (200, None, 0),
        (RECORD_BYTES_MAX, "waiting", 0),
        (RECORD_BYTES_MAX + 1, None, LATE_MS),
    ],
)
def test_an_unfinished_record_of_a_primary_that_is_gone_is_no_lag(
    backlog_bytes: int, receiver: str | None, lag_ms: int
) -> None:
    assert _lag_ms(a_standby(backlog_bytes, receiver)) == lag_ms
