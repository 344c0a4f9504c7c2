"""The shell completes what the estate and the lab know, by the command itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.logs import continuity
from tests.unit.planning import estates

NAMED = "import os, sys\nsys.argv[0] = 'continuity'\nos.environ.update({})"


def completed(folder: Path, words: str) -> list[str]:
    """What bash is told for these words, the last of which is being typed."""
    told = {"_CONTINUITY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = continuity(folder, before=NAMED.format(told))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("command", ["failover", "plan failover", "reprotect"])
def test_services_are_those_of_the_estate(tmp_path: Path, command: str) -> None:
    estate = estates.write_lab(tmp_path)
    found = completed(estate.parent, f"continuity {command} --service ")
    assert found == ["land-register", "name-service", "population-register", "state-gazette"]
    assert completed(estate.parent, f"continuity {command} -s po") == ["population-register"]
    elsewhere = f"continuity {command} --estate {estate} --service st"
    assert completed(tmp_path, elsewhere) == ["state-gazette"]


def test_where_the_estate_cannot_be_read_nothing_is_completed_and_nothing_said(tmp_path: Path) -> None:
    (tmp_path / "estate.yaml").write_text("apiVersion: [", encoding="utf-8")
    assert completed(tmp_path, "continuity failover --service ") == []


@pytest.mark.parametrize("command", ["break", "heal"])
def test_faults_are_those_of_the_lab(tmp_path: Path, command: str) -> None:
    assert completed(tmp_path, f"continuity lab {command} link") == ["link-cut", "link-slow"]
    assert "home-crash" in completed(tmp_path, f"continuity lab {command} ")
