"""A patch applies exactly or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.patching import PatchError, apply

PATCH = """why this break matters
--- a/here.py
+++ b/here.py
@@ -1,3 +1,3 @@
 one = 1
-two = 2
+two = 3

"""


def test_a_patch_changes_the_lines_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text("zero = 0\none = 1\ntwo = 2\n\nlast = 9\n")
    assert apply(PATCH, tmp_path) == ["here.py"]
    assert (tmp_path / "here.py").read_text() == "zero = 0\none = 1\ntwo = 3\n\nlast = 9\n"


@pytest.mark.parametrize(
    "text",
    ["one = 1\ntwo = 4\n\n", "one = 1\ntwo = 2\n\none = 1\ntwo = 2\n\n", ""],
    ids=["the lines have changed", "the lines stand there twice", "the file is empty"],
)
def test_a_patch_that_does_not_apply_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "here.py").write_text(text)
    with pytest.raises(PatchError):
        apply(PATCH, tmp_path)


def test_a_missing_file_and_an_empty_patch_are_errors(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="no such file"):
        apply(PATCH, tmp_path)
    with pytest.raises(PatchError, match="no hunk"):
        apply("nothing to see here\n", tmp_path)
