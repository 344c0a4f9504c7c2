"""Values kept by name: the same as a dict, and a replacement leaves the one before as it was."""

from __future__ import annotations

import pytest

from orchestrator.core.shelves import SHELF_SIZE, names_in, shelved

COUNT = 3 * SHELF_SIZE + 5
PLAIN = {f"unit-{number}": number for number in range(COUNT)}


def test_it_is_the_mapping_that_it_was_made_of_in_its_order() -> None:
    kept = shelved(PLAIN)
    assert dict(kept) == PLAIN
    assert list(kept) == list(PLAIN)
    assert len(kept) == COUNT
    assert "unit-0" in kept
    assert "other" not in kept
    assert len(shelved({})) == 0


def test_replacing_copies_only_the_shelves_of_the_names() -> None:
    before = shelved(PLAIN)
    after = before.replaced({"unit-0": -1, "unit-1": -2, f"unit-{COUNT - 1}": -3})
    assert dict(before) == PLAIN
    assert dict(after) == {**PLAIN, "unit-0": -1, "unit-1": -2, f"unit-{COUNT - 1}": -3}
    assert list(after) == list(PLAIN)
    shared = [one is other for one, other in zip(before.shelves, after.shelves, strict=True)]
    assert shared == [False, True, True, False]
    assert after.replaced({"unit-0": 0, "unit-1": 1, f"unit-{COUNT - 1}": COUNT - 1}) == before


def test_a_name_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(KeyError):
        shelved(PLAIN).replaced({"other": 1})


def test_names_are_a_set_and_a_change_copies_one_shelf() -> None:
    kept = shelved(PLAIN)
    before = names_in(kept, lambda value: value % 2 == 0)
    assert sorted(before) == sorted(name for name, value in PLAIN.items() if value % 2 == 0)
    assert len(before) == len(list(before))
    after = before.changed("unit-1", is_in=True)
    assert ("unit-1" in before, "unit-1" in after) == (False, True)
    assert "other" not in after
    assert 5 not in after
    shared = [one is other for one, other in zip(before.shelves, after.shelves, strict=True)]
    assert shared == [False, True, True, True]
    assert after.changed("unit-1", is_in=False) == before
    with pytest.raises(KeyError):
        before.changed("other", is_in=True)
