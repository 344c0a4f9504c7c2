"""An epoch is reserved once: a run that was taken back has spent it, and what it left beside names, routes
and documents stands against no later run of the same log.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.claims import Claimed, contradictions
from orchestrator.core.events import (
    GroupAdopted,
    GroupClaimed,
    GroupEvent,
    GroupGranted,
    GroupReleased,
    RunCreated,
)
from orchestrator.core.groups import GroupState, fold_group
from orchestrator.core.log import Append
from orchestrator.core.plan import GroupMove
from orchestrator.engine.journal import GROUP, Journal
from orchestrator.errors import RefusedError
from orchestrator.stores.memory import MemoryStore
from tests.builders import a_plan, a_step, at

ADOPTED = GroupAdopted(at(0), "g", "home", 3, "protected", "ann")
CLAIMED = GroupClaimed(at(1), "g", "r1", "ann", "laptop", 4)
TAKEN_BACK = GroupReleased(at(2), "g", "r1", "aborted")
LEFT_BEHIND = Claimed("documents at h1", "home", 4, "embassy", "r1")


def group(*history: GroupEvent) -> GroupState:
    return fold_group("g", history)


def test_a_run_that_was_taken_back_has_spent_its_epoch() -> None:
    state = group(ADOPTED, CLAIMED, TAKEN_BACK)
    assert (state.active, state.epoch, state.reserved, state.taken_back) == ("home", 3, 4, ("r1",))


def test_a_granted_epoch_makes_all_that_was_taken_back_old() -> None:
    again = replace(CLAIMED, run="r2", epoch_next=5)
    granted = GroupGranted(at(4), "g", "r2", "embassy", 5, "unprotected")
    state = group(ADOPTED, CLAIMED, TAKEN_BACK, again, granted, GroupReleased(at(5), "g", "r2", "done"))
    assert (state.epoch, state.reserved, state.taken_back) == (5, 5, ())


def test_what_a_run_left_behind_that_was_taken_back_stands_against_nothing() -> None:
    assert contradictions([LEFT_BEHIND], 3, "home"), "another log's run may be right"
    assert contradictions([LEFT_BEHIND], 3, "home", ("r1",)) == []
    assert contradictions([replace(LEFT_BEHIND, epoch=3)], 3, "home", ("r1",)), "two sites at one epoch"


def test_one_sentence_says_where_a_newer_right_is_claimed_and_how_often() -> None:
    claims = [replace(LEFT_BEHIND, where=f"name{number} at ns1") for number in range(9)]
    newer = replace(LEFT_BEHIND, where="persons at pe", epoch=5, run="r7")
    assert contradictions([*claims, newer], 3, "home") == [
        "epoch 5 of embassy (run r7) is claimed by persons at pe, the log knows epoch 3 of home",
        (
            "epoch 4 of embassy (run r1) is claimed by name0 at ns1, name1 at ns1, name2 at ns1 and 6 more places, "
            "the log knows epoch 3 of home"
        ),
    ]


def test_a_plan_made_before_another_run_reserved_its_epoch_is_refused() -> None:
    store = MemoryStore()
    for number, event in enumerate((ADOPTED, CLAIMED, TAKEN_BACK)):
        store.append([Append(GROUP + "g", number, (event,))])
    plan = a_plan(a_step("db/x"))
    old = replace(plan, groups={"g": GroupMove("g", (), "home", 3, 4, (), {})})
    new = replace(plan, groups={"g": GroupMove("g", (), "home", 3, 5, (), {})})
    journal = Journal(store, lambda text: plan)
    created = RunCreated(at(3), "r2", "failover", plan.digest, "ann", "laptop")
    with pytest.raises(RefusedError, match="epoch 4 was reserved by another run"):
        journal.create(old, "", created)
    assert journal.create(new, "", created).run.id == "r2"
