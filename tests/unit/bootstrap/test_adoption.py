"""Adopting a group never overrides what the log knows: epochs, the active site, a split brain."""

from __future__ import annotations

import pytest

from orchestrator.bootstrap import adoption
from orchestrator.bootstrap.app import App
from orchestrator.bootstrap.observe import CLAIMS, INSPECT, Looked
from orchestrator.bootstrap.standing import how_to_adopt, towards_adopt
from orchestrator.core import events
from orchestrator.core.groups import GroupState, fold_group, label
from orchestrator.errors import InputError, InvariantBroken, RefusedError
from tests import forked
from tests.unit.bootstrap.registers import ABROAD, AT, CLAIMED, GROUP, HOME, SPLIT, known


def rows(*sites: tuple[str, str, int, str]) -> list[Looked]:
    """One cluster as an inspection saw it: (site, role, the epoch of its row, the site of its row)."""
    seen = {
        site: {
            "reachable": True,
            "role": role,
            "serves_writes": role == "primary",
            "streaming": True,
            "writers": {"population": {"epoch": epoch, "site": named}},
        }
        for site, role, epoch, named in sites
    }
    return [Looked(GROUP, "registers-db", INSPECT, {"sites": seen}, "")]


def claims(*found: tuple[int, str, str]) -> list[Looked]:
    told = [
        {"where": "dns", "at": site, "epoch": epoch, "site": site, "run": run} for epoch, site, run in found
    ]
    return [Looked(GROUP, GROUP, CLAIMS, {"claims": told}, "")]


def adopt(app: App, seen: list[Looked], active: str | None = None) -> GroupState:
    state = app.journal.group(GROUP)
    return adoption.adopt(app, adoption._conclude(app, state, seen), "ann", active)


BOTH = rows(("home", "primary", 1, "home"), ("embassy", "primary", 2, "embassy"))


def test_a_new_log_does_not_adopt_what_all_evidence_speaks_against(app: App) -> None:
    """People name the site where the evidence cannot: else every run after it would be held by the rows."""
    abroad = rows(("home", "standby", 2, "embassy"), ("embassy", "primary", 2, "embassy"))
    with pytest.raises(RefusedError, match=r"epoch 2\) names embassy, nothing names home") as refused:
        adopt(app, abroad, active="home")
    assert refused.value.instead[0] == f"continuity adopt {GROUP} --by NAME"
    assert not app.journal.group(GROUP).adopted
    assert adopt(app, abroad, active="embassy").active == "embassy"


def test_a_group_that_nothing_speaks_of_stays_as_the_log_knows_it(app: App) -> None:
    known(app, *ABROAD)
    after = adopt(app, [])
    assert (after.active, after.epoch, after.protection) == ("embassy", 2, "protected")


def test_a_group_that_the_log_never_saw_is_at_home(app: App) -> None:
    after = adopt(app, [])
    assert (after.active, after.epoch) == ("home", 1)


def test_newer_evidence_moves_an_old_log(app: App) -> None:
    known(app, HOME)
    after = adopt(app, rows(("home", "standby", 2, "embassy"), ("embassy", "primary", 2, "embassy")))
    assert (after.active, after.epoch, after.protection) == ("embassy", 2, "protected")


def test_older_evidence_moves_nothing(app: App) -> None:
    before = known(app, *ABROAD)
    with pytest.raises(RefusedError, match="one-site-per-epoch"):
        adopt(app, rows(("home", "primary", 1, "home")))
    assert app.journal.group(GROUP) == before


def test_people_alone_do_not_move_a_known_group(app: App) -> None:
    before = known(app, *ABROAD)
    with pytest.raises(RefusedError, match="nothing names home") as refused:
        adopt(app, [], "home")
    assert refused.value.instead[0] == "continuity switchover --to home"
    assert app.journal.group(GROUP) == before
    with pytest.raises(InputError, match="no such site"):
        adopt(app, [], "mars")


