"""A count over a while bounds the rate behind it: the stated loss is a bound, so chance may not break it."""

from __future__ import annotations

import random

import pytest

from orchestrator.actions.postgresql_verify import SECOND_NS, rate_bound

DRAWS = 400
MISSED_SHARE_MAX = 0.01  # three roots of a count: 2 in 1,000, and a few more where it is small


def counted(chance: random.Random, rate: float) -> int:
    """How many rows come within a second, where each comes by itself at this rate."""
    count, at = 0, chance.expovariate(rate)
    while at < 1.0:
        count, at = count + 1, at + chance.expovariate(rate)
    return count


@pytest.mark.parametrize("rate", [2, 20, 100, 500])
def test_the_rate_behind_a_count_is_within_its_bound(rate: int) -> None:
    chance = random.Random(rate)
    counts = [counted(chance, rate) for _ in range(DRAWS)]
    missed = sum(rate_bound(count, SECOND_NS) < rate for count in counts)
    bare = sum(count < rate for count in counts)
    print(f"{rate} rows/s: {missed} of {DRAWS} seconds would state too little, of the bare count {bare}")
    assert missed <= MISSED_SHARE_MAX * DRAWS
    assert bare > DRAWS / 4, "without the margin"


@pytest.mark.parametrize(
    ("count", "nanoseconds", "bound"),
    [(0, SECOND_NS, 3), (100, SECOND_NS, 133), (100, 2 * SECOND_NS, 67), (10_000, SECOND_NS, 10_303), (1, 1, 7 * SECOND_NS)],
)  # fmt: skip
def test_it_is_three_roots_above_the_count_and_rounded_up(count: int, nanoseconds: int, bound: int) -> None:
    assert rate_bound(count, nanoseconds) == bound
