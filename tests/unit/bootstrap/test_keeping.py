"""A site that lost the epoch is kept only while no other is seen to write; the epoch is above all that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.bootstrap import adoption, following, keeping
from orchestrator.bootstrap.app import App, plan_to_text
from orchestrator.bootstrap.keeping import Sides, Wanted
from orchestrator.core import events
from orchestrator.errors import InvariantBroken, RefusedError
from orchestrator.settings import Settings
from tests.builders import a_plan, inspect
from tests.unit.bootstrap.registers import AT, GROUP, SPLIT, known
from tests.unit.planning import estates

KEEP = Wanted(GROUP, "home", "ann", "a false alarm")
QUIET = Sides(("seen",), (), (), (), 2, {})
ABROAD = ("registers-db", "embassy", "primary, takes writes")
GONE = ("registers-db", "embassy", "does not answer (time-out)")


@pytest.mark.parametrize(
    ("sides", "wanted", "instead"),
    [
        (replace(QUIET, writing=(ABROAD,)), KEEP, ("--close",)),
        (replace(QUIET, writing=(ABROAD,)), replace(KEEP, is_lost=True), ("--close",)),
        (replace(QUIET, silent=(GONE,)), KEEP, ("--close", "--site-lost")),
        (replace(QUIET, idle=("registers-db at home: standby",)), replace(KEEP, close=True), ()),
    ],
)
def test_what_stands_in_the_way_is_said_with_the_commands_that_end_it(
    app: App, sides: Sides, wanted: Wanted, instead: tuple[str, ...]
) -> None:
    before = known(app, *SPLIT)
    with pytest.raises(RefusedError) as refused:
        keeping.must_be_possible(app, wanted, sides)
    offered = tuple(
        f"continuity resolve registers --keep home {how} --by NAME --reason TEXT" for how in instead
    )
    assert refused.value.instead == (offered or ("continuity status --live",))
    assert app.journal.group(GROUP) == before


def test_the_other_side_may_be_closed_or_declared_lost(app: App) -> None:
    keeping.must_be_possible(app, KEEP, QUIET)
    keeping.must_be_possible(app, replace(KEEP, close=True), replace(QUIET, writing=(ABROAD,)))
    keeping.must_be_possible(app, replace(KEEP, is_lost=True), replace(QUIET, silent=(GONE,)))


def test_documents_beside_the_databases_are_not_left_apart(tmp_path: Path) -> None:
    app = App(Settings(estates.write_lab(tmp_path)))
    with pytest.raises(RefusedError, match="only databases can be kept"):
        keeping.must_be_possible(app, replace(KEEP, group="state-gazette"), QUIET)


def test_a_reservation_is_taken_up_until_something_newer_is_seen(app: App) -> None:
    known(app, *SPLIT)
    first = keeping._reserve(app, KEEP, QUIET)
    assert first.epoch == 3
    assert keeping._reserve(app, KEEP, QUIET) == first
    higher = keeping._reserve(app, KEEP, replace(QUIET, highest=7))
    assert (higher.epoch, higher.id != first.id) == (8, True)
    other = keeping._reserve(app, replace(KEEP, keep="embassy"), replace(QUIET, highest=8))
    assert (other.site, other.epoch) == ("embassy", 9)


def test_a_group_that_a_run_holds_is_not_resolved_and_the_end_of_that_run_is_named(app: App) -> None:
    plan = a_plan(inspect("db", GROUP))
    known(app, SPLIT[0])
    created = events.RunCreated(AT, "r1", plan.operation, plan.digest, "ann", "laptop", "t")
    app.journal.create(plan, plan_to_text(plan), created)
    before = known(app, events.GroupConflictSeen(AT, GROUP))
    for decide in (
        lambda: keeping._reserve(app, KEEP, QUIET),
        lambda: adoption.must_be_in_conflict(app, GROUP, "home"),
        lambda: adoption.resolve(app, GROUP, "home", "ann", "it holds it", {}),
    ):
        with pytest.raises(
            RefusedError, match="registers is claimed by run r1, which is preflight"
        ) as refused:
            decide()
        assert refused.value.instead == ("continuity resume r1", "continuity abort r1 --reason TEXT")
    with pytest.raises(InvariantBroken, match="a-held-group-is-not-resolved"):
        known(app, events.GroupResolved(AT, GROUP, "home", "ann", "by hand"))
    assert app.journal.group(GROUP) == before


def test_the_site_that_holds_the_epoch_needs_another_once_a_decision_against_it_was_begun(app: App) -> None:
    state = known(app, *SPLIT)
    assert keeping.must_grant(state, "home")
    assert not keeping.must_grant(state, "embassy")
    keeping._reserve(app, KEEP, QUIET)
    assert keeping.must_grant(app.journal.group(GROUP), "embassy")


def test_what_follows_is_printed_as_it_is_typed(app: App) -> None:
    known(app, *SPLIT)
    reserved = keeping._reserve(app, KEEP, QUIET)
    done = events.GroupResolved(AT, GROUP, "home", "ann", "r", {}, reserved.epoch, reserved.id)
    told = following.next_commands(app, known(app, done))
    assert told[-2].startswith("continuity failover --to home --service ")
    assert told[-1].startswith("continuity reprotect --service ")