def test_a_split_brain_is_ended_by_resolve_alone(app: App) -> None:
    before = known(app, *SPLIT)
    for active in (None, "embassy"):
        with pytest.raises(RefusedError, match="split_brain") as refused:
            adopt(app, BOTH, active)
        assert refused.value.instead == (f"continuity resolve {GROUP} --keep SITE --by NAME --reason TEXT",)
    assert app.journal.group(GROUP) == before


def test_two_writers_that_nobody_had_seen_yet_are_a_split_brain_first(app: App) -> None:
    known(app, *ABROAD)
    with pytest.raises(RefusedError, match="split_brain"):
        adopt(app, BOTH, "embassy")
    assert label(app.journal.group(GROUP)) == "split_brain"


def test_two_writers_of_a_new_log_are_adopted_as_a_split_brain(app: App) -> None:
    after = adopt(app, BOTH, "embassy")
    assert (after.active, after.epoch, label(after)) == ("embassy", 2, "split_brain")


def test_what_a_run_that_was_taken_back_left_behind_says_nothing(app: App) -> None:
    before = known(app, HOME, CLAIMED, events.GroupReleased(AT, GROUP, "r1", "aborted"))
    assert before.taken_back == ("r1",)
    after = adopt(app, claims((2, "embassy", "r1")))
    assert (after.active, after.epoch, after.reserved) == ("home", 1, 2)
    assert after.taken_back == ("r1",)


def test_adopting_again_does_not_forget_that_people_resolved() -> None:
    resolved = (*SPLIT, events.GroupResolved(AT, GROUP, "embassy", "ann", "reason"))
    again = events.GroupAdopted(AT, GROUP, "embassy", 2, "unprotected", "ann")
    assert fold_group(GROUP, [*resolved, again]).is_resolved


def test_a_site_that_lost_the_epoch_is_not_resolved_to_without_a_new_one(app: App) -> None:
    before = known(app, *SPLIT)
    with pytest.raises(RefusedError, match="home does not hold its epoch"):
        adoption.resolve(app, GROUP, "home", "ann", "a false alarm", {})
    with pytest.raises(InvariantBroken, match="one-site-per-epoch"):
        known(app, events.GroupResolved(AT, GROUP, "home", "ann", "by hand"))
    assert app.journal.group(GROUP) == before
    assert adoption.resolve(app, GROUP, "embassy", "ann", "it holds it", {}).active == "embassy"


@pytest.mark.parametrize("words", [("--keep", "embassy", "--reason", "r", "--by", "ann", "--yes"), ()])
def test_there_is_nothing_to_resolve_is_said_before_anything_is_compared(
    app: App, words: tuple[str, ...]
) -> None:
    known(app, *ABROAD)
    folder = app.settings.log_folder
    command = ("resolve", GROUP, "--estate", app.settings.estate, *words)
    done = forked.continuity(command, cwd=folder, environment={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 3, done.stderr
    assert "there is nothing to resolve" in done.stderr
    assert "not seen" not in done.stderr
    assert not list(folder.glob("diverged-*"))
    with pytest.raises(InputError, match="no such site"):
        adoption.must_be_in_conflict(app, GROUP, "mars")
    with pytest.raises(InputError, match="no group nowhere"):
        adoption.must_be_in_conflict(app, "nowhere", "embassy")


def test_where_the_log_is_behind_the_run_that_holds_the_group_ends_first(app: App) -> None:
    known(app, HOME)
    assert how_to_adopt(app, GROUP) == f"next: continuity adopt {GROUP} --by NAME"
    assert towards_adopt(app, GROUP) == f"continuity adopt {GROUP} --by NAME"
    known(app, CLAIMED)
    assert how_to_adopt(app, GROUP) == "run r1 ends first: continuity status r1"
    assert towards_adopt(app, GROUP) == "continuity status r1"
