"""Which way an old side is brought back, from what is seen on both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.drivers.postgresql_course import MARGIN_BYTES, Seen, Way, course, instead
from orchestrator.drivers.postgresql_history import Standing

GIB = 1 << 30
SEEN = Seen(
    wanted="rewind",
    standing=Standing.DIVERGED,
    reason="it went on",
    refusal="",
    used_bytes=10 * GIB,
    source_bytes=10 * GIB,
    free_bytes=100 * GIB,
    kept_free_bytes=100 * GIB,
    same_device=True,
    has_data=True,
    is_kept=False,
    shares=False,
)


@pytest.mark.parametrize(
    ("seen", "way", "because"),
    [
        pytest.param(SEEN, Way.REWIND, "it went on", id="diverged"),
        pytest.param(replace(SEEN, standing=Standing.FOLLOWS), Way.FOLLOW, "", id="same-history"),
        pytest.param(replace(SEEN, standing=Standing.ABSENT), Way.RECLONE, "", id="new-hardware"),
        pytest.param(replace(SEEN, standing=Standing.FOREIGN), Way.RECLONE, "", id="another-cluster"),
        pytest.param(replace(SEEN, standing=Standing.TOO_OLD), Way.RECLONE, "", id="too-old"),
        pytest.param(replace(SEEN, refusal="no hints"), Way.RECLONE, "no hints", id="cannot-rewind"),
        pytest.param(replace(SEEN, wanted="reclone"), Way.RECLONE, "people wanted", id="wanted"),
        pytest.param(
            replace(SEEN, wanted="reclone", standing=Standing.FOLLOWS), Way.RECLONE, "wanted", id="wanted-so"
        ),
    ],
)
def test_the_way_follows_from_the_standing(seen: Seen, way: Way, because: str) -> None:
    chosen = course(seen)
    assert chosen.way is way
    assert because in chosen.because
    assert not chosen.problem


@pytest.mark.parametrize(
    ("seen", "way"),
    [
        pytest.param(replace(SEEN, free_bytes=10 * GIB + MARGIN_BYTES), Way.REWIND, id="just-enough"),
        pytest.param(replace(SEEN, free_bytes=10 * GIB, source_bytes=GIB), Way.RECLONE, id="too-little"),
        pytest.param(replace(SEEN, free_bytes=GIB, shares=True), Way.REWIND, id="copies-cost-nothing"),
        pytest.param(
            replace(SEEN, same_device=False, free_bytes=GIB), Way.REWIND, id="the-copy-is-kept-elsewhere"
        ),
        pytest.param(
            replace(SEEN, same_device=False, kept_free_bytes=GIB, source_bytes=GIB),
            Way.RECLONE,
            id="no-room-where-it-is-kept",
        ),
        pytest.param(
            replace(SEEN, same_device=False, is_kept=True, free_bytes=GIB, kept_free_bytes=0),
            Way.REWIND,
            id="kept-elsewhere-already",
        ),
        pytest.param(
            replace(
                SEEN,
                same_device=False,
                is_kept=True,
                has_data=False,
                free_bytes=GIB,
                source_bytes=GIB - MARGIN_BYTES,
            ),
            Way.RECLONE,
            id="to-be-copied-back",
        ),
    ],
)
def test_a_rewind_needs_room_for_a_copy(seen: Seen, way: Way) -> None:
    chosen = course(seen)
    assert chosen.way is way
    assert not chosen.problem
    if way is Way.RECLONE:
        assert "no room" in chosen.because
        assert "10" in chosen.because  # the figures


def test_without_room_for_anything_the_figures_are_said() -> None:
    chosen = course(replace(SEEN, free_bytes=GIB))
    assert chosen.way is Way.RECLONE
    assert "1GiB are free" in chosen.problem
    assert chosen.needed_bytes == 10 * GIB + MARGIN_BYTES


def test_tablespaces_are_not_cloned_without_a_place_for_them() -> None:
    chosen = instead(replace(SEEN, tablespaces=("apart",)), "why not")
    assert "apart" in chosen.problem
    assert chosen.because == "why not"


def test_time_grows_with_what_is_copied() -> None:
    small, big = course(SEEN), course(replace(SEEN, used_bytes=20 * GIB))
    assert 50_000 < big.predicted_ms - small.predicted_ms < 60_000
    assert course(replace(SEEN, wanted="reclone")).predicted_ms > small.predicted_ms
