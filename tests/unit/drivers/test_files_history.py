"""Which documents a side that may not publish holds alone, and when that is a history of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.drivers.files_history import Different, Holding, Right, beyond, parse

MOVED, CLOSED, LATER = 100, 200, 300
KEPT = Holding({"a": "1", "b": "2"}, 150, "full", Right(2, "embassy", MOVED), Right(1, "home", 1))
HOME = Holding({"a": "1", "b": "1", "c": "3"}, 50, "full", Right(1, "home", 1))
FOUND = (Different("b", "1", "2"), Different("c", "3"))


def test_what_was_published_before_the_move_is_a_loss_and_what_came_after_a_second_history() -> None:
    before = beyond(KEPT, HOME, 2, "embassy")
    assert (before.documents, before.is_second) == (FOUND, False)
    assert "before the other side took over" in before.text()
    after = beyond(KEPT, replace(HOME, since_ns=MOVED + 1), 2, "embassy")
    assert (after.documents, after.is_second, after.only, after.differ) == (FOUND, True, 1, 1)


def test_a_side_that_was_closed_and_receives_holds_nothing_of_its_own() -> None:
    closed = replace(HOME, mode="read-only", right=Right(2, "embassy", MOVED, CLOSED))
    unproven = replace(closed, right=Right(2, "embassy", MOVED), since_ns=LATER)
    assert beyond(KEPT, unproven, 2, "embassy").is_second, "a document was taken while it was being closed"
    assert beyond(KEPT, replace(closed, since_ns=LATER), 2, "embassy").documents == ()
    assert beyond(KEPT, replace(closed, right=None, mode=""), 2, "embassy").documents == ()
    published = beyond(KEPT, replace(closed, since_ns=CLOSED - 1), 2, "embassy")
    assert published.is_second, "it was written after the move and before it was closed"
    opened = beyond(KEPT, replace(closed, since_ns=LATER, mode="full"), 2, "embassy")
    assert opened.is_second, "somebody opened it again"


@pytest.mark.parametrize("later", [True, False])
def test_the_time_of_the_move_is_that_of_the_right_itself(later: bool) -> None:
    since = MOVED + 1 if later else MOVED - 1
    taken_back = replace(KEPT, right=Right(3, "home", LATER), before=Right(2, "embassy", MOVED))
    assert beyond(taken_back, replace(HOME, since_ns=since), 2, "embassy").is_second is later
    unknown = replace(KEPT, right=None, before=None)
    mode = "full" if later else "read-only"
    found = beyond(unknown, replace(HOME, mode=mode), 2, "embassy")
    assert (found.is_second, found.moved_ns) == (later, 0), "who takes documents now is a second writer"


def test_a_manifest_is_read_as_sha256sum_writes_it() -> None:
    digest = "0" * 64
    assert parse(f"{digest}  a/b c.txt\nnonsense\n{digest} *x\n") == {"a/b c.txt": digest, "x": digest}
    assert parse(None) == {}
