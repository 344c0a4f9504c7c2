"""Every kind of problem, all at once, with file, line, path and hint: one case a file.

A case holds files as ``#@ NAME`` sections; those it does not give come from ``good/``, an empty
section removes one. ``CONTINUITY_REWRITE=1`` writes the expected problems anew; people review them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from orchestrator.core.plan import Bound, Parts, Undo
from orchestrator.core.values import Json
from orchestrator.errors import InputError, Problem
from orchestrator.runbook.parse import load_estate

CASES = Path(__file__).parents[2] / "cases" / "runbook_errors"


class TwoActions:
    """A catalog that knows two actions and what they must be given."""

    known: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
        "http.request": (frozenset({"method", "url"}), frozenset({"headers", "json", "check"})),
        "command.run": (frozenset({"argv"}), frozenset({"host", "check"})),
        "postgresql.stop": (frozenset({"cluster", "host"}), frozenset()),
    }

    def bind(self, action: str, arguments: Mapping[str, Json], parts: Parts) -> Bound:
        required, optional = self.known[action]
        problems = [Problem("", 0, key, "is missing", f"give `{key}`") for key in required - set(arguments)]
        unknown = set(arguments) - required - optional
        problems += [Problem("", 0, key, "is not known", "remove it") for key in sorted(unknown)]
        if problems:
            raise InputError(problems)
        assert "${" not in str(arguments), "bind is given resolved arguments"
        return Bound(action, 1, arguments, (), (), Undo.NONE_NEEDED, (), True, False)

    def kinds(self) -> Iterable[str]:
        return self.known


def lay_out(case: Path, folder: Path) -> Path:
    """Write the case's files over a copy of the good estate; the estate's path."""
    shutil.copytree(CASES / "good", folder, dirs_exist_ok=True)
    for section in ("\n" + case.read_text()).split("\n#@ ")[1:]:
        name, _, text = section.partition("\n")
        target = folder / name.strip()
        if text.strip() or target.name == "empty.yaml":
            target.write_text(text)
        else:
            target.unlink()
    return folder / "estate.yaml"


def cases() -> list[Path]:
    return sorted(CASES.glob("*.yaml"))


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.stem)
def test_problems_are_all_reported_at_once(case: Path, tmp_path: Path) -> None:
    estate = lay_out(case, tmp_path / "estate")
    with pytest.raises(InputError) as caught:
        load_estate(estate, catalog=TwoActions())
    found = "".join(f"{problem}\n" for problem in caught.value.problems)
    assert all(problem.hint for problem in caught.value.problems), "a problem without a hint"
    assert str(tmp_path) not in found
    expected = case.with_suffix(".txt")
    if os.environ.get("CONTINUITY_REWRITE"):
        expected.write_text(found)
    assert found == expected.read_text()


def test_the_good_estate_has_no_problem(tmp_path: Path) -> None:
    shutil.copytree(CASES / "good", tmp_path / "estate")
    loaded = load_estate(tmp_path / "estate" / "estate.yaml", catalog=TwoActions())
    assert set(loaded.runbooks) == {"population-register", "land-register"}


def test_no_secret_is_repeated() -> None:
    for case in cases():
        text = case.with_suffix(".txt").read_text()
        assert "hunter2" not in text
        assert "c2VjcmV0" not in text
