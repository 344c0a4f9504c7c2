"""The example runbooks and the committed schemas: short, fresh, and without problems."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.runbook.lint import lint
from orchestrator.runbook.schema import schema_documents

RUNBOOKS = Path(__file__).parents[3] / "runbooks"
LINES_MAX = 45
NAMES = ("land-register", "name-service", "population-register", "state-gazette")


def test_committed_schemas_are_fresh() -> None:
    """After a change of the model: ``continuity runbook schema --write runbooks/schema``."""
    committed = {path.name: path.read_text() for path in (RUNBOOKS / "schema").glob("*.json")}
    assert committed == schema_documents()


@pytest.mark.parametrize("name", NAMES)
def test_an_example_has_no_problem_of_its_own_and_stays_short(name: str) -> None:
    path = RUNBOOKS / f"{name}.yaml"
    findings = lint(None, [path])
    assert findings.as_text().splitlines()[-1] == "1 runbook, 0 estates: no problems"
    assert len(path.read_text().splitlines()) <= LINES_MAX


def test_every_example_is_listed() -> None:
    assert sorted(path.stem for path in RUNBOOKS.glob("*.yaml")) == sorted(NAMES)
