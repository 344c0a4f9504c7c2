"""Lint warns of services whose "done" would prove too little, and stops nothing for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.runbook.lint import lint

GOOD = Path(__file__).parents[2] / "cases" / "runbook_errors" / "good"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (", from: [vantage]", "", "nothing is asked from outside both sites (from: [vantage])"),
        ("done-when:\n  - http: {url: \"http://land.example/parcels/1\", from: [vantage]}\n", "", "nothing is asked"),
    ],
)  # fmt: skip
def test_a_weak_proof_is_a_warning(before: str, after: str, said: str, tmp_path: Path) -> None:
    shutil.copytree(GOOD, tmp_path / "estate")
    runbook = tmp_path / "estate" / "runbooks" / "land-register.yaml"
    assert before in runbook.read_text()
    runbook.write_text(runbook.read_text().replace(before, after))
    findings = lint(tmp_path / "estate" / "estate.yaml")
    assert not findings.problems
    assert [w for w in findings.warnings if "runbooks/land-register.yaml" in w and said in w], (
        findings.warnings
    )


def test_the_good_estate_is_not_warned_of(tmp_path: Path) -> None:
    findings = lint(GOOD / "estate.yaml")
    assert not [warning for warning in findings.warnings if "done-when" in warning]
