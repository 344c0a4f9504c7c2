"""seeds.txt can be read, and a line that cannot be read is refused rather than skipped."""

from __future__ import annotations

import pytest

from tests import seeds


def test_kept_seeds_are_found_by_name() -> None:
    text = "# head\n\nsim 12  # once promoted twice\nledger 7  # a lost row\nsim 40  # a stale attempt\n"
    assert seeds.kept("sim", text) == (12, 40)
    assert seeds.kept("other", text) == ()


@pytest.mark.parametrize("line", ["sim", "sim twelve  # x", "sim 12", "sim 12 13  # x"])
def test_a_line_that_cannot_be_read_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"seeds.txt:1"):
        seeds.kept("sim", line)


def test_the_committed_file_can_be_read() -> None:
    assert isinstance(seeds.kept("any"), tuple)
