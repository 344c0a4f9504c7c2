"""Ctrl-C or SIGTERM in the middle of a real failover: one document says how to go on, and going on ends it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.lab import adoption, sites
from orchestrator.lab.layout import Lab
from tests import labs
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60.0
DONE, SIGNALLED = 0, 128


def command(lab: Lab, *words: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name != "CONTINUITY_ESTATE"}
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words, "--estate", str(lab.estate)],
        cwd=lab.path, env={**kept, "PYTHONPATH": str(ROOT), "CONTINUITY_BY": "Tester"}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def is_ordered(lab: Lab) -> bool:
    log = lab.estate.parent / ".continuity" / "journal.db"
    with contextlib.closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as journal:
        return bool(
            journal.execute("SELECT count(*) FROM events WHERE kind = 'run.authorised'").fetchone()[0]
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_failover_that_is_stopped_says_in_one_document_how_it_goes_on(number: signal.Signals) -> None:
    with labs.own_home():
        lab = sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)
        failover = command(lab, "failover", "--yes", "--even-if-healthy", "--output", "json")
        until(lambda: is_ordered(lab), "it is ordered", SECONDS_MAX)
        failover.send_signal(number)
        out, err = failover.communicate(timeout=SECONDS_MAX)
        assert failover.returncode == SIGNALLED + number, err
        document = json.loads(out)
        run = document["run"]
        assert (document["schema"], document["exit_code"]) == ("continuity/error/v1", SIGNALLED + number)
        assert document["state"] == "running", document
        assert document["is_ordered"] is True
        ways = labs.offered(lab, f"continuity status {run}", f"continuity resume {run}")
        assert document["instead"][:2] == ways
        assert f"{run} is running, and nobody drives it now" in err
        resumed = command(lab, "resume", run, "--yes", "--output", "json")
        out, err = resumed.communicate(timeout=SECONDS_MAX)
        assert resumed.returncode == DONE, err
        assert json.loads(out)["outcome"] == "done"
