"""`make -s demo OUTPUT=json` prints one JSON document and nothing else, and what it claims adds up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO_SECONDS = 300

pytestmark = pytest.mark.real

FIGURES = (
    "order_to_first_verified_write_seconds",
    "command_to_first_verified_write_seconds",
    "client_outage_seconds",
    "acknowledged_writes",
    "lost_acknowledged_writes",
    "stated_loss",
    "services",
    "verified",
)


def demo_command() -> list[str]:
    """Through make where `make setup` has been here; else the command that make would run."""
    if (ROOT / ".venv" / ".stamp").is_file():
        return ["make", "-s", "demo", "OUTPUT=json"]
    return [sys.executable, "-m", "orchestrator", "lab", "demo", "--output", "json"]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="cty-") as home:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CONTINUITY_")
        }
        done = subprocess.run(
            demo_command(),
            cwd=ROOT,
            env={**environment, "CONTINUITY_HOME": home},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=DEMO_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found


@pytest.mark.timeout(DEMO_SECONDS + 30)
def test_make_demo_prints_one_json_document(document: dict[str, Any]) -> None:
    assert str(document["schema"]).startswith("continuity/")


@pytest.mark.timeout(DEMO_SECONDS + 30)
@pytest.mark.parametrize("operation", ["failover", "failback"])
def test_the_demo_states_its_figures(document: dict[str, Any], operation: str) -> None:
    stated = document[operation]
    assert not [name for name in FIGURES if name not in stated]
    assert stated["verified"] is True
    assert stated["acknowledged_writes"] >= 200
    assert stated["lost_acknowledged_writes"] == 0
    assert (
        0
        < stated["order_to_first_verified_write_seconds"]
        <= stated["command_to_first_verified_write_seconds"]
    )
    assert set(stated["stated_loss"]) >= {"seconds", "bytes", "rows_bound"}
    assert stated["services"]
    for service in stated["services"].values():
        assert {"rto_seconds", "rpo_seconds"} <= set(service)


@pytest.mark.timeout(DEMO_SECONDS + 30)
def test_going_home_fails_no_request(document: dict[str, Any]) -> None:
    assert document["failback"]["failed_requests"] == 0
