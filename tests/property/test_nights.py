"""Whatever a driver, the world and people do, in any order: the run is the fold of its events, every
invariant holds after each decision, refusals say why, and the run can be brought to an end.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.core.fold import fold
from orchestrator.core.states import RunState
from orchestrator.core.transitions import RUN_TABLE, STEP_TABLE
from orchestrator.core.verb_table import BY_RUN
from orchestrator.stores.codec import decode, encode
from tests import seeds
from tests.property.nights import PLANS, Chance, Night, night, of_seed
from tests.transcript import rendered

NAME = "core-nights"
SEEDS = 150
MOVES = 100
STORIES = Path(__file__).resolve().parents[1] / "cases" / "machine"


def told_again(made: Night) -> None:
    """Replay knows nothing but the log: every event goes through its text, and only ``fold`` is used."""
    story = made.story
    history = [decode(event.KIND, encode(event)) for event in story.history]
    assert fold(story.plan, history) == story.run  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def nights() -> list[Night]:
    """Nights of fixed seeds, those that once failed among them; each held to every promise while it is told."""
    return [
        night(plan, of_seed(seed), MOVES) for plan in PLANS for seed in (*range(SEEDS), *seeds.kept(NAME))
    ]


def test_the_run_is_the_fold_of_what_stands_in_the_log(nights: list[Night]) -> None:
    for made in nights:
        told_again(made)


def test_nights_reach_every_end(nights: list[Night]) -> None:
    assert {made.story.run.state for made in nights} >= {RunState.DONE, RunState.ABORTED}


def test_every_row_of_both_tables_is_taken(nights: list[Night]) -> None:
    taken = {row for made in nights for row in made.story.rows}
    for path in STORIES.glob("*.txt"):
        taken |= rendered(path.read_text(encoding="utf-8"))[1].rows
    wanted = {("step", state, trigger) for state, trigger in STEP_TABLE}
    wanted |= {("run", state, trigger) for state, trigger in RUN_TABLE}
    print(f"rows taken: {len(wanted & taken)} of {len(wanted)}")
    assert not wanted - taken


def test_every_verb_was_refused_somewhere(nights: list[Night]) -> None:
    assert {verb for made in nights for verb in made.refusals} >= set(BY_RUN) - {"resume"}


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(range(len(PLANS))), st.lists(st.integers(0, 2**16), min_size=20, max_size=400))
def test_any_night_ends_and_is_the_fold_of_its_events(which: int, numbers: list[int]) -> None:
    made = night(PLANS[which], Chance(numbers))
    assert made.story.run.is_final
    told_again(made)


def test_nights_that_nobody_has_seen_yet() -> None:
    first = seeds.of_today(NAME)
    for seed in range(first, first + 20):
        told_again(night(PLANS[seed % len(PLANS)], of_seed(seed), MOVES))
