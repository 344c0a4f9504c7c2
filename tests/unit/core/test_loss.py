"""The loss that is stated before a promotion: never rounded down, zero only with synchronous proof."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orchestrator.core.loss import lsn_number, state_loss
from orchestrator.core.values import Json
from tests.builders import START_NS, at
from tests.story import LOCAL, REMOTE

SECOND_NS = 1_000_000_000


def stated(
    evidence: Mapping[str, Json], fenced_ns: int | None = START_NS + 2 * SECOND_NS
) -> tuple[int | None, ...]:
    loss = state_loss("db", evidence, fenced_ns, at(9))
    return loss.milliseconds, loss.bytes, loss.rows_bound


def test_zero_where_every_commit_waited_for_the_other_site() -> None:
    assert stated(REMOTE) == (0, 0, 0)
    assert stated(REMOTE, None) == (0, 0, 0)


def test_seconds_are_the_proof_less_the_last_commit_abroad() -> None:
    assert stated(LOCAL)[:2] == (2_000, 32)
    assert stated({**LOCAL, "last_commit_ns": START_NS + 1})[0] == 2_000, "a fraction counts as whole"


def test_without_a_fence_or_a_heartbeat_nobody_knows() -> None:
    assert stated(LOCAL, None) == (None, 32, None)
    assert stated({**LOCAL, "heartbeat_ns": None}) == (None, 32, None)
    assert stated({**LOCAL, "last_commit_ns": None}) == (None, 32, None)


@pytest.mark.parametrize(
    ("later_ms", "milliseconds"), [(0, 1), (20, 1), (1_000, 1), (1_001, None), (60_000, None)]
)
def test_clocks_that_differ_a_little_never_make_it_zero_and_much_make_it_unknown(
    later_ms: int, milliseconds: int | None
) -> None:
    last = START_NS + 2 * SECOND_NS + later_ms * 1_000_000
    assert stated({**LOCAL, "last_commit_ns": last})[0] == milliseconds


@pytest.mark.parametrize(
    ("offset_ms", "milliseconds"), [(5_000, 7_000), (12, 2_012), (0, 2_000), (-5_000, 2_000), (None, 2_000)]
)
def test_a_clock_that_was_seen_ahead_is_counted_and_one_behind_makes_nothing_smaller(
    offset_ms: int | None, milliseconds: int
) -> None:
    evidence = {**LOCAL, "clock_offset_ms": offset_ms}
    assert state_loss("db", evidence, START_NS + 2 * SECOND_NS, at(9)).milliseconds == milliseconds


def test_the_word_that_a_site_is_lost_is_told_as_what_it_is() -> None:
    loss = state_loss("db", LOCAL, START_NS + 2 * SECOND_NS, at(9), "ann")
    assert loss.milliseconds == 2_000
    assert loss.basis.endswith(
        "by the word of ann alone that the site is lost: nobody saw it closed, and what it still takes is not counted"
    )
    assert "by the word" not in state_loss("db", LOCAL, START_NS + 2 * SECOND_NS, at(9)).basis


def test_a_time_of_loss_before_what_has_arrived_bounds_nothing() -> None:
    """Looks go on after the old side was closed; where a mistyped time stands for the proof, they speak against it."""
    looks = {**LOCAL, "is_look": True, "last_commit_ns": START_NS + 60 * SECOND_NS}
    assert state_loss("docs", looks, START_NS, at(9)).milliseconds == 1
    assert state_loss("docs", looks, START_NS, at(9), "ann").milliseconds is None


@pytest.mark.parametrize(
    ("seen", "told"), [({"clock_offset_ms": -12}, "; the old side's clock: -12 ms"),
                       ({"clock_offset_ms": None}, "; the old side's clock was not seen"), ({}, "")],
)  # fmt: skip
def test_how_far_the_clocks_are_apart_is_stated(seen: Mapping[str, Json], told: str) -> None:
    loss = state_loss("db", {**LOCAL, **seen}, START_NS + 2 * SECOND_NS, at(9))
    assert loss.basis == f"fence proof's time - last commit present abroad{told}"


def test_bytes_are_known_only_with_both_ends() -> None:
    assert stated({**LOCAL, "home_lsn": None})[1] is None
    assert stated({**LOCAL, "received_lsn": "0/30", "home_lsn": "0/10"})[1] == 0
    assert lsn_number("16/B374D848") == (0x16 << 32) + 0xB374D848
