"""Durations, sizes and secret references: what is printed is read back; nothing without unit passes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.values import duration_text, size_text
from orchestrator.runbook import units

SECONDS_ARE_ENOUGH_FROM_MS = 60_000


@given(st.integers(min_value=0, max_value=units.DURATION_MS_MAX))
def test_a_printed_duration_is_read_back(milliseconds: int) -> None:
    read = units.parse_duration(duration_text(milliseconds))
    if milliseconds < SECONDS_ARE_ENOUGH_FROM_MS:
        assert read == milliseconds
    else:
        assert abs(read - milliseconds) <= 500


@given(st.integers(0, 300), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 9999))
def test_a_duration_is_the_sum_of_its_parts(d: int, h: int, m: int, s: int, ms: int) -> None:
    parts = [(d, "d", 86_400_000), (h, "h", 3_600_000), (m, "m", 60_000), (s, "s", 1000), (ms, "ms", 1)]
    written = "".join(f"{count}{unit}" for count, unit, _ in parts)
    assert units.parse_duration(written) == sum(count * size for count, _, size in parts)


@given(st.integers(min_value=0, max_value=2000), st.sampled_from(["B", "KiB", "MiB", "GiB"]))
def test_a_size_is_read_exactly_and_printed_back(count: int, unit: str) -> None:
    size = units.parse_size(f"{count}{unit}")
    assert size == count * {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]
    if count < 1024:
        assert units.parse_size(size_text(size)) == size


@given(st.one_of(st.text(max_size=12), st.integers(), st.booleans(), st.none(), st.lists(st.integers())))
def test_anything_else_is_refused_with_a_hint(written: object) -> None:
    for parse, pattern in (
        (units.parse_duration, units.DURATION_PATTERN),
        (units.parse_size, units.SIZE_PATTERN),
        (units.parse_secret, units.SECRET_PATTERN),
    ):
        if isinstance(written, str) and re.match(pattern, written):
            continue
        with pytest.raises(units.BadUnit) as caught:
            parse(written)
        assert caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize(
    "written", ["", "10", 10, "5", "1 h", "-5s", "1.5h", "30S", "1s1m", "4000d", "soon", True]
)
def test_a_bad_duration_is_refused(written: object) -> None:
    with pytest.raises(units.BadUnit):
        units.parse_duration(written)


@pytest.mark.parametrize("written", ["", "64", 64, "64MB", "64M", "1.5GiB", "64 MiB", "64mib", "9999999TiB"])
def test_a_bad_size_is_refused(written: object) -> None:
    with pytest.raises(units.BadUnit):
        units.parse_size(written)


@pytest.mark.parametrize("reference", ["secret://file/pg-control", "secret://env/PG_REWIND"])
def test_a_secret_is_a_reference(reference: str) -> None:
    assert units.parse_secret(reference) == reference


@pytest.mark.parametrize(
    "written",
    [
        "hunter2",
        "secret://file/../x",
        "secret://file/a/b",
        "secret://vault/x",
        "secret://env/a-b",
        "secret://file/",
        3,
    ],
)
def test_a_secret_value_is_refused_and_not_repeated(written: object) -> None:
    with pytest.raises(units.BadUnit) as caught:
        units.parse_secret(written)
    assert "hunter2" not in str(caught.value)
