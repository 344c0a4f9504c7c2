"""What a group is in is the fold of its stream; its name for people is derived, never stored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core import events
from orchestrator.core.groups import GroupState, Keeping, breaks_of, evolve_group, fold_group, label
from tests.builders import at

NOW = at(5)
ADOPTED = events.GroupAdopted(at(1), "g", "home", 4, "protected", "ann")
CLAIMED = events.GroupClaimed(at(2), "g", "r1", "ann", "laptop", 5)


def test_a_life_of_a_group() -> None:
    story = [
        ADOPTED,
        CLAIMED,
        events.GroupWithdrawn(at(3), "g", "r1"),
        events.GroupGranted(at(4), "g", "r1", "embassy", 5, "unprotected"),
        events.GroupReleased(NOW, "g", "r1", "done"),
    ]
    labels = [label(fold_group("g", story[:length])) for length in range(len(story) + 1)]
    assert labels == [
        "not-adopted",
        "home_active_protected",
        "home_active_protected",
        "no_active_site",
        "embassy_active_unprotected",
        "embassy_active_unprotected",
    ]
    over = fold_group("g", story)
    assert facts(over) == ("embassy", 5, "unprotected", "", False)
    assert over.last_finish_utc_ns == NOW.utc_ns


def facts(state: GroupState) -> tuple[str, int, str, str, bool]:
    """The five facts that a group is."""
    return state.active, state.epoch, state.protection, state.claim, state.conflict


def test_a_claim_says_who_holds_it_and_since_when() -> None:
    state = fold_group("g", [ADOPTED, CLAIMED])
    assert (state.claim, state.claim_by, state.claim_machine) == ("r1", "ann", "laptop")
    assert state.claim_utc_ns == at(2).utc_ns


HOME = fold_group("g", [ADOPTED])


@pytest.mark.parametrize(
    ("event", "after", "name"),
    [
        (events.GroupProtectionLost(NOW, "g", "cut"), replace(HOME, protection="unprotected"), "home_active_unprotected"),
        (events.GroupConflictSeen(NOW, "g"), replace(HOME, conflict=True), "split_brain"),
        (
            events.GroupResolved(NOW, "g", "embassy", "ann", "its history stands"),
            replace(HOME, active="embassy", protection="unprotected"),
            "embassy_active_unprotected",
        ),
        (events.GroupProtected(NOW, "g", "r1"), HOME, "home_active_protected"),
        (
            events.GroupAdopted(NOW, "g", "embassy", 9, "unprotected", "ann"),
            replace(HOME, active="embassy", epoch=9, protection="unprotected"),
            "embassy_active_unprotected",
        ),
    ],
)  # fmt: skip
def test_what_each_event_makes_of_a_group(event: events.GroupEvent, after: GroupState, name: str) -> None:
    assert facts(evolve_group(HOME, event)) == facts(after)
    assert label(after) == name


def test_a_conflict_ends_only_by_people() -> None:
    torn = evolve_group(HOME, events.GroupConflictSeen(NOW, "g"))
    assert torn.conflict
    assert not evolve_group(torn, events.GroupResolved(NOW, "g", "home", "ann", "w")).conflict
    assert evolve_group(torn, events.GroupProtected(NOW, "g", "r1")).conflict


def test_a_resolved_side_that_still_runs_is_known_until_it_was_brought_back() -> None:
    story = [
        ADOPTED,
        events.GroupConflictSeen(at(3), "g"),
        events.GroupResolved(at(4), "g", "home", "ann", "r"),
    ]
    resolved = fold_group("g", story)
    assert (resolved.conflict, resolved.is_resolved) == (False, True)
    protected = evolve_group(resolved, events.GroupProtected(NOW, "g", "r2"))
    assert not protected.is_resolved


ABROAD = (
    ADOPTED,
    CLAIMED,
    events.GroupWithdrawn(at(3), "g", "r1"),
    events.GroupGranted(at(4), "g", "r1", "embassy", 5, "unprotected"),
    events.GroupReleased(at(5), "g", "r1", "done"),
    events.GroupConflictSeen(at(6), "g"),
)
RESERVED = events.GroupKeepReserved(at(7), "g", "home", "resolve-1", 6, "ann", "a false alarm")
KEPT = events.GroupResolved(at(8), "g", "home", "ann", "a false alarm", {}, 6, "resolve-1")


def test_a_site_that_lost_the_epoch_is_kept_under_a_new_one() -> None:
    begun = fold_group("g", [*ABROAD, RESERVED])
    assert (begun.active, begun.epoch, begun.reserved, begun.conflict) == ("embassy", 5, 6, True)
    assert begun.keeping == Keeping("resolve-1", "home", 6)
    kept = evolve_group(begun, KEPT)
    assert (kept.active, kept.epoch, kept.protection, kept.conflict) == ("home", 6, "unprotected", False)
    assert (kept.holder, kept.keeping, kept.left, kept.is_resolved) == ("home", None, "embassy", True)
    assert breaks_of("g", [*ABROAD, RESERVED, KEPT]) == []
    moved = evolve_group(kept, events.GroupGranted(at(9), "g", "r2", "home", 7, "unprotected"))
    assert moved.left == "", "names and routes have followed"


def test_a_site_that_is_kept_within_anothers_epoch_breaks_the_stream() -> None:
    within = events.GroupResolved(at(7), "g", "home", "ann", "as it once was")
    assert breaks_of("g", [*ABROAD, within]) == ["one-site-per-epoch: g goes to home within epoch 5"]
    assert breaks_of("g", [*ABROAD, events.GroupResolved(at(7), "g", "embassy", "ann", "it holds it")]) == []


@pytest.mark.parametrize("keep", ["home", "embassy"])
def test_people_decide_nothing_of_a_group_that_a_run_holds(keep: str) -> None:
    held = [*ABROAD, replace(CLAIMED, at=at(7), run="r2")]
    broken = ["a-held-group-is-not-resolved: g is claimed by run r2"]
    assert breaks_of("g", [*held, replace(RESERVED, keep=keep)]) == broken
    assert breaks_of("g", [*held, replace(KEPT, keep=keep)]) == broken
    assert breaks_of("g", [*held, events.GroupReleased(at(8), "g", "r2", "partial"), RESERVED, KEPT]) == []


def test_names_and_routes_that_an_ended_run_left_behind_are_known_until_a_failover_moved_them() -> None:
    left = fold_group("g", [*ABROAD[:4], events.GroupReleased(at(5), "g", "r1", "partial", "home")])
    assert (left.active, left.left) == ("embassy", "home")
    moved = evolve_group(left, events.GroupGranted(at(9), "g", "r2", "embassy", 6, "unprotected"))
    assert moved.left == ""


def test_an_epoch_is_one_sites_also_where_none_was_active_in_between() -> None:
    closed = (ADOPTED, CLAIMED, events.GroupWithdrawn(at(3), "g", "r1"))
    other = events.GroupGranted(at(4), "g", "r1", "embassy", 4, "unprotected")
    assert breaks_of("g", [*closed, other]) == ["one-site-per-epoch: g goes to embassy within epoch 4"]
    assert breaks_of("g", [*closed, events.GroupGranted(at(4), "g", "r1", "home", 4, "unprotected")]) == []
