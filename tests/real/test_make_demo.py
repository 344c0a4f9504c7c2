"""`make -s demo OUTPUT=json` prints one JSON document and nothing else, and what it claims adds up.

A second demo, asynchronous, runs at the same time: neither notices the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO_SECONDS = 300

pytestmark = [pytest.mark.real, pytest.mark.timeout(DEMO_SECONDS + 30)]

OPERATIONS = ("failover", "failback")
FIGURES = (
    "order_to_first_verified_write_seconds",
    "command_to_first_verified_write_seconds",
    "client_outage_seconds",
    "detection_seconds",
    "acknowledged_writes",
    "lost_acknowledged_writes",
    "failed_requests",
    "stated_loss",
    "services",
    "longest_step",
    "verified",
    "report",
)
SERVICES = {"name-service", "population-register", "land-register", "state-gazette"}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a demo printed, and what lies where it ran."""

    document: dict[str, Any]
    progress: str
    home: Path


def demo_command() -> list[str]:
    """Through make where `make setup` has been here; else the command that make would run."""
    if (ROOT / ".venv" / ".stamp").is_file():
        return ["make", "-s", "demo", "OUTPUT=json"]
    return [sys.executable, "-m", "orchestrator", "lab", "demo", "--output", "json"]


def start(command: list[str], home: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONTINUITY_")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment, "CONTINUITY_HOME": home},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], home: str) -> Shown:
    out, progress = process.communicate(timeout=DEMO_SECONDS)
    assert process.returncode == 0, out + progress
    document = json.loads(out)
    assert isinstance(document, dict)
    return Shown(document, progress, Path(home))


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Shown, Shown]]:
    """The demo as people run it, and an asynchronous one beside it."""
    asynchronous = [sys.executable, "-m", "orchestrator", "lab", "demo", "--async", "--output", "json"]
    with (
        tempfile.TemporaryDirectory(prefix="cty-") as one,
        tempfile.TemporaryDirectory(prefix="cty-") as other,
    ):
        first, second = start(demo_command(), one), start(asynchronous, other)
        try:
            yield finish(first, one), finish(second, other)
        finally:
            for process in (first, second):
                process.kill()
                process.communicate()


@pytest.fixture
def shown(both: tuple[Shown, Shown]) -> Shown:
    return both[0]


@pytest.fixture
def document(shown: Shown) -> dict[str, Any]:
    return shown.document


def test_make_demo_prints_one_json_document(document: dict[str, Any]) -> None:
    assert document["schema"] == "continuity/lab-demo/v1"
    assert document["verified"] is True
    assert document["final_check"]["verified"] is True


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_demo_states_its_figures(document: dict[str, Any], operation: str) -> None:
    stated = document[operation]
    assert not [name for name in FIGURES if name not in stated]
    assert stated["verified"] is True
    assert stated["acknowledged_writes"] >= (1_200 if operation == "failover" else 200)
    assert stated["acknowledged_writes_at_target"] >= 200
    assert stated["lost_acknowledged_writes"] == 0
    assert (
        0
        < stated["order_to_first_verified_write_seconds"]
        <= stated["command_to_first_verified_write_seconds"]
    )
    assert set(stated["stated_loss"]) >= {"seconds", "bytes", "rows_bound"}
    assert (stated["stated_loss"]["seconds"], stated["stated_loss"]["rows_bound"]) == (0, 0)
    assert set(stated["services"]) == SERVICES
    for service in stated["services"].values():
        assert 0 < service["rto_seconds"] < service["rto_objective_seconds"]
        assert (
            service["rpo_seconds"] is None or 0 <= service["rpo_seconds"] <= service["rpo_objective_seconds"]
        )
    assert {s["rpo_seconds"] for s in stated["services"].values()} >= {0}
    assert stated["longest_step"]["seconds"] > 0


def test_detection_is_part_of_the_outage_and_shown_apart(document: dict[str, Any]) -> None:
    failover = document["failover"]
    assert 0.1 < failover["detection_seconds"] < failover["client_outage_seconds"]
    assert document["failback"]["detection_seconds"] is None


def test_going_home_fails_no_request(document: dict[str, Any]) -> None:
    assert document["failback"]["failed_requests"] == 0


def test_the_reports_outlive_the_lab_and_nothing_else_does(shown: Shown) -> None:
    for operation in OPERATIONS:
        report = Path(shown.document[operation]["report"])
        record = json.loads(report.read_text(encoding="utf-8"))
        assert record["schema"] == "continuity/record/v1"
        assert record["run"] == shown.document[operation]["run"]
    folder = Path(shown.document["reports"])
    assert folder.is_relative_to(shown.home)
    assert json.loads((folder / "demo.json").read_text(encoding="utf-8")) == shown.document
    assert (folder / "journal.db").is_file()
    assert list((shown.home / "lab").iterdir()) == []
    assert list((shown.home / "labs").glob("*.json")) == []


def test_progress_is_plain_lines_where_there_is_no_terminal(shown: Shown) -> None:
    assert "every process at home is killed" in shown.progress
    assert "\x1b" not in shown.progress


def test_an_asynchronous_demo_loses_no_more_than_was_stated(both: tuple[Shown, Shown]) -> None:
    synchronous, asynchronous = (each.document for each in both)
    assert asynchronous["verified"] is True
    assert asynchronous["lab"]["durability"] == "local"
    assert asynchronous["lab"]["number"] != synchronous["lab"]["number"]
    failover = asynchronous["failover"]
    assert 0 < failover["stated_loss"]["seconds"] <= 30
    assert failover["lost_acknowledged_writes"] <= failover["stated_loss"]["rows_bound"]
    assert failover["check"]["changed"] == failover["check"]["duplicated"] == 0
    assert asynchronous["failback"]["lost_acknowledged_writes"] == 0
    assert asynchronous["failback"]["failed_requests"] == 0
