"""``runbook lint | schema``: exit codes, both outputs, and what is said when there is no estate."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.runbook.schema import schema_documents
from tests import forked

ROOT = Path(__file__).parents[3]
CASES = ROOT / "tests" / "cases" / "runbook_errors"


def continuity(*arguments: str | Path, cwd: Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "CONTINUITY_HOME": str(home),
    }
    return forked.continuity(arguments, cwd=cwd, environment=environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An estate whose every derived step can be bound: the good one, its own words left out."""
    shutil.copytree(CASES / "good", tmp_path / "estate")
    return tmp_path / "estate"


def test_lint_of_a_good_estate(folder: Path, tmp_path: Path) -> None:
    done = continuity("runbook", "lint", cwd=folder, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "2 runbooks, 1 estate: no problems"
    found = continuity("runbook", "lint", "--estate", folder, "--output", "json", cwd=tmp_path, home=tmp_path)
    document = json.loads(found.stdout)
    assert document["schema"] == "continuity/lint/v1"
    assert (document["estates"], document["runbooks"], document["problems"]) == (1, 2, [])


def test_lint_reports_everything_and_ends_with_2(folder: Path, tmp_path: Path) -> None:
    runbook = folder / "runbooks" / "land-register.yaml"
    runbook.write_text(runbook.read_text().replace("tier: 2", "tier: two").replace("unit:", "unti:"))
    done = continuity("runbook", "lint", cwd=folder, home=tmp_path)
    assert done.returncode == 2
    assert "runbooks/land-register.yaml:6: tier: must be a whole number, found `two`" in done.stdout
    assert "did you mean `unit`?" in done.stdout
    assert done.stdout.splitlines()[-1] == "2 runbooks, 1 estate: 3 problems"
    found = continuity("runbook", "lint", "--output", "json", cwd=folder, home=tmp_path)
    assert found.returncode == 2
    problems = json.loads(found.stdout)["problems"]
    assert [(problem["line"], problem["path"]) for problem in problems] == [
        (6, "tier"),
        (11, "components.application.unit"),
        (14, "components.application.unti"),
    ]
    assert all(set(problem) == {"file", "line", "path", "message", "hint"} for problem in problems)


def test_lint_of_files_alone_and_of_nothing(folder: Path, tmp_path: Path) -> None:
    alone = continuity(
        "runbook", "lint", folder / "runbooks" / "land-register.yaml", cwd=tmp_path, home=tmp_path
    )
    assert (alone.returncode, alone.stdout.splitlines()[-1]) == (0, "1 runbook, 0 estates: no problems")
    nothing = continuity("runbook", "lint", cwd=tmp_path, home=tmp_path)
    assert nothing.returncode == 2
    assert "no estate" in nothing.stderr


def test_schema_is_printed_and_written(tmp_path: Path) -> None:
    printed = continuity("runbook", "schema", "estate", cwd=tmp_path, home=tmp_path)
    assert json.loads(printed.stdout)["title"] == "continuity Estate"
    continuity("runbook", "schema", "--write", tmp_path / "schema", cwd=tmp_path, home=tmp_path)
    written = {path.name: path.read_text() for path in (tmp_path / "schema").iterdir()}
    assert written == schema_documents()
    assert continuity("runbook", "schema", cwd=tmp_path, home=tmp_path).returncode == 2
    both = json.loads(continuity("runbook", "schema", "-o", "json", cwd=tmp_path, home=tmp_path).stdout)
    assert (both["schema"], both["estate"]["title"]) == ("continuity/runbook-schema/v1", "continuity Estate")
    assert set(both) == {"schema", "estate", "runbook"}


def test_explain_shows_each_step_once_with_its_why(folder: Path, tmp_path: Path) -> None:
    done = continuity("runbook", "explain", cwd=folder, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "registers-db/promote" in done.stdout
    document = json.loads(
        continuity("runbook", "explain", "--output", "json", cwd=folder, home=tmp_path).stdout
    )
    assert set(document["operations"]) == {"failover", "switchover", "failback", "reprotect"}
    for operation in document["operations"].values():
        assert operation["steps"]
        for step in operation["steps"]:
            assert step["why"]
            assert done.stdout.count(f"\n{step['id']} ") == 1
