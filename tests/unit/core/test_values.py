"""Texts that people read: durations, sizes, canonical JSON, the log's hash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.log import GENESIS, link
from orchestrator.core.loss import bound_text
from orchestrator.core.values import canonical, duration_text, size_text
from orchestrator.runbook.units import parse_duration


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0ms"), (999, "999ms"), (1_000, "1s"), (1_500, "1.5s"), (59_999, "59.999s"), (60_000, "1m"),
        (90_400, "1m30s"), (3_600_000, "1h"), (90_061_000, "1d1h1m1s"),
    ],
)  # fmt: skip
def test_durations(milliseconds: int, text: str) -> None:
    assert duration_text(milliseconds) == text


@given(st.integers(0, 10**9))
def test_a_bound_is_never_rounded_down_and_can_be_typed(milliseconds: int) -> None:
    typed = parse_duration(bound_text(milliseconds))
    assert milliseconds <= typed < milliseconds + 1_000


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (1536, "1.5KiB"), (1 << 20, "1MiB"), (3 << 30, "3GiB")]
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text


def test_canonical_text_is_one_text() -> None:
    assert canonical({"b": [1, None], "a": "ä"}) == '{"a":"ä","b":[1,null]}'


def test_a_hash_depends_on_every_column() -> None:
    columns = (GENESIS, 1, "run:r1", 1, "run.created", 5, "{}", 1)
    first = link(*columns)
    for place, other in enumerate(("1" * 64, 2, "run:r2", 2, "run.ready", 6, "[]", 2)):
        changed = list(columns)
        changed[place] = other
        assert link(*changed) != first  # type: ignore[arg-type]
